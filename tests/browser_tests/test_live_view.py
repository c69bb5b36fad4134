"""The view of an answer while it is written: chunks add up to what the whole answer gives at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from report_answers import POLICY, small, written

from delegate_llm.report import Shown, columns, render
from delegate_llm.report.answers import Causes, chunk, policy_told
from delegate_llm.report.reasons import Replay, Verdict

START = """(told) => {
  globalThis.live = delegation.answerView(told);
  document.querySelector("#shown").replaceChildren(live.element);
}"""
READ = """() => {
  const { columns } = live;
  return {
    html: live.list.innerHTML.replaceAll(/ tabindex="[^"]*"/g, ""),
    told: columns.data.tokens.map((_, at) => delegation.detail(columns, at).map((each) => each.textContent)),
  };
}"""


@pytest.mark.parametrize("size", [1, 7, 200])
def test_chunks_add_up_to_the_whole(opened: Callable[..., Any], size: int) -> None:
    page = opened(render(small(), title="Small"))
    shown = Shown(id="1", title="Live", trace=written(200, 5), policy=POLICY)
    page.evaluate(START, json.loads(json.dumps(columns(shown))))
    whole = page.evaluate(READ)

    replay, causes = Replay(POLICY), Causes()
    page.evaluate(START, {"id": "1", "title": "Live", "policy": policy_told(POLICY)})
    decisions = shown.trace.decisions
    for at in range(0, len(decisions), size):
        part = decisions[at : at + size]
        told = chunk(part, [replay.step(each) for each in part], causes, start=at)
        page.evaluate("(chunk) => live.append(chunk)", json.loads(json.dumps(told)))
    assert page.evaluate(READ) == whole
    assert page.evaluate("live.columns.text") == "".join(each.token for each in decisions)


def test_what_is_known_of_some_chunks_only_stays_with_them(opened: Callable[..., Any]) -> None:
    page = opened(render(small(), title="Small"))
    shown = Shown(id="1", title="Live", trace=written(6, 5), policy=POLICY)
    page.evaluate(START, {"id": "1", "title": "Live"})
    replay, causes, decisions = Replay(POLICY), Causes(), shown.trace.decisions
    for at, known in ((0, False), (2, True), (4, False)):
        part = decisions[at : at + 2]
        judged = [replay.step(each) for each in part]
        told = chunk(part, judged if known else [Verdict()] * len(part), causes, start=at)
        page.evaluate("(chunk) => live.append(chunk)", json.loads(json.dumps(told)))
    read = "(name) => [0, 1, 2, 3, 4, 5].map((at) => live.columns[name](at) !== null)"
    for name in ("bar", "level", "cause"):
        assert page.evaluate(read, name) == [False, False, True, True, False, False]
    assert page.evaluate("[0, 5].map((at) => live.columns.position(at))") == [0, 5]


def test_the_header_follows_and_what_was_unfolded_stays_so(opened: Callable[..., Any]) -> None:
    page = opened(render(small(), title="Small"))
    page.evaluate(START, {"id": "1", "title": "Live", "policy": policy_told(POLICY)})
    page.click(".policy summary")
    page.evaluate(
        "(summary) => live.append({ summary })",
        {"tokens": 3, "takeovers": 1, "changed": 1, "asked": 3, "share": 0.3333},
    )
    assert "1 takeovers (33.3%), 1 changed" in page.inner_text(".answer header .facts")
    assert page.is_visible(".policy ul")
