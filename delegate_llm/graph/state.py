"""What a graph keeps of delegation: a total, a ledger of what each call spent, and the traces.

All of it is JSON, so that any checkpointer keeps it. The ledger and the traces are keyed by the call, so
that merging is a union: what a retry, a cache, a resumed run or a subgraph brings a second time is already
there. What is left is derived from total and ledger and never stored, or parallel branches would overwrite
each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NotRequired, cast

from langgraph.graph import MessagesState
from typing_extensions import TypedDict

from delegate_llm.errors import PolicyError

__all__ = (
    "CallTrace",
    "Charge",
    "DelegationState",
    "Spent",
    "Takeover",
    "Total",
    "add_spent",
    "add_traces",
    "as_count",
    "as_spent",
    "as_total",
    "either",
    "ledger",
    "lower_total",
    "merge_grants",
)


class Total(TypedDict):
    """What a run may spend."""

    takeovers: int
    asks: int | None
    """Positions at which the reasoner may be consulted; None for as many as the takeovers need."""
    account: str
    """Names the budget; a branch's part of it is `budget/part`."""


class Charge(TypedDict):
    """What one call spent."""

    node: str
    takeovers: int
    asks: int
    """Positions at which the reasoner was consulted."""
    tokens: int
    """Tokens generated."""
    allotted: int | None
    """Takeovers it was allowed."""


class Spent(TypedDict):
    """What a run has spent."""

    takeovers: int
    asks: int
    calls: dict[str, Charge]
    """By the id of the call's record; the two sums above are theirs."""


class Takeover(TypedDict):
    """One takeover."""

    position: int
    """Among the tokens of its answer; 0 is the first."""
    token: str
    base_token: str
    """What the base would have said."""
    reasoner_token: str | None
    """What the reasoner would have said if it were greedy."""
    score: float | None
    """Divergence there, in nats for most."""
    changed: bool
    """Whether the token differs from the base's own."""


class CallTrace(TypedDict):
    """What the reasoner did in one call of the model."""

    id: str
    """Of the record in the message's `response_metadata["delegation"]`."""
    node: str
    step: int | None
    """Of the graph."""
    call: int
    """How many calls the node had made before, as far as this branch knew."""
    tokens: int
    asks: int
    changed: int
    """Takeovers whose token differs from the base's own."""
    share: float
    """Takeovers per token."""
    allotted: int | None
    reasoner_forwards: int
    reasoner_tokens: int
    """Tokens the reasoner processed, its prompt included."""
    takeovers: list[Takeover]


# --- Reducers ---


def lower_total(held: Any, given: Any) -> Total | None:
    """A total that stands: what comes later may lower it, never raise it, and a branch's part is no total.

    Args:
        held: What the state has; None or empty for nothing.
        given: A count of takeovers, `{"takeovers": n, "asks": m}`, a `Total`, or None for no change.

    Raises:
        PolicyError: If it is none of these.
    """
    new = as_total(given)
    if not held:
        return new
    old = cast("Total", as_total(held))  # whoever overwrote it may have left a plain count
    if new is None or (isinstance(given, Mapping) and given.get("account") not in (None, old["account"])):
        return old
    asks = [each for each in (old["asks"], new["asks"]) if each is not None]
    return Total(
        takeovers=min(old["takeovers"], new["takeovers"]),
        asks=min(asks, default=None),
        account=old["account"],
    )


def add_spent(held: Any, given: Any) -> Spent:
    """Both ledgers together; a call that is in both counts once, as it was first written.

    Args:
        held: What the state has.
        given: A `Spent`, or a count of takeovers that nobody else has charged.

    Raises:
        PolicyError: If it is neither.
    """
    calls = ledger(held)
    calls.update((name, each) for name, each in ledger(given).items() if name not in calls)
    return Spent(
        takeovers=sum(each["takeovers"] for each in calls.values()),
        asks=sum(each["asks"] for each in calls.values()),
        calls=calls,
    )


def add_traces(held: Any, given: Any) -> list[CallTrace]:
    """Both lists, each call once."""
    found: list[CallTrace] = []
    seen: set[str] = set()
    for trace in (*(held or ()), *_traces(given)):
        if trace["id"] not in seen:
            seen.add(trace["id"])
            found.append(trace)
    return found


def merge_grants(held: Any, given: Any) -> dict[str, int]:
    """All grants: takeovers that a person or an operator added to the total, by an id of the grant.

    Raises:
        PolicyError: If one is no count.
    """
    if given is not None and not isinstance(given, Mapping):
        given = {uuid.uuid4().hex: given}
    grants = {**(held or {}), **(given or {})}
    return {name: as_count("delegation_grants", count) for name, count in grants.items()}


def either(held: Any, given: Any) -> bool:
    """Whether one of several nodes of a step, or one before them, has decided so."""
    return bool(held or given)


class DelegationState(MessagesState):
    """State of a graph whose nodes share one budget of takeovers. Extend it with your own keys.

    `delegation_budget` is set by the input, `graph.invoke({"messages": [...], "delegation_budget": 8})`, or
    is the `total` of the run's `DelegationContext`; where both are given, the smaller one stands.
    """

    delegation_budget: NotRequired[Annotated[Total, lower_total]]
    """The total. Takes a count, or `{"takeovers": 8, "asks": 200}`."""
    delegation_spent: NotRequired[Annotated[Spent, add_spent]]
    """What was spent, by call."""
    delegation_traces: NotRequired[Annotated[list[CallTrace], add_traces]]
    """What the reasoner did, call by call."""
    delegation_grants: NotRequired[Annotated[dict[str, int], merge_grants]]
    """What was added to the total, by grant."""
    delegation_alone: NotRequired[Annotated[bool, either]]
    """Whether a person decided that the base goes on alone; only `Overwrite(value=False)` takes it back."""


# --- Reading ---


def as_count(name: str, value: Any) -> int:
    """The value, if it is a count.

    Raises:
        PolicyError: If it is negative or no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"{name}: {value!r:.80} is not a count of takeovers, a whole number of at least 0"
        raise PolicyError(msg)
    return value


_TOTAL_KEYS: Final = frozenset(Total.__annotations__)


def as_total(value: Any) -> Total | None:
    """The total that a value means; None for None or nothing.

    Raises:
        PolicyError: If it means none.
    """
    if value is None or value == {}:
        return None
    if not isinstance(value, Mapping):
        value = {"takeovers": value}
    if value.keys() - _TOTAL_KEYS or "takeovers" not in value:
        msg = f"delegation_budget: {value!r:.80} is neither a count nor {{'takeovers': 8, 'asks': 200}}"
        raise PolicyError(msg)
    asks, account = value.get("asks"), value.get("account")
    if account is not None and not isinstance(account, str):
        msg = f"delegation_budget, account: {account!r:.80} is no name"
        raise PolicyError(msg)
    return Total(
        takeovers=as_count("delegation_budget", value["takeovers"]),
        asks=None if asks is None else as_count("delegation_budget, asks", asks),
        account=account or uuid.uuid4().hex,
    )


def ledger(spent: Any) -> dict[str, Charge]:
    """The calls of what was spent; a plain count is one call more."""
    if not spent:
        return {}
    if isinstance(spent, Mapping):
        if isinstance(calls := spent.get("calls"), Mapping):
            return {name: _charge(name, each) for name, each in calls.items()}
        msg = f"delegation_spent: {spent!r:.80} has no calls; `record(message)` makes what belongs there"
        raise PolicyError(msg)
    count = as_count("delegation_spent", spent)
    return {uuid.uuid4().hex: Charge(node="", takeovers=count, asks=count, tokens=0, allotted=None)}


def as_spent(calls: Mapping[str, Charge]) -> Spent:
    """What these calls spent."""
    return add_spent(None, {"calls": calls})


def _charge(name: Any, given: Any) -> Charge:
    if not isinstance(given, Mapping) or Charge.__annotations__.keys() - given.keys():
        msg = f"delegation_spent: {given!r:.80} is no charge; `record(message)` makes what belongs there"
        raise PolicyError(msg)
    for each in ("takeovers", "asks", "tokens"):
        as_count(f"delegation_spent, {name}, {each}", given[each])
    return cast("Charge", given)


def _traces(given: Any) -> Iterable[CallTrace]:
    if given is None:
        return ()
    if isinstance(given, list) and all(isinstance(each, Mapping) and "id" in each for each in given):
        return given
    msg = f"delegation_traces: {given!r:.80} is no list of traces; `record(message)` makes what belongs there"
    raise PolicyError(msg)
