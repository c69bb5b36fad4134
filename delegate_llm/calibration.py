"""Setting a policy from scores: the source paper's rule, the only "training" that the method has.

Roll the base out on some prompts, collect the score at every position, and say what share of the tokens the
reasoner should supply. The threshold is the score that this share of the positions exceeds; the spike
factor is how far those stand out from the mean. The share that is realised on other prompts, with takeovers
on, may differ: check it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from delegate_llm.errors import PolicyError
from delegate_llm.policy import DelegationPolicy

__all__ = ("LEAST", "policy_for", "spike_for", "threshold_for")

LEAST: Final = 10
"""Scores that must lie above a threshold; fewer and the share is off by a third or more, by chance alone."""


def policy_for(
    scores: Sequence[float], share: float, *, spike: bool = True, **settings: Any
) -> DelegationPolicy:
    """The policy that the paper's rule makes of scores.

    Args:
        scores: One a position of the base's own rollouts.
        share: Nominal share of takeovers, in (0, 1).
        spike: Whether to set the spike factor, too.
        **settings: The policy's others, such as the divergence that the scores are of.

    Raises:
        PolicyError: As `threshold_for`, or if there are too few scores for the share.
    """
    threshold = threshold_for(scores, share)
    if len(scores) * share < LEAST:
        needed = math.ceil(LEAST / share)
        msg = (
            f"share: {len(scores)} scores are too few for a share of {share:g}, which takes {needed} at "
            "least; give more prompts to calibrate on, or a larger share"
        )
        raise PolicyError(msg)
    factor = spike_for(scores, threshold) if spike else 0.0
    return DelegationPolicy(threshold=round(threshold, 4), spike=round(factor, 4), **settings)


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
