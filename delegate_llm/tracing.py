"""LangSmith: every run of the model says where its reasoner was heard, and what that cost.

LangChain's own tracer sends the record within the run's outputs, where the UI can neither filter nor chart
it. `DelegationTracer` lifts it into the run's metadata and events. `TracedRoutes` puts that tracer in the
other's place on every route into a chat model: in v1 streaming, hence inside LangGraph, a model is never
told its own run, so it cannot annotate it from within.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager, Callbacks
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import tracing_v2_callback_var
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.tracers.schemas import Run
from langsmith.utils import tracing_is_enabled
from pydantic import field_validator

from delegate_llm.trace import COSTS

__all__ = ("MAX_TAKEOVER_EVENTS", "DelegationTracer", "TracedRoutes", "annotated")

MAX_TAKEOVER_EVENTS: Final = 64
"""Takeovers that a run tells as events; the outputs hold them all."""

_POLICY: Final = ("divergence", "threshold")
_SUMMARY: Final = ("tokens", "takeovers", "changed", "asked", "share")
_TAKEOVER: Final = ("position", "token", "base_token", "score")
_WORDS: Final = frozenset({"token", "base_token"})

_logger = logging.getLogger(__name__)


class DelegationTracer(LangChainTracer):
    """LangChain's tracer, for runs of a `DelegatedChatModel` with what can be filtered in the UI.

    Metadata, all JSON scalars: `delegation_id`; `delegation_divergence` and `delegation_threshold` of the
    policy; `delegation_tokens`, `_takeovers`, `_changed`, `_asked`, `_share`; the cost as
    `delegation_base_forwards`, `_reasoner_forwards`, `_base_tokens`, `_reasoner_tokens`, `_base_flops`,
    `_reasoner_flops`, or instead `delegation_cached` where LangChain's cache answered at no cost;
    `delegation_takeover_log`, a line for each takeover. Events: one `takeover` each, with its position,
    token, the base's own token, and the score; at most `MAX_TAKEOVER_EVENTS`, then one
    `takeovers_left_out` with their count.

    The chat model installs it by itself where tracing is on; pass one in `callbacks` to trace a single call.
    Runs of other models go through untouched. A client that hides or anonymizes outputs is sent no token
    here either, since it would not mask it in an event.
    """

    def _on_llm_end(self, run: Run) -> None:
        try:
            self._promote(run)
        except Exception:  # whatever stands in a record, the user's run goes on
            _logger.warning("run %s: its delegation record could not be read", run.id, exc_info=True)
        super()._on_llm_end(run)

    def _promote(self, run: Run) -> None:
        messages = _delegated(run)
        if not messages:
            return
        lists = [each["response_metadata"]["delegation"].get("takeovers") or () for each in messages]
        shown = [each for takeovers in lists for each in takeovers if isinstance(each, Mapping)]
        left_out = len(shown) - MAX_TAKEOVER_EVENTS
        shown = shown[:MAX_TAKEOVER_EVENTS]
        metadata = _metadata(messages)
        verbatim = self._sends_words(run)
        if verbatim and shown:
            metadata["delegation_takeover_log"] = "\n".join(map(_line, shown))
        names = [name for name in _TAKEOVER if verbatim or name not in _WORDS]
        events = [("takeover", _scalars(each, names)) for each in shown]
        if left_out > 0:
            events.append(("takeovers_left_out", {"count": left_out}))
        time = (run.end_time or datetime.now(UTC)).isoformat()
        run.add_event([{"name": name, "time": time, "kwargs": kwargs} for name, kwargs in events])
        # A fresh dict: LangChain starts every run of a `generate` over several prompts with the same one.
        run.extra["metadata"] = {**(run.extra.get("metadata") or {}), **metadata}

    def _sends_words(self, run: Run) -> bool:
        """Whether the answer goes out as it is; LangSmith masks outputs, but not these events."""
        clients = (self.client, *(each["client"] for each in run.replicas or () if each.get("client")))
        # Private names: if they ever go, no word is sent.
        return all(
            getattr(client, "_hide_outputs", True) is False and getattr(client, "_anonymizer", True) is None
            for client in clients
        )


class TracedRoutes(BaseChatModel):
    """A chat model that `DelegationTracer` records wherever LangSmith tracing is on, on every route.

    `invoke`, `batch` and their like end in `generate`; protocol v2 of `stream_events` ends in `stream`.
    """

    @field_validator("callbacks")
    @classmethod
    def _annotated_callbacks(cls, value: Callbacks) -> Callbacks:
        return _substituted(value)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As in `BaseChatModel`."""
        return super().generate(messages, stop, annotated(callbacks, local=self.callbacks), **kwargs)

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As in `BaseChatModel`."""
        return await super().agenerate(messages, stop, annotated(callbacks, local=self.callbacks), **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """As in `BaseChatModel`."""
        yield from super().stream(input, self._annotated(config), stop=stop, **kwargs)

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As in `BaseChatModel`."""
        # Closed with this generator: a stream that is left early must end its run, and its forward passes.
        chunks = super().astream(input, self._annotated(config), stop=stop, **kwargs)
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", chunks)):
            async for chunk in chunks:
                yield chunk

    if not TYPE_CHECKING:  # to a type checker, the overloads of `BaseChatModel` stand

        def stream_events(self, input, config=None, *, version="v2", **kwargs):  # noqa: A002, ANN001, ANN003, ANN201
            """As in `BaseChatModel`."""
            config = self._annotated(config) if version == "v3" else config
            return super().stream_events(input, config, version=version, **kwargs)

        def astream_events(self, input, config=None, *, version="v2", **kwargs):  # noqa: A002, ANN001, ANN003, ANN201
            """As in `BaseChatModel`."""
            config = self._annotated(config) if version == "v3" else config
            return super().astream_events(input, config, version=version, **kwargs)

    def _annotated(self, config: RunnableConfig | None) -> RunnableConfig:
        # Inside a graph the callbacks may come from the context, not from the argument.
        config = ensure_config(config)
        config["callbacks"] = annotated(config.get("callbacks"), local=self.callbacks)
        return config


def annotated(callbacks: Callbacks, *, local: Callbacks = None) -> Callbacks:
    """The callbacks of one call, with a `DelegationTracer` wherever LangChain's own tracer is or would be.

    The argument itself is never changed, and is what comes back if nothing traces. The new tracer shares
    the other's client, project and open runs, so parents and children stay linked. A subclass of
    LangChain's tracer is left as it is, since it may mask what it sends; so may one in `local`.

    Args:
        callbacks: What the call was given.
        local: The model's own callbacks; a tracer among them keeps LangChain from adding one.
    """
    if not any(isinstance(each, LangChainTracer) for each in (*_handlers(callbacks), *_handlers(local))):
        if tracing_v2_callback_var.get() is None and not tracing_is_enabled():
            return callbacks
        # LangChain adds its tracer, as it would a moment later; what it then does twice, it does once.
        manager = AsyncCallbackManager if isinstance(callbacks, AsyncCallbackManager) else CallbackManager
        callbacks = manager.configure(callbacks)
    return _substituted(callbacks)


def _substituted(callbacks: Callbacks) -> Callbacks:
    if not any(type(each) is LangChainTracer for each in _handlers(callbacks)):
        return callbacks
    if callbacks is None or isinstance(callbacks, list):
        return _delegation_tracers(callbacks or ())
    manager = callbacks.copy()
    manager.handlers = _delegation_tracers(manager.handlers)
    manager.inheritable_handlers = _delegation_tracers(manager.inheritable_handlers)
    return manager


def _handlers(callbacks: Callbacks) -> list[BaseCallbackHandler]:
    return callbacks if isinstance(callbacks, list) else callbacks.handlers if callbacks else []


def _delegation_tracers(handlers: Iterable[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    return [_delegation_tracer(each) if type(each) is LangChainTracer else each for each in handlers]


def _delegation_tracer(tracer: LangChainTracer) -> DelegationTracer:
    """The same tracer, promoting: it shares every map of runs, whatever a release calls it."""
    # Not `copy.copy`, to which a tracer answers with itself.
    twin = DelegationTracer.__new__(DelegationTracer)
    vars(twin).update(vars(tracer))
    return twin


def _delegated(run: Run) -> list[Mapping[str, Any]]:
    """The fields of the run's messages that carry a record: none in another model's run, `n` in ours."""
    generations = [each for some in (run.outputs or {}).get("generations") or () for each in some]
    messages = [(each.get("message") or {}).get("kwargs") or {} for each in generations]
    return [each for each in messages if "delegation" in (each.get("response_metadata") or {})]


def _metadata(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One run's metadata; what several answers to its prompt count and cost is added up."""
    details = [each["response_metadata"] for each in messages]
    records = [each["delegation"] for each in details]
    found = {
        **_scalars(records[0], ("id",)),
        **_scalars(records[0].get("policy"), _POLICY),
        **_total(_scalars(each.get("summary"), _SUMMARY) for each in records),
    }
    if len(records) > 1 and found.get("tokens"):
        found["share"] = found["takeovers"] / found["tokens"]
    # LangChain's cache replays the record of a run that was paid before, and marks the message so.
    if all((each.get("usage_metadata") or {}).get("total_cost") == 0 for each in messages):
        found["cached"] = True
    else:
        found |= _total(_scalars(each.get("delegation_cost"), COSTS) for each in details)
    return {f"delegation_{name}": value for name, value in found.items()}


def _total(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        total |= {name: total.get(name, 0) + value for name, value in part.items()}
    return total


def _scalars(source: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of the names that stand there as a JSON scalar."""
    if not isinstance(source, Mapping):
        return {}
    return {name: source[name] for name in names if isinstance(source.get(name), str | int | float)}


def _line(takeover: Mapping[str, Any]) -> str:
    """One takeover for a reader: `3: ' so' -> ' But' (2.31)`."""
    score = takeover.get("score")
    told = f"{score:.2f}" if isinstance(score, int | float) else score
    return f"{takeover.get('position')}: {takeover.get('base_token')!r} -> {takeover.get('token')!r} ({told})"
