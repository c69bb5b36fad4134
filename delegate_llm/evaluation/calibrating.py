"""A policy for a share of takeovers, from the scores of the base's own answers.

The rule stands in `delegate_llm.calibration`. Here is what else a policy may need: a gate that asks the
reasoner only where the base is unsure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from delegate_llm.calibration import policy_for
from delegate_llm.errors import PolicyError
from delegate_llm.evaluation.listening import Scored
from delegate_llm.gates import EntropyGate
from delegate_llm.policy import BASE_ONLY, DelegationPolicy, DivergenceName

__all__ = ("Rule", "entropy_bound", "gate_keeps")

_DIGITS: Final = 1e6
"""Steps of a nat to which a bound is rounded."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy is to be."""

    share: float = 0.08
    """Nominal share of takeovers, in (0, 1)."""
    divergence: DivergenceName = "cross_entropy"
    spike: bool = True
    spike_window: int | None = None
    """As for `policy_for`."""
    entropy_only: bool = False
    """Ask only where the base is unsure. Such a policy has no spike: scores that were never computed are
    missing from the mean of the recent ones, and what is left is nothing but high scores."""
    keep: float = 0.95
    """Share of the scores above the threshold at which that gate is open, in (0, 1]."""

    def __post_init__(self) -> None:
        """Say what is out of range; raises `PolicyError`."""
        DelegationPolicy.of({"divergence": self.divergence})
        if not 0 < self.share < 1:
            msg = f"share: {self.share!r} is outside (0, 1); it is the fraction of tokens to be taken over"
            raise PolicyError(msg)
        _check_keep(self.keep)
        if self.spike_window is not None and (self.entropy_only or not self.spike):
            msg = f"spike_window: {self.spike_window!r} is of no use without a spike; leave it out"
            raise PolicyError(msg)
        if self.entropy_only and self.divergence in BASE_ONLY:
            msg = (
                f"divergence: {self.divergence!r} asks the reasoner at takeovers alone, so no gate asks it "
                "less; leave out entropy_only, or choose another divergence"
            )
            raise PolicyError(msg)

    def policy(self, answers: Sequence[Scored]) -> DelegationPolicy:
        """The policy that the base's own answers make.

        Raises:
            PolicyError: If there are too few scores for the share.
        """
        policy = policy_for(
            [each.scores for each in answers],
            self.share,
            spike=self.spike and not self.entropy_only,
            spike_window=self.spike_window,
            divergence=self.divergence,
        )
        if not self.entropy_only:
            return policy
        bound = entropy_bound(*_flat(answers), threshold=policy.threshold, keep=self.keep)
        return DelegationPolicy.of({**policy.model_dump(), "gates": {"entropy": bound}})


def entropy_bound(
    scores: Sequence[float], entropies: Sequence[float], *, threshold: float, keep: float
) -> float:
    """The highest bound on the base's entropy that keeps a share of the scores above a threshold.

    Args:
        scores: One a position.
        entropies: Of the base at the same positions, in nats.
        threshold: Scores above it count.
        keep: Share of them whose entropy is to be above the bound, in (0, 1].

    Returns:
        Nats, rounded down; 0 where nothing is above the threshold, or the base is quite sure there.

    Raises:
        PolicyError: If `keep` is out of range.
    """
    _check_keep(keep)
    salient = sorted(
        (unsure for score, unsure in zip(scores, entropies, strict=True) if score > threshold), reverse=True
    )
    if not salient:
        return 0.0
    last = salient[math.ceil(keep * len(salient) * (1 - 1e-12)) - 1]
    steps = math.floor(last * _DIGITS)
    # The gate opens above its bound, not on it.
    return max(0.0, (steps - (steps / _DIGITS >= last)) / _DIGITS)


def gate_keeps(answers: Sequence[Scored], policy: DelegationPolicy) -> float | None:
    """Which share of the scores above the threshold lie where the policy's entropy gate is open.

    Returns:
        None where no score is above the threshold.
    """
    bound = max((gate.above for gate in policy.gates if isinstance(gate, EntropyGate)), default=-math.inf)
    scores, entropies = _flat(answers)
    salient = [
        unsure > bound for score, unsure in zip(scores, entropies, strict=True) if score > policy.threshold
    ]
    return sum(salient) / len(salient) if salient else None


def _flat(answers: Iterable[Scored]) -> tuple[list[float], list[float]]:
    listed = list(answers)
    return (
        [score for each in listed for score in each.scores],
        [unsure for each in listed for unsure in each.entropies],
    )


def _check_keep(keep: float) -> None:
    if not 0 < keep <= 1:
        msg = f"keep: {keep!r} is outside (0, 1]; it is the fraction of takeovers that the gate lets through"
        raise PolicyError(msg)
