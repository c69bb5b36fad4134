"""An agent with tools whose reasoner is heard only where the run's budget allows.

The base writes every turn. At the tokens that decide, such as which tool to call, the reasoner may speak,
until the `total` of the context is spent; then the base goes on alone.

    question = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"
    graph.invoke({"messages": [("user", question)]}, context={"total": 4})
"""

from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from delegate_llm.graph import ModelContext, model_of, tool_agent
from graphs.tools import TOOLS


def build_graph(checkpointer: BaseCheckpointSaver[Any] | None = None) -> CompiledStateGraph:
    """START -> agent -> (tools -> agent)*; `human_budget.py` has the same loop written out."""
    return tool_agent(
        model_of,  # a function: each run's context chooses its models
        TOOLS,
        context_schema=ModelContext,
        checkpointer=checkpointer,
        name="react_agent",
    )


graph = build_graph()
