"""The seam between the algorithm and whoever runs a model: read token sequences, return logits.

The algorithm hands over whole sequences, prompt included; a session keeps what it has already read,
feeds only what is new, and rolls back by itself where a sequence no longer continues what it holds. So
neither schedule knows of caches, and an implementation is right if it returns the logits of the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ("Meter", "Reader", "Session")


@dataclass(slots=True)
class Meter:
    """What one row cost one model."""

    forwards: int = 0
    """Forward passes in which the row took part."""
    tokens: int = 0
    """Tokens processed for it: dropped drafts, wrong guesses and tokens read again included."""
    flops: float = 0.0
    """Estimated floating-point operations, a multiply and an add as two."""


class Session(Protocol):
    """One model reading several sequences side by side. Not shared between threads."""

    meters: list[Meter]
    """One a row, in order."""
    cost: float
    """Of one step, in a unit that the two models of a pair share."""
    block: float
    """What reading eight tokens costs more than reading one, in reads of one; near 0 where the weights'
    way from memory is the limit."""

    def read(self, sequences: Sequence[Sequence[int] | None], last: int | Sequence[int] = 1) -> Tensor:
        """Read up to the end of each sequence.

        Args:
            sequences: One a row; None for a row that sits this one out.
            last: For how many final positions logits are wanted; one for all rows, or one a row.

        Returns:
            Raw logits `[len(sequences), max(last), V]`; `[r, -1]` predicts what follows sequence `r`.
            Entries of rows that sat out, and those before a row's own `last`, mean nothing.
        """
        ...

    def retain(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; the others have finished."""
        ...


class Reader(Protocol):
    """One model of a pair."""

    name: str
    """What it was loaded from."""
    rows: int
    """Vocabulary rows of its logits."""
    context: int | None
    """Longest sequence it can read, in tokens; None if unknown."""
    rewinds: bool
    """Whether its cache can be rolled back; if not, only lock-step can run."""
    batches: bool
    """Whether its sessions take more than one row."""

    def open(self, rows: int) -> Session:
        """A fresh session for `rows` sequences."""
        ...
