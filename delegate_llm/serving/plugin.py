"""The endpoint plugin: vLLM loads it into its API server when `VLLM_PLUGINS` names it.

It puts `DelegatingEngine` before the engine of every handler, and wraps the chat and completions routes so
that answers can tell what was decided for them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from argparse import Namespace
from collections.abc import Mapping
from functools import cache, partial
from http import HTTPStatus
from typing import Any, Final, NoReturn

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, State
from vllm import envs
from vllm.entrypoints.openai.chat_completion.api_router import create_chat_completion
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.api_router import create_completion
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import VLLMValidationError

from delegate_llm.errors import LoadError
from delegate_llm.policy import DelegationPolicy
from delegate_llm.serving.addresses import check_host
from delegate_llm.serving.admission import NEUTRAL, Limits, reads_text
from delegate_llm.serving.answers import Record
from delegate_llm.serving.engine import CURRENT, DelegatingEngine, end_together, spare_decoding
from delegate_llm.serving.pair_routes import PairServer, pair_routes
from delegate_llm.serving.store import AGE_S, COUNT, TraceStore
from delegate_llm.serving.tags import specials
from delegate_llm.serving.telling import tell
from delegate_llm.vllm_plugin.wire import COLUMNS
from delegate_llm.vllm_plugin.worker import CONFIG

__all__ = ("DelegationPlugin",)

logger = logging.getLogger(__name__)

_OPEN: Final = ("/ping",)


async def _chat_completions(request: ChatCompletionRequest, raw_request: Request) -> Any:
    """As vLLM's."""
    record = Record(temperature=request.temperature)
    CURRENT.set(record)
    return _answered(await create_chat_completion(request, raw_request), record, raw_request)


async def _completions(request: CompletionRequest, raw_request: Request) -> Any:
    """As vLLM's."""
    record = Record(temperature=request.temperature)
    CURRENT.set(record)
    return _answered(await create_completion(request, raw_request), record, raw_request)


async def _trace(name: str, raw_request: Request) -> Response:
    """What was decided for a response, by its id, for whoever made the request."""
    text = raw_request.app.state.delegation_traces.get(_owner(raw_request), name)
    if text is not None:
        return Response(text, media_type="application/json")
    error = create_error_response(
        f"There is no trace {name[:80]!r}: it never was, is no longer kept, or another key made it.",
        err_type="NotFoundError",
        status_code=HTTPStatus.NOT_FOUND,
    )
    return JSONResponse(error.model_dump(), status_code=HTTPStatus.NOT_FOUND)


class _Guard:
    """Asks for a key where vLLM does not: it generates under other paths, too, such as `/invocations`."""

    def __init__(self, app: Any, tokens: list[str]) -> None:
        self._app, self._knows = app, AuthenticationMiddleware(app, tokens).verify_token

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in _OPEN and not self._knows(Headers(scope=scope)):
                return JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        return self._app(scope, receive, send)


class DelegationPlugin:
    """What vLLM asks of an endpoint plugin."""

    name = "delegate_llm"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; those of vLLM with the same path and method go.

        Args:
            app: vLLM's, with all its own routes.
        """
        if keys := _keys(app.state.args):
            app.add_middleware(_Guard, tokens=keys)
        routes = APIRouter()
        for path, answer in (
            ("/v1/chat/completions", _chat_completions),
            ("/v1/completions", _completions),
        ):
            routes.add_api_route(
                path,
                answer,
                methods=["POST"],
                dependencies=[Depends(validate_json_request)],
                responses={HTTPStatus.OK.value: {"content": {"text/event-stream": {}}}},
            )
        routes.add_api_route("/v1/delegation/traces/{name:path}", _trace, methods=["GET"])
        app.include_router(routes)
        app.include_router(pair_routes())

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Put delegation before the engine.

        Args:
            engine_client: vLLM's.
            state: The handlers.
            args: Of `vllm serve`.

        Raises:
            LoadError: If this server would be open to others, or cannot delegate.
        """
        if not (args.uds or _keys(args)):
            check_host(args.host)
        config = engine_client.vllm_config
        given = (config.additional_config or {}).get(CONFIG) or {}
        state.delegation_traces = TraceStore(given.get("traces", COUNT), given.get("traces_age_s", AGE_S))
        tokenizer = engine_client.renderer.tokenizer
        limits = _limits(config, given, tokenizer)
        spare_decoding(engine_client)
        end_together(engine_client)
        names = tuple(given.get("names") or (config.speculative_config.model, config.model_config.model))
        renderer = state.online_renderer
        state.delegation_pair = await asyncio.to_thread(
            PairServer,
            engine_client,
            names,
            limits.policy,
            template=renderer.chat_template,
            template_kwargs=renderer.default_chat_template_kwargs,
        )
        engine = DelegatingEngine(engine_client, limits, cache(partial(_piece, tokenizer)))
        for each in vars(state)["_state"].values():
            if getattr(each, "engine_client", None) is engine_client:
                _adopt(each, engine)


def _limits(config: Any, given: Mapping[str, Any], tokenizer: Any) -> Limits:
    speculative, model = config.speculative_config, config.model_config
    if speculative is None or speculative.method != "draft_model":
        msg = "this server has no base: start it with delegate-llm serve"
        raise LoadError(msg)
    if config.model_config.logits_processors:
        msg = "logits_processors: they are not supported with delegation; leave --logits-processors out"
        raise LoadError(msg)
    guided = config.structured_outputs_config.backend == "guidance"
    limits = Limits(
        context=min(model.max_model_len, speculative.draft_model_config.max_model_len),
        ahead=speculative.num_speculative_tokens,
        logprobs=max(0, model.max_logprobs - COLUMNS),
        eos=tuple(given.get("eos") or ()),
        synchronous=not config.scheduler_config.async_scheduling,
        policy=DelegationPolicy.of(given.get("policy") or {}),
        special=cache(partial(specials, tokenizer)) if guided else None,
    )
    if reads_text(limits.policy) and not limits.synchronous:
        msg = "policy: boundary and turn gates need a server with --no-async-scheduling"
        raise LoadError(msg)
    return limits


def _adopt(handler: Any, engine: DelegatingEngine) -> None:
    """Let a handler of vLLM's generate through us."""
    handler.engine_client = engine
    if hasattr(handler, "beam_search"):
        handler.beam_search = _no_beams
    defaults: dict[str, Any] = getattr(handler, "default_sampling_params", None) or {}
    for name in [name for name in defaults if name in NEUTRAL and defaults[name] != NEUTRAL[name]]:
        # The checkpoint's own advice to itself; asked for by nobody, so no reason to refuse every request.
        logger.warning("%s=%s of the generation config is left out", name, defaults.pop(name))


def _no_beams(*_: Any, **__: Any) -> NoReturn:
    msg = "use_beam_search: beam search is not supported with delegation; leave it out"
    raise VLLMValidationError(msg, parameter="use_beam_search")


def _piece(tokenizer: Any, token_id: int) -> str:
    return str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False))


def _keys(args: Namespace) -> list[str]:
    return [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]


def _owner(request: Request) -> bytes:
    """Who may read a trace: a digest of the key, which vLLM has checked; all are one where none is needed."""
    if not _keys(request.app.state.args):
        return b""
    _, _, key = request.headers.get("Authorization", "").partition(" ")
    return hashlib.sha256(key.encode()).digest()


def _answered(response: Any, record: Record, request: Request) -> Any:
    if response is None:  # the client has left
        return None
    metadata = getattr(request.state, "request_metadata", None)
    if metadata is None or response.status_code != HTTPStatus.OK:
        return response
    put = partial(request.app.state.delegation_traces.put, _owner(request), metadata.request_id)
    return tell(response, record, put)
