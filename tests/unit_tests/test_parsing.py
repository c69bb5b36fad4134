"""Answers taken apart: the same parts however a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from parsed import ADD, ADDED, PIECES, parse

from delegate_llm.parsing import BrokenCall, Call, Part, Reasoning, Text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" \n", [Text(" \n")]),
        ("\n  a < b,\tc <b>d</b> \n", [Text("\n  a < b,\tc <b>d</b> \n")]),
        ("<think>\nhm \n</think>\n\nyes\n", [Reasoning("hm"), Text("yes\n")]),
        ("\n<think>hm</think>yes", [Reasoning("hm"), Text("yes")]),
        ("<think>\n\n</think>\n\nyes", [Text("yes")]),
        ("<think>a<think>b", [Reasoning("ab")]),
        ("<think>hm\n", [Reasoning("hm")]),
        ("a <think>b</think> c", [Text("a "), Reasoning("b"), Text("c")]),
        (f"<think>{ADD}</think>", [Reasoning(ADD)]),
        (ADD, [ADDED]),
        (f"\n{ADD}\n{ADD}\n", [ADDED, ADDED]),
        (f"Let me see. \n{ADD}", [Text("Let me see."), ADDED]),
        (f"<think>\nhm\n</think>\n\n{ADD}", [Reasoning("hm"), ADDED]),
        (f"{ADD}\nSo.\n", [ADDED, Text("So.\n")]),
        (f"Let me see.\n{ADD}\nSo.", [Text("Let me see."), ADDED, Text("\nSo.")]),
        # Tags that close nothing, and tags that the end cuts off.
        ("a</think>b</tool_call>c", [Text("abc")]),
        ("a <", [Text("a <")]),
        ("a <t", [Text("a")]),
        ("a </tool_cal", [Text("a")]),
        ("<think>a <", [Reasoning("a <")]),
        ("<think>a </th", [Reasoning("a")]),
    ],
)
def test_parts(text: str, parts: list[Part]) -> None:
    assert parse(text) == parts
    assert parse(text, *range(len(text))) == parts


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    assert parse("\nhm\n</think>\n\nyes", thinking=True) == [Reasoning("hm"), Text("yes")]
    assert parse("yes", thinking=True) == [Reasoning("yes")]


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('{"name": "f"}', [Call("f", "{}")]),
        ('{"name": "f", "parameters": {"a": 1}}', [Call("f", '{"a": 1}')]),
        (r'{"name": "f", "arguments": "{\"a\": 1}"}', [Call("f", '{"a": 1}')]),
        ('{"arguments": {"a": "水"}, "name": "f"}', [Call("f", '{"a": "水"}')]),
        (r'{"name": "f", "arguments": {"a": "\u6c34"}}', [Call("f", '{"a": "水"}')]),
        ('[{"name": "f"}, {"name": "g", "arguments": {"a": 1}}]', [Call("f", "{}"), Call("g", '{"a": 1}')]),
        ('{"name": "f", "arguments": {"a": "</tool_call> \\"<tool_call>"}}',
         [Call("f", '{"a": "</tool_call> \\"<tool_call>"}')]),
        ('{"name": "f", "arguments": {"a": "<think></think>"}}', [Call("f", '{"a": "<think></think>"}')]),
    ],
)  # fmt: skip
def test_calls(body: str, calls: list[Part]) -> None:
    text = f"a <tool_call>{body}</tool_call> b"
    expected = [Text("a"), *calls, Text(" b")]
    assert parse(text) == expected
    assert parse(text, *range(len(text))) == expected
    # A closing tag that is missing at the end of the answer is forgiven.
    for end in ("", "\n", "\n<", "</tool", "</tool_call"):
        assert parse(f"<tool_call>\n{body}{end}") == calls


DEEP = "[" * 50_000 + "]" * 50_000


@pytest.mark.parametrize(
    ("body", "name", "error"),
    [
        ("", None, "cannot be read as JSON"),
        ("add 1 and 2", None, "cannot be read as JSON"),
        ('{"name": "f", "arguments": {"a": 1}', "f", "cannot be read as JSON"),
        ('{"name": "f", "arguments": {"a": "it"s"}}', "f", "cannot be read as JSON"),
        ('{"name": "f", "arguments": {"a": "\n"}}', "f", "Invalid control character"),
        ('{"name": "f", "arguments": {"a": NaN}}', "f", "NaN is not a finite number"),
        ('{"name": "f", "arguments": {"a": -Infinity}}', "f", "-Infinity is not a finite number"),
        ('{"name": "f", "arguments": {"a": 1e999}}', "f", "1e999 is not a finite number"),
        ('{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}", "f", "digits"),
        ('{"name": "f", "arguments": {"a": ' + DEEP + "}}", "f", "nested deeper"),
        ('{"name": "f", "arguments": {"a": ' + DEEP[49_850:50_150] + "}}", "f", "nested deeper"),
        (r'{"name": "f", "arguments": {"a": "\ud800"}}', "f", "surrogates not allowed"),
        (r'{"name": "\ud800", "arguments": {}}', None, "surrogates not allowed"),
        ('{"name": "f"} {"name": "g"}', "f", "Extra data"),
        ("3", None, "not a number"),
        ('"f"', None, "not a string"),
        ("[]", None, "empty"),
        ("[3]", None, "not a number"),
        ('{"arguments": {}}', None, "not None"),
        ('{"name": ""}', None, "not ''"),
        ('{"name": 3}', None, "not 3"),
        ('{"name": "f", "arguments": [1]}', "f", "must be an object, not a list"),
        ('{"name": "f", "arguments": null}', "f", "must be an object, not null"),
        ('{"name": "f", "arguments": "[1]"}', "f", "must be an object, not a list"),
        ('{"name": "f", "arguments": "a=1"}', "f", "is a string that cannot be read as JSON"),
    ],
)
def test_broken_calls(body: str, name: str | None, error: str) -> None:
    broken, text, good = parse(f"<tool_call>\n{body}\n</tool_call>\nHm.{ADD}")
    assert broken == BrokenCall(name, body, broken.error)
    assert error in broken.error
    assert (text, good) == (Text("Hm."), ADDED)


def test_a_broken_call_in_a_list_breaks_no_other() -> None:
    body = '[{"name": "f"}, {"name": 3}]'
    call, broken = parse(f"<tool_call>{body}</tool_call>")
    assert call == Call("f", "{}")
    assert isinstance(broken, BrokenCall)
    assert broken.arguments == body


@pytest.mark.parametrize("tail", ["", "<", "</", "</tool_cal"])
def test_a_call_cut_off(tail: str) -> None:
    [broken] = parse('<tool_call>\n{"name": "f", "arguments": {"a": 1' + tail)
    kept = tail if tail == "<" else ""
    assert broken == BrokenCall("f", '{"name": "f", "arguments": {"a": 1' + kept, broken.error)
    assert "cut off" in broken.error


def test_a_quote_that_never_closes_swallows_nothing() -> None:
    body = '{"name": "f", "arguments": {"a": "x}}'
    broken, *rest = parse(f"<tool_call>{body}</tool_call> and {ADD} so")
    assert isinstance(broken, BrokenCall)
    assert broken.arguments == body
    assert rest == [Text("and"), ADDED, Text(" so")]


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text('</think>tol_ca"{}\\ \n'),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    thinking=st.booleans(),
    formed=st.booleans(),
)
@example(text=f'<tool_call>{{"a": "</tool_call>{ADD}', cuts=[30], thinking=False, formed=False)
def test_cuts_make_no_difference(text: str, cuts: list[int], *, thinking: bool, formed: bool) -> None:
    told = {"thinking": thinking, "formed": formed}
    whole = parse(text, **told)
    assert parse(text, *(cut for cut in cuts if cut < len(text)), **told) == whole
    assert parse(text, *range(len(text)), **told) == whole


@pytest.mark.parametrize(
    ("text", "thinking", "parts"),
    [
        ('{"a": "<think> </think>"}', False, [Text('{"a": "<think> </think>"}')]),
        (f"[{ADD}]", False, [Text(f"[{ADD}]")]),
        ('{"a": "</th', False, [Text('{"a": "</th')]),
        (f"{ADD}\n{ADD}", False, [ADDED, ADDED]),
        ("<tool_c", False, []),
        (f'hm</think>\n\n"<think>{ADD}"', True, [Reasoning("hm"), Text(f'"<think>{ADD}"')]),
        (f"hm</think>\n\n{ADD}", True, [Reasoning("hm"), ADDED]),
    ],
)
def test_in_an_answer_of_a_form_a_tag_behind_text_is_text(
    text: str, *, thinking: bool, parts: list[Part]
) -> None:
    assert parse(text, thinking=thinking, formed=True) == parts
    assert parse(text, *range(len(text)), thinking=thinking, formed=True) == parts


@given(st.text(st.characters(exclude_characters="<")))
def test_text_without_tags_comes_out_as_it_went_in(text: str) -> None:
    assert parse(text, *range(0, len(text), 3)) == ([Text(text)] if text else [])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 20_000,
        '<tool_call>{"</tool_call>' * 8_000,
        '<tool_call>{"a": "' + "</tool_call>" * 8_000,
        '<tool_call>{"a": "' + "x" * 200_000,
        "<tool_call>" + "[" * 200_000 + "</tool_call>",
        "<think>" + "< " * 100_000,
    ],
    ids=len,
)
def test_long_texts(text: str) -> None:
    assert parse(text) == parse(text, *range(0, len(text), 5))
