"""Tools and structured output: whatever the models want to say, the form holds."""

from __future__ import annotations

import asyncio
import json
from functools import reduce
from operator import add
from typing import Any, Literal

import pytest
from answers import chat
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field
from routes import PAIR, QUESTION
from typing_extensions import TypedDict

from delegate_llm import (
    CancelledError,
    DelegatedChatModel,
    DelegateError,
    GrammarError,
    PolicyError,
    RequestError,
)
from delegate_llm.tiny.agent import TOOLS

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


@pytest.fixture(scope="module")
def model() -> DelegatedChatModel:
    return DelegatedChatModel(**PAIR)


# --- Tools and forms ---


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class PersonDict(TypedDict):
    """Somebody."""

    name: str
    age: int


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize(
    "schema", [Person, PersonDict, Person.model_json_schema()], ids=["pydantic", "typed", "json"]
)
def test_structured_output_has_the_form_whatever_the_model_wants(method: Any, schema: Any) -> None:
    model = DelegatedChatModel(
        **PAIR, temperature=1.0, seed=3, policy={"divergence": "random", "threshold": 0.5}, max_tokens=400
    )
    if isinstance(schema, dict):
        # Bounds, lest a small model writes digits for ever.
        schema = {
            **schema,
            "properties": {
                "name": {"type": "string", "maxLength": 9},
                "age": {"type": "integer", "maximum": 99, "minimum": 0},
            },
        }
    chain = model.with_structured_output(schema, method=method, include_raw=True)
    said = chain.invoke("Who is it?")
    if said["raw"].response_metadata["finish_reason"] != "length":
        assert said["parsing_error"] is None
        parsed = said["parsed"] if isinstance(said["parsed"], dict) else said["parsed"].model_dump()
        assert set(parsed) == {"name", "age"}
        assert isinstance(parsed["age"], int)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_a_form_that_was_cut_off_is_an_error(model: DelegatedChatModel, method: Any) -> None:
    chain = model.with_structured_output(Person, method=method, max_tokens=6)
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        chain.invoke("Who?")
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        list(chain.stream("Who?"))
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        asyncio.run(chain.ainvoke("Who?"))
    raw = model.with_structured_output(Person, method=method, max_tokens=6, include_raw=True).invoke("Who?")
    assert "cut off" in str(raw["parsing_error"])


def test_json_mode_and_unknown_methods(model: DelegatedChatModel) -> None:
    said = model.with_structured_output(Person, method="json_mode", include_raw=True).invoke(
        "Who?", max_tokens=60
    )
    assert said["raw"].content.startswith("{")
    with pytest.raises(RequestError, match="method: 'xml'"):
        model.with_structured_output(Person, method="xml")


def test_tool_choice(model: DelegatedChatModel) -> None:
    def names(message: AIMessage) -> list[str]:
        return [each["name"] for each in message.tool_calls]

    assert names(model.bind_tools(TOOLS, tool_choice="any").invoke("Hello!"))
    (call,) = model.bind_tools(TOOLS, tool_choice="subtract").invoke("Hello!").tool_calls
    assert call["name"] == "subtract"
    assert all(isinstance(each, int) for each in call["args"].values())
    named = {"type": "function", "function": {"name": "add"}}
    assert names(model.bind_tools(TOOLS, tool_choice=named).invoke("Hello!")) == ["add"]
    assert names(model.bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False).invoke("Hello!"))
    assert names(model.bind_tools(TOOLS).invoke(QUESTION)) == ["multiply"]
    assert not names(model.bind_tools(TOOLS, tool_choice="none").invoke(QUESTION))
    with pytest.raises(RequestError, match="'divide'"):
        model.bind_tools(TOOLS, tool_choice="divide")


def test_tools_or_a_form(model: DelegatedChatModel) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {
                "type": "object",
                "properties": {"n": {"type": "integer", "maximum": 99}},
                "required": ["n"],
            },
        },
    }
    called = model.bind_tools(TOOLS, response_format=form).invoke(QUESTION)
    assert called.tool_calls or "n" in json.loads(called.content)


def test_a_tag_in_a_string_of_a_form_is_text() -> None:
    said = '{"a": "<think>x</think><tool_call>"}'
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    model = chat(said)
    for call in (model.bind(response_format=form), model.bind_tools(TOOLS, response_format=form)):
        for message in (call.invoke("what?"), reduce(add, call.stream("what?"))):
            assert json.loads(message.text) == json.loads(said)
            assert not message.tool_calls
            assert not message.invalid_tool_calls


class Node(BaseModel):
    """A tree."""

    label: Literal["a", "b"]
    below: list[Node] = Field(default_factory=list, max_length=1)


class Forest(BaseModel):
    """Trees."""

    first: Node


@pytest.mark.parametrize("schema", [Node, Forest])
def test_a_class_that_contains_itself_is_held_to_its_form_all_the_way_down(schema: Any) -> None:
    """LangChain's own schema of it lets anything stand there."""
    plant = StructuredTool.from_function(lambda **_: "", name="plant", description="a", args_schema=schema)
    for seed in range(4):
        model = DelegatedChatModel(**PAIR, temperature=1.0, seed=seed, max_tokens=200)
        for method in ("function_calling", "json_schema"):
            said = model.with_structured_output(schema, method=method, include_raw=True).invoke("Hello!")
            assert isinstance(said["parsed"], schema), said
        called = model.bind_tools([plant], tool_choice="any", parallel_tool_calls=False).invoke("Hello!")
        (call,) = called.tool_calls
        assert schema.model_validate(call["args"])


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("schema", [3, int, "x", {"type": "object"}, {"type": "web_search"}])
def test_what_is_no_schema_is_refused_at_once(model: DelegatedChatModel, schema: Any, method: Any) -> None:
    with pytest.raises(RequestError, match=r"schema: .* is none; give a pydantic class"):
        model.with_structured_output(schema, method=method)


def test_stop_strings_do_not_cut_a_form(model: DelegatedChatModel) -> None:
    (call,) = model.bind_tools(TOOLS, tool_choice="add", stop=["name", "}"]).invoke("Hello!").tool_calls
    assert call["name"] == "add"


def test_a_conversation_with_tools(model: DelegatedChatModel) -> None:
    bound = model.bind_tools(TOOLS)
    history: list[Any] = [HumanMessage(QUESTION)]
    functions = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
    for _ in range(6):
        said = bound.invoke(history)
        history.append(said)
        if not said.tool_calls:
            break
        for call in said.tool_calls:
            result = str(functions[call["name"]](**call["args"]))
            history.append(ToolMessage(result, tool_call_id=call["id"]))
    assert "7" in history[-1].content


def test_system_messages_and_cancelled_errors_are_what_they_say() -> None:
    model = chat("fine")
    assert model.invoke([SystemMessage("be kind"), HumanMessage("what?")]).content == "fine"
    assert issubclass(CancelledError, DelegateError)
    assert issubclass(GrammarError, RequestError)
    assert issubclass(PolicyError, ValueError)
    assert issubclass(DelegatedChatModel, BaseChatModel)
