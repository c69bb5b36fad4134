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

__all__ = ("BLOCK", "Recall")

BLOCK: Final = 7
"""Tokens of a guess at most: with the one before them, a forward over eight."""
# Where one, two, or more of the last tokens agree with an earlier place.
_LENGTHS: Final = (2, 3, BLOCK)
# Where a block of eight costs more than this many forwards over one token on top, short guesses do not pay.
_DEAR: Final = 0.3
_MOST: Final = 4.0


class Recall:
    """Remembers, for one sequence, what followed each token and each pair of tokens."""

    def __init__(self, price: float) -> None:
        """Start without a memory; it is built as the sequence is seen.

        Args:
            price: What a forward over eight tokens costs more than one over a single token, in the latter.
        """
        self._price = price
        # Alone, a token is a poor guide: it serves where a wrong guess costs next to nothing.
        self._alike, self._lengths = (2, (BLOCK,) * 3) if price > _DEAR else (1, _LENGTHS)
        self._after_pair: dict[tuple[int, int], int] = {}
        self._after: dict[int, int] = {}
        self._read = 1
        self._credit = _MOST / 2

    def guess(self, sequence: Sequence[int], settled: int, most: int) -> Sequence[int]:
        """What followed the last time the sequence stood as it stands at its end.

        Guesses that fail run up a debt; the deeper it is, the more tokens have to agree.

        Args:
            sequence: The prompt and all that was said, drafts included.
            settled: How many of these tokens are decided for good; the others are not remembered.
            most: How many guesses are wanted at most.
        """
        self._remember(sequence, settled)
        at = self._precedent(sequence)
        wanted = self._alike + math.ceil(max(0.0, -self._credit))
        agreed = _agreed(sequence, at, max(wanted, len(self._lengths)))
        if most < 1 or agreed < wanted:
            return ()
        length = self._lengths[min(agreed, len(self._lengths)) - 1]
        return sequence[at : at + min(most, length)]

    def learn(self, right: int, guessed: int) -> None:
        """See how many tokens of a guess the base said itself."""
        self._credit = min(_MOST, self._credit + right - self._price * guessed / BLOCK)

    def _remember(self, sequence: Sequence[int], settled: int) -> None:
        for at in range(self._read, settled):
            self._after[sequence[at - 1]] = at
            if at > 1:
                self._after_pair[sequence[at - 2], sequence[at - 1]] = at
        self._read = max(self._read, settled)

    def _precedent(self, sequence: Sequence[int]) -> int:
        """Where the sequence has stood as at its end before; 0 if it has not."""
        if len(sequence) > 1 and (at := self._after_pair.get((sequence[-2], sequence[-1]))):
            return at
        return self._after.get(sequence[-1], 0) if sequence else 0


def _agreed(sequence: Sequence[int], at: int, most: int) -> int:
    """How many tokens before `at` are those at the end of the sequence, counted up to `most`."""
    count = 0
    while count < min(most, at) and sequence[at - 1 - count] == sequence[-1 - count]:
        count += 1
    return count
