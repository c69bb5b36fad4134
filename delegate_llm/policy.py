"""The rule that makes a decision a takeover: divergence, threshold, spike, gates and budget.

`DelegationPolicy` and `Budget` are what a user writes down and saves. `Referee` applies a policy to one
generation, position by position; what it has to remember is a `Standing`, an immutable value, so that the
fast schedule can look ahead along a draft and throw the look away. Nothing here knows a model or a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from pydantic import Field, field_validator

from delegate_llm._settings import MOST, Settings
from delegate_llm.errors import GateError, LoadError, PolicyError
from delegate_llm.gates import BoundaryGate, EntropyGate, Gate, GateView, TurnGate, WindowGate

__all__ = ("DEFAULT_BURST", "Budget", "DelegationPolicy", "DivergenceName", "Referee", "Standing", "unit_of")

DivergenceName = Literal[
    "cross_entropy", "reverse_kl", "kl", "js", "tv", "nll_gap", "random", "entropy", "top1"
]
BASE_ONLY: Final = frozenset({"random", "entropy", "top1"})
"""Divergences that need no reasoner to decide: it is asked only where it takes over."""

_UNITLESS: Final = frozenset({"tv", "top1", "random"})

DEFAULT_BURST: Final = 8
"""Takeovers that may be spent at once when only a rate is given."""

# 0.1 added ten times is a hair under 1; a refilled takeover must not come a token late for it.
WHOLE: Final = 1.0 - 1e-9


def unit_of(divergence: DivergenceName) -> str:
    """What scores are measured in: `nats`, or nothing."""
    return "" if divergence in _UNITLESS else "nats"


class Budget(Settings):
    """How many takeovers a generation may spend: a token bucket. `Budget()` is unlimited.

    Disagreement is densest early in an answer, so a plain running ratio would forbid the takeovers that
    matter most: hence the burst. Everywhere a budget is taken, an int means `Budget(limit=n)` and a
    fraction `Budget(rate=f)`.
    """

    rate: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    """Takeovers refilled per generated token, in [0, 1]."""
    burst: int | None = Field(default=None, ge=0, le=MOST)
    """Takeovers that may be spent at once; 8 when only a rate is given."""
    limit: int | None = Field(default=None, ge=0, le=MOST)
    """Takeovers in all, never exceeded."""
    asks: int | None = Field(default=None, ge=0, le=MOST)
    """Positions at which the reasoner may be consulted in all; then the base goes on alone."""

    @classmethod
    def of(cls, value: Budget | Mapping[str, Any] | float | None) -> Budget:
        """The budget that `value` means: a budget, its fields, an int (limit) or a fraction (rate)."""
        match value:
            case None:
                return cls()
            case Budget():
                return value
            case Mapping():
                return cls.of_fields(value)
            case bool():
                pass
            case int():
                return cls(limit=value)
            case float() if 0 < value <= 1:
                return cls(rate=value)
            case float() if value == 0:
                return cls(limit=0)
        msg = (
            f"budget: {value!r} is neither a Budget nor a count of takeovers (an int >= 0) "
            "nor a share of the tokens (a float in [0, 1])"
        )
        raise PolicyError(msg)

    def capped(self, *, limit: int | None = None, asks: int | None = None) -> Budget:
        """This budget, but for at most `limit` takeovers and `asks` positions asked; None leaves each."""
        caps = {"limit": limit, "asks": asks}
        lower = {
            name: cap if (own := getattr(self, name)) is None else min(own, cap)
            for name, cap in caps.items()
            if cap is not None
        }
        return self.model_copy(update=lower) if lower else self

    @property
    def capacity(self) -> float:
        """What the bucket holds when full, in takeovers; `inf` if takeovers are not paced."""
        if self.burst is not None:
            return float(self.burst)
        return math.inf if self.rate is None else float(DEFAULT_BURST)


class DelegationPolicy(Settings):
    """When the reasoner takes over for one token. JSON in and out.

    The reasoner supplies the token at a position if every gate is open there, the score is above
    `threshold`, the score is above `spike` times the mean of the last `spike_window` scores, and the
    budget holds at least one takeover.
    """

    version: Literal[1] = 1
    """Format of the saved policy."""
    divergence: DivergenceName = "cross_entropy"
    """How the two distributions are compared, or a control: `random`, `entropy`, `top1`."""
    threshold: float = Field(default=1.5, ge=0)
    """Scores above it call for a takeover; nats, or without unit for `tv`, `top1` and `random`."""
    spike: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Factor over the recent mean that the score must also exceed; 0 switches the condition off."""
    spike_window: int = Field(default=32, ge=1, le=MOST)
    """How many recent scores that mean is taken over."""
    gates: tuple[Gate, ...] = ()
    """Where the reasoner may be heard at all; all must agree."""
    budget: Budget = Budget()
    """How many takeovers may be spent. An int or a fraction is taken too, see `Budget`."""

    @classmethod
    def of(cls, value: DelegationPolicy | Mapping[str, Any]) -> DelegationPolicy:
        """The policy that `value` means: a policy, or its fields."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls.of_fields(value)
        msg = f"policy: {value!r:.80} is neither a DelegationPolicy nor a mapping of its fields"
        raise PolicyError(msg)

    @classmethod
    def read(cls, path: str | Path) -> DelegationPolicy:
        """The policy in a file.

        Raises:
            LoadError: If it cannot be read.
            PolicyError: If it is none.
        """
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # also for what no path can be
            why = getattr(error, "strerror", None) or error
            msg = f"policy: cannot read {str(path)!r:.200}: {why}; give the file of a saved policy"
            raise LoadError(msg) from error
        try:
            return cls.from_json(text)
        except PolicyError as error:
            msg = f"policy: {str(path)!r} is none: {error}"
            raise PolicyError(msg) from None

    def changed(self, **fields: Any) -> DelegationPolicy:
        """This policy with some fields set anew, and as a whole checked again.

        Raises:
            PolicyError: If it is none then.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**own, **fields})

    @field_validator("divergence", mode="before")
    @classmethod
    def _known_divergence(cls, value: Any) -> Any:
        if value not in get_args(DivergenceName):
            msg = f"unknown divergence {value!r}; choose one of {', '.join(get_args(DivergenceName))}"
            raise ValueError(msg)
        return value

    @field_validator("gates", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        if value is None:
            return ()
        if isinstance(value, Mapping) and "kind" not in value:
            return tuple(_named(kind, setting) for kind, setting in value.items())
        return tuple(map(_gate, value if isinstance(value, list | tuple) else (value,)))

    @field_validator("budget", mode="before")
    @classmethod
    def _as_budget(cls, value: Any) -> Budget:
        return Budget.of(value)

    def model_dump_json(self, **kwargs: Any) -> str:
        """As pydantic's; raises `PolicyError` if a gate is a plain callable, which cannot be saved."""
        for gate in self.gates:
            if not isinstance(gate, Settings):
                msg = f"gates: {gate!r} is a plain callable and cannot be saved; use a named gate"
                raise PolicyError(msg)
        return super().model_dump_json(**kwargs)


_NamedGate: TypeAlias = type[EntropyGate | WindowGate | BoundaryGate | TurnGate]
_GATES: Final[dict[str, tuple[_NamedGate, str]]] = {
    "entropy": (EntropyGate, "above"),
    "window": (WindowGate, "first"),
    "boundary": (BoundaryGate, "at"),
    "turn": (TurnGate, "limits"),
}
"""The named gates: what each is, and the one setting it has."""
_CHOICES: Final = "{'entropy': nats}, {'window': tokens}, 'boundary', {'turn': {'final': takeovers}}"


def _gate(value: Any) -> Gate:
    """A gate from what a user writes: a gate, its fields, its name if it needs no setting, a callable."""
    if callable(value):
        return cast("Gate", value)
    if isinstance(value, Mapping) and "kind" in value:
        return _known(value["kind"])[0].of_fields(value)
    if isinstance(value, Mapping) and len(value) == 1:
        return _named(*next(iter(value.items())))
    if isinstance(value, str):
        return _named(value, ())
    msg = f"{value!r:.80} is no gate; give one of {_CHOICES}, or a callable"
    raise ValueError(msg)


def _named(kind: Any, setting: Any) -> Gate:
    """`"entropy", 0.5` and the like."""
    gate, name = _known(kind)
    if gate is BoundaryGate and (setting is True or setting == ()):
        return gate()
    if gate is BoundaryGate and isinstance(setting, str):
        setting = (setting,)
    return gate(**{name: setting})


def _known(kind: Any) -> tuple[_NamedGate, str]:
    if not isinstance(kind, str) or kind not in _GATES:
        msg = f"unknown gate {kind!r}; choose one of {_CHOICES}, or give a callable"
        raise ValueError(msg)
    return _GATES[kind]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a policy remembers of the positions before this one."""

    level: float
    """Takeovers in the bucket."""
    spent: int = 0
    """Takeovers so far."""
    asked: int = 0
    """Positions at which the reasoner was consulted so far."""
    scores: tuple[float, ...] = ()
    """The last `spike_window` scores."""


class Referee:
    """Applies one policy to one generation. Stateless: every answer follows from the `Standing` given."""

    def __init__(self, policy: DelegationPolicy) -> None:
        """Take the policy apart once, so that a token costs microseconds."""
        budget = policy.budget
        self.policy = policy
        self.base_only = policy.divergence in BASE_ONLY
        """Whether the base alone decides on a takeover."""
        self._gates: tuple[Callable[[GateView], bool], ...] = policy.gates
        self._last = min(
            (gate.first for gate in policy.gates if isinstance(gate, WindowGate)), default=math.inf
        )
        by_turn = [gate.most for gate in policy.gates if isinstance(gate, TurnGate)]
        self._limit = min([math.inf if budget.limit is None else budget.limit, *by_turn])
        self._asks = math.inf if budget.asks is None else budget.asks
        self._rate = budget.rate or 0.0
        self._capacity = budget.capacity

    def start(self) -> Standing:
        """The standing before the first token: a full bucket, nothing spent."""
        return Standing(level=self._capacity)

    def budget(self, standing: Standing) -> float:
        """Takeovers that could be spent at once right here."""
        return min(standing.level, self._limit - standing.spent)

    def is_over(self, standing: Standing, position: int) -> bool:
        """Whether the reasoner can never be heard again, so that it need not be run."""
        refills = self._rate > 0 and self._capacity >= 1
        return (
            position >= self._last
            or standing.spent >= self._limit
            or standing.asked >= self._asks
            or (standing.level < WHOLE and not refills)
        )

    def opens(self, standing: Standing, view: GateView) -> bool:
        """Whether the reasoner may be consulted at this position.

        Raises:
            GateError: If a user's gate raises.
        """
        if self.is_over(standing, view.position):
            return False
        try:
            return all(gate(view) for gate in self._gates)
        except Exception as error:
            msg = f"a gate raised {error!r} at position {view.position}; gates: {self._gates!r}"
            raise GateError(msg) from error

    def asks(self, standing: Standing, score: float | None) -> bool:
        """Whether the reasoner is consulted at an open position.

        Args:
            standing: Before it.
            score: The score, if the base alone decides it: then the reasoner is asked only to take over.
        """
        return score is None or self.fires(standing, score)

    def fires(self, standing: Standing, score: float) -> bool:
        """Whether a score at an open position makes it a takeover."""
        return score > self.bar(standing) and self.can_spend(standing)

    def can_spend(self, standing: Standing) -> bool:
        """Whether the budget holds a takeover right here."""
        return self.budget(standing) >= WHOLE

    def bar(self, standing: Standing) -> float:
        """What a score has to exceed: the threshold, or the spike over recent scores if that is more."""
        recent = standing.scores
        if not self.policy.spike or not recent:
            return self.policy.threshold
        return max(self.policy.threshold, self.policy.spike * (math.fsum(recent) / len(recent)))

    def after(self, standing: Standing, *, score: float | None, asked: bool, takeover: bool) -> Standing:
        """The standing one token on. A `score` of None never enters the spike's window."""
        scores = standing.scores
        if score is not None and self.policy.spike:
            scores = (*scores, score)[-self.policy.spike_window :]
        level = standing.level - takeover
        if level != self._capacity:
            level = min(self._capacity, level + self._rate)
        if not (asked or takeover):
            return (
                standing
                if level == standing.level and scores is standing.scores
                else replace(standing, level=level, scores=scores)
            )
        return Standing(level, standing.spent + takeover, standing.asked + asked, scores)
