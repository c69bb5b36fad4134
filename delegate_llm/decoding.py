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
from typing import Any, NoReturn

import torch
from torch import Tensor

from delegate_llm.divergence import BASE_SIGNALS, CACHED, DIVERGENCES, FLOOR, WEIGHED, log_probs, surprise_
from delegate_llm.errors import NumericsError
from delegate_llm.foresight import patience
from delegate_llm.pairs.seam import Session
from delegate_llm.recall import BLOCK, Recall
from delegate_llm.rows import Heard, Likelihood, Row, Vocabulary
from delegate_llm.sampling import draw, uniform

__all__ = ("SCHEDULES", "draft", "likelihoods", "lockstep", "tokens_only")


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
    there wastes nothing. A row that stands alone also has the base read guesses at its next words, what the
    reasoner would say or what was said before, or what a grammar leaves no choice about, so that one forward
    may draft several positions.

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
            ask(rows, reasoner, beyond=len(rows) == 1)
        yield
        rows = retain(rows, base, reasoner)


SCHEDULES = {"lockstep": lockstep, "draft": draft}


def propose(rows: Sequence[Row], logits: Tensor) -> None:
    """Let the base speak at the head of every row's draft.

    Args:
        rows: `R` rows.
        logits: The base's raw logits `[R, V]` there.
    """
    request, vocabulary = rows[0].request, rows[0].vocabulary
    allowed = _allowed(rows, logits.device)
    logits = _within(logits.float(), allowed)  # once, for the draw and the score alike
    drawable = tokens_only(logits, vocabulary)
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
    likely = likelihoods(drawable, facts[0], request.logprobs)
    for at, (row, values) in enumerate(zip(rows, _on_host(facts), strict=True)):
        more: dict[str, Any] = {"allowed": allowed[at], "likelihood": likely[at]}
        if not math.isfinite(values[1]):
            _no_number("base", values[1], row.head)
        if said is None or not (row.listening or row.traced):
            row.propose(int(values[0]), None, None, None, **more)
            continue
        score = values[2] if signal is not None else None
        if request.policy.divergence == "random":
            score = uniform(row.seed, row.head)
        row.propose(int(values[0]), values[1], said[at], score, **more)


def ask(rows: Sequence[Row], reasoner: Session, *, beyond: bool = False) -> None:
    """Let the reasoner read the drafts where it is asked, and settle every draft.

    Args:
        rows: Those to settle.
        reasoner: A session with one row per answer.
        beyond: Whether it reads one token more and tells what it would say next, where a row goes on if its
            draft stands.
    """
    widths = [_width(row) for row in rows]
    ends = [width + (beyond and _leads_on(row, width)) for row, width in zip(rows, widths, strict=True)]
    reading = [(row, width) for row, width in zip(rows, widths, strict=True) if width]
    heard: Iterator[Heard] = iter(())
    if reading:
        sequences = [row.reasoner_sequence(end) if end else None for row, end in zip(rows, ends, strict=True)]
        logits = reasoner.read(sequences, last=ends)
        said = [
            logits[at, -end:][:width]
            for at, (width, end) in enumerate(zip(widths, ends, strict=True))
            if width
        ]
        heard = _hear(reading, said)
    for at, (row, width, end) in enumerate(zip(rows, widths, ends, strict=True)):
        if row.settle(list(islice(heard, width))) and end > width and not row.hint:
            row.hint = [_next_word(row, logits[at, -1:])]


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


def _leads_on(row: Row, width: int) -> bool:
    """Whether the base goes on behind a draft that is read to its end, if all of it stands."""
    return (
        0 < width == len(row.draft)
        and row.head < row.room
        and row.draft[-1].token not in row.vocabulary.eos
        and not row.referee.base_only  # what is asked there is taken over
    )


def _next_word(row: Row, logits: Tensor) -> int:
    """What the reasoner would say at the head of the draft, by its logits `[1, V]` there."""
    drawable = tokens_only(logits.float(), row.vocabulary)
    return int(draw(drawable, row.request.sampling, [row.seed], [row.head])[0])


def _run_ahead(row: Row, base: Session, recall: Recall) -> None:
    """Draft one more position, and as many more as a guess at the base's words turns out right.

    The first guess is what the reasoner would say, where it has read that far, or the rest of a draft behind
    the token that was taken over.
    """
    if _is_full(row):
        return
    sequence = row.base_sequence()
    room = min(row.room - row.head - 1, row.request.draft - len(row.draft))
    forced = row.guide.forced(row.answer_ahead())[: max(0, room)] if row.guide else []
    guess = forced or row.hint[: max(0, min(room, BLOCK))]
    known = len(guess)
    if known <= 1:
        settled = len(row.base_prompt) + len(row.tokens)
        guess = [*guess, *recall.guess([*sequence, *guess], settled, room - known)]
    sequence += guess
    logits = base.read([sequence], last=1 + len(guess))[0]
    for right in range(1 + len(guess)):
        propose([row], logits[right : right + 1])
        said = row.draft[-1].token
        row.settle_unasked()
        if right == len(guess) or said != guess[right] or row.reason is not None or _is_full(row):
            break
    if known <= right and known < len(guess):
        recall.learn(right - known, len(guess) - known)


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


def _hear(reading: list[tuple[Row, int]], said: list[Tensor]) -> Iterator[Heard]:
    """The reasoner's word on the leading proposals of every row, row after row.

    Args:
        reading: Rows, and how many of their proposals were read.
        said: For each, the reasoner's raw logits `[width, V]`.
    """
    for (row, width), logits in zip(reading, said, strict=True):
        # On a CPU, as many distributions at a time as a cache holds; elsewhere all at once.
        step = max(1, CACHED // logits.shape[-1]) if logits.device.type == "cpu" else width
        for start in range(0, width, step):
            for at, word in enumerate(_words(row, start, logits[start : start + step]), start):
                if not math.isfinite(word.score):
                    _no_number("reasoner", word.score, len(row.tokens) + at)
                yield word


def _words(row: Row, start: int, logits: Tensor) -> list[Heard]:
    """What the host has to know of the proposals from `start` on."""
    count, policy = len(logits), row.request.policy
    logits = _within(logits.float(), [each.allowed for each in row.draft[start : start + count]])
    drawable = tokens_only(logits, row.vocabulary)
    first = len(row.tokens) + start
    drawn = draw(drawable, row.request.sampling, [row.seed] * count, list(range(first, first + count)))
    compare = WEIGHED.get(policy.divergence) or DIVERGENCES.get(policy.divergence)
    if compare is None:
        score = drawable.amax(-1)  # not used, but shows NaN and inf
    else:
        kept = [each.said for each in row.draft[start : start + count] if each.said is not None]
        base = kept[0].unsqueeze(0) if count == 1 else torch.stack(kept)
        score = compare(base, log_probs(_leading(logits, row.vocabulary.rows)).to(base.device))
    likely = likelihoods(drawable, drawn, row.request.logprobs)
    facts = _on_host([drawn, score.to(drawn.device)])
    return [Heard(int(token), value, each) for (token, value), each in zip(facts, likely, strict=True)]


def _allowed(rows: Sequence[Row], device: torch.device) -> list[Tensor | None]:
    """What the grammar of each row allows at the head of its draft."""
    return [
        None if row.guide is None else torch.from_numpy(row.guide.allowed(row.answer_ahead())).to(device)
        for row in rows
    ]


def _within(logits: Tensor, allowed: Sequence[Tensor | None]) -> Tensor:
    """Logits `[R, V]` with `-inf` where a grammar does not let a row go; all rows have one, or none."""
    masks = [each for each in allowed if each is not None]
    if not masks:
        return logits
    mask = masks[0].unsqueeze(0) if len(masks) == 1 else torch.stack(masks)
    mask, beyond = mask.to(logits.device), logits.shape[1] - mask.shape[1]
    if beyond:  # padding, or a model with fewer rows than there are tokens
        mask = torch.nn.functional.pad(mask, (0, beyond))
    return logits.where(mask, -torch.inf)


def likelihoods(drawable: Tensor, drawn: Tensor, top: int | None) -> Sequence[Likelihood | None]:
    """How probable tokens `[R]` are, with the `top` most probable ones that are possible; None if `top` is.

    Args:
        drawable: Logits `[R, V]`, those of `tokens_only`.
        drawn: The tokens.
        top: How many of the most probable ones to tell.
    """
    if top is None:
        return [None] * len(drawable)
    logp = log_probs(drawable)
    chosen = logp.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).tolist()
    values, ids = (each.tolist() for each in logp.topk(min(top, logp.shape[-1]), dim=-1))
    # What is forbidden, by a grammar or by the model itself, is no alternative.
    best = [
        [pair for pair in zip(*each, strict=True) if pair[1] > FLOOR / 2]
        for each in zip(ids, values, strict=True)
    ]
    return [Likelihood(*each) for each in zip(chosen, best, strict=True)]


def _on_host(columns: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """Columns `[N]` as `N` rows of numbers; from an accelerator, in a single transfer."""
    if columns[0].device.type != "cpu":
        # Ids are exact in float32 below 2**24.
        columns = list(torch.stack([each.float() for each in columns]).cpu())
    return list(zip(*(each.tolist() for each in columns), strict=True))


def tokens_only(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
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
