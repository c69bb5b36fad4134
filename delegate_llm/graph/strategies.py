"""Strategies: how much of what is left the next call may spend.

A strategy sees an `Outlook` and returns a count of takeovers; any function of that kind will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from delegate_llm.errors import PolicyError
from delegate_llm.graph.state import Charge, as_count

__all__ = (
    "ALL",
    "STRATEGIES",
    "Adaptive",
    "ByRole",
    "Even",
    "Everything",
    "FrontLoaded",
    "Outlook",
    "Strategy",
    "as_share",
    "as_shares",
    "is_number",
    "left_of",
    "own_part",
    "strategy_named",
    "unknown_node",
)


@dataclass(frozen=True)
class Outlook:
    """What a strategy may know."""

    node: str
    total: int
    """Takeovers of the whole run, grants included."""
    remaining: int
    """Of them, what this node could spend."""
    charges: tuple[Charge, ...] = ()
    """Of the calls before, in order."""

    @property
    def of_node(self) -> tuple[Charge, ...]:
        """Those of this node."""
        return tuple(each for each in self.charges if each["node"] == self.node)


Strategy: TypeAlias = Callable[[Outlook], int]


@dataclass(frozen=True)
class Everything:
    """Each call may spend all that is left: first come, first served."""

    def __call__(self, outlook: Outlook) -> int:
        """The takeovers of the next call."""
        return outlook.remaining


@dataclass(frozen=True)
class Even:
    """The same for each of about `calls` calls of the node; later ones share what is left as it is."""

    calls: int = 8

    def __post_init__(self) -> None:
        """Check the number."""
        if as_count("calls", self.calls) < 1:
            msg = "calls: 0 calls cannot share anything; give at least 1"
            raise PolicyError(msg)

    def __call__(self, outlook: Outlook) -> int:
        """The takeovers of the next call."""
        return math.ceil(outlook.remaining / max(1, self.calls - len(outlook.of_node)))


@dataclass(frozen=True)
class FrontLoaded:
    """A fraction of what is left for each call: plans, which come early, get most."""

    fraction: float = 0.5

    def __post_init__(self) -> None:
        """Check the fraction."""
        as_share("fraction", self.fraction)

    def __call__(self, outlook: Outlook) -> int:
        """The takeovers of the next call."""
        return math.ceil(outlook.remaining * self.fraction)


@dataclass(frozen=True)
class ByRole:
    """A share of the total for each node over the whole run, such as `{"planner": 0.75, "critic": 0.25}`."""

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        """Check the shares."""
        object.__setattr__(self, "shares", as_shares(self.shares))

    def __call__(self, outlook: Outlook) -> int:
        """The takeovers of the next call.

        Raises:
            PolicyError: If the node has no role.
        """
        if outlook.node not in self.shares:
            raise PolicyError(unknown_node(outlook.node, self.shares))
        return own_part(self.shares[outlook.node], outlook)


@dataclass(frozen=True)
class Adaptive:
    """More where the models part: a call that used up its allotment doubles the next one, another halves it.

    A call that was allowed nothing tells nothing; the next one begins anew.
    """

    start: float = 0.25
    """Of what is left, for the first call."""

    def __post_init__(self) -> None:
        """Check the fraction."""
        as_share("start", self.start)

    def __call__(self, outlook: Outlook) -> int:
        """The takeovers of the next call."""
        last = next((each for each in reversed(outlook.charges) if each["allotted"]), None)
        if last is None:
            return math.ceil(outlook.remaining * self.start)
        allotted = last["allotted"] or 1
        dense = last["takeovers"] >= allotted
        return 2 * allotted if dense else max(1, math.ceil(allotted / 2))


STRATEGIES: Final[Mapping[str, Callable[[], Strategy]]] = {
    "all": Everything,
    "even": Even,
    "front-loaded": FrontLoaded,
    "adaptive": Adaptive,
}
"""By name; `ByRole` needs its shares and has none."""
ALL: Final = Everything()


def strategy_named(strategy: str | Strategy) -> Strategy:
    """The strategy of that name, or the one given.

    Raises:
        PolicyError: If there is none.
    """
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    if isinstance(strategy, str) or not callable(strategy):
        msg = f"strategy: {strategy!r:.80} is unknown; give one of {', '.join(STRATEGIES)}, or a function"
        raise PolicyError(msg)
    return strategy


def as_share(name: str, value: Any) -> float:
    """The value, if it is a share.

    Raises:
        PolicyError: If it is no number in [0, 1].
    """
    if not is_number(value, 1):
        msg = f"{name}: {value!r:.80} is not a share, a number in [0, 1]"
        raise PolicyError(msg)
    return float(value)


def own_part(share: float, view: Outlook) -> int:
    """What is left of a share of the total, to the node that has it."""
    return left_of(math.floor(share * view.total + 0.5), view)


def left_of(part: int, view: Outlook) -> int:
    """What is left of a node's part."""
    return max(0, min(view.remaining, part - sum(each["takeovers"] for each in view.of_node)))


def unknown_node(node: str, shares: Mapping[str, float]) -> str:
    """What to say of a node that has no share."""
    named = ", ".join(f"{each!r}" for each in shares)
    return f"shares: node {node!r} is not among {named}; give it a share, 0 for the base alone"


def as_shares(given: Any) -> dict[str, float]:
    """The shares of nodes, if they are some.

    Raises:
        PolicyError: If one is none, or they come to more than the whole.
    """
    shares = {name: as_share(f"shares: {name!r}", value) for name, value in _mapping(given).items()}
    if (whole := math.fsum(shares.values())) > 1 + 1e-9:
        msg = f"shares: they come to {whole:g}, which is more than the whole, 1"
        raise PolicyError(msg)
    return shares


def _mapping(shares: Any) -> Mapping[str, Any]:
    if isinstance(shares, Mapping):
        return shares
    msg = f"shares: {shares!r:.80} is no mapping of node names to shares"
    raise PolicyError(msg)


def is_number(value: Any, most: float) -> bool:
    """Whether a value is a number between 0 and `most`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
