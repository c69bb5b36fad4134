"""Structured output: what to ask a model for, and how to parse what it answers.

An answer that was cut off is an error, where LangChain's parsers would give half of one or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from delegate_llm.errors import RequestError

__all__ = (
    "NOT_CONVERTED",
    "as_tool",
    "call_parser",
    "json_parser",
    "openai_tool",
    "parsed",
    "response_format",
)

_REF: Final = re.compile(r'"#/\$defs/([^"]+)"')


NOT_CONVERTED: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What LangChain raises where something is no tool or schema."""


def openai_tool(source: Any) -> dict[str, Any]:
    """A tool in OpenAI's form, from whatever LangChain takes for one; raises what LangChain raises.

    LangChain writes out all references, and lets anything stand where a class contains itself. Such a
    class keeps its references here.
    """
    made = convert_to_openai_tool(source)
    described = source if isinstance(source, type) else getattr(source, "tool_call_schema", None)
    if not (isinstance(described, type) and issubclass(described, BaseModel)):
        return made
    schema = described.model_json_schema()
    if not _contains_itself(schema.get("$defs", {})):
        return made
    whole = {name: value for name, value in schema.items() if name not in {"title", "description"}}
    return {**made, "function": {**made["function"], "parameters": whole}}


def _contains_itself(defined: Mapping[str, Any]) -> bool:
    """Whether one of several definitions refers to itself, be it by way of others."""
    refs = {name: set(_REF.findall(json.dumps(each))) for name, each in defined.items()}
    for _ in refs:
        refs = {name: its.union(*(refs.get(each, ()) for each in its)) for name, its in refs.items()}
    return any(name in its for name, its in refs.items())


def as_tool(schema: dict[str, Any] | type) -> dict[str, Any]:
    """A schema as a tool in OpenAI's form, whose arguments it describes.

    Raises:
        RequestError: If it is none.
    """
    cause: Exception | None = None
    try:
        tool = openai_tool(schema)
    except NOT_CONVERTED as error:
        tool, cause = {}, error
    if isinstance(tool.get("function"), Mapping):
        return tool
    msg = (
        f"schema: {schema!r:.80} is none; give a pydantic class, a TypedDict, a JSON schema with a title, "
        "or a function in OpenAI's form"
    )
    raise RequestError(msg) from cause


def response_format(schema: dict[str, Any] | type, method: str) -> dict[str, Any]:
    """OpenAI's way to ask for JSON, by the method that is none of tools.

    Raises:
        RequestError: If there is no such method, or the schema is none.
    """
    if method == "json_schema":
        described = {"name": "answer", "schema": convert_to_json_schema(as_tool(schema))}
        return {"type": "json_schema", "json_schema": described}
    if method == "json_mode":
        return {"type": "json_object"}
    msg = f"method: {method!r} is unknown; choose 'function_calling', 'json_schema' or 'json_mode'"
    raise RequestError(msg)


def call_parser(schema: dict[str, Any] | type, name: str) -> BaseOutputParser[Any]:
    """Reads the arguments of a call of the tool `name`, as what the schema describes."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticToolsParser(tools=[schema], first_tool_only=True)
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def json_parser(schema: dict[str, Any] | type) -> BaseOutputParser[Any]:
    """Reads JSON, as what the schema describes."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()


def parsed(
    model: Runnable[LanguageModelInput, AIMessage], parser: BaseOutputParser[Any], *, include_raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """A model whose answers are parsed; with `include_raw` a dict of `raw`, `parsed` and `parsing_error`."""
    whole = RunnableGenerator(_passed, _apassed)
    if not include_raw:
        return model | whole | parser
    read = RunnablePassthrough.assign(parsed=itemgetter("raw") | whole | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | read.with_fallbacks([failed], exception_key="parsing_error")


def _passed(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    for message in messages:
        _check(message)
        yield message


async def _apassed(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        _check(message)
        yield message


def _check(message: AIMessage) -> None:
    if message.response_metadata.get("finish_reason") != "length":
        return
    spent = message.usage_metadata["output_tokens"] if message.usage_metadata else "all"
    msg = (
        f"the answer was cut off after {spent} tokens, before its form was complete; allow more max_tokens, "
        "or bound the strings and numbers of the schema (maxLength, maximum)"
    )
    raise OutputParserException(msg, llm_output=message.text)
