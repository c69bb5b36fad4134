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
from itertools import islice
from typing import Final, NoReturn

import torch
from torch import Tensor

from delegate_llm.divergence import BASE_SIGNALS, DIVERGENCES, WEIGHED, log_probs, surprise_
from delegate_llm.errors import NumericsError
from delegate_llm.foresight import patience
from delegate_llm.pairs.seam import Session
from delegate_llm.recall import Recall
from delegate_llm.rows import Row, Vocabulary
from delegate_llm.sampling import draw, uniform

__all__ = ("SCHEDULES", "draft", "lockstep")

# Probabilities that a CPU scores at a time: few enough that they stay in its cache from step to step.
_CACHED: Final = 1 << 18


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
        propose(rows, base.read([row.base_sequence() for row in rows])[:, -1])
        ask(rows, reasoner)
        yield
        rows = retain(rows, base, reasoner)


def draft(rows: Sequence[Row], base: Session, reasoner: Session) -> Iterator[None]:
    """Decide as `lockstep` does, reading many positions with one forward of the reasoner.

    A row drafts until its base is unsure, for that is where takeovers fall; drafting less or more never
    changes what is decided. The last proposal of a draft has not been read by the base yet, so a takeover
    there wastes nothing. A row that stands alone also has the base read guesses at its next words, so that
    one forward may draft several positions.

    Args:
        rows: The answers to write; each ends with a `reason`.
        base: A session with one row per answer, that can be rolled back.
        reasoner: Likewise.

    Yields:
        Once after each forward that decided something.
    """
    rows = list(rows)
    bound = patience(base.cost, reasoner.cost)
    recall: Recall | None = None
    while rows:
        if len(rows) == 1:
            recall = recall or Recall(base.block)
            _run_ahead(rows[0], base, recall)
        else:
            _run_abreast(rows, base)
        if _is_time(rows, bound):
            ask(rows, reasoner)
        yield
        rows = retain(rows, base, reasoner)


SCHEDULES = {"lockstep": lockstep, "draft": draft}


def propose(rows: Sequence[Row], logits: Tensor) -> None:
    """Let the base speak at the head of every row's draft.

    Args:
        rows: `R` rows.
        logits: The base's raw logits `[R, V]` there.
    """
    logits = logits.float()  # once, for the draw and the score alike
    request, vocabulary = rows[0].request, rows[0].vocabulary
    drawable = _drawable(logits, vocabulary)
    seeds, heads = [row.seed for row in rows], [row.head for row in rows]
    facts = [draw(drawable, request.sampling, seeds, heads)]
    signal = BASE_SIGNALS.get(request.policy.divergence)
    said: Tensor | None = None
    if any(row.listening or row.traced for row in rows):
        logp = log_probs(_leading(logits, vocabulary.rows))
        probs = logp.exp()
        said, scratch = (probs, logp) if request.policy.divergence in WEIGHED else (logp, probs)
        facts.append(surprise_(scratch, said))
        if signal is not None:
            facts.append(signal(logp))
    else:
        facts.append(drawable.amax(-1))  # shows NaN and inf, as an entropy does
    for at, (row, values) in enumerate(zip(rows, _on_host(facts), strict=True)):
        if not math.isfinite(values[1]):
            _no_number("base", values[1], row.head)
        if said is None or not (row.listening or row.traced):
            row.propose(int(values[0]), None, None, None)
            continue
        score = values[2] if signal is not None else None
        if request.policy.divergence == "random":
            score = uniform(row.seed, row.head)
        row.propose(int(values[0]), values[1], said[at], score)


def ask(rows: Sequence[Row], reasoner: Session) -> None:
    """Let the reasoner read the drafts where it is asked, and settle every draft."""
    widths = [_width(row) for row in rows]
    reading = [(row, width) for row, width in zip(rows, widths, strict=True) if width]
    scores: Iterator[float] = iter(())
    heard: Iterator[int] = iter(())
    if reading:
        logits = reasoner.read(
            [
                row.reasoner_sequence(width) if width else None
                for row, width in zip(rows, widths, strict=True)
            ],
            last=widths,
        )
        said = [logits[at, -width:] for at, width in enumerate(widths) if width]
        scores, heard = _hear(reading, said)
    for row, width in zip(rows, widths, strict=True):
        row.settle(list(islice(scores, width)), list(islice(heard, width)))


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


def _run_ahead(row: Row, base: Session, recall: Recall) -> None:
    """Draft one more position, and as many more as a guess at the base's words turns out right."""
    if _is_full(row):
        return
    sequence = row.base_sequence()
    room = min(row.room - row.head - 1, row.request.draft - len(row.draft))
    guess = recall.guess(sequence, len(row.base_prompt) + len(row.tokens), room)
    sequence += guess
    logits = base.read([sequence], last=1 + len(guess))[0]
    for right in range(1 + len(guess)):
        propose([row], logits[right : right + 1])
        said = row.draft[-1].token
        row.settle_unasked()
        if right == len(guess) or said != guess[right] or row.reason is not None or _is_full(row):
            break
    if guess:
        recall.learn(right, len(guess))


def _run_abreast(rows: Sequence[Row], base: Session) -> None:
    """Draft one more position of every row that still may."""
    chosen = [at for at, row in enumerate(rows) if not _is_full(row)]
    if not chosen:
        return
    growing = [rows[at] for at in chosen]
    logits = base.read([None if _is_full(row) else row.base_sequence() for row in rows])[:, -1]
    propose(growing, logits if len(growing) == len(rows) else logits[chosen])
    for row in growing:
        row.settle_unasked()


def _hear(reading: list[tuple[Row, int]], said: list[Tensor]) -> tuple[Iterator[float], Iterator[int]]:
    """Scores and the reasoner's own draws at the leading proposals of every row, row after row.

    Args:
        reading: Rows, and how many of their proposals were read.
        said: For each, the reasoner's raw logits `[width, V]`.
    """
    scores: list[float] = []
    heard: list[int] = []
    for (row, width), logits in zip(reading, said, strict=True):
        # On a CPU, as many distributions at a time as a cache holds; elsewhere all at once.
        step = max(1, _CACHED // logits.shape[-1]) if logits.device.type == "cpu" else width
        for start in range(0, width, step):
            for at, (token, value) in enumerate(_facts(row, start, logits[start : start + step]), start):
                if not math.isfinite(value):
                    _no_number("reasoner", value, len(row.tokens) + at)
                heard.append(int(token))
                scores.append(value)
    return iter(scores), iter(heard)


def _facts(row: Row, start: int, logits: Tensor) -> list[tuple[float, ...]]:
    """What the host has to know of the proposals from `start` on: token and score of each."""
    count, policy = len(logits), row.request.policy
    logits = logits.float()
    drawable = _drawable(logits, row.vocabulary)
    first = len(row.tokens) + start
    drawn = draw(drawable, row.request.sampling, [row.seed] * count, list(range(first, first + count)))
    compare = WEIGHED.get(policy.divergence) or DIVERGENCES.get(policy.divergence)
    if compare is None:
        score = drawable.amax(-1)  # not used, but shows NaN and inf
    else:
        kept = [each.said for each in row.draft[start : start + count] if each.said is not None]
        base = kept[0].unsqueeze(0) if count == 1 else torch.stack(kept)
        score = compare(base, log_probs(_leading(logits, row.vocabulary.rows)).to(base.device))
    return _on_host([drawn, score.to(drawn.device)])


def _on_host(columns: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """Columns `[N]` as `N` rows of numbers; from an accelerator, in a single transfer."""
    if columns[0].device.type != "cpu":
        # Ids are exact in float32 below 2**24.
        columns = list(torch.stack([each.float() for each in columns]).cpu())
    return list(zip(*(each.tolist() for each in columns), strict=True))


def _drawable(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The logits of ids that are tokens; a padding id is never chosen."""
    logits = _leading(logits, vocabulary.size)
    if vocabulary.holes:
        holes = torch.tensor(vocabulary.holes, device=logits.device)
        logits = logits.index_fill(1, holes, -torch.inf)
    return logits


def _leading(logits: Tensor, count: int) -> Tensor:
    """The first `count` columns; a view costs time even where it is the whole."""
    return logits if logits.shape[1] == count else logits[:, :count]


def _no_number(who: str, value: float, position: int) -> NoReturn:
    msg = (
        f"the {who} returned logits from which no token can be drawn ({value}) at position {position}. "
        "Check the weights, or load them in another dtype (float32 or bfloat16)"
    )
    raise NumericsError(msg)


def _is_full(row: Row) -> bool:
    """Whether a row's draft cannot grow before the reasoner has read it."""
    return bool(row.draft) and (
        len(row.draft) > row.request.draft
        or row.head >= row.room
        or row.draft[-1].token in row.vocabulary.eos
        or (row.referee.base_only and row.draft[-1].asked)
    )


def _is_time(rows: Sequence[Row], bound: float) -> bool:
    """Whether to let the reasoner read now: for a quarter of the rows that draft, it is time.

    In a batch a forward costs nearly the same for few rows as for all, so nobody is waited for long.
    """
    drafting = [row for row in rows if row.draft]
    ripe = sum(_is_full(row) or row.foresight.is_ripe(len(row.draft), bound) for row in drafting)
    return bool(drafting) and 4 * ripe >= len(drafting)
