"""Small graphs under a budget, and what their tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from answers import chat
from langgraph.graph import START, StateGraph

from delegate_llm import DelegatedChatModel
from delegate_llm.graph import Charge, DelegationContext, DelegationState, delegated_node

ASK: dict[str, Any] = {"messages": [("user", "go?")]}
THREAD: dict[str, Any] = {"configurable": {"thread_id": "1"}}
WORDS = 8
"""Tokens of every answer, but for its end."""


def disagreeing(takeovers: int = WORDS, **settings: Any) -> DelegatedChatModel:
    """A model whose answer has so many takeovers, at its start, if it may spend them."""
    return chat("a" * WORDS, "b" * takeovers + "a" * (WORDS - takeovers), **settings)


def node(name: str, takeovers: int = WORDS, **settings: Any) -> Any:
    """A delegated node that is always asked the same."""
    return delegated_node(disagreeing(takeovers), name=name, **{"prompt": lambda _: "go?", **settings})


def graph_of(nodes: Mapping[str, Any], *edges: tuple[str, str], **settings: Any) -> StateGraph:
    """A graph with these nodes and edges; without edges, one node after the other."""
    graph = StateGraph(DelegationState, context_schema=DelegationContext, **settings)
    for name, each in nodes.items():
        graph.add_node(name, each)
    for start, end in edges or zip([START, *nodes], nodes, strict=False):
        graph.add_edge(start, end)
    return graph


def chain(*names: str, takeovers: int = WORDS, **settings: Any) -> StateGraph:
    """One delegated node after the other."""
    return graph_of({name: node(name, takeovers, **settings) for name in names})


def run(graph: Any, given: Any, config: Any = None, *, sync: bool = True, **settings: Any) -> dict[str, Any]:
    """What a compiled graph makes of an input."""
    if sync:
        return graph.invoke(given, config, **settings)
    return asyncio.run(graph.ainvoke(given, config, **settings))


def charges(state: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What was spent, node by node, in the order of the ledger."""
    return [(each["node"], each["takeovers"]) for each in state["delegation_spent"]["calls"].values()]


def spent(state: Mapping[str, Any]) -> int:
    return state["delegation_spent"]["takeovers"]


def charge(takeovers: int = 0, *, node: str = "a", allotted: int | None = None, asks: int = 0) -> Charge:
    return Charge(node=node, takeovers=takeovers, asks=asks, tokens=WORDS, allotted=allotted)
