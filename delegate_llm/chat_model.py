"""`DelegatedChatModel`: LangChain on one side, a pair of models on the other, and little in between.

Messages become prompts (`messages`), settings become a call (`chat/call`), a call runs on a pair and is told
in chunks (`chat/run`), and what was decided ends up in the message (`chat/record`). Every route ends there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import run_in_executor
from langchain_core.tools import BaseTool
from langchain_core.utils import from_env
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from delegate_llm._settings import explain
from delegate_llm._version import __version__
from delegate_llm.chat.batching import BatchedRoutes
from delegate_llm.chat.call import (
    ARMS,
    SETTINGS,
    Arm,
    Call,
    chosen_tools,
    formatted,
    grammar_of,
    unknown_setting,
)
from delegate_llm.chat.forms import as_tool, call_parser, json_parser, parsed, response_format
from delegate_llm.chat.gathering import free_seat
from delegate_llm.chat.identity import LOAD_OPTIONS, digest, profile_of, said_of, source_name
from delegate_llm.chat.run import Job, chunks, message, run, run_together, some
from delegate_llm.chat.waiting import aside
from delegate_llm.errors import RequestError
from delegate_llm.messages import to_chat
from delegate_llm.pairs import PLAIN_CHAT
from delegate_llm.policy import Budget, DelegationPolicy
from delegate_llm.trace import Generation, TraceLevel
from delegate_llm.tracing import TracedRoutes

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("ChatDelegated", "DelegatedChatModel")

# What callers who talk to any provider may hand over; it means nothing to a model in this process.
_FOREIGN: Final = frozenset({"api_key", "max_retries", "model_provider"})
_SERVED: Final = frozenset({"api_key", "max_retries"})
"""Of these, what a server on the other side does know."""
# As for a single call: True is no number, and 1 is no truth.
_Number = Annotated[float, Field(strict=True)]
_Count = Annotated[int, Field(strict=True)]
_Flag = Annotated[bool, Field(strict=True)]


class DelegatedChatModel(BatchedRoutes, TracedRoutes):
    """A chat model in which a base writes, and a reasoner is heard at the tokens that decide.

    ```python
    from delegate_llm import DelegatedChatModel

    model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    answer = model.invoke("Tom has 3 boxes with 4 pens in each. How many pens does Tom have now?")
    answer.content, answer.response_metadata["delegation"]["summary"]
    ```

    The models are loaded when they are first needed, once a process, however many chat models name them.
    Every setting may also be given to a single call, by `bind` or as a keyword: `budget=0` runs no reasoner,
    `model="base"` or `model="reasoner"` is one of the two alone. A call may also say what it spends at most,
    whatever the budget: `max_asks`, and `max_takeovers`, one number or `{"tool_call": n, "final": m}`.
    """

    base: Any = Field(default_factory=from_env("DELEGATE_LLM_BASE", default=None), repr=False, exclude=True)
    """The cheap model, as for `load_pair`; by default what `DELEGATE_LLM_BASE` names."""
    reasoner: Any = Field(
        default_factory=from_env("DELEGATE_LLM_REASONER", default=None), repr=False, exclude=True
    )
    """The model that is asked; by default what `DELEGATE_LLM_REASONER` names."""
    pair: Any = Field(default=None, repr=False, exclude=True)
    """A pair that is loaded already, instead of `base` and `reasoner`."""
    backend: str = "transformers"
    """Who runs the models: `"transformers"`, `"vllm"`, or `"remote"` with a `base_url`; see `load_pair`."""
    load_options: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)
    """For `load_pair`: `dtype`, `device`, `reasoner_template_kwargs`, ...; may be given as keywords, too."""

    arm: Arm = "delegated"
    """Who writes: both, as the policy says, or `"base"` or `"reasoner"` alone."""
    policy: Any = None
    """When the reasoner takes over: a `DelegationPolicy`, its fields, or a file of one; the pair's own by
    default."""
    threshold: _Number | None = None
    """Instead of the policy's: scores above it call for a takeover."""
    budget: Any = None
    """Instead of the policy's: a `Budget`, a count of takeovers, or a share of the tokens."""
    divergence: str | None = None
    """Instead of the policy's: how the two distributions are compared."""
    temperature: _Number | None = None
    """0, the default, is greedy."""
    top_p: _Number | None = None
    """Mass of the nucleus sampled from, in (0, 1]."""
    top_k: _Count | None = None
    """How many tokens are sampled from; 0 means all."""
    max_tokens: _Count | None = None
    """Tokens generated at most; 512 by default."""
    stop: list[str] | str | None = Field(default=None, alias="stop_sequences")
    """Strings that end an answer and are cut off it."""
    seed: _Count | None = None
    """Names the sampled text; drawn afresh for each call by default."""
    n: _Count = 1
    """Answers to each prompt, in `generate`; a stream gives the first."""
    logprobs: _Flag | None = None
    """Whether `response_metadata` gets the log-probability of every token."""
    top_logprobs: _Count | None = None
    """Of how many alternatives, too."""
    timeout: _Number | None = None
    """Seconds that a call may take, before it ends with a `DeadlineError`."""
    streaming: bool = False
    """Whether `invoke` streams, for callbacks that want every token."""
    schedule: str | None = None
    """`"draft"` (fast, the default) or `"lockstep"` (the reference); the answer is the same."""
    draft: _Count | None = None
    """Tokens the base runs ahead at most."""
    trace: TraceLevel = "takeovers"
    """Which decisions the record lists: `"takeovers"`, `"full"`, or `"off"` for none."""

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    def __init__(self, *sources: Any, **settings: Any) -> None:
        """Name the models, as `DelegatedChatModel(base, reasoner)` or by keyword, and the settings.

        Raises:
            RequestError: If a setting is unknown or out of range.
            PolicyError: If one of the policy is.
        """
        named = dict(zip(("base", "reasoner"), sources, strict=False))
        if len(sources) > len(named) or named.keys() & settings.keys():
            msg = "base and reasoner come first, once each; every other setting is given by name"
            raise RequestError(msg)
        taken = LOAD_OPTIONS | (_SERVED if settings.get("backend") == "remote" else frozenset())
        options = {name: settings.pop(name) for name in taken & settings.keys()}
        if options:
            settings["load_options"] = {**settings.get("load_options", {}), **options}
        fields = type(self).model_fields
        known = {*fields, *(each.alias for each in fields.values() if each.alias), *_FOREIGN}
        for name in settings.keys() - known:
            raise RequestError(unknown_setting(name, [*known, *LOAD_OPTIONS]))
        try:
            super().__init__(**named, **settings)
        except ValidationError as error:
            raise RequestError(explain(error)) from None

    @field_validator("policy")
    @classmethod
    def _read_policy(cls, value: Any) -> Any:
        return DelegationPolicy.read(value) if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self._call({}, None)
        return self

    @model_validator(mode="after")
    def _set_delegate_llm_version(self) -> Self:
        self._add_version("delegate-llm", __version__)
        return self

    # --- Answers ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager  # no token is told before the answer is whole
        job = self._job(self._call(kwargs, stop), messages)
        seat = free_seat(self)
        return _result(job, seat.bring(job).result() if seat else run(job))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        del run_manager
        call = self._call(kwargs, stop)
        try:
            job = await run_in_executor(None, self._job, call, messages)
            seat = free_seat(self)
            if seat is None:
                return _result(job, await aside(job.pair, run, job))
            brought = await aside(job.pair, seat.bring, job)
            return _result(job, await asyncio.wrap_future(brought))
        except asyncio.CancelledError:
            call.cancelled.set()
            raise

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        del run_manager  # LangChain tells the tokens itself
        for chunk in chunks(self._job(self._call(kwargs, stop), messages)):
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        del run_manager
        call, ahead = self._call(kwargs, stop), None
        try:
            job = await run_in_executor(None, self._job, call, messages)
            stream = chunks(job)
            ahead = asyncio.ensure_future(aside(job.pair, some, stream))
            while ready := await ahead:
                # The models go on while the caller reads, for a step or a moment, and no further.
                ahead = asyncio.ensure_future(aside(job.pair, some, stream))
                for chunk in ready:
                    yield ChatGenerationChunk(message=chunk)
        finally:
            call.cancelled.set()
            if ahead is not None:
                ahead.cancel()

    def _run_jobs(self, jobs: Sequence[Job]) -> Sequence[list[Generation] | BaseException]:
        return run_together(jobs)

    def _call(self, given: dict[str, Any], stop: list[str] | None) -> Call:
        fields = {name: getattr(self, name) for name in SETTINGS}
        return Call.of(fields, given, stop, names={name: arm for arm, name in self._names().items()})

    def _job(self, call: Call, messages: Sequence[BaseMessage]) -> Job:
        return Job.of(call, self.load(), to_chat(messages), self._names()[call.arm])

    def load(self) -> Pair:
        """The pair, loaded if it was not; calls do this by themselves."""
        if self.pair is not None:
            return cast("Pair", self.pair)
        for who, source in (("base", self.base), ("reasoner", self.reasoner)):
            if source is None and self.backend != "remote":
                msg = (
                    f"{who}: there is none; name a hub id or a folder, or try the models that ship: "
                    "DelegatedChatModel('delegate-llm/tiny-base', 'delegate-llm/tiny-reasoner')"
                )
                raise RequestError(msg)
        from delegate_llm.pairs.registry import shared_pair  # noqa: PLC0415 - brings torch

        options = {"fallback_template": PLAIN_CHAT, **self.load_options}
        return shared_pair(self.base, self.reasoner, backend=self.backend, **options)

    # --- Tools and forms ---

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call.

        Args:
            tools: Functions, pydantic classes, LangChain tools, or dicts in OpenAI's form.
            tool_choice: `"auto"` leaves it to the model; `"none"` forbids calls; `"any"` demands one, and a
                tool's name one of that tool: then the answer is held to the form of a call by a grammar.
            strict: Accepted for other providers' sake: a demanded call always fits its schema.
            **kwargs: Settings of the calls; `parallel_tool_calls=False` allows one demanded call only.

        Raises:
            RequestError: If `tool_choice` is none of these, or a tool is none that can run here.
        """
        del strict
        made = formatted(tools)
        chosen_tools(made, tool_choice)
        return self.bind(tools=made, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with answers of a form, parsed. A grammar holds both models to it as they write.

        Args:
            schema: A pydantic class, a TypedDict, a JSON schema, or a function in OpenAI's form.
            method: `"function_calling"` demands a call of a tool with this schema, which the prompt then
                describes; `"json_schema"` demands JSON that fits it, and leaves describing it to your prompt;
                `"json_mode"` demands any JSON object.
            include_raw: Return a dict of `raw`, `parsed` and `parsing_error` instead.
            strict: Accepted for other providers' sake; answers always fit.
            **kwargs: Settings of the calls.

        Raises:
            RequestError: If the method is unknown, or the schema none.
            OutputParserException: From a call whose answer `max_tokens` cut off, or that does not fit.
        """
        del strict
        traced = {"kwargs": {"method": method}, "schema": schema}
        settings = {**kwargs, "ls_structured_output_format": traced}
        if method == "function_calling":
            name = as_tool(schema)["function"]["name"]
            model = self.bind_tools([schema], tool_choice=name, **settings)
            return parsed(model, call_parser(schema, name), include_raw=include_raw)
        form = response_format(schema, method)
        grammar_of(form)
        return parsed(
            self.bind(response_format=form, **settings), json_parser(schema), include_raw=include_raw
        )

    # --- Who this is ---

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text by the pair's own tokenizer."""
        return self.load().prompter.completion_ids(text) if text else []

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of the base's prompt for these messages and tools, template included."""
        told = None if tools is None else formatted(tools)
        return len(self.load().prompter.render(to_chat(messages), tools=told).base)

    def _names(self) -> dict[str, str]:
        """What each arm is called in metadata."""
        base, reasoner = (
            said_of(self.pair) if self.pair is not None else map(source_name, (self.base, self.reasoner))
        )
        names = {"delegated": f"{base}+{reasoner}", "base": base, "reasoner": reasoner}
        return {arm: f"{arm}:{names[arm]}" for arm in ARMS}

    @property
    def _llm_type(self) -> str:
        return "delegate-llm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Names and settings as JSON scalars: what makes two models answer alike. No weights, no texts."""
        settings = {name: getattr(self, name) for name in sorted(SETTINGS - {"timeout", "stop"})}
        given = {name: _scalar(value) for name, value in settings.items() if value is not None}
        loaded = digest(self.pair, self.base, self.reasoner, self.backend, self.load_options)
        return {"model_name": self._names()[self.arm], "loaded_as": loaded, **given, "stop": self.stop}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(ls_provider="delegate_llm", ls_model_type="chat")
        model, names = kwargs.get("model"), self._names()
        params["ls_model_name"] = names[self.arm] if model is None else names.get(str(model), str(model))
        if (temperature := kwargs.get("temperature", self.temperature)) is not None:
            params["ls_temperature"] = temperature
        if (max_tokens := kwargs.get("max_tokens", self.max_tokens)) is not None:
            params["ls_max_tokens"] = max_tokens
        if stops := (self.stop if stop is None else stop):
            one = isinstance(stops, str) or not isinstance(stops, Iterable)
            params["ls_stop"] = [str(stops)] if one else list(stops)
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.pair, self.base, self.reasoner)


ChatDelegated = DelegatedChatModel
"""LangChain's naming for the same class."""


def _result(job: Job, generations: Sequence[Generation]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message(job, each)) for each in generations])


def _scalar(value: Any) -> Any:
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, DelegationPolicy | Budget):
        return repr(value)
    return str(value)
