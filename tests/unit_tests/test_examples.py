"""The examples run as they stand on the shipped pair, and what they print is true."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import delegate_llm
import delegate_llm.graph
from delegate_llm import DelegatedChatModel
from delegate_llm.tiny.problems import Problem, problems

FOLDER = Path(__file__).parents[2] / "examples"
FILES = sorted(FOLDER.glob("*.py"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")

PUBLIC = {each.__name__: each for each in (delegate_llm, delegate_llm.graph)}

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example as a script, in this process, where warnings are errors; gives what it printed."""

    def ran(name: str, *arguments: str) -> str:
        path = str(FOLDER / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return ran


def counts(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", text)]


def longest(count: int) -> list[Problem]:
    """Fresh problems that need many steps."""
    return sorted(problems(50, seed=411, split="test"), key=lambda each: -len(each.steps))[:count]


def test_chain(run: Run) -> None:
    delegated, base_alone, *takeovers, summary = run("chain").splitlines()
    assert delegated.startswith("delegated: ")
    assert delegated.endswith("The answer is 7.")
    assert base_alone.startswith("base alone: ")
    assert base_alone.partition(":")[2] != delegated.partition(":")[2]
    assert all(re.fullmatch(r"token \d+: '.+' instead of '.+'", each) for each in takeovers)
    heard, tokens = counts(summary)
    assert 0 < heard == len(takeovers) < tokens / 5


def test_structured_output(run: Run) -> None:
    printed = run("structured_output")
    # Whoever fills it in, the form is right; the toy's numbers are, too, in the stories that are shown.
    assert len(re.findall(r"base alone: Packing\(boxes=-?\d+, each=-?\d+\)$", printed, re.MULTILINE)) == 3
    delegated = re.findall(r"delegated:  Packing\(boxes=(-?\d+), each=(-?\d+)\)$", printed, re.MULTILINE)
    assert delegated == [("3", "4"), ("6", "5"), ("2", "9")]
    assert "as it was written: {'boxes': 3, 'each': 4}" in printed
    assert re.search(r"token \d+: '.+' instead of '.+'\n$", printed)


def test_tools(run: Run) -> None:
    printed = run("tools")
    assert "the reasoner says 'multiply' instead of 'add'\n  multiply(4, 6) = 24\n" in printed
    assert printed.endswith("\n  subtract(24, 7) = 17\nThe answer is 17.\n")


@pytest.mark.parametrize("problem", longest(3), ids=lambda problem: problem.answer)
def test_tools_solve_what_they_are_given(run: Run, problem: Problem) -> None:
    question, *lines, answer = run("tools", *problem.question.split()).splitlines()
    assert question == problem.question
    calls = [each.strip() for each in lines if "reasoner" not in each]
    assert calls == [f"{each.operation}({each.a}, {each.b}) = {each.result}" for each in problem.steps]
    assert answer == f"The answer is {problem.answer}."


def test_agent(run: Run) -> None:
    printed = run("agent")
    assert (
        "the reasoner says 'multiply' instead of 'add'\n  multiply(4, 6)  (takeovers: 1, left: 7)\n"
        in printed
    )
    assert printed.endswith("\n    = 7\n  The answer is 7.  (takeovers: 0, left: 6)\n")


@pytest.mark.parametrize("problem", longest(3), ids=lambda problem: problem.answer)
def test_agent_keeps_its_books(run: Run, problem: Problem) -> None:
    question, *lines = run("agent", problem.question).splitlines()
    assert question == problem.question
    left = 8
    for heard, told in re.findall(r"\(takeovers: (\d+), left: (\d+)\)", "\n".join(lines)):
        left -= int(heard)
        assert int(told) == left
    assert 0 <= left < 8
    calls = [each.split("  (")[0].strip() for each in lines if each.endswith(")") and "answer" not in each]
    assert calls == [f"{each.operation}({each.a}, {each.b})" for each in problem.steps]
    assert lines[-1].startswith(f"  The answer is {problem.answer}.")


@pytest.mark.parametrize("problem", longest(3), ids=lambda problem: problem.answer)
def test_streaming_marks_takeovers_in_place(run: Run, problem: Problem) -> None:
    text, summary = run("streaming", problem.question).splitlines()
    model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner", trace="full")
    record = model.invoke(problem.question).response_metadata["delegation"]
    marked = ""
    for each in record["decisions"]:
        marked += each["token"]
        if each["changed"]:
            marked += f"[base: {each['base_token'].strip()}]"
    end = record["decisions"][-1]["token"]  # has no place in the text
    assert "".join(text.split()) == "".join(marked.removesuffix(end).split())
    assert f"The answer is {problem.answer}." in text
    assert counts(summary)[:2] == [record["summary"]["takeovers"], record["summary"]["tokens"]]
    assert record["summary"]["changed"] > 0


def test_streaming(run: Run) -> None:
    assert "First multiply [base: add] 6 by 4: 6 * 4 = 24." in run("streaming")


def test_async_fanout(run: Run) -> None:
    *routes, same = run("async_fanout").splitlines()
    assert same == "the same answers: True"
    assert [each.split()[0] for each in routes] == ["one_by_one", "gather", "abatch"]
    told = {each.partition(" s, ")[2] for each in routes}  # all but the time, which is not the same
    assert len(told) == 1
    right, asked, heard, tokens, *_ = counts(told.pop())
    assert right >= asked - 1
    assert 0 < heard < tokens / 10


def test_langsmith_local(run: Run) -> None:
    chain, prompt, model = re.findall(r"^(\w+: .+(?:\n    .+)*)", run("langsmith_local"), re.MULTILINE)
    assert "delegation" not in chain + prompt
    name, *lines = model.splitlines()
    assert name == "llm: DelegatedChatModel"
    told = [each.strip().split(": ", 1) for each in lines]
    metadata = {key: ast.literal_eval(value) for key, value in told if key != "event"}
    events: list[dict[str, Any]] = [ast.literal_eval(value) for key, value in told if key == "event"]
    assert len(events) == metadata["delegation_takeovers"] > 0
    for event, line in zip(events, metadata["delegation_takeover_log"].splitlines(), strict=True):
        assert line.startswith(f"{event['position']}: {event['base_token']!r} -> {event['token']!r}")
    share = metadata["delegation_takeovers"] / metadata["delegation_tokens"]
    assert metadata["delegation_share"] == pytest.approx(share, abs=1e-4)
    assert 0 < metadata["delegation_reasoner_forwards"] < metadata["delegation_base_forwards"]


def test_runs_from_anywhere_and_says_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "chain.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "The answer is 7." in done.stdout
    # Bars of loading are transformers' own.
    assert not [each for each in re.split(r"[\r\n]+", done.stderr) if each and "Loading weights" not in each]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_is_a_page_that_a_user_can_copy(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert f"`python examples/{path.name}`" in (ast.get_docstring(tree) or "")
    assert f"]({path.name})" in README
    assert 20 <= len(source.splitlines()) <= 60
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in PUBLIC:
            assert {each.name for each in node.names} <= set(PUBLIC[node.module].__all__)
        elif isinstance(node, ast.ImportFrom):
            assert node.module == "delegate_llm.tiny.problems" or "delegate_llm" not in str(node.module)


def test_every_example_has_a_test() -> None:
    assert {f"test_{path.stem}" for path in FILES} <= globals().keys()


def test_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "examples/README.md", "exec"), names)
    printed = capsys.readouterr().out
    shown = re.findall(r"^# (.*)", "".join(blocks), re.MULTILINE)
    assert len(shown) == 6
    for line in shown:
        assert line.partition("call_...")[0] in printed
    assert "<' add ' -> ' multiply '>First multiply|" in printed
    assert len(names["answers"]) == 2


def test_readme_names_files_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (FOLDER / target).exists(), target
