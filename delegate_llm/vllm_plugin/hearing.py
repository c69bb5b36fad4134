"""What both models say at the positions of a step: draws, scores and entropies of `N` rows of logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from delegate_llm.divergence import BASE_SIGNALS, CACHED, DIVERGENCES, FLOOR, entropy, log_probs
from delegate_llm.sampling import uniforms
from delegate_llm.vllm_plugin.seats import Seats

__all__ = ("Heard", "Top", "hear", "overheard")


_HELD: Final = 1 << 27
"""Probabilities that an accelerator compares at a time: half a gigabyte in float32, a few times over."""


class Top(NamedTuple):
    """The most probable tokens of each model: log-probabilities and ids, `[N, T]` each."""

    base: tuple[Tensor, Tensor]
    reasoner: tuple[Tensor, Tensor]


class Heard(NamedTuple):
    """What is to be known of `N` positions, `[N]` each."""

    base: Tensor
    """The token it draws, int64."""
    reasoner: Tensor
    score: Tensor
    """By the divergence of each answer's policy; float64."""
    entropy: Tensor
    """Of the base, in nats; float64."""
    base_logprob: Tensor
    """Of its token, in nats."""
    reasoner_logprob: Tensor
    top: Top | None


def hear(
    seats: Seats,
    base: Tensor,
    reasoner: Tensor,
    *,
    rows: Tensor,
    positions: Tensor,
    drawn: Tensor | None,
    masked: bool,
    silent: bool,
    top: int,
) -> Heard:
    """Compare what both models say.

    Args:
        seats: Arranged as the batch is.
        base: Raw logits `[N, V]`.
        reasoner: Likewise; `-inf` where a grammar forbids a token, if `masked`.
        rows: Of the batch, `[N]`.
        positions: In their answers, `[N]`.
        drawn: What the base has drawn already `[N]`; None to draw (again), for a grammar may forbid it.
        masked: Whether grammars hold.
        silent: Whether the reasoner has not run, so that its logits mean nothing but what a grammar forbids.
        top: How many of the most probable tokens to tell of; none below 1.
    """
    count, width = reasoner.shape
    step = max(1, (CACHED if reasoner.device.type == "cpu" else _HELD) // width)
    one = partial(_hear, seats, masked=masked, silent=silent, top=top)
    cuts = [slice(start, start + step) for start in range(0, count, step)]
    parts = []
    for at in cuts:
        mine = None if drawn is None else drawn[at]
        parts.append(one(base[at], reasoner[at], rows[at], positions[at], mine))
    if len(parts) == 1:
        return parts[0]
    base_token, reasoner_token, score, unsure, base_logprob, reasoner_logprob = (
        torch.cat(each) for each in list(zip(*parts, strict=True))[:-1]
    )
    tops = [each.top for each in parts if each.top is not None]
    best = None
    if tops:
        best = Top(_joined([each.base for each in tops]), _joined([each.reasoner for each in tops]))
    return Heard(base_token, reasoner_token, score, unsure, base_logprob, reasoner_logprob, best)


def overheard(drawn: Tensor, logits: Tensor) -> Heard:
    """What is to be known where the reasoner has not run and nobody asks for numbers.

    Args:
        drawn: What the base has drawn `[N]`.
        logits: Of those tokens `[N]`, so that it is seen if a model returns NaN.
    """
    none = torch.zeros_like(drawn, dtype=torch.float64)
    return Heard(drawn, drawn, none, none, logits.float(), none.float(), None)


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([each[0] for each in parts]), torch.cat([each[1] for each in parts])


def _hear(  # noqa: PLR0917 - what `hear` cuts up
    seats: Seats,
    base: Tensor,
    reasoner: Tensor,
    rows: Tensor,
    positions: Tensor,
    drawn: Tensor | None,
    *,
    masked: bool,
    silent: bool,
    top: int,
) -> Heard:
    low, high = base.float(), reasoner.float()
    if masked:
        low = low.masked_fill(torch.isneginf(high), -torch.inf)
    ours = seats.draw(seats.drawing.within(low), rows, positions) if drawn is None else drawn
    said = log_probs(low)
    if silent:
        theirs, heard, score = ours, said, torch.zeros_like(ours, dtype=torch.float64)
    else:
        theirs = seats.draw(seats.drawing.within(high), rows, positions)
        heard = log_probs(high)
        score = _scores(seats, said, heard, rows, positions)
    return Heard(
        ours,
        theirs,
        score,
        entropy(said).double(),
        said.gather(1, ours.unsqueeze(1)).squeeze(1),
        heard.gather(1, theirs.unsqueeze(1)).squeeze(1),
        None if top < 1 else Top(*(_best(seats.drawing.within(each), top) for each in (said, heard))),
    )


def _scores(seats: Seats, base: Tensor, reasoner: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    """The score of every row by its own policy; a batch mostly knows one divergence."""
    names = [seat.policy.divergence for seat in seats.batch]
    found: Tensor | None = None
    for name in dict.fromkeys(names):
        if name == "random":
            score = uniforms(seats.seeds[rows], positions)
        elif name in BASE_SIGNALS:
            score = BASE_SIGNALS[name](base).double()
        else:
            score = DIVERGENCES[name](base, reasoner).double()
        if found is None:
            found = score
        else:
            mine = torch.tensor([each == name for each in names], device=score.device)
            found = torch.where(mine[rows], score, found)
    assert found is not None
    return found


def _best(logp: Tensor, top: int) -> tuple[Tensor, Tensor]:
    values, ids = logp.topk(min(top, logp.shape[1]), dim=1)
    return values.clamp_min(FLOOR), ids
