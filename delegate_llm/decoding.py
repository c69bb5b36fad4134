"""The algorithm: a base writes, a reasoner is heard for single tokens where the two disagree strongly.

`lockstep` is the specification: at every position the base speaks, the reasoner is asked where the policy
wants it, and one of them is heard. `draft` is the fast schedule: the base runs ahead, the reasoner reads
the whole draft in one forward, and the first token that differs drops the rest. Both decide through the
same `Row.settle`, position by position; they differ only in how far the base runs before the reasoner
reads. Source of the method: arXiv 2605.16874.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from delegate_llm.divergence import BASE_SIGNALS, DIVERGENCES, entropy, log_probs
from delegate_llm.errors import NumericsError
from delegate_llm.pairs.seam import Session
from delegate_llm.rows import Row, Vocabulary
from delegate_llm.sampling import draw, uniform

__all__ = ("SCHEDULES", "draft", "lockstep")


def lockstep(rows: Sequence[Row], base: Session, reasoner: Session) -> Iterator[None]:
    """Decide one position of every row at a time: the reference for every other schedule.

    Args:
        rows: The answers to write; each ends with a `reason`.
        base: A session with one row per answer.
        reasoner: Likewise.

    Yields:
        Once after each decided position.
    """
    rows = list(rows)
    while rows:
        propose(rows, base.read([row.base_sequence() for row in rows]))
        ask(rows, reasoner)
        yield
        rows = retain(rows, base, reasoner)


def draft(rows: Sequence[Row], base: Session, reasoner: Session) -> Iterator[None]:
    """Decide as `lockstep` does, reading many positions with one forward of the reasoner.

    A row drafts until its base is unsure, for that is where takeovers fall; drafting less or more never
    changes what is decided. The last proposal of a draft has not been read by the base yet, so a takeover
    there wastes nothing.

    Args:
        rows: The answers to write; each ends with a `reason`.
        base: A session with one row per answer, that can be rolled back.
        reasoner: Likewise.

    Yields:
        Once after each forward that decided something.
    """
    rows = list(rows)
    for row in rows:
        row.bar = _FIRST_BAR
    while rows:
        growing = [row for row in rows if not _is_full(row)]
        if growing:
            drawn = base.read([None if _is_full(row) else row.base_sequence() for row in rows])
            chosen = [at for at, row in enumerate(rows) if not _is_full(row)]
            propose(growing, drawn if len(growing) == len(rows) else drawn[chosen])
            for row in growing:
                row.settle_unasked()
        if _is_time(rows):
            before = [len(row.draft) for row in rows]
            for row, drafted, dropped in zip(rows, before, ask(rows, reasoner), strict=True):
                _adapt(row, drafted, dropped)
        yield
        rows = retain(rows, base, reasoner)


SCHEDULES = {"lockstep": lockstep, "draft": draft}


def propose(rows: Sequence[Row], logits: Tensor) -> None:
    """Let the base speak at the head of every row's draft.

    Args:
        rows: `R` rows.
        logits: The base's raw logits `[R, last, V]`; the final position counts.
    """
    logits = logits[:, -1]
    request, vocabulary = rows[0].request, rows[0].vocabulary
    drawable = _drawable(logits, vocabulary)
    seeds, heads = [row.seed for row in rows], [row.head for row in rows]
    facts = [
        draw(drawable, request.sampling, seeds, heads).double(),
        drawable.amax(-1).double(),  # NaN and inf show here
    ]
    logp: Tensor | None = None
    if any(row.listening or row.traced for row in rows):
        logp = log_probs(logits[:, : vocabulary.rows])
        facts += [entropy(logp).double(), _base_signal(rows, logp)]
    # One transfer from the device for all that the host has to know.
    for at, (row, values) in enumerate(zip(rows, torch.stack(facts, 1).tolist(), strict=True)):
        if not math.isfinite(values[1]):
            _no_number("base", values[1], row.head)
        if logp is None or not (row.listening or row.traced):
            row.propose(int(values[0]), None, None, None)
        else:
            score = values[3] if row.referee.base_only else None
            row.propose(int(values[0]), values[2], logp[at], score)


def ask(rows: Sequence[Row], reasoner: Session) -> list[int | None]:
    """Let the reasoner read the drafts where it is asked, and settle every draft.

    Returns:
        For each row, what `Row.settle` returns.
    """
    widths = [_width(row) for row in rows]
    if not any(widths):
        return [row.settle((), ()) for row in rows]
    last = max(widths)
    logits = reasoner.read(
        [row.reasoner_sequence(width) if width else None for row, width in zip(rows, widths, strict=True)],
        last=widths,
    )
    said = [logits[at, last - width :] for at, width in enumerate(widths) if width]
    scores, heard = _hear(
        [row for row, width in zip(rows, widths, strict=True) if width],
        said[0] if len(said) == 1 else torch.cat(said),
        [width for width in widths if width],
    )
    settled, start = [], 0
    for row, width in zip(rows, widths, strict=True):
        span = slice(start, start + width)
        settled.append(row.settle(scores[span], heard[span]))
        start += width
    return settled


def retain(rows: list[Row], base: Session, reasoner: Session) -> list[Row]:
    """The rows that are not finished; the sessions keep the same ones."""
    alive = [at for at, row in enumerate(rows) if row.reason is None]
    if 0 < len(alive) < len(rows):
        base.retain(alive)
        reasoner.retain(alive)
    return [rows[at] for at in alive]


def _width(row: Row) -> int:
    """How many leading proposals the reasoner has to read: up to the last at which it is asked."""
    return max((at for at, each in enumerate(row.draft, 1) if each.asked), default=0)


def _hear(rows: list[Row], logits: Tensor, widths: list[int]) -> tuple[list[float], list[int]]:
    """Scores and the reasoner's own draws at the first `widths[r]` proposals of every row.

    Args:
        rows: `R` rows.
        logits: The reasoner's raw logits for all of them, row after row: `[sum(widths), V]`.
        widths: Proposals read in each row.
    """
    request, vocabulary = rows[0].request, rows[0].vocabulary
    pairs = [(row, at) for row, width in zip(rows, widths, strict=True) for at in range(width)]
    base = [row.draft[at].logp for row, at in pairs]
    stacked = torch.stack([each for each in base if each is not None])
    logits = logits.to(stacked.device)
    drawable = _drawable(logits, vocabulary)
    seeds, positions = [row.seed for row, _ in pairs], [len(row.tokens) + at for row, at in pairs]
    name = request.policy.divergence
    compare = DIVERGENCES.get(name)
    reasoner = log_probs(logits[:, : vocabulary.rows])
    score = compare(stacked, reasoner) if compare else torch.zeros(len(pairs), device=stacked.device)
    facts = (draw(drawable, request.sampling, seeds, positions), drawable.amax(-1), score)
    table = torch.stack([each.double() for each in facts], 1).tolist()
    for (_, best, value), position in zip(table, positions, strict=True):
        if not math.isfinite(best) or math.isnan(value):
            _no_number("reasoner", best, position)
    return [value for _, _, value in table], [int(token) for token, _, _ in table]


def _drawable(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The logits of ids that are tokens; a padding id is never chosen."""
    logits = logits[:, : vocabulary.size]
    if vocabulary.holes:
        holes = torch.tensor(vocabulary.holes, device=logits.device)
        logits = logits.index_fill(1, holes, -torch.inf)
    return logits


def _base_signal(rows: Sequence[Row], logp: Tensor) -> Tensor:
    """The score at the head of every row where the base alone decides it, else zeros: `[R]`."""
    name = rows[0].request.policy.divergence
    if name == "random":
        return torch.tensor(
            [uniform(row.seed, row.head) for row in rows], dtype=torch.double, device=logp.device
        )
    signal = BASE_SIGNALS.get(name)
    if signal is None:
        return torch.zeros(len(rows), dtype=torch.double, device=logp.device)
    return signal(logp).double()


def _no_number(who: str, value: float, position: int) -> NoReturn:
    msg = (
        f"the {who} returned logits whose maximum is {value} at position {position}: no token can be "
        "drawn. Check the weights, or load them in another dtype (float32 or bfloat16)"
    )
    raise NumericsError(msg)


# --- How far to draft. Nothing below changes what is decided, only what it costs. ---

_FIRST_BAR = 0.3  # nats; where a row starts, it adapts from there
_BAR_RANGE = (0.02, 4.0)


def _is_full(row: Row) -> bool:
    """Whether a row's draft should not grow before the reasoner has read it."""
    return bool(row.draft) and (
        len(row.draft) > row.request.draft
        or row.head >= row.room
        or row.draft[-1].token in row.vocabulary.eos
        or (row.referee.base_only and row.draft[-1].asked)
    )


def _is_ripe(row: Row) -> bool:
    """Whether a takeover is likely enough at the end of a draft to ask the reasoner now."""
    if not row.draft:
        return False
    surprise = row.draft[-1].entropy
    return _is_full(row) or (surprise is not None and surprise > row.bar)


def _is_time(rows: Sequence[Row]) -> bool:
    """Whether to call the reasoner now: half of the rows that draft are ripe."""
    drafting = sum(bool(row.draft) for row in rows)
    return drafting > 0 and 2 * sum(map(_is_ripe, rows)) >= drafting


def _adapt(row: Row, drafted: int, dropped: int | None) -> None:
    """Move the bar: down for base forwards wasted, up for asking where nothing was taken over."""
    low, high = _BAR_RANGE
    if dropped is not None:
        row.bar = max(low, row.bar * 0.9**dropped)
    elif drafted <= row.request.draft:
        row.bar = min(high, row.bar * 1.05)
