"""The policy over a whole batch at once: what `Referee` says of one position, in tensors, one row an answer.

vLLM scores the drafts of many answers in one forward, each with a policy of its own. Here they are judged
together on the device that the scores are on, without a look from the host: a loop over the positions of a
draft, and in it a few operations on one number an answer. `Referee` is the specification; the property tests
hold every decision and every standing to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from delegate_llm.gates import EntropyGate, WindowGate
from delegate_llm.policy import BASE_ONLY, WHOLE, DelegationPolicy

__all__ = ("NOTHING", "Block", "Rules", "Standings", "Verdicts", "judge", "outlook")

NOTHING: Final = -1
"""Stands where no token is: an answer's block is shorter than the widest."""
_FLOAT: Final = torch.float64  # counts are exact in it, and levels are what the host would say


class Rules(NamedTuple):
    """What policies say, `[B]` each; counts are floats, so that none can be unlimited."""

    threshold: Tensor
    spike: Tensor
    window: Tensor
    """Scores that the spike's mean is taken over."""
    above: Tensor
    """What the base's entropy must exceed; `-inf` without an entropy gate."""
    last: Tensor
    """The first position at which the reasoner is out for good."""
    limit: Tensor
    asks: Tensor
    least: Tensor
    """Level of the bucket below which the reasoner is out for good; `-inf` where it is refilled."""
    rate: Tensor
    capacity: Tensor
    base_only: Tensor
    """1 where the base alone decides on a takeover, else 0."""

    @classmethod
    def row(cls, policy: DelegationPolicy) -> list[float]:
        """The numbers of one policy, in this order; what its text gates say comes with each `Block`."""
        budget = policy.budget
        above = [gate.above for gate in policy.gates if isinstance(gate, EntropyGate)]
        first = [gate.first for gate in policy.gates if isinstance(gate, WindowGate)]
        return [
            policy.threshold,
            policy.spike,
            policy.spike_window,
            max(above, default=-math.inf),
            min(first, default=math.inf),
            math.inf if budget.limit is None else budget.limit,
            math.inf if budget.asks is None else budget.asks,
            -math.inf if budget.rate and budget.capacity >= 1 else WHOLE,
            budget.rate or 0.0,
            budget.capacity,
            float(policy.divergence in BASE_ONLY),
        ]


class Standings(NamedTuple):
    """What policies remember, `[B]` each, and the last scores `[B, W]`."""

    level: Tensor
    """Takeovers in the bucket."""
    spent: Tensor
    asked: Tensor
    position: Tensor
    """Tokens generated so far."""
    seen: Tensor
    """Scores that ever entered the window."""
    scores: Tensor
    """The last of them, the n-th at `n % W`; `[B, 0]` where no policy has a spike."""


@dataclass(frozen=True, slots=True)
class Block:
    """What is to be judged: for each answer, the positions of its draft and perhaps the one behind.

    Tensors are `[B, P]`: answer, position.
    """

    exists: Tensor
    """Whether there is such a position; a prefix of each row, empty for answers not at a word yet."""
    draft: Tensor
    """The drafted token, that what follows was computed with; `NOTHING` at a row's last position."""
    base: Tensor
    """What the base says."""
    reasoner: Tensor
    """What the reasoner says."""
    score: Tensor
    """Float64."""
    entropy: Tensor
    """Of the base, in nats; float64."""
    limit: Tensor | None = None
    """Takeovers that text gates allow in all at this position; None if no policy has any."""
    forced: Tensor | None = None
    """Said whatever was decided, where it is not negative; None if nothing is."""


class Verdicts(NamedTuple):
    """What was decided, `[B, P]` each."""

    token: Tensor
    """`NOTHING` behind the end of a row's block."""
    asked: Tensor
    takeover: Tensor
    opens: Tensor
    """Whether the gates were open, so that the score counted."""


def judge(rules: Rules, standings: Standings, block: Block) -> tuple[Verdicts, Standings]:
    """Decide blocks in order, each up to the first token that differs from its draft.

    Args:
        rules: One policy an answer.
        standings: Before the blocks.
        block: What both models say.

    Returns:
        The decisions, and the standings behind the last of each row. No tensor given is changed.
    """
    level, spent, asked, position, seen, scores = standings
    scores = scores.clone()
    base_only, spiky = rules.base_only > 0, rules.spike > 0
    # What hangs on one position alone is worked out for all at once: each operation is a launch.
    may_open = block.exists & (block.entropy > rules.above.unsqueeze(1))
    alive = torch.ones_like(base_only)
    decided = []
    tables = (block.exists, may_open, block.score, block.base, block.reasoner, block.draft)
    columns = zip(*(each.unbind(1) for each in tables), strict=True)
    for at, (exists, may, score, ours, theirs, drafted) in enumerate(columns):
        alive = alive & exists
        over, bar = outlook(rules, Standings(level, spent, asked, position, seen, scores))
        opens = alive & may & ~over
        if block.limit is not None:
            opens = opens & (spent < block.limit[:, at])
        takeover = opens & (score > bar) & (level >= WHOLE)
        asks = torch.where(base_only, takeover, opens)
        token = torch.where(takeover, theirs, ours)
        if block.forced is not None:
            token = torch.where(block.forced[:, at] >= 0, block.forced[:, at], token)
        decided.append((torch.where(alive, token, NOTHING), asks, takeover, opens))
        if scores.shape[1]:
            enters = opens & spiky
            place = (seen % scores.shape[1]).long().unsqueeze(1)
            fresh = torch.where(enters.unsqueeze(1), score.unsqueeze(1), scores.gather(1, place))
            scores.scatter_(1, place, fresh)
            seen = seen + enters
        one = takeover.to(_FLOAT)
        level = torch.where(alive, torch.minimum(rules.capacity, level - one + rules.rate), level)
        spent, asked, position = spent + one, asked + asks, position + alive
        alive = alive & (token == drafted)
    verdicts = Verdicts(*(torch.stack(each, 1) for each in zip(*decided, strict=True)))
    return verdicts, Standings(level, spent, asked, position, seen, scores)


def outlook(rules: Rules, standings: Standings) -> tuple[Tensor, Tensor]:
    """How things stand before the next position.

    Returns:
        Whether the reasoner is out for good `[B]`, and what a score has to exceed `[B]`.
    """
    over = (
        (standings.position >= rules.last)
        | (standings.spent >= rules.limit)
        | (standings.asked >= rules.asks)
        | (standings.level < rules.least)
    )
    bar = rules.threshold
    if standings.scores.shape[1]:
        spike = rules.spike * _recent(standings.scores, standings.seen, rules.window)
        bar = torch.where(rules.spike > 0, torch.maximum(bar, spike), bar)
    return over, bar


def _recent(scores: Tensor, seen: Tensor, window: Tensor) -> Tensor:
    """The mean of the last `window` scores, over those there are; `-inf` where there are none."""
    width = scores.shape[1]
    age = torch.remainder(seen.unsqueeze(1) - 1 - torch.arange(width, device=scores.device), width)
    count = torch.minimum(seen, window)
    total = torch.where(age < count.unsqueeze(1), scores, 0.0).sum(1)
    return torch.where(count > 0, total / count.clamp_min(1), -math.inf)
