"""The page: one file in which no text can become markup, with a policy that allows its own scripts only."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import DelegationPolicy
from delegate_llm.report import Shown, frame, render
from delegate_llm.report.page import SCRIPTS, asset, embedded
from delegate_llm.trace import Decision, Generation, Summary, Trace, Usage


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and what stands within scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.within: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"} and data.strip():
            self.within.append((self.tags[-1][0], data))


def trace(*tokens: str) -> Trace:
    decisions = tuple(
        Decision(position=at, token=token, token_id=1, base_token=token, base_token_id=1)
        for at, token in enumerate(tokens)
    )
    return Trace(decisions=decisions, summary=Summary(tokens=len(tokens)))


def data_of(page: str) -> Any:
    """What the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


PLAIN = Tags(render([Shown(id="1", trace=trace("a"))], title="t"))


@given(
    st.lists(st.text(alphabet=st.characters() | st.sampled_from("<>/!-&'\"\u2028\ud800\udc00")), max_size=4)
)
def test_no_text_adds_a_tag(texts: list[str]) -> None:
    whole = "".join(texts)
    shown = Shown(id=whole, title=whole, prompt=whole, trace=trace(*texts), node=whole, notes=(whole,))
    page = render([shown], title=whole, notes=[whole])
    found = Tags(page)
    assert [tag for tag, _ in found.tags if tag != "p"] == [tag for tag, _ in PLAIN.tags if tag != "p"]
    page.encode()
    assert "".join(data_of(page)["answers"][0]["tokens"]).encode("utf-16", "surrogatepass") == whole.encode(
        "utf-16", "surrogatepass"
    )


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_embedded_json_is_the_same_and_holds_no_tag(value: Any) -> None:
    text = embedded(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_the_security_policy_names_every_script_and_style_and_nothing_else() -> None:
    (policy,) = (
        attributes["content"]
        for tag, attributes in PLAIN.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    parts = dict(part.strip().split(" ", 1) for part in str(policy).split(";"))
    assert parts["default-src"] == "'none'"
    for name, kind in (("script-src", "script"), ("style-src", "style")):
        texts = [text for tag, text in PLAIN.within if tag == kind and not text.startswith("{")]
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert parts[name].split() == [f"'sha256-{digest}'" for digest in digests]
    assert sorted(parts) == ["base-uri", "default-src", "form-action", "script-src", "style-src"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for tag, attributes in PLAIN.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not {"src", "style", "srcset"} & attributes.keys()
        assert attributes.get("href", "#shown") == "#shown"
        assert not any(name.startswith("on") for name in attributes)
    assert not any("url(" in text or "@import" in text for tag, text in PLAIN.within if tag == "style")


def test_the_scripts_make_text_and_no_markup() -> None:
    for name in (*SCRIPTS, "report.js"):
        code = asset(name)
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "fetch(",
        ):
            assert way not in code


def test_assets_are_small_files() -> None:
    for name in (*SCRIPTS, "report.js", "view.css", "report.css", "page.html.jinja"):
        assert len(asset(name).splitlines()) <= 400


def test_a_frame_holds_the_whole_page() -> None:
    page = render([Shown(id="1", trace=trace("</iframe>", '"', "&"))], title='"><b>')
    ((tag, attributes),) = Tags(frame(page)).tags
    assert tag == "iframe"
    assert attributes["srcdoc"] == page
    assert attributes["sandbox"] == "allow-scripts"


def test_a_trace_and_a_generation_show_themselves() -> None:
    said = trace("Hel", "lo")
    policy = DelegationPolicy(threshold=2.5)
    page = data_of(said.to_html(policy=policy, title="A title"))
    assert page["title"] == "A title"
    assert page["answers"][0]["title"] == "Hello"
    assert page["answers"][0]["policy"]["threshold"] == 2.5

    takeovers = Trace(level="takeovers", decisions=said.decisions[1:], summary=Summary(tokens=2))
    assert data_of(takeovers.to_html(text="Hello"))["answers"][0]["text"] == "Hello"

    made = Generation(text="Hello", token_ids=(1, 1), finish_reason="stop", trace=said, usage=Usage(), seed=5)
    (answer,) = data_of(made.to_html(prompt="Say hello"))["answers"]
    assert (answer["seed"], answer["prompt"], answer["title"]) == (5, "Say hello", "Say hello")
    assert html.unescape(made._repr_html_().split('srcdoc="')[1].split('">')[0]) == made.to_html()
    assert said._repr_html_().startswith('<iframe sandbox="allow-scripts"')


def test_an_empty_trace_has_a_page() -> None:
    assert data_of(Trace().to_html())["answers"][0]["title"] == "An answer"
