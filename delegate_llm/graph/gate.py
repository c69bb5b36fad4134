"""Asking a person what to do once the budget is spent, before anything is generated.

The question is an interrupt, so the graph needs a checkpointer. It belongs in a node of its own: a node
that is interrupted runs from its start again.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import END
from langgraph.runtime import get_runtime
from langgraph.types import Command, interrupt
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from delegate_llm.errors import PolicyError
from delegate_llm.graph.allocation import DelegationContext, remaining, remaining_asks, total_of
from delegate_llm.graph.state import as_count, as_spent, ledger

__all__ = ("BudgetAnswer", "BudgetQuestion", "ask_for_budget", "budget_gate")


class BudgetQuestion(TypedDict):
    """What a person is asked; the value of the interrupt."""

    type: Literal["delegation_budget"]
    question: str
    total: int
    """Takeovers that the run could spend."""
    spent: int
    asks: int | None
    """Positions at which it could consult the reasoner; None for no cap."""
    asked: int
    answers: dict[str, str]
    """What may be answered, with what it does."""
    error: NotRequired[str]
    """What was wrong with the answer before."""


class BudgetAnswer(TypedDict):
    """What the run is resumed with: `Command(resume={"action": "grant", "takeovers": 4})`."""

    action: Literal["grant", "base", "stop"]
    takeovers: NotRequired[int]
    """How many more, with `"grant"`."""


_ANSWERS: Final = {
    '{"action": "grant", "takeovers": 4}': "adds so many takeovers to the total and goes on",
    '{"action": "base"}': "goes on with the base alone",
    '{"action": "stop"}': "ends the run here",
}
_TYPED: Final[dict[str, Any]] = (  # newer than the oldest langgraph that we take
    {"response_schema": TypeAdapter(BudgetAnswer).json_schema()}
    if "response_schema" in inspect.signature(interrupt).parameters
    else {}
)


def budget_gate(
    *, then: str, otherwise: str = END, context_schema: type[DelegationContext] = DelegationContext
) -> Runnable[Any, Command[str]]:
    """A node that lets through while there is budget, and asks a person once there is none.

    Its question is a `BudgetQuestion`, the answer a `BudgetAnswer`; nonsense is asked again, with what was
    wrong. Whoever answered `"base"` is not asked again.

    Args:
        then: The node to go on with.
        otherwise: Where to go if the person stops the run.
        context_schema: Of the graph, whose defaults hold for a run without context.

    Returns:
        For `graph.add_node("gate", gate, destinations=(then, otherwise))`.
    """

    def gate(state: Mapping[str, Any]) -> Command[str]:
        context = context_schema.of(get_runtime().context)
        held, grants = dict(state.get("delegation_grants") or {}), dict[str, int]()
        while is_exhausted(now := {**state, "delegation_grants": {**held, **grants}}, context):
            match ask_for_budget(now, context):
                case {"action": "stop"}:
                    return Command(goto=otherwise)
                case {"action": "base"}:
                    return Command(goto=then, update={"delegation_alone": True, "delegation_grants": grants})
                case {"action": "grant", "takeovers": count}:
                    grants[uuid.uuid4().hex] = count  # which may not be enough, if more was spent before
        return Command(goto=then, update={"delegation_grants": grants} if grants else None)

    return RunnableLambda(gate, name="budget_gate")


def is_exhausted(state: Mapping[str, Any], context: DelegationContext) -> bool:
    """Whether nothing is left, and nobody has decided yet to go on without."""
    spent = 0 in (remaining(state, context), remaining_asks(state, context))
    return spent and not state.get("delegation_alone")


def ask_for_budget(state: Mapping[str, Any], context: DelegationContext) -> BudgetAnswer:
    """Interrupt the run until a person has said what to do.

    Args:
        state: Of the graph.
        context: Of the run.
    """
    total, spent = total_of(state, context), as_spent(ledger(state.get("delegation_spent")))
    question = BudgetQuestion(
        type="delegation_budget",
        question="The budget of takeovers is spent. Grant more, go on with the base alone, or stop?",
        total=total["takeovers"],
        spent=spent["takeovers"],
        asks=total["asks"],
        asked=spent["asks"],
        answers=_ANSWERS,
    )
    while True:
        given = interrupt(question, **_TYPED)
        try:
            return _answer(given)
        except PolicyError as error:
            question = BudgetQuestion(**{**question, "error": str(error)})


def _answer(given: Any) -> BudgetAnswer:
    action = given.get("action") if isinstance(given, Mapping) else None
    if action in ("base", "stop"):
        return BudgetAnswer(action=action)
    if action == "grant":
        count = as_count("takeovers", given.get("takeovers"))
        if count == 0:
            msg = "takeovers: 0 grants nothing; answer with the action 'base' or 'stop', or a count above 0"
            raise PolicyError(msg)
        return BudgetAnswer(action="grant", takeovers=count)
    msg = f"{given!r:.80} is no answer; give one of {', '.join(_ANSWERS)}"
    raise PolicyError(msg)
