"""Why the base or the reasoner was heard at a position, found by applying the policy along a trace again.

A trace says what happened, not what the score had to exceed, what the budget held or which gate was shut. All
of that follows from the policy and the decisions before. Where a trace keeps only some decisions, or comes
from another policy, only what can be known is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from delegate_llm.gates import BoundaryGate, EntropyGate, Gate, GateView, TurnGate, WindowGate
from delegate_llm.policy import DelegationPolicy, Referee, Standing
from delegate_llm.trace import Decision

__all__ = ("Replay", "Verdict", "gate_name", "verdicts")

_LONGEST_GAP: Final = 100_000
"""Positions without a decision that are stepped over; behind a longer gap nothing is known."""
_CLOSE: Final = 1e-3
"""What the rounding of a record may have done to a score."""

_ROUNDED: Final = 5e-5
"""Likewise to an entropy, at most."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one decision besides the trace."""

    bar: float | None = None
    """What the score had to exceed; None where it is not known."""
    level: float | None = None
    """Takeovers that could be spent before it; `inf` without a budget, None where it is not known."""
    cause: str | None = None
    """Why who spoke did, as a sentence; None where nothing is known."""


def verdicts(decisions: Iterable[Decision], policy: DelegationPolicy) -> Iterator[Verdict]:
    """One verdict a decision, as they come.

    Args:
        decisions: Of one generation, in order; some may be missing.
        policy: With which they were made.

    Yields:
        As soon as each decision is there, so that a stream may be followed.
    """
    replay = Replay(policy)
    for decision in decisions:
        yield replay.step(decision)


def gate_name(gate: Gate) -> str:
    """A gate in words, such as `first 256 tokens`."""
    match gate:
        case EntropyGate(above=above):
            return f"the base's entropy above {above:g} nats"
        case WindowGate(first=first):
            return f"the first {first} tokens"
        case BoundaryGate(at=at):
            return f"the start of a {', '.join(each.replace('_', ' ') for each in at)}"
        case TurnGate(limits=limits):
            kinds = (f"{count} where {kind.replace('_', ' ')}" for kind, count in limits.items())
            return f"takeovers by kind of answer: {', '.join(kinds)}"
    return f"a gate of your own, {getattr(gate, '__qualname__', type(gate).__name__)}"


class Replay:
    """Follows one generation; decisions are told one by one."""

    def __init__(self, policy: DelegationPolicy) -> None:
        """Stand before the first token."""
        self.policy = policy
        self._referee = Referee(policy)
        self._standing: Standing | None = self._referee.start()
        self._next = 0
        self._whole = True
        self._said: list[str] = []

    def step(self, decision: Decision) -> Verdict:
        """What is known of the next decision."""
        self._skip_to(decision.position)
        standing = self._standing
        if standing is None:
            return Verdict()
        bar = self._bar(standing)
        verdict = Verdict(bar, self._referee.budget(standing), self._cause(standing, decision, bar))
        self._standing = self._referee.after(
            standing, score=decision.score, asked=decision.asked, takeover=decision.takeover
        )
        self._said.append(decision.token)
        self._next += 1
        return verdict

    def _skip_to(self, position: int) -> None:
        """Step over positions of which the trace says nothing, but that none of them was a takeover."""
        gap = position - self._next
        if gap:
            self._whole = False
            self._next = position
        if not 0 <= gap <= _LONGEST_GAP:
            self._standing = None
        for _ in range(gap):
            if self._standing is None:
                return
            before = self._standing
            self._standing = self._referee.after(before, score=None, asked=False, takeover=False)
            if self._standing is before:
                return

    def _bar(self, standing: Standing) -> float | None:
        """What a score has to exceed here; a spike needs every score before."""
        return self._referee.bar(standing) if self._whole or not self.policy.spike else None

    # --- Causes ---

    def _cause(self, standing: Standing, decision: Decision, bar: float | None) -> str | None:
        if decision.takeover:
            return self._why_taken(standing, decision, bar)
        if not self._whole:
            return None
        if over := self._over(standing, decision.position):
            return f"The base was heard, for the reasoner is not run any more: {over}."
        gates = self._gates(standing, decision)
        if shut := [gate_name(gate) for gate, opens in gates if opens is False]:
            return f"The base was heard, for a gate was shut: {'; '.join(shut)}."
        return self._why_not(
            standing, decision, bar, [gate_name(gate) for gate, opens in gates if opens is None]
        )

    def _why_taken(self, standing: Standing, decision: Decision, bar: float | None) -> str:
        contradicted = self._whole and any(opens is False for _, opens in self._gates(standing, decision))
        unspendable = not self._referee.can_spend(standing)
        below = bar is not None and decision.score is not None and decision.score < bar - _CLOSE
        if contradicted or unspendable or below:
            return "A takeover, though by this policy it would be none: the trace was made with another."
        if bar is None or decision.score is None:
            return "A takeover: its score was above the bar, every gate was open, and the budget held one."
        gates = ", every gate was open" if self.policy.gates else ""
        budget = "the budget held one" if self._is_limited() else "takeovers are not limited"
        return f"A takeover: the score was above {self._named(bar)}{gates}, and {budget}."

    def _why_not(
        self, standing: Standing, decision: Decision, bar: float | None, unknown: list[str]
    ) -> str | None:
        if decision.score is None or bar is None:
            if unknown:
                return f"Not scored; whether a gate was shut cannot be told: {'; '.join(unknown)}."
            return "Not scored, and the trace does not say why."
        if decision.score <= bar + _CLOSE:
            return f"The base was heard, for the score was not above {self._named(bar)}."
        if not self._referee.can_spend(standing):
            above = f"the score was above {self._named(bar)}"
            return f"The base was heard: {above}, but the budget held no takeover."
        return "The base was heard, though by this policy it would not be: the trace was made with another."

    def _named(self, bar: float) -> str:
        """The bar without its number, which differs from position to position."""
        if bar > self.policy.threshold:
            return f"{self.policy.spike:.3g} times the mean of the scores before"
        return "the threshold"

    def _is_limited(self) -> bool:
        return math.isfinite(self._referee.budget(self._referee.start()))

    def _over(self, standing: Standing, position: int) -> str | None:
        """Why the reasoner can never be heard again; None if it can."""
        if not self._referee.is_over(standing, position):
            return None
        firsts = [gate.first for gate in self.policy.gates if isinstance(gate, WindowGate)]
        if firsts and position >= min(firsts):
            return f"only {gate_name(WindowGate(first=min(firsts)))} are open to it"
        asks = self.policy.budget.asks
        if asks is not None and standing.asked >= asks:
            return f"all {asks} positions at which it may be asked are spent"
        return f"all {standing.spent} takeovers are spent" if standing.spent else "it has no budget"

    def _gates(self, standing: Standing, decision: Decision) -> list[tuple[Gate, bool | None]]:
        """Every gate, and whether it was open; None where that cannot be known."""
        entropy = decision.base_entropy
        view = GateView(
            position=decision.position,
            base_entropy=math.nan if entropy is None else entropy,
            budget=self._referee.budget(standing),
            read_text=lambda: "".join(self._said),
            spent=standing.spent,
        )
        asked = decision.asked or decision.score is not None
        return [(gate, _opens(gate, view, asked=asked)) for gate in self.policy.gates]


def _opens(gate: Callable[[GateView], bool], view: GateView, *, asked: bool) -> bool | None:
    if asked and not isinstance(gate, TurnGate | WindowGate):
        return True  # or the position would have no score
    if isinstance(gate, EntropyGate) and not abs(view.base_entropy - gate.above) > _ROUNDED:
        return None  # not known, or too close to tell after a record's rounding
    try:
        return bool(gate(view))
    except Exception:  # noqa: BLE001 - a user's own gate, or one that a record knows by name only
        return None
