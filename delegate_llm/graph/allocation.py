"""Who may spend how much of a run's budget: pure functions of the state, shared by nodes and middleware."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple, Self

from delegate_llm.errors import PolicyError
from delegate_llm.graph.state import Total, as_count, as_total, ledger, merge_grants
from delegate_llm.graph.strategies import (
    ALL,
    ByRole,
    Outlook,
    Strategy,
    as_shares,
    is_number,
    left_of,
    own_part,
    strategy_named,
    unknown_node,
)

__all__ = (
    "Allotment",
    "DelegationContext",
    "allot",
    "outlook",
    "remaining",
    "remaining_asks",
    "split",
    "total_of",
)


CONTEXT: Final = "context"
"""The account of a total that is the context's own."""


@dataclass(frozen=True, kw_only=True)
class DelegationContext:
    """Settings of one run of a graph: `graph.invoke(..., context=DelegationContext(total=8))`.

    Raises:
        PolicyError: If one of them is out of range.
    """

    total: int | None = None
    """Takeovers that the run may spend; a `delegation_budget` in the state may only lower it."""
    asks: int | None = None
    """Positions at which the reasoner may be consulted."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the total, by node, in [0, 1]: instead of what the nodes were made with. Once there are any, every
    delegated node must be named, 0 for the base alone, so that a misspelled name is an error."""
    threshold: float | None = None
    """Instead of the models' own: scores above it call for a takeover."""
    strategy: str | None = None
    """Instead of the nodes' own: one of `STRATEGIES`."""

    def __post_init__(self) -> None:
        """Check everything at once."""
        for name in ("total", "asks"):
            if (value := getattr(self, name)) is not None:
                as_count(name, value)
        object.__setattr__(self, "shares", as_shares(self.shares))
        if self.threshold is not None and not is_number(self.threshold, math.inf):
            msg = f"threshold: {self.threshold!r} is not a number of at least 0"
            raise PolicyError(msg)
        if self.strategy is not None:
            strategy_named(self.strategy)

    @classmethod
    def of(cls, context: Any) -> Self:
        """The settings in a run's context: these, others or a dict that have some of them, or none at all.

        Raises:
            PolicyError: If one is out of range.
        """
        if isinstance(context, cls):
            return context
        given = vars(context) if isinstance(context, DelegationContext) else context
        if not isinstance(given, Mapping):  # of a schema of the user's own
            return cls()
        names = (each.name for each in fields(cls))
        return cls(**{name: given[name] for name in names if given.get(name) is not None})


class Allotment(NamedTuple):
    """What a call may spend."""

    takeovers: int
    asks: int | None
    """None for no cap of its own."""


def total_of(state: Mapping[str, Any], context: DelegationContext | None = None) -> Total:
    """What the run may spend in all: the smaller of the state's total and the context's, and the grants.

    Raises:
        PolicyError: If neither has one.
    """
    context = context or DelegationContext()
    own = as_total(state.get("delegation_budget"))
    if own is None and context.total is None:
        msg = (
            "delegation_budget: the run has none; invoke the graph with {'delegation_budget': 8}, "
            "or with context=DelegationContext(total=8)"
        )
        raise PolicyError(msg)
    granted = sum(merge_grants(None, state.get("delegation_grants")).values())
    counts = [each for each in (own and own["takeovers"], context.total) if each is not None]
    takeovers = min(counts)
    asks = min((each for each in (own and own["asks"], context.asks) if each is not None), default=None)
    return Total(
        takeovers=takeovers + granted,
        asks=None if asks is None else asks + _granted_asks(granted, takeovers, asks),
        account=own["account"] if own else CONTEXT,
    )


def remaining(state: Mapping[str, Any], context: DelegationContext | None = None) -> int:
    """Takeovers that are left; 0 also where more was spent than a smaller total now allows.

    Raises:
        PolicyError: If the run has no total.
    """
    taken = sum(each["takeovers"] for each in ledger(state.get("delegation_spent")).values())
    return max(0, total_of(state, context)["takeovers"] - taken)


def remaining_asks(state: Mapping[str, Any], context: DelegationContext | None = None) -> int | None:
    """Positions at which the reasoner may still be consulted; None for no cap."""
    asks = total_of(state, context)["asks"]
    asked = sum(each["asks"] for each in ledger(state.get("delegation_spent")).values())
    return None if asks is None else max(0, asks - asked)


def outlook(state: Mapping[str, Any], node: str, context: DelegationContext | None = None) -> Outlook:
    """What a strategy may know before a call of a node."""
    charges = tuple(ledger(state.get("delegation_spent")).values())
    return Outlook(node, total_of(state, context)["takeovers"], remaining(state, context), charges)


def allot(
    state: Mapping[str, Any],
    node: str,
    *,
    share: float | None = None,
    budget: int | None = None,
    strategy: str | Strategy = ALL,
    context: DelegationContext | None = None,
) -> Allotment:
    """What the next call of a node may spend, never more than is left.

    Args:
        state: Of the graph, as `DelegationState`.
        node: The name of the node.
        share: Of the total that the node may spend over the whole run, in [0, 1].
        budget: Takeovers that it may, instead.
        strategy: How the node's calls divide that.
        context: Of the run; its share of the node and its strategy replace the ones above.

    Raises:
        PolicyError: If the run has no total, or its context has shares, and none of this node.
    """
    context = context or DelegationContext()
    view = outlook(state, node, context)
    own = _own(view, share, budget, context)
    if state.get("delegation_alone"):
        own = 0
    chosen = strategy_named(context.strategy or strategy)
    if node in context.shares and isinstance(chosen, ByRole):
        chosen = ALL  # the context's shares are instead of these
    wanted = chosen(replace(view, remaining=own))
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        msg = f"strategy: {chosen!r} gave {wanted!r} instead of a count of takeovers"
        raise PolicyError(msg)
    takeovers = max(0, min(own, wanted))
    return Allotment(takeovers, _asks(remaining_asks(state, context), takeovers, view.remaining))


def split(state: Mapping[str, Any], count: int, *, context: DelegationContext | None = None) -> list[Total]:
    """What is left, in equal parts for branches that run side by side; the first ones get what is over.

    Args:
        state: Of the graph.
        count: How many branches.
        context: Of the run.

    Returns:
        A `delegation_budget` for each branch. Together they never come to more than is left.
    """
    takeovers = 0 if state.get("delegation_alone") else remaining(state, context)
    asks, account = remaining_asks(state, context), total_of(state, context)["account"]
    return [
        Total(
            takeovers=_part(takeovers, count, at),
            asks=None if asks is None else _part(asks, count, at),
            account=f"{account}/{uuid.uuid4().hex}",
        )
        for at in range(count)
    ]


def _own(view: Outlook, share: float | None, budget: int | None, context: DelegationContext) -> int:
    """What is left of the node's own part, or of everything where it has none."""
    if context.shares:
        if view.node not in context.shares:
            raise PolicyError(unknown_node(view.node, context.shares))
        share, budget = context.shares[view.node], None
    if share is not None:
        return own_part(share, view)
    return view.remaining if budget is None else left_of(budget, view)


def _asks(left: int | None, takeovers: int, remaining: int) -> int | None:
    """Of the asks that are left, as large a part as of the takeovers."""
    if left is None or takeovers == 0:
        return None if left is None else 0
    return math.ceil(left * takeovers / remaining)


def _granted_asks(granted: int, takeovers: int, asks: int) -> int:
    """A takeover that is granted brings its asks: as many as one of the total has, and one at least."""
    return max(granted, math.ceil(granted * asks / takeovers)) if takeovers else granted


def _part(whole: int, count: int, at: int) -> int:
    return whole // count + (at < whole % count)
