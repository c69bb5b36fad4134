"""A run's picture shows what its state says, whatever the models wrote."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from delegate_llm.errors import MissingExtraError, PolicyError, RequestError
from delegate_llm.graph import DelegationContext, ModelContext
from delegate_llm.graph.picture import _labels, draw_run
from graphs import picture

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
NASTY = {
    "$x^2$": "$x^2$",
    "$": "$",
    "\\$": "\\$",
    "$\\frac{": "$\\frac{",
    "\n": "\\n",
    "\x00\x1b[31m": "\\x00\\x1b[31m",
    "\u202eabc": "\\u202eabc",
    "\ud800": "\\ud800",
    "\ufffe": "\\ufffe",
    "&amp;<text>": "&amp;<text>",
    " multiply ": "multiply",
    "  ": "␣",
    "": "␣",
    "日本語": "日本語",
    "a" * 500: "a" * 17 + "…",
}


def takeover(position: int, token: str, *, changed: bool = True) -> dict[str, Any]:
    said = {"position": position, "token": token, "base_token": "x", "reasoner_token": token, "score": 3.0}
    return {**said, "changed": changed}


def trace(name: str, *takeovers: dict[str, Any], node: str = "agent", call: int = 0, **more: Any) -> Any:
    said = {"id": name, "node": node, "step": 1, "call": call, "tokens": 40, "asks": 9, "changed": 0}
    cost = {"share": 0.1, "allotted": 4, "reasoner_forwards": 3, "reasoner_tokens": 30}
    return {**said, **cost, "takeovers": list(takeovers), **more}


def texts(path: Path) -> list[str]:
    return [each.text or "" for each in ET.parse(path).iter(f"{SVG}text")]


def test_shows_calls_takeovers_cost_and_what_is_left(tmp_path: Path) -> None:
    state = {
        "delegation_budget": {"takeovers": 5, "asks": None, "account": "a"},
        "delegation_traces": [
            trace("1", takeover(3, "multiply"), takeover(20, "subtract"), node="planner"),
            trace("2", node="executor", reasoner_forwards=0),
            trace("3", takeover(9, "same", changed=False), node="executor", call=1, reasoner_forwards=1),
        ],
    }
    shown = texts(draw_run(state, tmp_path / "run.svg"))
    names = [each for each in shown if each in ("planner 1", "executor 1", "executor 2")]
    assert names == ["planner 1", "executor 1", "executor 2"]
    assert {"multiply", "subtract", "same"} <= set(shown)
    assert "2 of 40 tokens, 3 reasoner forwards" in shown
    assert "the base alone" in shown
    assert "1 of 40 tokens, 1 reasoner forward" in shown
    assert "left of 5" in shown
    assert [each for each in shown if each in ("3", "2")] == ["3", "3", "2"]


@pytest.mark.parametrize("token", NASTY, ids=ascii)
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_model_text_is_data(tmp_path: Path, token: str, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    state = {"delegation_traces": [trace("1", takeover(1, token), node=token)]}
    with mpl.rc_context({"text.usetex": True}):  # a user's own setting must not bring LaTeX to it
        draw_run(state, path)
    if suffix == ".svg":
        shown = texts(path)
        assert NASTY[token] in shown
        assert f"{NASTY[token] if token else 'call'} 1" in shown
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_labels_do_not_cover_each_other() -> None:
    crowd = [takeover(at, f"token{at}", changed=at % 5 == 0) for at in range(200)]
    placed = list(_labels(crowd, 0.5))  # type: ignore[arg-type]
    assert len(placed) < len(crowd)
    for lane in (-1, 1):
        ends = sorted((each["position"], len(text) / 2) for each, text, at in placed if at == lane)
        for (one, length), (other, _) in pairwise(ends):
            assert other - one >= length
    # Those that changed a token come first, and there is room for all of them here.
    assert sum(each["changed"] for each, *_ in placed) == 40


def test_spent_elsewhere_is_not_left(tmp_path: Path) -> None:
    charge = {"node": "", "takeovers": 3, "asks": 3, "tokens": 9, "allotted": None}
    state = {
        "delegation_spent": {
            "takeovers": 4,
            "asks": 4,
            "calls": {"unseen": charge, "1": {**charge, "takeovers": 1}},
        },
        "delegation_grants": {"g": 2},
        "delegation_traces": [trace("1", takeover(3, "multiply"))],
    }
    shown = texts(draw_run(state, tmp_path / "run.svg", context=DelegationContext(total=4)))
    assert "left of 3" in shown
    assert "2" in shown


@pytest.mark.parametrize("context", [None, {}, ModelContext(total=None)])
def test_without_a_total_nothing_is_said_of_it(tmp_path: Path, context: Any) -> None:
    state = {"delegation_traces": [trace("1", takeover(3, "multiply"))]}
    shown = texts(draw_run(state, tmp_path / "run.svg", context=context))
    assert not [each for each in shown if each.startswith("left")]


def test_context_may_be_a_dict(tmp_path: Path) -> None:
    state = {"delegation_traces": [trace("1")]}
    assert "left of 7" in texts(draw_run(state, tmp_path / "run.svg", context={"total": 7}))


def test_long_runs_are_cut_and_say_so(tmp_path: Path) -> None:
    state = {"delegation_budget": 9, "delegation_traces": [trace(str(at), call=at) for at in range(200)]}
    shown = texts(draw_run(state, tmp_path / "run.svg"))
    assert "tokens of the answer; 60 of 200 calls" in shown


def test_call_without_tokens(tmp_path: Path) -> None:
    assert draw_run({"delegation_traces": [trace("1", tokens=0)]}, str(tmp_path / "run.PNG")).exists()


def test_same_run_gives_the_same_file(tmp_path: Path) -> None:
    state = {"delegation_budget": 3, "delegation_traces": [trace("1", takeover(3, "multiply"))]}
    one, other = (draw_run(state, tmp_path / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert one == other


@pytest.mark.parametrize(
    "state",
    [{}, {"messages": []}, {"delegation_traces": []}, {"delegation_traces": None}, None, [1], "state"],
    ids=str,
)
def test_nothing_to_draw_is_an_error_of_ours(tmp_path: Path, state: Any) -> None:
    with pytest.raises(RequestError, match="it has no delegation_traces"):
        draw_run(state, tmp_path / "run.svg")
    assert not list(tmp_path.iterdir())


def test_traces_that_are_none_are_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is no list of traces"):
        draw_run({"delegation_traces": ["junk"]}, tmp_path / "run.svg")


@pytest.mark.parametrize("name", ["run", "run.pdf", "run.svg.txt"])
def test_other_suffix_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=re.escape("ends in neither .png nor .svg")):
        draw_run({"delegation_traces": [trace("1")]}, tmp_path / name)


def test_says_what_brings_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=re.escape("delegate-llm[bench]")):
        draw_run({"delegation_traces": [trace("1")]}, tmp_path / "run.svg")


def test_picture_of_the_readme_is_what_its_command_draws(tmp_path: Path) -> None:
    path, committed = tmp_path / "run.svg", ROOT / "docs" / "plan-execute.svg"
    picture.main(str(path))
    assert texts(path) == texts(committed)
    assert committed.stat().st_size < 100_000
