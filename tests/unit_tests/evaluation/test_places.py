"""Where takeovers fell: told from what was written before, whatever it is."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.evaluation.places import PLACES, takeover_places

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 4, "b": 5}}\n</tool_call>'
SWAPPED = '<tool_call>{"arguments": {"name": "x"}, "name": "add"}</tool_call>'


def decided(text: str) -> list[dict[str, Any]]:
    """Decisions that write a text in which every takeover is marked so: `[[token|base's token]]`."""
    parts = re.split(r"\[\[(.*?)\|(.*?)\]\]", text, flags=re.DOTALL)
    made = []
    for plain, token, base in zip(parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True):
        made += [{"token": each, "base_token": each, "takeover": False, "changed": False} for each in plain]
        if token is not None:
            made.append({"token": token, "base_token": base, "takeover": True, "changed": token != base})
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First [[multiply|add]] 3 by 4.", ["prose"]),
        ("[[<tool_call>|The]]", ["prose"]),  # the choice to call at all
        ("[[The|<tool_call>]] answer is 7.", ["prose"]),
        (CALL.replace("add", "[[add|multiply]]"), ["name"]),
        (CALL.replace(': "add', '[[: "add|: "multiply]]'), ["name"]),  # a token may begin before the name
        (CALL.replace("4", "[[4|5]]"), ["arguments"]),
        (CALL.replace('add", "arguments', '[[add", "arguments|add_all]]'), ["name"]),  # where the name ends
        (CALL.replace('", "arguments": {"a": 4', '[[", "arguments": {"a": 4|", "arguments": {"a": 9]]'),
         ["arguments"]),
        (CALL.replace('"a"', '[["a"|"b"]]').replace("5", "[[5|6]]"), ["arguments", "arguments"]),
        (CALL.replace("</tool_call>", "[[</tool_call>|,]]"), ["arguments"]),
        (CALL.replace("add", "[[add|add]]"), ["name"]),  # taken over, and said the same
        (f"{CALL}\n[[Then|So]] {CALL.replace('5', '[[5|7]]')} [[7|8]]", ["prose", "arguments", "prose"]),
        (SWAPPED.replace("x", "[[x|y]]").replace("add", "[[add|sub]]"), ["arguments", "name"]),
        ('<tool_call>[{"name": "a", "arguments": {}}, {"name": "[[b|c]]", "arguments": {"d": [[1|2]]}}]',
         ["name", "arguments"]),
        ('<tool_call>{"name": "a", "arguments": "{\\"b\\": [[3|4]]}"}', ["arguments"]),
        ('<tool_call>{"name": "a[[b|c]]', ["name"]),  # cut off
        ("<tool_call>[[add|sub]] 4 and 5</tool_call>[[.|!]]", ["name", "prose"]),  # no JSON at all
        ("<think>I could <tool_call>[[add|sub]]</think>[[So|Or]]", ["prose", "prose"]),
        ("or <tool_call>[[add|sub]]</think>", ["prose"]),  # the prompt had opened the thought
        ("", []),
    ],
)  # fmt: skip
def test_a_takeover_lies_where_its_token_parts_from_the_bases(text: str, expected: list[str]) -> None:
    assert takeover_places(decided(text)) == expected


PARTS = [
    *("<tool_call>", "</tool_call>", "<think>", "</think>", CALL, '{"name": "add", ', "<"),
    *('"', "{", "}", "[", "]", ":", ",", "\\", "name", '"name"', '"arguments"'),
    *("\n", "é", "中", "\N{REPLACEMENT CHARACTER}"),
]
WRITTEN = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=30).map("".join)
DECISIONS = st.lists(
    st.builds(
        lambda token, base, takeover: {
            "token": token, "base_token": base, "takeover": takeover, "changed": takeover and token != base,
        },
        st.sampled_from(PARTS) | st.text(max_size=4),
        st.sampled_from(PARTS) | st.text(max_size=4),
        st.booleans(),
    ),
    max_size=30,
)  # fmt: skip


@given(DECISIONS)
def test_every_takeover_has_a_place_whatever_was_written(decisions: list[dict[str, Any]]) -> None:
    found = takeover_places(decisions)
    assert len(found) == sum(each["takeover"] for each in decisions)
    assert set(found) <= set(PLACES)


@given(
    WRITTEN.filter(lambda text: "</think>" not in text), st.text(max_size=8).filter(lambda t: "<" not in t)
)
def test_what_is_written_later_changes_no_place(before: str, after: str) -> None:
    """But for a thought that ends: only then is it known to have been one."""
    marked = [*decided(before), {"token": "x", "base_token": "y", "takeover": True, "changed": True}]
    assert takeover_places([*marked, *decided(after)]) == takeover_places(marked)


@given(
    st.text(min_size=1, max_size=8).filter(lambda name: "<" not in name),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)
def test_any_call_that_is_json_has_its_name_and_its_arguments(name: str, arguments: dict[str, Any]) -> None:
    body = json.dumps({"name": name, "arguments": arguments})
    if "</tool_call>" in body:
        return
    start, split = body.index(json.dumps(name)) + 1, body.index('"arguments"')
    made = [{"token": each, "base_token": "", "takeover": False, "changed": False} for each in body]
    for each in made[start : start + len(json.dumps(name)) - 1] + made[split + len('"arguments": ') :]:
        each["takeover"] = True
    places = takeover_places([*decided("<tool_call>"), *made])
    assert places.count("name") == len(json.dumps(name)) - 1
    assert places.count("arguments") == len(places) - places.count("name")
