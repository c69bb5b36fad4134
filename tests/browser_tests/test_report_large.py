"""Large reports in a real browser: they stay small, open fast, and show what a small one shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import report_answers
from report_answers import POLICY, WORDS, hostile, written

from delegate_llm.report import Shown, columns, page, render
from delegate_llm.report.packing import size_of
from delegate_llm.trace import Trace

TOLD = """() => {
  const { columns, list } = delegation.report.view;
  return {
    html: list.innerHTML,
    told: columns.data.tokens.map((_, at) => delegation.detail(columns, at).map((each) => each.textContent)),
  };
}"""
CJK = tuple(chr(0x4E00 + at) * (1 + at % 4) for at in range(900))
LONG = tuple(f" {'word' * 12}{at}" for at in range(900))


def large(words: Sequence[str], takeovers: float) -> list[Shown]:
    own = Shown(
        id="own", trace=Trace(level="off"), text="".join(words[at % len(words)] for at in range(1000))
    )
    return [
        Shown(id=str(at), title=f"Question {at}", prompt="How many? " * 20,
              trace=written(1000, at, takeovers=takeovers), policy=POLICY, node="planner", own=own)
        for at in range(200)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "takeovers"), [(WORDS, 0.06), (CJK, 1.0), (LONG, 1.0)], ids=["usual", "cjk", "long"]
)
def test_two_hundred_answers_of_a_thousand_tokens_open_fast(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: Sequence[str], takeovers: float
) -> None:
    monkeypatch.setattr(report_answers, "WORDS", words)
    html = render(large(words, takeovers), title="Large")
    assert len(html.encode()) < 10_000_000
    shown = opened(html)
    took = []
    for _ in range(3):  # the best of them, as other tests may keep the machine busy
        started = time.perf_counter()
        shown.reload()
        assert shown.locator(".token").count() == 1000
        shown.screenshot()  # painted, not only parsed
        took.append(time.perf_counter() - started)
    assert min(took) < 2
    assert shown.locator(".item").count() == 200
    assert "takeovers first" in shown.inner_text("header.top")
    if takeovers < 1:  # or there is no room at some of them
        shown.keyboard.press("n")
        assert shown.locator(".detail .top-tokens li").count() == 10


def test_a_packed_page_shows_the_same(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        Shown(id="1", title="Some", trace=written(400, 2, takeovers=0.3), policy=POLICY),
        *hostile()[:2],
    ]
    plain = opened(render(answers, title="Page"))
    monkeypatch.setattr(page, "_ROOM", size_of([columns(each) for each in answers]) - 1)
    packed = opened(render(answers, title="Page"))
    assert packed.evaluate("typeof JSON.parse(document.getElementById('data').text).words") == "object"
    assert packed.locator("header .note").count() == 0
    for _ in range(2):
        assert packed.evaluate(TOLD) == plain.evaluate(TOLD)
        plain.keyboard.press("j")
        packed.keyboard.press("j")


def test_what_has_no_room_is_told(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Shown(id="1", title="Some", trace=written(400, 2), policy=POLICY)]
    monkeypatch.setattr(page, "_ROOM", 10_000)
    shown = opened(render(answers, title="Page"))
    assert "of 400 positions, takeovers first" in shown.inner_text("header .note")
    shown.keyboard.press("n")
    assert shown.locator(".detail .top-tokens").count() == 2
