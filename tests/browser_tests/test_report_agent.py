"""A real run of a graph, dumped to JSON and written by the command: its calls can be filtered by node."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from delegate_llm.cli import app
from graphs.plan_execute import graph

QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"


def test_the_calls_of_a_graph_can_be_filtered_by_node(opened: Callable[..., Any], tmp_path: Path) -> None:
    state = graph.invoke({"messages": [("user", QUESTION)], "delegation_budget": 4})
    state["messages"] = [each.model_dump(mode="json") for each in state["messages"]]
    (tmp_path / "state.json").write_text(json.dumps(state))
    written = ["report", str(tmp_path / "state.json"), "-o", str(tmp_path / "page.html")]
    assert CliRunner().invoke(app, written, catch_exceptions=False).exit_code == 0
    page = opened((tmp_path / "page.html").read_text())
    calls = Counter(each["node"] for each in state["delegation_traces"])
    assert len(calls) > 1
    assert page.locator(".item").count() == sum(calls.values())
    for node, count in calls.items():
        page.select_option("#by-node", label=node)
        assert page.locator(".item").count() == count
        assert node in page.inner_text("main")
