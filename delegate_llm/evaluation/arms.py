"""The ways to answer that a run compares: each model alone, delegation at several shares, and its controls.

Each control spends as many takeovers as a delegated arm did, and decides where by less: `random` by lot,
`early` at the first tokens, `entropy` where the base is unsure, without asking the reasoner before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from delegate_llm.calibration import threshold_for
from delegate_llm.gates import WindowGate
from delegate_llm.policy import DelegationPolicy

__all__ = ("CONTROLS", "Arm", "Control", "Kind", "control")

Kind = Literal["base", "reasoner", "delegated", "random", "early", "entropy"]
Control = Literal["random", "early", "entropy"]
CONTROLS: Final[tuple[Control, ...]] = ("random", "early", "entropy")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer."""

    name: str
    kind: Kind
    policy: DelegationPolicy | None = None
    """None for a model alone."""
    nominal: float | None = None
    """The share that the policy was made for, if it was."""
    of: str | None = None
    """For a control, the arm whose share it matches."""


def control(
    kind: Control, *, share: float, tokens: float, entropies: Sequence[float]
) -> DelegationPolicy | None:
    """The policy of a control.

    Args:
        kind: Which.
        share: Takeovers per token that the arm which it is set beside has come to.
        tokens: Of an answer, on average.
        entropies: Of the base, one a position: along the answers of that arm, or else along its own.

    Returns:
        None where there is nothing to match: the arm took nothing over, or there are no entropies.
    """
    if not 0 < share < 1:
        return None
    if kind == "random":
        return DelegationPolicy(divergence="random", threshold=1 - share)
    if kind == "early":
        # A whole number of first tokens rarely gives the share, so within them there is a lot.
        first = max(1, math.ceil(share * tokens))
        lot = min(1.0, share * tokens / first)
        return DelegationPolicy(divergence="random", threshold=1 - lot, gates=(WindowGate(first=first),))
    return (
        DelegationPolicy(divergence="entropy", threshold=threshold_for(entropies, share))
        if entropies
        else None
    )
