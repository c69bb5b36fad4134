"""Setting a policy from scores: the source paper's rule, the only "training" that the method has.

Roll the base out on some prompts, collect the score at every position, and say what share of the tokens the
reasoner should supply. The threshold is the score that this share of the positions exceeds; the spike
factor is how far those stand out from the mean. The share that is realised on other prompts, with takeovers
on, may differ: check it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from delegate_llm.errors import PolicyError

__all__ = ("spike_for", "threshold_for")


def threshold_for(scores: Iterable[float], share: float) -> float:
    """The (1 - share) quantile of scores, interpolated linearly between neighbours.

    Args:
        scores: One a position of the base's own rollouts.
        share: Nominal share of takeovers, in (0, 1).

    Raises:
        PolicyError: If there are no scores, one is not a number, or the share is out of range.
    """
    if not 0 < share < 1:
        msg = f"share: {share!r} is outside (0, 1); it is the fraction of tokens that may be taken over"
        raise PolicyError(msg)
    ordered = sorted(scores)
    if not ordered or any(map(math.isnan, ordered)):
        msg = f"scores: {len(ordered)} given, and none may be NaN; roll the base out on some prompts first"
        raise PolicyError(msg)
    place = (1 - share) * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spike_for(scores: Iterable[float], threshold: float) -> float:
    """`mean(scores above threshold) / mean(scores)`; 0, which is off, where none is above.

    Args:
        scores: As for `threshold_for`.
        threshold: From there.
    """
    every = list(scores)
    above = [score for score in every if score > threshold]
    mean = math.fsum(every) / len(every) if every else 0.0
    return math.fsum(above) / len(above) / mean if above and mean > 0 else 0.0
