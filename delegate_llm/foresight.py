"""How far to draft: the chance that a drafted position will be taken over, guessed before anyone is asked.

Nothing here changes what is decided, only what it costs. A draft should end where the next base forward is
more likely wasted than not worth delaying the reasoner for. What the base knows of a position is its
entropy, and a cross-entropy is that entropy plus something small: so the chance of passing the threshold
falls off exponentially with the distance left. The scale of that fall, and how often a takeover really
changes the token, are learnt from the answer's own decisions.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ("Foresight", "patience")

# Positions that the first guesses count for.
_PRIOR: Final = 10.0
_FIRST_EXCESS: Final = 0.3  # nats above the base's entropy
_FIRST_RATIO: Final = 0.3  # of a score to the base's entropy, for scores that are not built on it
# Positions that one forward of the reasoner typically settles, about eight, over what such a forward and the
# work around it cost in steps, about two.
_BLOCK: Final = 4.0
# Positions drafted in a row: where it starts, between what it moves, by how many it grows, and how many
# dropped are a surprise.
_FIRST_REACH: Final = 16
_REACH: Final = (4, 64)
_GROWTH: Final = 8
_SURPRISE: Final = 2


def patience(base_cost: float, reasoner_cost: float) -> float:
    """The chance of a takeover in a draft up to which it pays to draft on.

    Drafting on wastes a base forward if one falls; if none does, it spares a part of a reasoner forward.
    The dearer the reasoner, the more risk is worth it.

    Args:
        base_cost: Of one step of the base, in any unit.
        reasoner_cost: Of one step of the reasoner, in the same unit.

    Returns:
        A chance in (0, 1]: 0.2 for models of one size, 0.71 for a base of a tenth.
    """
    return 1.0 / (1.0 + _BLOCK * base_cost / reasoner_cost)


class Foresight:
    """Learns, along one answer, where takeovers fall."""

    def __init__(self, *, on_entropy: bool) -> None:
        """Start with a guess.

        Args:
            on_entropy: Whether the score is the base's entropy plus something, as a cross-entropy is.
        """
        self._on_entropy = on_entropy
        self._score = (_FIRST_EXCESS if on_entropy else _FIRST_RATIO) * _PRIOR
        self._entropy = _PRIOR
        self._changed, self._takeovers = 1.0, 2.0
        self._stands = 1.0
        self._reach = _FIRST_REACH

    def begin(self) -> None:
        """Start on a fresh draft."""
        self._stands = 1.0

    def expect(self, entropy: float, bar: float) -> None:
        """Take one more drafted position into account, with the base's entropy and the bar to pass."""
        scale = self._score / self._entropy
        if self._on_entropy:
            left = bar - entropy
        else:
            left, scale = bar, scale * entropy
        passes = 1.0 if left <= 0 else math.exp(-left / max(scale, 1e-6))
        self._stands *= 1.0 - passes * self._changed / self._takeovers

    def is_ripe(self, drafted: int, patience: float) -> bool:
        """Whether a draft of `drafted` positions had better be read now.

        Its risk is too high, or it is longer than drafts of this answer have lately stood: that bounds
        what surprises cost, which entropy does not foretell.
        """
        return 1.0 - self.stands(drafted) > patience

    def stands(self, drafted: int) -> float:
        """The chance that a draft of `drafted` positions is not taken over anywhere.

        None is given to one that is longer than drafts of this answer have lately stood.
        """
        return 0.0 if drafted > self._reach else self._stands

    def settled(self, dropped: int) -> None:
        """See how many positions of a draft were dropped; 0 if it stood."""
        if dropped > _SURPRISE:
            self._reach = max(_REACH[0], self._reach // 2)
        elif not dropped:
            self._reach = min(_REACH[1], self._reach + _GROWTH)

    def learn(self, entropy: float, score: float, *, takeover: bool, changed: bool) -> None:
        """See how a position was decided."""
        if self._on_entropy:
            self._score += max(0.0, score - entropy)
            self._entropy += 1.0
        else:
            self._score += max(0.0, score)
            self._entropy += entropy
        self._takeovers += takeover
        self._changed += changed
