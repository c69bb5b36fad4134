"""The playground in a real browser: ask, watch takeovers come, and turn the knobs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from models import save

PATIENCE_MS = 60_000
HOSTILE = "</script><img src=x onerror=alert(1)><b>\u202e[bold]"
AT_ONCE = """([id, value]) => {
  const slider = document.getElementById(id);
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return [document.getElementById("preview").textContent, document.getElementById("status").dataset.state];
}"""


@contextmanager
def playground(*arguments: str) -> Iterator[str]:
    """The command itself, and where it listens."""
    command = [sys.executable, "-m", "delegate_llm", "playground", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_MS / 1000)
    assert (process.returncode, err) == (130, "")


@pytest.fixture(scope="module")
def shipped() -> Iterator[str]:
    with playground() as url:
        yield url


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; a script's error, or a request to anywhere else, ends the test."""
    wrong: list[str] = []
    contexts = []

    def open_page(url: str, *, width: int = 1280, scheme: str = "light") -> Any:
        size = {"width": width, "height": 860}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda each: None if each.url.startswith(url) else wrong.append(each.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def settled(page: Any) -> Any:
    page.wait_for_selector("#status[data-state=done]", state="attached")
    return page.locator(".token.takeover")


def ask(page: Any, question: str | None = None) -> Any:
    page.wait_for_selector("#pair-state.ready", state="attached")
    if question is not None:
        page.fill("#question", question)
    page.click("#ask")
    return settled(page)


def move(page: Any, name: str, value: object) -> Any:
    page.evaluate(AT_ONCE, [name, str(value)])
    return settled(page)


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
def test_ask_and_turn_the_knobs(
    shipped: str, visit: Callable[..., Any], tmp_path: Path, scheme: str, width: int
) -> None:
    page = visit(shipped, scheme=scheme, width=width)
    grounds = {"light": "rgb(251, 250, 248)", "dark": "rgb(21, 23, 26)"}
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == grounds[scheme]
    marked = ask(page)
    assert marked.count() == 2
    assert "multiply" in marked.first.inner_text()
    assert "add" in marked.first.locator("del").inner_text()
    assert page.inner_text(".tokens").replace("\n", "").count("The answer is 7.") == 1
    assert page.inner_text(".own .plain").endswith("The answer is 12.")
    assert page.locator("#costs tbody tr").count() == 2
    page.screenshot(path=tmp_path / "asked.png")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert move(page, "threshold-slider", 12).count() == 0
    assert page.input_value("#threshold") == "12"
    assert move(page, "threshold-slider", 2).count() == 2
    page.select_option("#budget-kind", "count")
    assert move(page, "budget-slider", 1).count() == 1
    assert move(page, "budget-slider", 0).count() == 0
    page.select_option("#budget-kind", "none")
    assert settled(page).count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_why_a_token_was_taken_over(shipped: str, visit: Callable[..., Any]) -> None:
    page = visit(shipped)
    ask(page).first.click()
    told = page.inner_text("#shown .detail")
    assert "takeover: the reasoner spoke" in told
    assert "A takeover: the score was above the threshold" in told
    assert page.locator("#shown .detail .top-tokens li").count() == 10


def test_the_strip_moves_before_the_answer_does(shipped: str, visit: Callable[..., Any]) -> None:
    page = visit(shipped)
    ask(page)
    assert page.evaluate(AT_ONCE, ["threshold-slider", "7"]) == ["would take over at 1 of 30", "moving"]
    assert page.evaluate(AT_ONCE, ["threshold-slider", "12"]) == ["would take over at 0 of 30", "moving"]
    assert page.evaluate(AT_ONCE, ["threshold-slider", "0"])[0] != "would take over at 0 of 30"
    assert page.locator(".token.takeover").count() == 2
    assert settled(page).count() > 2
    assert page.inner_text("#preview") == ""


@pytest.mark.parametrize(
    "policy",
    [
        {"divergence": "cross_entropy", "threshold": 2.0, "spike": 0, "budget": None},
        {"divergence": "cross_entropy", "threshold": 0.02, "spike": 1.5, "budget": None},
        {"divergence": "random", "threshold": 0.1, "spike": 1.2, "budget": None},
        {"divergence": "random", "threshold": 0.5, "spike": 0, "budget": {"limit": 3}},
        {"divergence": "random", "threshold": 0.2, "spike": 0, "budget": {"rate": 0.1}},
    ],
)
def test_a_preview_of_the_same_policy_is_the_answer(
    shipped: str, visit: Callable[..., Any], policy: dict[str, Any]
) -> None:
    """Of a policy, the browser finds what the package decided."""
    page = visit(shipped)
    page.wait_for_selector("#pair-state.ready", state="attached")
    found = page.evaluate(
        """async (policy) => {
          const { answerView, client, preview } = globalThis.delegation;
          let view = null;
          const question = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens are left?";
          await client.ask({ pair: 0, question, policy }, (event) => {
            if (event.event === "start") view = answerView(event.data);
            if (event.event === "piece") view.append(event.chunk);
          });
          const { data } = view.columns;
          return { given: [...data.flags], ...preview(view.columns, policy, 32) };
        }""",
        policy,
    )
    taken = [flag & 2 for flag in found["given"]]
    assert [flag & 2 for flag in found["flags"]] == taken
    assert 0 < found["fired"] < len(taken)


def test_the_reasoner_alone_beside(shipped: str, visit: Callable[..., Any]) -> None:
    page = visit(shipped)
    page.check("#reasoner-too")
    ask(page)
    assert page.inner_text("#alone .plain").endswith("The answer is 7.")
    assert page.locator("#costs tbody tr").count() == 3


def test_what_is_wrong_is_said_on_the_page(shipped: str, visit: Callable[..., Any]) -> None:
    page = visit(shipped)
    ask(page)
    page.fill("#threshold", "-1")
    page.wait_for_selector("#status[data-state=failed]", state="attached")
    assert "threshold" in page.inner_text("#error")
    page.fill("#threshold", "")
    page.locator("#error", has_text="the threshold is empty").wait_for()
    page.fill("#threshold", "2")
    assert settled(page).count() == 2
    assert page.locator("#error").is_hidden()
    page.fill("#question", "  ")
    page.click("#ask")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "question: it is empty; type one"


def test_hostile_text_is_text(visit: Callable[..., Any], tmp_path: Path) -> None:
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    folders = []
    for seed, who in enumerate(("<img src=x onerror=alert(2)>", "reasoner")):
        folder = save(tmp_path / who, seed + 1)
        (folder / "chat_template.jinja").write_text(template)
        folders += [str(folder)]
    with playground("--base", folders[0], "--reasoner", folders[1]) as url:
        page = visit(url)
        page.click(".more-knobs summary")
        page.fill("#max-tokens", "60")
        page.select_option("#divergence", "random")
        ask(page, HOSTILE)
        assert page.locator("main :is(img, b, script)").count() == 0
        assert page.inner_text("#shown h2") == HOSTILE.replace("\u202e", "\\u202e")
        assert "<img src=x" in page.inner_text("#pair option")
        assert page.locator(".token").count() == 60


def test_stop_and_ask_again(visit: Callable[..., Any], tmp_path: Path) -> None:
    """A question that is stopped makes room for the next at once."""
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    folders = [save(tmp_path / str(seed), seed) for seed in (1, 2)]
    for folder in folders:
        (folder / "chat_template.jinja").write_text(template)
    with playground("--base", str(folders[0]), "--reasoner", str(folders[1])) as url:
        page = visit(url)
        page.click(".more-knobs summary")
        page.fill("#temperature", "0.7")
        page.fill("#max-tokens", "480")
        page.wait_for_selector("#pair-state.ready", state="attached")
        page.fill("#question", "the cat.")
        page.click("#ask")
        page.click("#stop")
        page.wait_for_selector("#status[data-state=stopped]", state="attached")
        page.fill("#max-tokens", "5")
        page.click("#ask")
        settled(page)
        assert page.locator(".token").count() == 5


def test_pick_a_pair_and_one_that_cannot_be_loaded(visit: Callable[..., Any]) -> None:
    shipped = "delegate-llm/tiny-base,delegate-llm/tiny-reasoner"
    with playground("--pair", shipped, "--pair", "./nowhere,./neither") as url:
        page = visit(url)
        page.wait_for_selector("#pair option:nth-child(3)", state="attached")
        assert page.is_disabled("#ask")
        page.select_option("#pair", "1")
        page.wait_for_selector("#pair-state.failed")
        assert "nowhere" in page.inner_text("#pair-state")
        assert page.is_visible("#pair-again")
        assert page.is_disabled("#ask")
        page.select_option("#pair", "0")
        assert ask(page).count() == 2


def test_the_page_asks_for_the_key(visit: Callable[..., Any]) -> None:
    with playground("--api-key", "sesame") as url:
        page = visit(url)
        page.wait_for_selector("#key-form:not([hidden])")
        assert page.locator("#form").is_hidden()
        page.fill("#key", "ключ")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-wrong:not([hidden])")
        page.fill("#key", "guess")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-wrong:not([hidden])")
        page.fill("#key", "sesame")
        page.keyboard.press("Enter")
        assert ask(page).count() == 2
        page.reload()
        assert ask(page).count() == 2
