"""A limit for a thread and one for each of its runs, both at once: pure functions of an agent's state.

The core in `allocation` knows one total and one ledger. Here it is asked once for each limit that is set,
with that part of the ledger that counts for it, and the smaller answer stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, get_args

from delegate_llm.errors import PolicyError
from delegate_llm.gates import Turn
from delegate_llm.graph.allocation import DelegationContext, allot, remaining, remaining_asks
from delegate_llm.graph.state import Total, as_count, as_spent, ledger, merge_grants
from delegate_llm.graph.strategies import ALL, ByRole, Strategy

__all__ = ("KINDS", "Limits", "Part", "as_turn_shares", "so_far")

KINDS: Final[tuple[Turn, ...]] = get_args(Turn)
"""What an answer may turn out to be, see `TurnGate`."""


class Part(NamedTuple):
    """What the next call may spend."""

    takeovers: Mapping[str, int]
    """By the node that the call may be charged to."""
    asks: int | None
    """None for no cap of its own."""
    left: int
    """Takeovers that are left to the agent before the call."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an agent may spend in a thread, and in one run of it; None for no limit.

    Raises:
        PolicyError: If there is none at all, or one is no count.
    """

    node: str
    """What calls are charged to, if not to the kind of answer that they turn out to be."""
    thread_limit: int | None = None
    run_limit: int | None = None
    thread_asks: int | None = None
    run_asks: int | None = None
    shares: Mapping[str, float] | None = None
    """Of each limit, by kind of answer."""
    strategy: Strategy = ALL

    def __post_init__(self) -> None:
        """Check the limits."""
        names = ("thread_limit", "run_limit", "thread_asks", "run_asks")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if not given:
            msg = f"there is no limit; give at least one of {', '.join(names)}, such as run_limit=8"
            raise PolicyError(msg)
        for name, value in given.items():
            as_count(name, value)

    @property
    def nodes(self) -> tuple[str, ...]:
        """What a call may be charged to."""
        return (self.node,) if self.shares is None else KINDS

    def part(self, state: Mapping[str, Any], context: DelegationContext) -> Part:
        """What the next call may spend, never more than any limit leaves.

        Args:
            state: Of the agent.
            context: Of the run: its total and asks may only lower the run's limits.

        Raises:
            PolicyError: If the context has shares, and none of a node that calls are charged to.
        """
        views, own = self._views(state, context), _without_total(context)
        takeovers, asks = {}, []
        for node in self.nodes:
            parts = [
                allot(view, node, share=self._share(node), strategy=self.strategy, context=own)
                for view in views
            ]
            takeovers[node] = min(each.takeovers for each in parts)
            asks.append(_least(*(each.asks for each in parts)))
        most = None if None in asks else max(each for each in asks if each is not None)
        return Part(takeovers, most, min(remaining(view, own) for view in views))

    def spent_out(self, state: Mapping[str, Any], context: DelegationContext) -> dict[str, Any] | None:
        """The state as the limit sees it of which nothing is left; None while the agent can go on.

        It can, too, if a person decided that the base goes on alone.

        Args:
            state: Of the agent.
            context: Of the run.
        """
        if state.get("delegation_alone"):
            return None
        shares = DelegationContext(shares=context.shares)  # whatever a strategy may want to save for later
        for view in self._views(state, context):
            parts = (allot(view, node, share=self._share(node), context=shares) for node in self.nodes)
            if remaining_asks(view) == 0 or not any(each.takeovers for each in parts):
                return view
        return None

    def _share(self, node: str) -> float | None:
        return None if self.shares is None else self.shares[node]

    def _views(self, state: Mapping[str, Any], context: DelegationContext) -> list[dict[str, Any]]:
        """The state as each limit sees it, in the words of the core."""
        run_limit, run_asks = _least(self.run_limit, context.total), _least(self.run_asks, context.asks)
        before = frozenset(state.get("delegation_before") or ())
        views = (
            _view(state, "thread", self.thread_limit, self.thread_asks, frozenset()),
            _view(state, "run", run_limit, run_asks, before),
        )
        return [view for view in views if view is not None]


def so_far(state: Mapping[str, Any]) -> list[str]:
    """The calls and grants that a state has, by their ids: what a run that starts now does not count."""
    return [*ledger(state.get("delegation_spent")), *merge_grants(None, state.get("delegation_grants"))]


def as_turn_shares(shares: Any) -> Mapping[str, float] | None:
    """The shares, if they are some of both kinds of answer.

    Raises:
        PolicyError: If they are not.
    """
    if shares is None:
        return None
    checked = ByRole(shares).shares
    if checked.keys() != set(KINDS):
        msg = (
            f"shares: {shares!r:.80} must have both kinds of answer and nothing else; "
            "give {'tool_call': 0.8, 'final': 0.2}, 0 for the base alone"
        )
        raise PolicyError(msg)
    return checked


def _view(
    state: Mapping[str, Any], account: str, limit: int | None, asks: int | None, before: frozenset[str]
) -> dict[str, Any] | None:
    takeovers = asks if limit is None else limit  # nobody takes over where nobody was asked
    if takeovers is None:
        return None
    calls, grants = ledger(state.get("delegation_spent")), state.get("delegation_grants") or {}
    return {
        "delegation_budget": Total(takeovers=takeovers, asks=asks, account=account),
        "delegation_spent": as_spent({name: each for name, each in calls.items() if name not in before}),
        "delegation_grants": {name: each for name, each in grants.items() if name not in before},
        "delegation_alone": state.get("delegation_alone", False),
    }


def _without_total(context: DelegationContext) -> DelegationContext:
    """What holds for every view alike; the total is in the run's already."""
    return DelegationContext(shares=context.shares, threshold=context.threshold, strategy=context.strategy)


def _least(*values: int | None) -> int | None:
    return min((each for each in values if each is not None), default=None)
