"""The agent again, but once the budget is spent, a person decides: grant more, the base alone, or stop.

The question comes as an interrupt, before anything is generated, and the run waits for as long as it takes:

    graph.invoke({"messages": [...]}, config, context={"total": 1})  # returns with "__interrupt__"
    graph.invoke(Command(resume={"action": "grant", "takeovers": 4}), config, context={"total": 1})
"""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from delegate_llm.graph import DelegationInput, DelegationState, ModelContext, budget_gate, delegated_node
from graphs.tools import TOOLS, with_tools


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> gate -> agent -> (tools -> gate -> agent)*."""
    # A gate of its own: an interrupted node runs from its start again, and must not call a model twice.
    gate = budget_gate(then="agent", otherwise=END, context_schema=ModelContext)
    agent = delegated_node(with_tools, name="agent", context_schema=ModelContext)

    graph = StateGraph(DelegationState, context_schema=ModelContext, input_schema=DelegationInput)
    graph.add_node("gate", gate, destinations=("agent", END))
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "gate")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "gate")
    return graph.compile(checkpointer=checkpointer, name="human_budget")


graph = build_graph()
