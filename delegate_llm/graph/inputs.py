"""What a caller may put into a graph: a question and a lower limit, and nothing of the books."""

from __future__ import annotations

from typing import NotRequired

from langgraph.graph import MessagesState
from typing_extensions import TypedDict

__all__ = ("DelegationInput", "Limit")


class Limit(TypedDict):
    """A total that also caps the positions at which the reasoner is consulted."""

    takeovers: int
    asks: NotRequired[int | None]


class DelegationInput(MessagesState):
    """Input of a graph over `DelegationState`, as `StateGraph(State, input_schema=DelegationInput)`.

    Without it an input may have every key of the state, and could grant itself takeovers or bring a ledger of
    its own. What is spent, traced and granted is written by nodes alone then.
    """

    delegation_budget: NotRequired[int | Limit]
    """What the run may spend; it can lower the total of the run's context, and never raise it."""
