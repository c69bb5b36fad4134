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
from delegate_llm.policy import DelegationPolicy, Referee

__all__ = ("LEAST", "WINDOWS", "let_through", "policy_for", "spike_for", "threshold_for", "window_for")

WINDOWS: Final = (4, 8, 16, 32, 64, 128, 256)
"""Lengths of the spike's window that are tried, in scores."""
LEAST: Final = 10
"""Scores that must lie above a threshold; fewer and the share is off by a third or more, by chance alone."""
_DIGITS: Final = 5


def policy_for(
    rollouts: Sequence[Sequence[float]],
    share: float,
    *,
    spike: bool = True,
    spike_window: int | None = None,
    **settings: Any,
) -> DelegationPolicy:
    """The policy that the paper's rule makes of scores.

    Args:
        rollouts: The scores at the positions of each of the base's own answers.
        share: Nominal share of takeovers, in (0, 1).
        spike: Whether to set the spike factor, too.
        spike_window: How many scores that is compared with; by default as `window_for` says.
        **settings: The policy's others, such as the divergence that the scores are of.

    Raises:
        PolicyError: As `threshold_for`, or if there are too few scores for the share, those of the share are
            not all above 0, or so many are equal that no threshold gives it.
    """
    scores = [score for one in rollouts for score in one]
    threshold = threshold_for(scores, share)
    if len(scores) * share < LEAST:
        needed = math.ceil(LEAST / share)
        msg = (
            f"share: {len(scores)} scores are too few for a share of {share:g}, which takes {needed} at "
            "least; give more prompts to calibrate on, or a larger share"
        )
        raise PolicyError(msg)
    if threshold < 0:
        msg = (
            f"share: a share of {share:g} takes in scores down to {threshold:.3g}, and below 0 the models do "
            "not part; give a smaller share, or another divergence"
        )
        raise PolicyError(msg)
    # Significant digits, as scores of some divergences are tiny.
    policy = DelegationPolicy(threshold=float(f"{threshold:.{_DIGITS}g}"), **settings)
    above = sum(score > policy.threshold for score in scores) / len(scores)
    if not share / 2 < above < 2 * share:
        msg = (
            f"share: {above:.3g} of the scores are above {policy.threshold:g}, and not {share:g}, for many "
            "are equal; give another share, or another divergence"
        )
        raise PolicyError(msg)
    if not spike:
        return policy
    policy = policy.model_copy(update={"spike": round(spike_for(scores, threshold), 4)})
    return policy.model_copy(update={"spike_window": spike_window or window_for(policy, rollouts)})


def let_through(policy: DelegationPolicy, rollouts: Iterable[Sequence[float]]) -> float:
    """The share of positions at which a policy fires along given scores: what it spends if nothing changes.

    Args:
        policy: Its threshold, spike and budget count; its gates do not.
        rollouts: The scores of each answer, in order.
    """
    referee, fired, positions = Referee(policy), 0, 0
    for scores in rollouts:
        standing = referee.start()
        for score in scores:
            takeover = referee.fires(standing, score)
            standing = referee.after(standing, score=score, asked=True, takeover=takeover)
            fired += takeover
        positions += len(scores)
    return fired / positions if positions else 0.0


def window_for(policy: DelegationPolicy, rollouts: Sequence[Sequence[float]]) -> int:
    """How local a spike has to be for a policy to spend what its threshold alone would.

    A score that fired stays in the window and raises the mean, so in a long window one takeover silences
    the next ones. The paper leaves the length to the user.

    Args:
        policy: With its spike.
        rollouts: As for `let_through`.

    Returns:
        Among `WINDOWS`, the one under which most fires; the longest of equals.
    """
    spent = {
        window: let_through(policy.model_copy(update={"spike_window": window}), rollouts)
        for window in WINDOWS
    }
    return max(WINDOWS, key=lambda window: (spent[window], window))


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
