"""Where drafts end before their length: a takeover is likely, or the answers are at their ends.

As on the transformers schedule, drafting less never changes what is decided, only what it costs. To stop, the
host has to look at each position before the next one is drafted. On a CPU it can; on an accelerator it would
wait, so there drafts have their full length.

One more position adds the token of each answer whose draft stands so far. Where that is less, for the time it
takes, than what the step yields without it, the draft ends: the marginal value theorem (Charnov, 1976).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from delegate_llm.divergence import CACHED, entropy, log_probs
from delegate_llm.vllm_plugin.acceptance import NOTHING, Block, Verdicts, outlook
from delegate_llm.vllm_plugin.seats import Seat, Seats

__all__ = ("Stopping",)

_MEMORY: Final = 0.1  # how much the latest step counts
_MEMORABLE: Final = 4096.0  # positions; beyond it, what was seen counts for half
# Takeovers that entropies did not foretell, and the positions that this first guess counts for.
_FIRST_SURPRISES: Final = 0.5
_FIRST_POSITIONS: Final = 50.0
_MOST: Final = 2.0  # times a usual step that one may count for: nobody worked while it waited for requests


@dataclass
class _Ahead:
    """What is known of one answer while its draft grows."""

    seat: Seat
    listens: bool
    bar: float
    """What a score has to exceed, in the unit of its divergence."""
    left: float
    """Tokens it may still have."""
    foreseen: list[float]
    """The chance that something is taken over up to each position of the draft, by entropies alone."""
    end: int | None = None
    """Position of the draft that is the answer's last."""


class Stopping:
    """Looks along the drafts of a batch, and learns from what was decided, and how long that took."""

    def __init__(self, seats: Seats, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start.

        Args:
            seats: Arranged as the batch is, whenever anything here is called.
            clock: In seconds.
        """
        self._seats, self._clock = seats, clock
        self._rows: list[_Ahead] = []
        self._drafted = 0
        self._yield = self._more = 0.0
        """Tokens that the step is expected to add so far, and what one more position would."""
        self._began = 0.0
        self._ended: float | None = None
        self._rest: float | None = None
        """Seconds of a step beside its draft, lately."""
        self._surprises, self._positions = _FIRST_SURPRISES, _FIRST_POSITIONS

    def begin(self) -> None:
        """Start on the next drafts, behind what is decided."""
        self._began = self._clock()
        if self._ended is not None:
            self._pace(self._began - self._ended)
        self._drafted, self._yield = 0, 0.0
        standings = self._seats.standings
        over, bars = outlook(self._seats.rules, standings)
        facts = zip(over.tolist(), bars.tolist(), standings.position.tolist(), strict=True)
        self._rows = [
            _Ahead(seat, not (silent or seat.idle), bar, seat.most - position, [])
            for seat, (silent, bar, position) in zip(self._seats.batch, facts, strict=True)
        ]
        for row in self._rows:
            row.seat.foresight.begin()
        self._more = self._worth()

    def is_time(self, logits: Tensor, drawn: Tensor) -> bool:
        """Whether the reasoner had better read now than after another position.

        Args:
            logits: The base's at the position that was drafted last, raw, `[B, V]`.
            drawn: What was drawn from them `[B]`.
        """
        self._yield += self._more
        self._drafted += 1
        listening = [at for at, row in enumerate(self._rows) if row.listens and row.end is None]
        for at, unsure in zip(listening, _entropies(logits, listening), strict=True):
            row = self._rows[at]
            if unsure > row.seat.above:
                row.seat.foresight.expect(unsure, row.bar)
            row.foreseen.append(1.0 - row.seat.foresight.stands(0))
        for row, token in zip(self._rows, drawn.tolist(), strict=True):
            if row.end is None and (token in row.seat.ends or self._drafted >= row.left):
                row.end = self._drafted - 1
        self._more, self._ended = self._worth(), self._clock()
        drafting, rest = self._ended - self._began, self._rest
        return not self._more or (
            rest is not None and self._more * (rest + drafting) < self._yield * drafting / self._drafted
        )

    def _worth(self) -> float:
        """Tokens that one more position is expected to add."""
        unforeseen = (1.0 - max(0.0, self._surprises / self._positions)) ** self._drafted
        return sum(
            unforeseen * row.seat.foresight.stands(self._drafted) if row.listens else 1.0
            for row in self._rows
            if row.end is None
        )

    def lengths(self) -> list[int]:
        """Tokens of each draft that are worth reading; what comes behind is behind the answer's end."""
        most = self._drafted - 1
        return [most if row.end is None else min(most, row.end) for row in self._rows]

    def learn(self, block: Block, verdicts: Verdicts) -> None:
        """See what became of the drafts.

        Args:
            block: What was judged, `[B, P]`.
            verdicts: And how.
        """
        changed = verdicts.takeover & (verdicts.token != block.base)
        said = (verdicts.token != NOTHING).sum(1).tolist()
        drafted = (block.draft != NOTHING).sum(1).tolist()
        columns = (block.entropy, block.score, verdicts.opens, verdicts.takeover, changed)
        facts = zip(*(each.tolist() for each in columns), strict=True)
        ahead = {id(row.seat): row for row in self._rows}
        for seat, count, length, decided in zip(self._seats.batch, said, drafted, facts, strict=True):
            if not count:  # its prompt is still being read
                continue
            for unsure, score, opens, takeover, moved in list(zip(*decided, strict=True))[:count]:
                if opens:
                    seat.foresight.learn(unsure, score, takeover=takeover, changed=moved)
            seat.foresight.settled(length + 1 - count)
            row = ahead.get(id(seat))
            if row is not None and len(row.foreseen) >= count and math.isfinite(row.foreseen[count - 1]):
                self._surprises += any(decided[-1][:count]) - row.foreseen[count - 1]
                self._positions += count
        self._rows = []
        if self._positions > _MEMORABLE:
            self._surprises, self._positions = self._surprises / 2, self._positions / 2

    def _pace(self, seconds: float) -> None:
        """See how long a step took beside its draft."""
        if self._rest is None:
            self._rest = seconds
        else:
            self._rest += _MEMORY * (min(seconds, _MOST * self._rest) - self._rest)


def _entropies(logits: Tensor, rows: list[int]) -> list[float]:
    """Of the base, in nats, in some rows of logits `[B, V]`; as many at a time as a cache holds."""
    if len(rows) < len(logits):
        logits = logits[rows]
    step = max(1, CACHED // logits.shape[1])
    parts = (logits[start : start + step] for start in range(0, len(logits), step))
    return [value for part in parts for value in entropy(log_probs(part)).tolist()]
