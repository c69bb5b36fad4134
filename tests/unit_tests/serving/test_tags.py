"""Structural tags mean the same in Lark: llguidance itself says what they allow."""

import json

import llguidance
import pytest
from llguidance.hf import from_tokenizer
from transformers import AutoTokenizer

from delegate_llm import tiny
from delegate_llm.errors import RequestError
from delegate_llm.serving.tags import specials, to_lark

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def tag(name, schema=SCHEMA):
    return {
        "type": "tag",
        "begin": f'<tool_call>\n{{"name": "{name}", "arguments": ',
        "content": {"type": "json_schema", "json_schema": schema, "style": "json"},
        "end": "}\n</tool_call>",
    }


TAGS = [tag("add"), tag("sub", schema=True)]
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 3}}\n</tool_call>'
SUB = '<tool_call>\n{"name": "sub", "arguments": [1]}\n</tool_call>'
BAD = '<tool_call>\n{"name": "add", "arguments": {"b": 3}}\n</tool_call>'
MANY = {"type": "tags_with_separator", "tags": TAGS, "separator": "\n", "at_least_one": True}
SAYS = {
    "type": "tag",
    "begin": "[[",
    "content": {"type": "json_schema", "json_schema": SCHEMA},
    "end": ["]]", "]"],
}
SAID = {"type": "triggered_tags", "tags": [SAYS], "triggers": ["[["]}
AUTO = {"type": "triggered_tags", "tags": TAGS, "triggers": ["<tool_call>"]}


@pytest.fixture(scope="module")
def lexicon():
    tokenizer = AutoTokenizer.from_pretrained(tiny.path("reasoner"))
    return tokenizer, from_tokenizer(tokenizer), specials(tokenizer)


def allows(lexicon, form, text):
    tokenizer, inner, special = lexicon
    grammar = to_lark(json.dumps({"type": "structural_tag", "format": form}), special)
    failed, notes = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, inner)
    assert not failed, (grammar, notes)
    matcher = llguidance.LLMatcher(inner, grammar)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (tag("add"), [ADD], ["", "Hm", BAD, ADD + ADD]),
        (MANY, [ADD, f"{ADD}\n{SUB}"], ["", "Hm", BAD, ADD + SUB]),
        ({**MANY, "stop_after_first": True}, [ADD, SUB], [f"{ADD}\n{SUB}"]),
        ({**MANY, "at_least_one": False}, ["", ADD], [BAD]),
        (
            AUTO,
            ["", "First add 5.", ADD, f"Hm. {ADD}", f"{ADD} and {SUB}."],
            [BAD, f"Hm {BAD}", "<tool_call>"],
        ),
        ({**AUTO, "at_least_one": True}, [ADD, f"Hm {SUB}"], ["", "Hm"]),
        ({**AUTO, "stop_after_first": True}, ["", "Hm", ADD], [ADD + ADD]),
        (SAID, ["", "a [b", 'Hm [[{"a": 1}] Hm [[{"a": 1}]]'], ["[[", "Hm [[1]]"]),
        (
            {"type": "or", "elements": [tag("add"), {"type": "const_string", "value": "no"}]},
            [ADD, "no"],
            ["na"],
        ),
        (
            {"type": "sequence", "elements": [{"type": "regex", "pattern": "[0-9]/"}, tag("add")]},
            [f"3/{ADD}"],
            [ADD],
        ),
        (
            {**tag("add"), "content": {"type": "any_text"}, "begin": "<think>", "end": ""},
            ["<think>Hm"],
            ["Hm"],
        ),
    ],
)
def test_allows_the_same(lexicon, form, good, bad):
    assert [text for text in good if not allows(lexicon, form, text)] == []
    assert [text for text in bad if allows(lexicon, form, text)] == []


def test_text_without_what_is_excluded(lexicon):
    form = {"type": "any_text", "excludes": ["no/", "never"], "max_tokens": None}
    assert allows(lexicon, form, "yes, no and nev er")
    assert not allows(lexicon, form, "yes, no/")
    assert not allows(lexicon, form, "I never say")


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"type": "any_text", "max_tokens": 5}, "'max_tokens' of a 'any_text'"),
        ({"type": "any_text", "max_chars": 5}, "'max_chars'"),
        ({"type": "json_schema", "json_schema": True, "excludes": ["x"]}, "'excludes' of a 'json_schema'"),
        ({"type": "json_schema", "json_schema": True, "max_whitespace_cnt": 0}, "'max_whitespace_cnt'"),
        ({**AUTO, "new": "x"}, "'new' of a 'triggered_tags'"),
        ({**AUTO, "tags": [{**TAGS[0], "new": "x"}]}, "'new' of a 'tag'"),
    ],
)
def test_no_constraint_is_left_out(form, named):
    with pytest.raises(RequestError, match=named):
        to_lark(json.dumps({"format": form}), {})


def test_the_older_form_stays():
    assert to_lark('{"structures": [], "triggers": []}', {}) is None


@pytest.mark.parametrize(
    "form", [{"type": "qwen_xml"}, {**AUTO, "excludes": ["x"]}, {**tag("add"), "begin": {"type": "token"}}]
)
def test_what_has_no_counterpart_is_refused(form):
    with pytest.raises(RequestError, match="xgrammar"):
        to_lark(json.dumps({"format": form}), {})
