"""The smallest agent: a model that calls tools until it has an answer, under one budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from delegate_llm.chat_model import DelegatedChatModel
from delegate_llm.graph.allocation import DelegationContext
from delegate_llm.graph.inputs import DelegationInput
from delegate_llm.graph.nodes import delegated_node
from delegate_llm.graph.state import DelegationState
from delegate_llm.graph.strategies import ALL, Strategy

__all__ = ("tool_agent",)


def tool_agent(
    model: DelegatedChatModel | Callable[[Any], DelegatedChatModel],
    tools: Sequence[BaseTool | Callable[..., Any]],
    *,
    strategy: str | Strategy = ALL,
    context_schema: type[DelegationContext] = DelegationContext,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
    name: str = "tool_agent",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A ReAct agent whose calls of the model share the run's budget.

    Args:
        model: A chat model without tools, or a function that makes one from the run's context.
        tools: What it may call.
        strategy: How its calls divide the budget: one of `STRATEGIES`, or a function.
        context_schema: A `DelegationContext`, or a class of your own that derives from it.
        checkpointer: Keeps the state of threads.
        name: Of the graph.

    Returns:
        A graph with the nodes `agent` and `tools`.
    """
    tools = list(tools)

    def with_tools(context: Any) -> Any:
        made = model if isinstance(model, DelegatedChatModel) else model(context)
        return made.bind_tools(tools)

    graph = StateGraph(DelegationState, context_schema=context_schema, input_schema=DelegationInput)
    graph.add_node(
        "agent", delegated_node(with_tools, name="agent", strategy=strategy, context_schema=context_schema)
    )
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=checkpointer, name=name)
