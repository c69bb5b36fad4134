"""What the base may say next, guessed from what was said before: prompt-lookup decoding.

Answers repeat themselves and their prompts: names, numbers, phrases, the frame of a tool call. Where the
last tokens have stood together before, what followed then is read along with them in one forward, and
every guess that the base would have said itself saves a forward of its own. Guesses are judged by the
base's own draws, so they never change what is decided, only what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ("Recall",)

_PAIR: Final = 2  # tokens that must have stood together before
_AHEAD: Final = 7  # with the token before them a block of eight
# Of a forward over one token: what a block costs more than that, on a CPU in float32. Less elsewhere.
_PRICE: Final = 0.6
_MOST: Final = 4.0


class Recall:
    """Remembers, for one sequence, what followed each pair of tokens."""

    def __init__(self) -> None:
        """Start without a memory; it is built as the sequence is seen."""
        self._after: dict[tuple[int, int], int] = {}
        self._read = _PAIR
        self._credit = _MOST / 2

    def guess(self, sequence: Sequence[int], settled: int, most: int) -> Sequence[int]:
        """What followed the last time the sequence stood as it stands at its end.

        Guesses that fail run up a debt; the deeper it is, the more tokens have to agree.

        Args:
            sequence: The prompt and all that was said, drafts included.
            settled: How many of these tokens are decided for good; the others are not remembered.
            most: How many guesses are wanted at most.
        """
        for at in range(self._read, settled):
            self._after[sequence[at - 2], sequence[at - 1]] = at
        self._read = max(self._read, settled)
        if len(sequence) < _PAIR or most < 1:
            return ()
        at = self._after.get((sequence[-2], sequence[-1]), 0)
        alike = _PAIR + math.ceil(max(0.0, -self._credit))
        if at < alike or sequence[at - alike : at] != sequence[-alike:]:
            return ()
        return sequence[at : at + min(most, _AHEAD)]

    def learn(self, right: int) -> None:
        """See how many tokens of a guess the base said itself."""
        self._credit = min(_MOST, self._credit + right - _PRICE)
