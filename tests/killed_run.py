"""A run of a graph that is killed where it is told to; a script of the tests.

    python killed_run.py KIND ADDRESS THREAD PLACE

It begins the thread, or goes on with it, and prints its final state as JSON, if it lives to see it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from budgeted import graph_of, node
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START

from delegate_llm.graph import fan_out

PLACES = ("beside", "within", "branch")
INPUT: dict[str, Any] = {"messages": [("user", "go?")], "delegation_budget": {"takeovers": 14, "asks": 200}}


def graph(pass_by: Callable[[str], object] = id) -> Any:
    """a, then b beside a node that is a place, then a subgraph, then branches, then whatever is left.

    Args:
        pass_by: Called with every place that the run comes to.
    """

    def at(place: str) -> Any:
        def wait(_: Any) -> dict[str, Any]:
            pass_by(place)
            return {}

        return wait

    inner = graph_of({"c": node("c", 1), "within": at("within"), "d": node("d", 2)})
    branch = graph_of({"e": node("e", 1), "branch": at("branch"), "f": node("f", 1)})
    nodes = {
        "a": node("a", 2),
        "b": node("b", 2),
        "beside": at("beside"),
        "inner": inner.compile(),
        "branches": branch.compile(),
        "z": node("z"),
    }
    made = graph_of(nodes, (START, "a"), ("a", "b"), ("a", "beside"), ("branches", "z"))
    made.add_edge(["b", "beside"], "inner")
    made.add_conditional_edges(
        "inner", lambda state: fan_out("branches", [{"messages": []}] * 2, state), ["branches"]
    )
    return made


def saver_of(kind: str, address: str) -> AbstractContextManager[BaseCheckpointSaver[Any]]:
    """Opens a checkpointer that keeps what it is given."""
    return {"sqlite": SqliteSaver, "postgres": PostgresSaver}[kind].from_conn_string(address)


def main(kind: str, address: str, thread: str, deadly: str) -> None:
    """Begin or go on."""

    def pass_by(place: str) -> None:
        if place == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    with saver_of(kind, address) as saver:
        saver.setup()
        made = graph(pass_by).compile(checkpointer=saver)
        config = {"configurable": {"thread_id": thread}}
        begun = bool(made.get_state(config).values)
        state = made.invoke(None if begun else INPUT, config, durability="sync")
    said = [each.text for each in state.pop("messages")]
    print(json.dumps({**state, "said": said}))  # noqa: T201 - for the test


if __name__ == "__main__":
    main(*sys.argv[1:])
