"""Where answers come from: every shape that commands, chat models and graphs leave behind, and bad files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, messages_to_dict
from langgraph.graph import START, StateGraph
from scripted_chat import conversing

from delegate_llm import DelegatedChatModel, DelegationPolicy
from delegate_llm.errors import RequestError
from delegate_llm.graph import DelegationInput, DelegationState, delegated_node
from delegate_llm.report import Shown, columns, read_answers
from delegate_llm.report.shapes import answers_in
from delegate_llm.trace import Decision, Summary, Trace

QUESTION = "Are there cats?"
TEXT = "Hello! What can I do for you?"


@functools.cache
def message(trace: str = "full") -> AIMessage:
    """A real answer: the base would have said `Hullo`."""
    return DelegatedChatModel(pair=conversing(), trace=trace, threshold=0.5).invoke(QUESTION)


@functools.cache
def state() -> dict[str, Any]:
    """What a graph of two nodes returned, as JSON."""
    model = DelegatedChatModel(pair=conversing(), threshold=0.5)
    builder = StateGraph(DelegationState, input_schema=DelegationInput)
    builder.add_node("planner", delegated_node(model, name="planner", share=1.0))
    builder.add_node("writer", delegated_node(model, name="writer", share=0.0))
    builder.add_edge(START, "planner")
    builder.add_edge("planner", "writer")
    found = builder.compile().invoke({"messages": [("user", QUESTION)], "delegation_budget": 4})
    return {**found, "messages": [each.model_dump(mode="json") for each in found["messages"]]}


def record() -> dict[str, Any]:
    return message().response_metadata["delegation"]


def generation() -> dict[str, Any]:
    made = conversing().generate(
        [{"role": "user", "content": QUESTION}], trace="full", policy={"threshold": 0.5}
    )
    return json.loads(made.to_json())


WHOLE: dict[str, Callable[[], Any]] = {
    "generation": generation,
    "trace": lambda: generation()["trace"],
    "record": record,
    "record in metadata": lambda: {"delegation": record()},
    "message": lambda: message().model_dump(mode="json"),
    "message, as LangChain stores it": lambda: messages_to_dict([message()])[0],
    "message, as LangChain serialises it": lambda: dumpd(message()),
    "list": lambda: [generation()],
    "messages of a state": lambda: {"messages": [message().model_dump(mode="json")]},
    "snapshot of a state": lambda: {"values": {"messages": [message().model_dump(mode="json")]}},
}


def written(tmp_path: Path, text: str | bytes, name: str = "answers.json") -> Path:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("shape", WHOLE)
def test_every_shape_is_shown_token_by_token(tmp_path: Path, shape: str) -> None:
    (shown,) = read_answers(written(tmp_path, json.dumps(WHOLE[shape]()))).answers
    said = "".join(each.token for each in shown.trace.decisions)
    assert said.removesuffix("<|im_end|>") == TEXT
    assert columns(shown)["text"] is None
    assert shown.trace.summary.takeovers == 1
    assert shown.title.startswith("Hello")
    assert str(tmp_path) not in json.dumps(columns(shown))
    with_policy = "trace" not in shape and "generation" not in shape and shape != "list"
    assert (shown.policy is not None) is with_policy


def test_a_message_that_keeps_takeovers_has_its_text(tmp_path: Path) -> None:
    file = written(tmp_path, json.dumps(message("takeovers").model_dump(mode="json")))
    (shown,) = read_answers(file).answers
    assert shown.text == TEXT
    (taken,) = shown.trace.decisions
    assert (taken.token, taken.base_token) == ("e", "u")


def test_calls_of_tools_are_text_too() -> None:
    said = message("takeovers").model_copy(
        update={"content": "", "tool_calls": [{"name": "add", "args": {}, "id": "1"}]}
    )
    (shown,) = answers_in(said.model_dump(mode="json"), "here")
    assert shown.text is not None
    assert '"name": "add"' in shown.text


def test_a_state_says_which_node_answered_what(tmp_path: Path) -> None:
    planner, writer = read_answers(written(tmp_path, json.dumps(state()))).answers
    assert (planner.node, writer.node) == ("planner", "writer")
    assert planner.title == writer.title == QUESTION
    assert planner.prompt == QUESTION
    assert planner.trace.summary.takeovers == 1
    assert writer.trace.summary.takeovers == 0
    assert writer.text == TEXT.replace("Hello", "Hullo")


def test_traces_without_their_messages_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    only = {"delegation_traces": state()["delegation_traces"]}
    planner, writer = read_answers(written(tmp_path, json.dumps(only))).answers
    assert (planner.title, planner.node) == ("Call 0 of planner", "planner")
    assert [each.token for each in planner.trace.takeovers] == ["e"]
    assert "no decisions" in columns(writer)["notes"][0]
    (alone,) = answers_in(only["delegation_traces"][0], "here")
    assert alone.trace == planner.trace


def test_a_gate_of_a_users_own_is_known_by_name(tmp_path: Path) -> None:
    def my_gate(view: Any) -> bool:
        return view.position > 0

    model = DelegatedChatModel(
        pair=conversing(), trace="full", policy=DelegationPolicy(threshold=0.5, gates=(my_gate,))
    )
    file = written(tmp_path, json.dumps(model.invoke(QUESTION).model_dump(mode="json")))
    (shown,) = read_answers(file).answers
    data = columns(shown)
    assert "my_gate" in data["policy"]["gates"][0]
    assert "cannot be told" in data["causes"][data["why"][0]]
    assert data["causes"][data["why"][1]].startswith("A takeover")


def test_a_policy_that_cannot_be_read_is_no_reason_to_show_nothing() -> None:
    (shown,) = answers_in({**record(), "policy": {"divergence": "unheard of"}}, "here")
    assert shown.policy is None
    assert "unheard of" in shown.notes[0]


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.json", "answers"])
def test_lines_are_read_one_by_one(tmp_path: Path, name: str) -> None:
    text = "\ufeff" + "\n".join([json.dumps(generation()), "", json.dumps(record()), ""])
    found = read_answers(written(tmp_path, text, name), limit=1)
    assert len(found.answers) == 1
    assert found.left_out == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ('{"text": "a", "trace"', r"line 1, column 22: no JSON.*cut off"),
        ('{\n"a": 1,\n!\n}', "line 3, column 1"),
        ('{"level": "off", "decisions": [], "summary": {}}\n{"le', "line 2"),
        ("[" * 100_000, "cannot be read"),
        ("1" * 5_000, "cannot be read"),
        ("3", "3 is nothing to show; give a folder of"),
        ('"text"', "'text' is nothing to show"),
        ('{"foo": 1, "bar": 2}', "an object with 'foo', 'bar' is nothing to show"),
        ("{}", "no keys"),
        ("[]", "holds no answer"),
        ('{"text": 1, "trace": null}', "text: 1 is no text"),
        ('{"text": "", "trace": {"decisions": 1}}', "trace: not a trace of this version: .*decisions"),
        ('{"decisions": [{"position": 0}], "summary": {}}', r"decisions\.0\.token_id"),
        ('{"messages": [{"type": "human", "content": "a"}]}', "no message of this state"),
        ('{"response_metadata": {"model_name": "other"}}', "no record of delegation"),
        ('{"delegation_traces": [{"id": "1", "node": 2, "takeovers": [{}]}]}', "'1' is no trace of a call"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
    ],
)
def test_what_cannot_be_shown_is_named_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said) as raised:
        read_answers(written(tmp_path, text))
    assert "answers.json" in str(raised.value)


def test_a_file_that_is_not_there_and_an_arm_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot be read: No such file"):
        read_answers(tmp_path / "none.json")
    with pytest.raises(RequestError, match=r"has no samples\.jsonl"):
        read_answers(tmp_path)
    with pytest.raises(RequestError, match=r"'base' names a part of a run"):
        read_answers(written(tmp_path, "[]"), arms=["base"])


def test_a_generation_without_a_trace_is_text() -> None:
    (shown,) = answers_in({"text": "Hello", "trace": None}, "here")
    assert shown == Shown(id="here", title="Hello", text="Hello", trace=Trace(level="off"))


def jsons() -> st.SearchStrategy[Any]:
    """Values that have the keys of the shapes, and anything under them."""
    shapes = "text trace decisions summary takeovers response_metadata messages delegation_traces"
    inside = "delegation values id node data kwargs lc type content tool_calls policy level"
    names = st.sampled_from([*shapes.split(), *inside.split()])
    leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )


@given(jsons())
def test_any_json_is_shown_or_refused_in_our_words(value: Any) -> None:
    try:
        found = answers_in(value, "here")
    except RequestError as error:
        told = str(error)
    else:
        json.dumps([columns(each) for each in found])
        told = "here: shown"
    assert told.startswith("here")


@given(st.text(alphabet=st.characters(), max_size=8))
def test_a_trace_in_a_file_comes_back_as_it_was(token: str) -> None:
    decision = Decision(position=0, token=token, token_id=1, base_token="x", base_token_id=2)
    trace = Trace(decisions=(decision,), summary=Summary(tokens=1))
    try:
        text = trace.to_json()
    except ValueError:  # a lone surrogate, which pydantic writes in no JSON
        text = json.dumps(trace.model_dump(mode="python"))
    (shown,) = answers_in(json.loads(text), "here")
    assert shown.trace == trace


def test_states_in_which_nobody_has_answered_yet_are_passed_over(tmp_path: Path) -> None:
    unanswered = {"messages": [{"type": "human", "content": "hi"}]}
    history = [{"values": state()}, {"values": unanswered}, {"values": {}}]
    found = read_answers(written(tmp_path, json.dumps(history)))
    once = read_answers(written(tmp_path, json.dumps(state())))
    assert [each.title for each in found.answers] == [each.title for each in once.answers]
    twice = "".join(f"{json.dumps(each)}\n" for each in (unanswered, state(), state()))
    again = read_answers(written(tmp_path, twice, "values.jsonl"))
    assert len(again.answers) == len(once.answers), "each call is told once, in however many states"
    for nothing in (unanswered, [unanswered]):
        with pytest.raises(RequestError, match=r"no message of this state|holds no answer"):
            read_answers(written(tmp_path, json.dumps(nothing)))


@pytest.mark.parametrize("text", ["[" * 600 + "]" * 600, '{"values":' * 500 + "1" + "}" * 500])
def test_what_is_nested_too_deeply_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"nested too deeply|nothing to show|holds no answer"):
        read_answers(written(tmp_path, text))


def test_a_generation_says_that_its_policy_is_not_known() -> None:
    (shown,) = answers_in(generation(), "here")
    assert "does not name the policy" in shown.notes[0]
    told = {**generation(), "policy": {"threshold": 0.5}, "prompt": "How many?"}
    (shown,) = answers_in(told, "here")
    assert (shown.policy, shown.prompt, shown.notes) == (DelegationPolicy(threshold=0.5), "How many?", ())
