"""Plan, execute, check: the reasoner is heard where the plan is made, and not at all where it is carried out.

The planner answers in words and gets most of the budget. The executor carries the plan out with tools, as a
base can do alone: it has no share, so no reasoner runs there. The critic says what came out of it, with the
rest of the budget.
"""

import re
from functools import partial
from typing import Any, Literal

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from delegate_llm.graph import DelegationInput, DelegationState, ModelContext, delegated_node, model_of
from graphs.tools import TOOLS, with_tools

STEP = re.compile(rf"\b({'|'.join(each.__name__ for each in TOOLS)})\b")


class State(DelegationState):
    """Messages, the budget, and the plan."""

    plan: list[str]
    """Names of tools, in the order in which they are to be called."""


# --- The planner ---


def question(state: State) -> list[HumanMessage]:
    """What it reads: the last question alone, without tools."""
    return [each for each in state["messages"] if isinstance(each, HumanMessage)][-1:]


def planned(message: AIMessage, _: State) -> dict[str, Any]:
    """What it writes: the tools that its plan in words names, in order."""
    return {"plan": STEP.findall(message.text)}


# --- The executor ---


def as_planned(state: State) -> dict[str, Any]:
    """It calls the next tool of the plan, whatever it likes better; the arguments are its own."""
    return {"tool_choice": state["plan"][steps_done(state)]}


def next_step(state: State) -> Literal["executor", "critic"]:
    """Whether a step of the plan is left."""
    return "executor" if steps_done(state) < len(state["plan"]) else "critic"


def steps_done(state: State) -> int:
    """How many tools have answered since the last question."""
    kinds = [each.type for each in state["messages"]]
    last_question = len(kinds) - kinds[::-1].index("human")
    return kinds[last_question:].count("tool")


# --- The graph ---


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> planner -> (executor -> tools)* -> critic, who may call a tool more."""
    node = partial(delegated_node, context_schema=ModelContext)
    planner = node(model_of, name="planner", share=0.75, prompt=question, update=planned)
    executor = node(with_tools, name="executor", share=0.0, settings=as_planned)
    critic = node(with_tools, name="critic", share=0.25)

    graph = StateGraph(State, context_schema=ModelContext, input_schema=DelegationInput)
    graph.add_node("planner", planner)
    graph.add_node("executor", executor)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_node("critic", critic)
    graph.add_edge(START, "planner")
    graph.add_conditional_edges("planner", next_step)
    graph.add_edge("executor", "tools")
    graph.add_conditional_edges("tools", next_step)
    graph.add_conditional_edges("critic", tools_condition)  # a plan may have been too short
    return graph.compile(checkpointer=checkpointer, name="plan_execute")


graph = build_graph()
