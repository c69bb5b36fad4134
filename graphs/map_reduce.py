"""Many questions at once, under one budget: no branch can spend what another one holds.

Each line of the last message is a question. They are answered side by side, each with its part of the
budget. What the easy ones leave comes back, and those whose part ran out get a second try with it.
"""

import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send
from typing_extensions import TypedDict

from delegate_llm.graph import DelegationState, ModelContext, delegated_node, fan_out, model_of, remaining


class Answer(TypedDict):
    """What a branch found."""

    at: int
    """Which question, by its line."""
    text: str
    part: int
    """Takeovers that it could spend."""
    ran_out: bool
    """Whether it spent them all, so that more might have helped."""


class State(DelegationState):
    """Messages, the budget, and the answers of all branches."""

    answers: Annotated[list[Answer], operator.add]


def questions(state: State) -> list[str]:
    """One a line."""
    asked = next(each for each in reversed(state["messages"]) if isinstance(each, HumanMessage))
    return [line for line in asked.text.splitlines() if line.strip()]


def to_workers(state: State, runtime: Runtime[ModelContext]) -> list[Send]:
    """Map: a branch for each question, with its part of what is left."""
    branches = [{"messages": [HumanMessage(line)], "at": at} for at, line in enumerate(questions(state))]
    return fan_out("worker", branches, state, context=ModelContext.of(runtime.context))


def answered(message: AIMessage, state: dict[str, Any]) -> dict[str, Any]:
    """What a worker writes instead of a message."""
    spent = message.response_metadata["delegation"]["summary"]["takeovers"]
    part = state["delegation_budget"]["takeovers"]
    return {"answers": [Answer(at=state["at"], text=message.text, part=part, ran_out=spent >= part)]}


def again(state: State, runtime: Runtime[ModelContext]) -> list[Send] | str:
    """What came back goes to as many of those that ran out as can have more than before, once."""
    asked, context = questions(state), ModelContext.of(runtime.context)
    hungry = [each for each in state["answers"] if each["ran_out"]]
    if len(state["answers"]) > len(asked) or not hungry:
        return "reduce"
    able = hungry[: remaining(state, context) // (max(each["part"] for each in hungry) + 1)]
    branches = [{"messages": [HumanMessage(asked[each["at"]])], "at": each["at"]} for each in able]
    return fan_out("worker", branches, state, context=context) or "reduce"


def reduce(state: State) -> dict[str, Any]:
    """The last answer to each question, a line each."""
    best = {each["at"]: each["text"] for each in state["answers"]}
    return {"messages": [AIMessage("\n".join(best[at] for at in sorted(best)))]}


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> worker (side by side) -> again? -> reduce."""
    graph = StateGraph(State, context_schema=ModelContext)
    graph.add_node(
        "worker", delegated_node(model_of, name="worker", update=answered, context_schema=ModelContext)
    )
    graph.add_node("gather", lambda _: {}, defer=True)
    graph.add_node("reduce", reduce)
    graph.add_conditional_edges(START, to_workers, ["worker"])
    graph.add_edge("worker", "gather")
    graph.add_conditional_edges("gather", again, ["worker", "reduce"])
    return graph.compile(checkpointer=checkpointer, name="map_reduce")


graph = build_graph()
