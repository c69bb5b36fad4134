"""The report in a real browser: how fast it opens, its keys, clicks and filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from report_answers import decision, small, traced

from delegate_llm.report import Shown, render
from delegate_llm.trace import Logprob


@pytest.fixture
def page(opened: Callable[..., Any]) -> Any:
    """The small report, opened."""
    return opened(render(small(), title="Small"))


def focused(page: Any) -> str:
    """The label or text of what has the focus."""
    return page.evaluate(
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    )


def panel(page: Any) -> str:
    """What the panel says, on one line."""
    return " ".join(page.inner_text(".detail").split())


# --- Keys, clicks, filters ---


def test_all_is_reached_by_keys(page: Any) -> None:
    page.keyboard.press("n")
    assert focused(page) == "␣multiply, takeover, the base would have said ␣add"
    assert "Base ␣add" in panel(page)
    assert "4 nats, above 1.5 (threshold)" in panel(page)
    assert "8 of 8 takeovers" in panel(page)
    assert "A takeover: the score was above the threshold, and the budget held one." in panel(page)
    page.keyboard.press("ArrowRight")
    assert "Position 2 · the base spoke" in panel(page)
    page.keyboard.press("n")
    assert focused(page) == "12, takeover, the base would have said the same"
    page.keyboard.press("n")
    assert page.inner_text("#told") == "No takeover after this."
    page.keyboard.press("Home")
    assert "Position 0" in panel(page)
    page.keyboard.press("End")
    assert "Position 4" in panel(page)
    page.keyboard.press("p")
    page.keyboard.press("ArrowUp")
    assert "Position 3" not in panel(page)


def test_arrows_start_at_the_first_token(page: Any) -> None:
    page.keyboard.press("ArrowRight")
    assert "Position 0" in panel(page)
    page.keyboard.press("ArrowRight")
    assert "Position 1" in panel(page)
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.classList.contains('token')")
    assert "Position 0" in panel(page)


def test_a_long_answer_is_laid_out_in_blocks(opened: Callable[..., Any]) -> None:
    tokens = [decision(at, "\n" if at % 30 == 29 else f" w{at}") for at in range(2_600)]
    tokens += [decision(at, f" w{at}") for at in range(2_600, 6_600)]
    page = opened(render([Shown(id="1", title="Long", trace=traced(tokens))], title="Long"))
    sizes = page.evaluate(
        "[...document.querySelectorAll('.block')].map((each) => each.querySelectorAll('.token').length)"
    )
    assert sizes[0] == 420, "cut where a line ends"
    assert max(sizes) == 2_000, "or else anywhere"
    assert sum(sizes) == 6_600
    said = page.evaluate("document.querySelector('.tokens').textContent")
    assert said == "".join(each.token for each in tokens)
    page.click(".token >> nth=419")
    page.keyboard.press("ArrowRight")
    assert "Position 420" in panel(page)


@pytest.mark.parametrize("token", ["\u200b", "\u00ad", "\u2060\u200d", "\U000e0041"])
def test_what_cannot_be_seen_is_spelled(opened: Callable[..., Any], token: str) -> None:
    page = opened(
        render([Shown(id="1", trace=traced([decision(0, token), decision(1, "👩\u200d🔬")]))], title="t")
    )
    assert page.inner_text(".token >> nth=0") == "".join(f"\\u{{{ord(each):x}}}" for each in token)
    assert page.inner_text(".token >> nth=1") == "👩\u200d🔬"


def test_both_models_most_probable_tokens_are_told(opened: Callable[..., Any]) -> None:
    top = tuple(Logprob(token_id=at, token=text, logprob=-at) for at, text in enumerate(("<b>", " add")))
    one = decision(0, "<b>", base_top=top, reasoner_top=top[:1])
    page = opened(render([Shown(id="1", title="Scored", trace=traced([one]))], title="Scored"))
    page.locator(".token").click()
    assert "Base <b> <b> 100.0% ␣add 36.8% Reasoner <b> <b> 100.0% Score" in panel(page)


def test_tab_reaches_every_control_and_the_tokens_once(page: Any) -> None:
    seen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if page.evaluate("document.activeElement === document.body"):
            break
    controls = (
        "takeovers",
        "changed",
        "compare",
        "by-node",
        "by-correct",
        "theme",
        "keys",
        "before",
        "after",
    )
    assert [each for each in controls if each not in seen] == []
    assert sum("token" in each.split() for each in seen) == 1
    assert sum("item" in each.split() for each in seen) == 1
    assert seen[0] == "skip"


def test_what_has_the_focus_shows_it(page: Any) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("n")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_pointer_shows_the_panel_and_a_click_keeps_it(page: Any) -> None:
    assert "Point at a token" in panel(page)
    page.locator(".token").nth(1).hover()
    assert "Position 1" in panel(page)
    page.mouse.move(0, 0)
    assert "Point at a token" in panel(page)
    page.locator(".token").nth(2).click()
    page.mouse.move(0, 0)
    assert "Position 2" in panel(page)


def test_a_click_on_the_strip_goes_to_the_position(page: Any) -> None:
    box = page.locator(".strip canvas").bounding_box()
    page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 50)
    assert focused(page) == "12, takeover, the base would have said the same"


def test_filters_leave_the_answers_and_tokens_that_match(page: Any) -> None:
    assert page.locator(".item").count() == 3
    page.click("#takeovers")
    assert page.get_attribute("#takeovers", "aria-pressed") == "true"
    assert page.locator(".item").count() == 2
    assert page.locator(".token:not(.aside)").count() == 2
    page.keyboard.press("c")
    assert page.get_attribute("#takeovers", "aria-pressed") == "false"
    assert page.locator(".item").count() == 1
    assert page.locator(".token:not(.aside)").count() == 1
    page.keyboard.press("c")
    page.select_option("#by-node", label="writer")
    assert page.locator(".item").all_inner_texts() == ["A plain answer\n✗\nwriter\n0 takeovers, 30 tokens"]
    assert page.inner_text(".answer h2") == "A plain answer"
    page.click("#takeovers")
    assert page.is_visible("#none")
    assert page.locator(".answer").count() == 0
    page.keyboard.press("n")  # nothing is shown, and nothing breaks


def test_answers_follow_each_other(page: Any) -> None:
    for expected in ("A plain answer", "Another one", "Another one"):
        page.keyboard.press("j")
        assert page.inner_text(".answer h2") == expected
    assert page.inner_text("#told") == "This is the last answer."
    page.click("#before")
    assert page.inner_text(".answer h2") == "A plain answer"
    page.locator(".item").first.click()
    page.keyboard.press("ArrowDown")
    assert page.inner_text(".answer h2") == "A plain answer"
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"


def test_the_answer_of_the_base_stands_beside(page: Any) -> None:
    page.keyboard.press("b")
    assert page.inner_text(".own .shared") == "First "
    assert page.inner_text(".own .other") == "add 3 and 4."
    assert "wrong" in page.inner_text(".own .facts")
    page.keyboard.press("j")
    assert page.locator(".own").count() == 0
    assert page.is_disabled("#compare")
    page.keyboard.press("k")
    assert page.locator(".own").count() == 1


def test_a_trace_with_gaps_shows_text_and_what_there_is(page: Any) -> None:
    page.keyboard.press("k")
    page.locator(".item").nth(2).click()
    assert page.inner_text(".answer-text .plain") == "It is 12."
    assert page.locator(".token").count() == 1
    assert page.locator(".gap").count() == 1
    assert "1 of 1 decisions" in page.inner_text(".note")


def test_keys_are_explained(page: Any) -> None:
    page.keyboard.press("?")
    assert page.is_visible("#help")
    assert "next takeover, takeover before" in page.inner_text("#help")
    page.keyboard.press("j")
    assert page.inner_text(".answer h2") == "How many pens?"  # not behind a dialog
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
