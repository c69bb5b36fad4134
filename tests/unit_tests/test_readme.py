"""The examples of the READMEs run as they stand, in order, as one session; examples/ has its own test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import delegate_llm.graph
from graphs import plan_execute

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GRAPHS = ROOT / "graphs" / "README.md"
EVIDENCE = ROOT / "docs" / "evidence.md"
VLLM = ROOT / "docs" / "vllm.md"
BENCHMARKS = ROOT / "benchmarks" / "README.md"


def session(path: Path) -> tuple[dict[str, Any], str]:
    """The names that a file's examples leave, and their text."""
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)
    return names, "".join(blocks)


def test_examples_run() -> None:
    names, _ = session(README)
    assert names["answer"].text
    assert names["policy"].budget.rate == 0.05


def test_the_example_of_a_page_runs() -> None:
    names, _ = session(EVIDENCE)
    assert names["question"] in names["page"]


def test_examples_of_the_graphs_run_and_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = session(GRAPHS)
    assert capsys.readouterr().out.splitlines() == re.findall(r"^# (.*)", text, re.MULTILINE)


def test_picture_of_plan_execute_is_what_the_graph_draws() -> None:
    (drawn,) = re.findall(
        r"^```mermaid\n(.*?)```", GRAPHS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert drawn.split() == plan_execute.graph.get_graph().draw_mermaid().split()


def test_table_has_every_public_name_of_the_graph_package() -> None:
    text = GRAPHS.read_text(encoding="utf-8")
    table = text[text.index("| `delegate_llm.graph` |") :]
    named = {each.split("(")[0] for each in re.findall(r"`([A-Za-z_]+(?:\([^`]*)?)`", table)}
    assert set(delegate_llm.graph.__all__) <= named


def test_graphs_are_named_in_their_readme() -> None:
    for path in GRAPHS.parent.glob("*.py"):
        assert path.name in GRAPHS.read_text(encoding="utf-8") or f"graphs.{path.stem} " in GRAPHS.read_text()


@pytest.mark.parametrize(
    "path", [README, GRAPHS, EVIDENCE, VLLM, BENCHMARKS], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_files_that_it_names_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
