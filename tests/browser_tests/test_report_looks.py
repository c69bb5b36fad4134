"""How the report looks in a real browser: both themes, contrast, the strip, and any width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_answers import hostile, small, written

from delegate_llm.report import Shown, render

SCHEMES = ("light", "dark")

CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    throw new Error("no ground");
  };
  const light = (rgb) => {
    const linear = (x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const bad = [];
  while (walker.nextNode()) {
    const each = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !each.checkVisibility()) continue;
    if (each.closest("script, style, .skip, .told, :disabled")) continue;
    const ink = light(parse(getComputedStyle(each).color).slice(0, 3));
    const under = light(ground(each));
    const ratio = (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
    if (ratio < 4.5) bad.push(`${each.tagName}.${each.className}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_text_can_be_read(opened: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
    page = opened(render(small(), title="Small"), scheme=scheme)
    shades = {"light": "rgb(251, 250, 248)", "dark": "rgb(21, 23, 26)"}
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == shades[scheme]
    page.evaluate(
        "document.querySelectorAll('.token').forEach((each, at) => each.classList.add(`s${at + 2}`))"
    )
    page.keyboard.press("n")
    page.keyboard.press("b")
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("t")
    page.hover("#takeovers")
    assert page.get_attribute("#takeovers", "aria-pressed") == "true"
    assert page.evaluate(CONTRAST) == []
    assert len(page.screenshot(path=tmp_path / f"{scheme}.png")) > 20_000


def test_the_theme_can_be_chosen(opened: Callable[..., Any]) -> None:
    page = opened(render(small(), title="Small"), scheme="dark")
    seen = []
    for _ in range(4):
        seen.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        page.keyboard.press("d")
    assert seen == ["rgb(21, 23, 26)", "rgb(251, 250, 248)", "rgb(21, 23, 26)", "rgb(21, 23, 26)"]
    assert page.inner_text("#theme") == "Colours: light"


def test_the_strip_is_drawn(opened: Callable[..., Any]) -> None:
    page = opened(render(small(), title="Small"))
    page.wait_for_selector("canvas[aria-label]")
    colours = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const seen = new Set();
          for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
          }
          return [...seen];
        }"""
    )
    # Bars, the line they are held against, the budget, takeovers: as the style sheet has them in light.
    assert {"207,166,83", "122,90,16", "107,79,163", "11,95,128"} <= set(colours)
    assert "with 2 takeovers marked" in page.get_attribute("canvas", "aria-label")


@pytest.mark.parametrize("width", [320, 390, 760, 1000, 1600])
@pytest.mark.parametrize("beside", [False, True])
def test_nothing_sticks_out_at_any_width(opened: Callable[..., Any], width: int, beside: bool) -> None:
    page = opened(render([*small(), *hostile()], title="W" * 300), width=width, height=800)
    if beside:
        page.keyboard.press("b")
    for _ in range(5):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("j")


def test_a_token_in_focus_is_not_under_the_panel_of_a_phone(opened: Callable[..., Any]) -> None:
    page = opened(
        render([Shown(id="1", title="Long", trace=written(600, 3))], title="Long"), width=390, height=844
    )
    for _ in range(12):
        page.keyboard.press("n")
        token = page.locator(".token:focus").bounding_box()
        assert token["y"] >= 0
        assert token["y"] + 20 <= page.locator(".detail").bounding_box()["y"]
