"""The agent again, but once the budget is spent, a person decides: grant more, the base alone, or stop.

The question comes as an interrupt, before anything is generated, and the run waits for as long as it takes:

    graph.invoke({"messages": [...]}, config, context={"total": 1})     # stops with "__interrupt__"
    graph.invoke(Command(resume={"action": "grant", "takeovers": 4}), config, context={"total": 1})
"""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from delegate_llm.graph import DelegationState, ModelContext, budget_gate, delegated_node, model_of


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TOOLS = [add, subtract, multiply]


def with_tools(context: ModelContext) -> Any:
    """The models of the run, told of the tools."""
    return model_of(context).bind_tools(TOOLS)


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> gate -> agent -> tools -> gate; a gate of its own, as an interrupted node starts again."""
    graph = StateGraph(DelegationState, context_schema=ModelContext)
    gate = budget_gate(then="agent", otherwise=END, context_schema=ModelContext)
    agent = delegated_node(with_tools, name="agent", context_schema=ModelContext)
    graph.add_node("gate", gate, destinations=("agent", END))
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "gate")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "gate")
    return graph.compile(checkpointer=checkpointer, name="human_budget")


graph = build_graph()
