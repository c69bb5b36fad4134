"""Hostile texts in a report, in a real browser: they are text, whatever they look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_answers import HOSTILE, decision, hostile, traced

from delegate_llm.report import Shown, render
from delegate_llm.trace import Generation, Usage

SCHEMES = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_hostile_texts_are_text(opened: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
    page = opened(
        render(hostile(), title="</title><script>window.pwned = 1</script>", notes=HOSTILE), scheme=scheme
    )
    for at in range(len(HOSTILE) - 1):
        page.keyboard.press("j" if at else "n")
        assert page.locator(".token").count() == len(HOSTILE)
    page.keyboard.press("b")
    page.locator(".token").nth(1).click()
    page.keyboard.press("Home")
    for at in range(1, len(HOSTILE)):
        page.keyboard.press("ArrowRight")
        assert f"Position {at} " in page.inner_text(".detail")
    page.locator(".token").nth(3).hover()
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 7  # the data, and the page's own
    assert page.locator("img, svg, iframe, object, link, main style").count() == 0
    assert page.evaluate("document.title").startswith("</title><script>")
    page.screenshot(path=tmp_path / f"hostile-{scheme}.png", full_page=True)


def test_what_cannot_be_seen_is_spelled_out(opened: Callable[..., Any]) -> None:
    page = opened(render(hostile(), title="Hostile"))
    texts = page.locator(".token").all_inner_texts()
    shown = dict(zip(HOSTILE, texts, strict=True))
    assert "\\u202egnirts\\u202c" in shown["\u202egnirts\u202c"]
    assert "␀␇␛[31m␡\\u009b" in shown["\x00\x07\x1b[31m\x7f\x9b"]
    assert "\\ud800" in shown["\ud800"]
    assert "\\udfff\\ud83d" in shown["\udfff\ud83d"]
    assert "\ufffd" in shown["\ufffd"]
    assert "98000 characters more" in shown["W" * 100_000]
    assert "∅" in shown[""]
    assert "&lt;b&gt;" in shown["&lt;b&gt; &#60;script&#62;"]


def test_marks_that_pile_up_do_not_cover_other_lines(opened: Callable[..., Any]) -> None:
    tower = traced([decision(0, "a" + "\u0301" * 900), decision(1, "b")])
    page = opened(render([Shown(id="1", title="Tower", trace=tower)], title="Tower"))
    text = page.locator(".token").first.inner_text()
    assert text == "a" + "\u0301" * 8 + "⟨and 892 marks more⟩"


# --- Within a notebook ---


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(browser: Any, tmp_path: Path) -> None:
    trace = traced(
        [decision(0, HOSTILE[1]), decision(1, " ok", takeover=True, changed=True, base_token="'\"")]
    )
    made = Generation(text=HOSTILE[1], token_ids=(1, 1), finish_reason="stop", trace=trace, usage=Usage())
    file = tmp_path / "notebook.html"
    file.write_text(f"<body><script>window.pwned = 0</script>{made._repr_html_()}</body>", encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    inside = page.frame_locator("iframe")
    inside.locator(".token").nth(1).click()
    assert "Position 1" in inside.locator(".detail").inner_text()
    assert page.evaluate("window.pwned") == 0
    assert page.locator("script").count() == 1
    page.close()
