"""A real browser: a Chromium of the system, driven by playwright; without either, these tests are skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where the browser is."""
    named = os.environ.get("DELEGATE_LLM_CHROMIUM")
    return named or next((found for name in _NAMES if (found := shutil.which(name))), None)


# For a module only: as long as it is there, its event loop keeps tests of asyncio from having theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} on PATH, and DELEGATE_LLM_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens an HTML text; a script's error, a message on the console or a request ends the test."""
    wrong: list[str] = []
    contexts = []

    def open_page(html: str, *, width: int = 1280, height: int = 860, scheme: str = "light") -> Any:
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url)
        )
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=10_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
