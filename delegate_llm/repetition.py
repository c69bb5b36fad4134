"""When an answer has run into a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ("is_repetition",)

# The last _SPAN tokens repeat a cycle of at most _CYCLE; looked for every _EVERY tokens. Long enough that a
# table or a row of zeros passes.
_SPAN: Final = 128
_CYCLE: Final = 32
_EVERY: Final = 16


def is_repetition(tokens: Sequence[int]) -> bool:
    """Whether the end of an answer is one short cycle over and over; looked for now and then only."""
    if len(tokens) < _SPAN or len(tokens) % _EVERY:
        return False
    tail = tokens[-_SPAN:]
    return any(tail[cycle:] == tail[:-cycle] for cycle in range(1, _CYCLE + 1))
