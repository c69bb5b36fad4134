"""What is made of served answers: speeds, waits, rates, ratios, and what is claimed of them.

Plain arithmetic, without vLLM or torch, so that the tests can hold it to numbers that are known.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.claims import Claim

__all__ = ("Answer", "Counts", "Lap", "Ratio", "Row", "claims", "percentile", "ratios", "rows", "same")

NEVER_SLOWER: Final = 1.0
CLEARLY_FASTER: Final = 1.5
FEWER: Final = 3.0
"""How many times rarer than lossless rejections takeovers have to be for `CLEARLY_FASTER`."""


@dataclass(frozen=True)
class Answer:
    """One request, as its client saw it."""

    tokens: list[int]
    first: float | None
    """Seconds until its first token came; None where tokens do not come one by one."""
    last: float | None
    """Seconds until its last token came."""
    takeovers: list[int] | None = None
    """The positions of them; None where it was not told what was decided."""
    changed: int = 0
    """Takeovers that said another token than the base, and so ended a draft."""
    asked: int = 0
    forwards: int | None = None
    """Of the reasoner, in which this answer took part; None if only the engine counts."""


@dataclass(frozen=True)
class Counts:
    """What the engine counted over a lap."""

    steps: int = 0
    drafts: int = 0
    drafted: int = 0
    """Tokens in those drafts."""
    accepted: int = 0
    """Of those tokens."""
    whole: int = 0
    """Drafts that were accepted to their end."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Lap:
    """All requests once, by one method at one concurrency."""

    method: str
    level: int
    """Requests in flight at most."""
    seconds: float
    answers: list[Answer]
    counts: Counts

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Lap:
        """From `dataclasses.asdict` and JSON."""
        answers = [Answer(**each) for each in plain["answers"]]
        return cls(**{**plain, "answers": answers, "counts": Counts(**plain["counts"])})


@dataclass(frozen=True)
class Row:
    """One method at one concurrency."""

    method: str
    level: int
    tokens: int
    """Of a lap."""
    seconds: float
    """Of the median lap."""
    first: float | None
    """Seconds to the first token: the median request's."""
    each: float | None
    """Seconds from token to token: the median request's mean."""
    slowest: float | None
    """Likewise, the 99th percentile over requests."""
    steps: float
    """Of the engine, a lap; 0 where there is none."""
    forwards: float
    """Of the reasoner, for a token of an answer."""
    share: float | None
    """Takeovers a token; None where nothing can take over."""
    changed: float | None
    """Takeovers a token that said another one than the base."""
    rejected: float | None
    """Drafted tokens that were refused, of those that were judged: what follows a refusal is not."""
    accepted: float | None
    """Drafted tokens that were accepted, of all: vLLM's own acceptance rate."""
    settled: float | None
    """Tokens that a draft and its forward of the reasoner give on average; None where none are made."""

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def step_ms(self) -> float:
        """Milliseconds a step of the engine takes."""
        return 1000 * self.seconds / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class Ratio:
    """Delegation beside lossless speculative decoding, and what the ratio of their speeds is made of."""

    method: str
    level: int
    ratio: float
    """Of tokens per second: `fuller_steps / dearer_steps`."""
    fuller_steps: float
    """Tokens of one of delegation's steps, for one of a lossless one."""
    dearer_steps: float
    """Time of one of delegation's steps, in lossless ones."""
    share: float
    rejected: float
    most: float
    """What the ratio would be if no draft were ever cut short and a step cost the same."""


def percentile(values: Sequence[float], part: float) -> float:
    """Interpolated linearly between neighbours.

    Args:
        values: At least one.
        part: In [0, 1].
    """
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def rows(laps: Iterable[Lap]) -> list[Row]:
    """A row for each method and concurrency, in the order in which they first come."""
    groups: dict[tuple[str, int], list[Lap]] = {}
    for lap in laps:
        groups.setdefault((lap.method, lap.level), []).append(lap)
    return [_row(group) for group in groups.values()]


def _row(laps: Sequence[Lap]) -> Row:
    answers = [answer for lap in laps for answer in lap.answers]
    counts = sum((lap.counts for lap in laps), Counts())
    tokens = sum(len(answer.tokens) for answer in answers)
    firsts = [answer.first for answer in answers if answer.first is not None]
    each = [
        (answer.last - answer.first) / (len(answer.tokens) - 1)
        for answer in answers
        if answer.first is not None and answer.last is not None and len(answer.tokens) > 1
    ]
    told = all(answer.takeovers is not None for answer in answers)
    refused = counts.drafts - counts.whole
    judged = counts.accepted + refused
    known = [answer.forwards for answer in answers if answer.forwards is not None]
    # A draft is scored by one forward, and the prompt is read by one more.
    forwards = sum(known) if len(known) == len(answers) else counts.drafts + len(answers)
    return Row(
        method=laps[0].method,
        level=laps[0].level,
        tokens=round(tokens / len(laps)),
        seconds=statistics.median(lap.seconds for lap in laps),
        first=statistics.median(firsts) if firsts else None,
        each=statistics.median(each) if each else None,
        slowest=percentile(each, 0.99) if each else None,
        steps=counts.steps / len(laps),
        forwards=forwards / tokens,
        share=sum(len(answer.takeovers or ()) for answer in answers) / tokens if told else None,
        changed=sum(answer.changed for answer in answers) / tokens if told else None,
        rejected=refused / judged if judged and not told else None,
        accepted=counts.accepted / counts.drafted if counts.drafted and not told else None,
        settled=1 + counts.accepted / counts.drafts if counts.drafts else None,
    )


def ratios(found: Iterable[Row], lossless: str, ahead: int) -> list[Ratio]:
    """Every row of which a share is known and positive, beside `lossless` at the same concurrency.

    Rows that no engine of vLLM's served have no steps, and are left out.

    Args:
        found: All rows.
        lossless: Name of the method they are beside.
        ahead: Length of a draft.
    """
    every = list(found)
    peers = {row.level: row for row in every if row.method == lossless}
    return [
        Ratio(
            method=row.method,
            level=row.level,
            ratio=row.speed / peer.speed,
            fuller_steps=(row.tokens / row.steps) / (peer.tokens / peer.steps),
            dearer_steps=row.step_ms / peer.step_ms,
            share=row.share,
            rejected=peer.rejected,
            most=(ahead + 1) / peer.settled,
        )
        for row in every
        if row.share and row.steps and (peer := peers.get(row.level)) and peer.rejected and peer.settled
    ]


def claims(found: Iterable[Ratio]) -> list[Claim]:
    """What is claimed of delegation beside lossless decoding, wherever its condition is met."""
    made = []
    for each in found:
        if each.share >= each.rejected:
            continue
        rarer = each.rejected / each.share
        made.append(
            Claim(
                f"{each.method} over lossless, {each.level} at once: share {each.share:.3f}, "
                f"rejected {each.rejected:.3f} ({rarer:.1f} times), at most {each.most:.2f}",
                each.ratio,
                CLEARLY_FASTER if rarer >= FEWER else NEVER_SLOWER,
            )
        )
    return made


def same(laps: Sequence[Lap], one: str, other: str) -> dict[int, float]:
    """For each concurrency, the fraction of prompts to which two methods gave the same answer.

    The same tokens, that is, and where both tell what was decided, the same takeovers.
    """
    first: dict[tuple[str, int], Lap] = {}
    for lap in laps:
        first.setdefault((lap.method, lap.level), lap)
    found = {}
    for (method, level), lap in first.items():
        peer = first.get((other, level))
        if method != one or peer is None:
            continue
        equal = [_equal(*both) for both in zip(lap.answers, peer.answers, strict=True)]
        found[level] = sum(equal) / len(equal)
    return found


def _equal(one: Answer, other: Answer) -> bool:
    told = one.takeovers is not None and other.takeovers is not None
    return one.tokens == other.tokens and (one.takeovers == other.takeovers or not told)
