"""Conversations made to fit: templates without tools, and strict ones."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from delegate_llm import PromptError
from delegate_llm.pairs import PLAIN_CHAT
from delegate_llm.pairs.conversation import (
    alternating,
    calls_as_text,
    has_calls,
    tools_as_text,
    with_short_ids,
)
from delegate_llm.pairs.templates import answer_stops, is_thinking, reads_calls, reads_tools, write_chat
from delegate_llm.tiny import path

Messages = list[dict[str, Any]]

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PLAIN = PLAIN_CHAT.read_text()
TINY = (path("base") / "chat_template.jinja").read_text()
SIMPLE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
GEMMA_LIKE = """\
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{{- '[' + m.role + '] ' + m.content + '\n' }}
{%- endfor %}"""
MISTRAL_LIKE = """\
{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}
{%- for m in rest | rejectattr('role', 'equalto', 'tool') | selectattr('tool_calls', 'undefined') %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('After the optional system message, roles must alternate') }}
{%- endif %}{%- endfor %}
{%- if tools %}[TOOLS] {{ tools | tojson }}
{% endif %}
{%- for m in messages %}
{{- '[' + m.role + '] ' + m.content }}
{%- for call in m.tool_calls or [] %}
{%- if call.id | length != 9 %}{{ raise_exception('Tool call IDs should have length 9') }}{% endif %}
{{- '<' + call.id + '>' }}
{%- endfor %}
{%- if m.role == 'tool' and m.tool_call_id | length != 9 %}{{ raise_exception('IDs!') }}{% endif %}
{{- '\n' }}
{%- endfor %}"""


def say(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(arguments: Any, name: str = "add", call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def render(template: str, messages: Messages, tools: Messages | None = None) -> str:
    def write(messages: Messages, tools: Messages | None) -> str:
        return render_jinja_template([messages], tools, chat_template=template, add_generation_prompt=True)[
            0
        ][0]

    return write_chat(template, messages, tools, write)


HISTORY = [
    say("system", "Be brief."),
    say("user", "1 + 1?"),
    say("assistant", "", tool_calls=[call({"a": 1, "b": "é"})]),
    say("tool", "2", tool_call_id="call_1"),
]

# --- What a template can show ---


@pytest.mark.parametrize(
    ("template", "tools", "calls"),
    [
        (SIMPLE, False, False),
        (PLAIN, False, False),
        (TINY, True, True),
        (MISTRAL_LIKE, True, True),
        # As Llama's: set only if it is not there.
        ("{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools }}", True, False),
        ("{% for tools in messages %}{{ tools }}{% endfor %}{# tool_calls #}", False, False),
        ("{% generation %}{{ tools }}{% endgeneration %}{% break %}", True, False),
        ("{{ messages[0]['tool_calls'] }}", False, True),
        ("{{ messages | selectattr('tool_calls') }}", False, True),
        ("{{ tools | a_filter_of_its_own }}", True, False),
        ("{% unclosed", False, False),
        ("{% unclosed tools.tool_calls", True, True),
    ],
)
def test_abilities_are_read_off_the_template(template: str, tools: bool, calls: bool) -> None:
    assert (reads_tools(template), reads_calls(template)) == (tools, calls)


@pytest.mark.parametrize(
    ("template", "stops"),
    [
        (PLAIN, ("\n\nUser:",)),
        (SIMPLE, ()),
        ("{% set stops = ['a', 'b'] %}", ("a", "b")),
        ("{% set stops = messages %}", ()),
        ("{% set stops = [''] %}", ()),
        ("{% set stops = 'a' %}", ()),
        ("{% unclosed", ()),
    ],
)
def test_a_template_says_what_ends_an_answer(template: str, stops: tuple[str, ...]) -> None:
    assert answer_stops(template) == stops


def test_thinking_is_an_open_tag_at_the_end() -> None:
    assert is_thinking("<|im_start|>assistant\n<think>\n")
    assert not is_thinking("<think>\n\n</think>\n\n")
    assert not is_thinking("<think> well")


# --- Templates without tools ---


def test_tools_calls_and_results_become_text() -> None:
    text = render(SIMPLE, HISTORY, [ADD])
    assert text.startswith("[system] # Tools\n")
    assert f"<tools>\n{json.dumps(ADD)}\n</tools>" in text
    assert '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' in text
    assert text.endswith(
        "</tool_call>\n\nBe brief.\n"
        "[user] 1 + 1?\n"
        '[assistant] <tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>\n'
        "[user] <tool_response>\n2\n</tool_response>\n"
    )


def test_a_system_message_is_made_for_tools() -> None:
    told = tools_as_text([say("user", "hi"), say("system", "late")], [ADD, ADD])
    assert [each["role"] for each in told] == ["system", "user", "system"]
    assert told[0]["content"].count(json.dumps(ADD)) == 2


def test_calls_are_told_even_where_no_tools_are_given() -> None:
    assert "# Tools" not in render(SIMPLE, HISTORY)
    assert "<tool_response>\n2\n</tool_response>" in render(SIMPLE, HISTORY)
    # A template that shows calls but was never told of tools would show them in a form of its own.
    assert '{"name": "add"' in render("{{ messages[2].content }}{{ messages[2].tool_calls }}", HISTORY)


def test_a_template_that_shows_tools_but_no_calls_shows_its_own_tools() -> None:
    template = "{{ tools | length }} " + SIMPLE
    assert render(template, HISTORY, [ADD]).startswith("1 [system] Be brief.")
    assert "<tool_call>" in render(template, HISTORY, [ADD])


def test_a_template_with_tools_is_left_alone() -> None:
    text = render(TINY, HISTORY, [ADD])
    assert text.count("Call a tool with") == text.count("<tool_response>") == 1
    assert "# Tools\n\nYou may" not in text
    assert render(TINY, HISTORY[:2], []) == render(TINY, HISTORY[:2])


def test_results_in_a_row_are_one_message() -> None:
    calls = [call({}, call_id="1"), call('{"a": 1}', call_id="2"), call("not JSON"), {"name": "flat"}]
    told = calls_as_text(
        [
            say("assistant", "Both.", tool_calls=calls, reasoning_content="Hm."),
            say("tool", "one"),
            say("tool", "two"),
            say("user", "And?"),
            say("tool", "three"),
        ]
    )
    assert [each["role"] for each in told] == ["assistant", "user", "user", "user"]
    assert told[0] == say(
        "assistant",
        'Both.\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": "not JSON"}\n</tool_call>\n'
        '<tool_call>\n{"name": "flat", "arguments": {}}\n</tool_call>',
        reasoning_content="Hm.",
    )
    assert told[1]["content"] == (
        "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    )


_DEEP: Any = functools.reduce(lambda inner, _: {"a": inner}, range(5000), {})


@pytest.mark.parametrize(
    ("messages", "tools", "said"),
    [
        ([say("user", "hi")], [{"name": object}], "tools cannot be written as JSON"),
        ([say("assistant", "", tool_calls=[call({"a": {1}})])], None, "tool_calls cannot be written"),
        ([say("tool", ["parts"])], None, "content of a 'tool' message is list"),
        ([say("user", "hi")], [_DEEP], "tools are nested too deeply"),
        *(
            ([say("assistant", "", tool_calls=calls)], None, "is no list of calls such as")
            for calls in (5, "x", ["x"], [None], [{"function": "x"}], {"a": 1})
        ),
    ],
)
def test_what_cannot_be_text(messages: Messages, tools: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        render(SIMPLE, messages, tools)


# --- Strict templates ---


@pytest.mark.parametrize(
    ("template", "messages", "rendered"),
    [
        (GEMMA_LIKE, [say("system", "S"), say("user", "U")], "[user] S\n\nU\n"),
        (GEMMA_LIKE, [say("system", "S")], "[user] S\n"),
        (GEMMA_LIKE, [say("user", "U"), say("user", "V")], "[user] U\n\nV\n"),
        (MISTRAL_LIKE, [say("user", "U"), say("user", "V")], "[user] U\n\nV\n"),
        (
            MISTRAL_LIKE,
            [say("system", "S"), say("system", "T"), say("user", "U"), say("assistant", "A")],
            "[system] S\n\nT\n[user] U\n[assistant] A\n",
        ),
        (
            MISTRAL_LIKE,
            [say("user", "U"), say("assistant", "A"), say("system", "S"), say("user", "V")],
            "[user] U\n[assistant] A\n[user] S\n\nV\n",
        ),
        (
            MISTRAL_LIKE,
            [say("user", "U"), say("system", "S"), say("assistant", "A"), say("assistant", "B")],
            "[user] U\n\nS\n[assistant] A\n\nB\n",
        ),
        (
            MISTRAL_LIKE,
            [say("user", "U"), say("assistant", "A"), say("system", "S")],
            "[user] U\n[assistant] A\n[user] S\n",
        ),
    ],
)
def test_strict_templates(template: str, messages: Messages, rendered: str) -> None:
    assert render(template, messages) == rendered


def test_strict_templates_with_tools() -> None:
    """Ids of nine letters; what the system says behind a result goes to the question."""
    text = render(MISTRAL_LIKE, [*HISTORY, say("system", "Hurry.")], [ADD])
    assert text.startswith("[TOOLS]")
    assert "[user] 1 + 1?\n\nHurry.\n" in text
    assert "call_1" not in text
    # Where the user speaks right behind a result, only text is left.
    text = render(MISTRAL_LIKE, [*HISTORY, say("user", "Well?")], [ADD])
    assert text.endswith("[user] <tool_response>\n2\n</tool_response>\n\nWell?\n")
    assert "System role" not in render(GEMMA_LIKE, [*HISTORY, say("user", "Well?")], [ADD])


def test_the_first_error_is_told() -> None:
    with pytest.raises(PromptError, match="cannot render these messages: System role not supported"):
        render(GEMMA_LIKE, [say("system", "S"), say("assistant", "A"), say("assistant", ["B"])])
    with pytest.raises(PromptError, match="cannot render these messages: never"):
        render("{{ raise_exception('never') }}", [say("user", "U")])


def test_joining_keeps_calls_and_reasoning() -> None:
    first, second = call({}), call({"a": 1})
    (joined,) = alternating(
        [
            say("assistant", None, tool_calls=[first], reasoning_content="Hm."),
            say("assistant", "A", tool_calls=[second], reasoning_content="So."),
        ]
    )
    assert joined == say("assistant", "A", tool_calls=[first, second], reasoning_content="Hm.\n\nSo.")


def test_short_ids_stay_together() -> None:
    (asked, answered) = with_short_ids(HISTORY[2:])
    assert asked["tool_calls"][0]["id"] == answered["tool_call_id"] != "call_1"
    assert len(answered["tool_call_id"]) == 9
    assert with_short_ids([say("tool", "2", tool_call_id="abcdef123")])[0]["tool_call_id"] == "abcdef123"


ROLES = ("system", "user", "assistant", "tool")
CONVERSATIONS = st.lists(
    st.sampled_from(ROLES).flatmap(
        lambda role: st.sampled_from(
            [say(role, "a"), say(role, "")]
            + ([say(role, "", tool_calls=[call({"a": 1})])] if role == "assistant" else [])
            + ([say(role, "2", tool_call_id="call_1")] if role == "tool" else [])
        )
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize(
    "change",
    [
        alternating,
        lambda messages: alternating(messages, system=False),
        calls_as_text,
        with_short_ids,
        lambda messages: tools_as_text(messages, [ADD]),
    ],
)
@given(messages=CONVERSATIONS)
def test_nothing_is_changed_in_place(change: Callable[[Messages], Messages], messages: Messages) -> None:
    before = copy.deepcopy(messages)
    changed = change(messages)
    for each in changed:
        each["content"] = "changed"
    assert messages == before


@given(messages=CONVERSATIONS)
def test_strict_forms_are_strict(messages: Messages) -> None:
    told = alternating(calls_as_text(messages), system=False)
    assert not has_calls(told)
    roles = [each["role"] for each in told]
    assert set(roles) <= {"user", "assistant"}
    assert all(one != other for one, other in itertools.pairwise(roles))
    said = "".join(each["content"] or "" for each in messages)
    assert "".join(each["content"] for each in told).count("a") >= said.count("a")
    kept = [each["role"] for each in alternating(messages)]
    assert "system" not in kept[1:]
