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
from langgraph.types import Overwrite, Send
from typing_extensions import TypedDict

from delegate_llm.graph import (
    DelegationInput,
    DelegationState,
    ModelContext,
    delegated_node,
    fan_out,
    model_of,
    remaining,
)


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
    asked = [each for each in state["messages"] if isinstance(each, HumanMessage)][-1:]
    return [line for each in asked for line in each.text.splitlines() if line.strip()]


def begin(_: State) -> dict[str, Any]:
    """Forget what was answered before on this thread."""
    return {"answers": Overwrite([])}


def first_try(state: State, runtime: Runtime[ModelContext]) -> list[Send] | str:
    """Map: a branch for each question."""
    return branches(state, range(len(questions(state))), runtime)


def second_try(state: State, runtime: Runtime[ModelContext]) -> list[Send] | str:
    """What came back goes to as many of those that ran out as can have more than before, once."""
    hungry = [each for each in state["answers"] if each["ran_out"]]
    if len(state["answers"]) > len(questions(state)) or not hungry:
        return "reduce"
    more = max(each["part"] for each in hungry) + 1
    able = hungry[: remaining(state, ModelContext.of(runtime.context)) // more]
    return branches(state, [each["at"] for each in able], runtime)


def branches(state: State, lines: Any, runtime: Runtime[ModelContext]) -> list[Send] | str:
    """A worker for each of these questions, with its part of what is left."""
    asked = questions(state)
    payloads = [{"messages": [HumanMessage(asked[at])], "at": at} for at in lines]
    return fan_out("worker", payloads, state, context=ModelContext.of(runtime.context)) or "reduce"


def answered(message: AIMessage, state: dict[str, Any]) -> dict[str, Any]:
    """What a worker writes instead of a message."""
    spent = message.response_metadata["delegation"]["summary"]["takeovers"]
    part = state["delegation_budget"]["takeovers"]
    return {"answers": [Answer(at=state["at"], text=message.text, part=part, ran_out=spent >= part)]}


def reduce(state: State) -> dict[str, Any]:
    """The last answer to each question, a line each."""
    best = {each["at"]: each["text"] for each in state["answers"]}
    return {"messages": [AIMessage("\n".join(best[at] for at in sorted(best)))]}


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> begin -> workers side by side -> gather -> workers again, or reduce."""
    worker = delegated_node(model_of, name="worker", update=answered, context_schema=ModelContext)

    graph = StateGraph(State, context_schema=ModelContext, input_schema=DelegationInput)
    graph.add_node("begin", begin)
    graph.add_node("worker", worker)
    graph.add_node("gather", lambda _: {})  # one place to decide, once all workers are done
    graph.add_node("reduce", reduce)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", first_try, ["worker", "reduce"])
    graph.add_edge("worker", "gather")
    graph.add_conditional_edges("gather", second_try, ["worker", "reduce"])
    return graph.compile(checkpointer=checkpointer, name="map_reduce")


graph = build_graph()
