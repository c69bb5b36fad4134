"""An agent with tools whose reasoner is heard only where the run's budget allows.

The model writes every turn with the base; at the tokens that decide, such as which tool to call, the
reasoner may speak, until `total` of the context is spent. Then the base goes on alone.

    graph.invoke({"messages": [("user", "Tom has 3 boxes with 4 pens in each. ...")]}, context={"total": 4})
"""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from delegate_llm.graph import ModelContext, model_of, tool_agent


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """The agent: its model is chosen by the run's context, and its tools are those above."""
    return tool_agent(
        model_of,
        [add, subtract, multiply],
        context_schema=ModelContext,
        checkpointer=checkpointer,
        name="react_agent",
    )


graph = build_graph()
