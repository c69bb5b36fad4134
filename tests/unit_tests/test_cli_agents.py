"""`delegate-llm compare-agents`: its tables, its JSON, its picture, and what it says of bad options."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delegate_llm import DelegationPolicy
from delegate_llm.cli import app


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare-agents", *arguments], catch_exceptions=False)


def test_json_has_every_number(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "agents.png"
    arguments = ["--problems", "2", "--budgets", "8, 1,8", "--strategy", "even", "--plot", str(picture)]
    result = call(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert (report["problems"], report["seed"], report["strategy"]) == (2, 0, "even")
    DelegationPolicy.model_validate(report["policy"])
    names = ["base alone", "reasoner alone", "budget 1", "budget 8"]
    assert [each["name"] for each in report["results"]] == names
    assert [each["budget"] for each in report["results"]] == [None, None, 1, 8]
    assert set(report["results"][2]["places"]) == {"name", "arguments", "prose"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_pipe_gets_plain_text() -> None:
    result = call("--problems", "1", "--budgets", "4")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    main, where = result.stdout.split("Where takeovers fell")
    base, reasoner, budget = [line.split() for line in main.splitlines() if line and line[0] in "br"]
    assert (base[:2], reasoner[:2], budget[:2]) == (["base", "alone"], ["reasoner", "alone"], ["budget", "4"])
    assert base[5:7] == reasoner[5:7] == ["-", "-"]
    assert re.search(
        r"^budget 4 +\d+ +\d+ \([\d.]+%\) +\d+ \([\d.]+%\) +\d+ \([\d.]+%\)$", where, re.MULTILINE
    )


def test_a_table_on_a_terminal_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    shown = re.sub(r"\x1b\[[\d;]*m", "", call("--problems", "1", "--budgets", "16").stdout)
    assert re.search(r"^ reasoner alone +\d", shown, re.MULTILINE)  # on one line
    assert "…" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budgets", "1,x"], "budgets: '1,x' is no list of counts"),
        (["--budgets", ""], "budgets: '' is no list of counts"),
        (["--budgets", "1,-2"], "budgets: '1,-2' is no list of counts"),
        (["--strategy", "greedy"], "strategy: 'greedy' is unknown; give one of all, even"),
        (["--plot", "agents.txt"], "plot: 'agents.txt' does not end in .png"),
        (["--plot", "nowhere/agents.png"], "plot: there is no folder 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(arguments: list[str], said: str) -> None:
    result = call("--base", "./nowhere", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


def test_models_that_are_not_there_are_an_error() -> None:
    result = call("--base", "./nowhere")
    assert (result.exit_code, result.stdout, result.stderr.startswith("error: ")) == (1, "", True)
