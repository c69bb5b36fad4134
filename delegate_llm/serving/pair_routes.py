"""A pair over HTTP: what `backend="remote"` asks for. Prompts, answers and scores, by the pair's own code."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from delegate_llm.errors import DelegateError, EngineError, GrammarError, PromptError, RequestError
from delegate_llm.grammar import Grammar
from delegate_llm.pairs import PLAIN_CHAT
from delegate_llm.pairs.hosted import HostedPair
from delegate_llm.pairs.http import ANSWERS
from delegate_llm.pairs.pair import Piece
from delegate_llm.pairs.prompts import Rendered
from delegate_llm.pairs.remote import PAIR, RENDER, SCORE, TOKENS
from delegate_llm.pairs.telling import Telling
from delegate_llm.pairs.vllm import Outline, hosted_models, shared_by
from delegate_llm.pairs.vllm_engine import alternatives_of, sampling_of, write
from delegate_llm.policy import DelegationPolicy
from delegate_llm.serving.engine import count
from delegate_llm.vllm_plugin.wire import Told

__all__ = ("PairServer", "pair_routes")

logger = logging.getLogger(__name__)

_SETTINGS: Final = (
    *("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "trace", "ignore_eos", "logprobs"),
)
_LOOK_S: Final = 0.2
"""Seconds between looks at whether a client has left."""
_LEFT: Final = 499
"""As nginx calls it in its log; nobody reads it."""
_ENDS: Final = "this server ends with it"
_KNOWN: Final = {*_SETTINGS, "prompt", "tools", "writer", "policy", "grammar", "stream", "completion", "top"}


class PairServer:
    """The pair that a vLLM server carries."""

    def __init__(
        self,
        engine: Any,
        names: tuple[str, str],
        policy: DelegationPolicy,
        *,
        template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Put it together; this reads both tokenizers.

        Args:
            engine: vLLM's client.
            names: What the base and the reasoner are called.
            policy: Of requests that bring none.
            template: The server's own chat template, for both models; by default each checkpoint's.
            template_kwargs: Passed to it.

        Raises:
            LoadError: If a checkpoint cannot be read.
        """
        config = engine.vllm_config
        model, speculative = config.model_config, config.speculative_config
        trust = model.trust_remote_code
        low = Outline(speculative.model, "base", speculative.revision, trust_remote_code=trust)
        both = low, Outline(model.model, "reasoner", model.revision, trust_remote_code=trust)
        vocabulary, prompter = shared_by(both, (template,) * 2, (template_kwargs,) * 2, fallback=PLAIN_CHAT)
        length = min(model.max_model_len, low.context or model.max_model_len)
        models = hosted_models(both, names, length=length, ahead=speculative.num_speculative_tokens)
        self._engine = engine
        self._synchronous = not config.scheduler_config.async_scheduling
        self.pair = HostedPair(
            _Elsewhere(), *models, vocabulary, prompter, policy=policy, alternatives=alternatives_of(model)
        )

    def about(self) -> dict[str, Any]:
        """What the pair is."""
        return {
            "base": self.pair.base.name,
            "reasoner": self.pair.reasoner.name,
            "context": self.pair.base.context,
            "size": self.pair.vocabulary.size,
            "stops": list(self.pair.prompter.stops),
            "policy": self.pair.policy.to_fields(),
        }

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """A prompt as both models read it."""
        rendered = self._writing(body).prompter.render(_prompt(body), tools=_tools(body))
        return {name: getattr(rendered, name) for name in Rendered.__dataclass_fields__}

    def tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        """Token ids of a text."""
        return {"ids": self.pair.prompter.completion_ids(_completion(body))}

    async def score(self, body: dict[str, Any], has_left: Callable[[], Awaitable[bool]]) -> Response:
        """A given text, read by both models, unless whoever asked for it has left."""
        scoring = await asyncio.to_thread(
            self._writing(body).scoring,
            _prompt(body),
            _completion(body),
            policy=body.get("policy"),
            tools=_tools(body),
            top=body.get("top", 0),
        )
        for answer, tell in scoring.readings:
            sampling = sampling_of(answer, synchronous=self._synchronous)
            if not await _wanted(write(self._engine, answer, sampling, tell, next_=_ENDS), has_left):
                return Response(status_code=_LEFT)
        return Response(scoring.trace().to_json(), media_type="application/json")

    async def answer(self, body: dict[str, Any]) -> Response:
        """An answer as events: pieces if it is to be streamed, and the whole at the end."""
        streaming = bool(body.get("stream"))
        pair = self._writing(body)
        settings = {name: body[name] for name in _SETTINGS if body.get(name) is not None}
        telling = await asyncio.to_thread(
            pair.begin,
            _prompt(body),
            policy=body.get("policy"),
            tools=_tools(body),
            streaming=streaming,
            grammar=_grammar(body.get("grammar")),
            **settings,
        )
        answer = pair.answer(telling.row)
        sampling = sampling_of(answer, synchronous=self._synchronous)

        def start(tell: Callable[[list[Told]], bool]) -> Any:
            def counted(told: list[Told]) -> bool:
                for each in told:
                    count(each)
                return tell(told)

            return write(self._engine, answer, sampling, counted, next_=_ENDS)

        return StreamingResponse(_events(telling, start, streaming=streaming), media_type="text/event-stream")

    def _writing(self, body: dict[str, Any]) -> HostedPair:
        for name in body.keys() - _KNOWN:
            msg = f"unknown setting {name!r}"
            raise RequestError(msg)
        writer = body.get("writer")
        return self.pair if writer is None else self.pair.alone(writer)


class _Elsewhere:
    """An engine that writes nothing: answers are written in the server's own loop."""

    def write(self, answer: Any, tell: Any) -> Any:
        raise NotImplementedError((answer, tell))

    def close(self) -> None:
        """It is the server's."""


def pair_routes() -> APIRouter:
    """The routes; they look for a `PairServer` in the app's state, as `delegation_pair`."""
    routes = APIRouter()

    async def about(request: Request) -> Response:
        return JSONResponse(request.app.state.delegation_pair.about())

    async def render(request: Request) -> Response:
        return await _answered(request, _in_thread("render"))

    async def tokens(request: Request) -> Response:
        return await _answered(request, _in_thread("tokens"))

    async def score(request: Request) -> Response:
        return await _answered(request, lambda server, body: server.score(body, request.is_disconnected))

    async def answers(request: Request) -> Response:
        return await _answered(request, lambda server, body: server.answer(body))

    routes.add_api_route(PAIR, about, methods=["GET"])
    for path, handler in ((RENDER, render), (TOKENS, tokens), (SCORE, score), (ANSWERS, answers)):
        routes.add_api_route(path, handler, methods=["POST"])
    return routes


async def _wanted(work: Coroutine[Any, Any, None], has_left: Callable[[], Awaitable[bool]]) -> bool:
    """Do some work to its end, or until its client has left: then it is False."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=_LOOK_S))[0]:
            if await has_left():
                return False
        working.result()
    finally:
        working.cancel()
    return True


def _in_thread(name: str) -> Callable[[PairServer, dict[str, Any]], Any]:
    async def work(server: PairServer, body: dict[str, Any]) -> Response:
        return JSONResponse(await asyncio.to_thread(getattr(server, name), body))

    return work


async def _answered(request: Request, work: Callable[[PairServer, dict[str, Any]], Any]) -> Response:
    """The response of a handler, or what was wrong with the request."""
    try:
        body = await request.json()
        if not isinstance(body, dict):
            msg = "the body of the request is no JSON object"
            raise RequestError(msg)
        response: Response = await work(request.app.state.delegation_pair, body)
    except DelegateError as error:
        failed = isinstance(error, EngineError)
        status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.BAD_REQUEST
        return JSONResponse({"error": _told(error)}, status)
    except (ValueError, RecursionError) as error:
        told = {"type": "RequestError", "message": f"the body of the request is no JSON: {error}"}
        return JSONResponse({"error": told}, HTTPStatus.BAD_REQUEST)
    return response


async def _events(
    telling: Telling, start: Callable[[Callable[[list[Told]], bool]], Any], *, streaming: bool
) -> AsyncIterator[str]:
    heard: asyncio.Queue[list[Told] | None] = asyncio.Queue()
    over = False

    def tell(told: list[Told]) -> bool:
        heard.put_nowait(told)
        return not over

    writing = asyncio.ensure_future(start(tell))
    writing.add_done_callback(lambda _: heard.put_nowait(None))
    try:
        while (told := await heard.get()) is not None:
            going = telling.hear(told)
            piece = telling.piece() if streaming else None
            if piece is not None:
                yield _event("piece", _piece(piece))
            if not going:
                break
        else:
            writing.result()
        if streaming and (piece := telling.rest()) is not None:
            yield _event("piece", _piece(piece))
        yield f'data: {{"generation": {telling.finished().to_json()}}}\n\n'
    except DelegateError as error:
        yield _event("error", _told(error))
    except Exception as error:  # whatever it is, its client has to know that no more will come
        logger.exception("an answer failed")
        told_as = EngineError(f"the server failed while it wrote this answer: {error}")
        yield _event("error", _told(told_as))
    finally:
        over = True
        writing.cancel()


def _event(name: str, value: Any) -> str:
    return f"data: {json.dumps({name: value})}\n\n"


def _piece(piece: Piece) -> dict[str, Any]:
    return {
        "text": piece.text,
        "decisions": [each.model_dump(mode="json") for each in piece.decisions],
        "logprobs": [each.model_dump(mode="json") for each in piece.logprobs],
    }


def _told(error: DelegateError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _prompt(body: dict[str, Any]) -> Any:
    prompt = body.get("prompt")
    if not isinstance(prompt, dict):
        return prompt
    try:
        ids = tuple(prompt["base"]), tuple(prompt["reasoner"])
    except (KeyError, TypeError) as error:
        msg = "prompt: a rendered one has token ids for 'base' and 'reasoner'"
        raise PromptError(msg) from error
    stops = prompt.get("stops", [])
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        msg = f"prompt: 'stops' are texts, not {stops!r:.80}"
        raise PromptError(msg)
    return Rendered(*ids, bool(prompt.get("thinking")), bool(prompt.get("reasoner_thinking")), tuple(stops))


def _tools(body: dict[str, Any]) -> Any:
    tools = body.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(each, dict) for each in tools)):
        msg = "tools: not a list of JSON schemas"
        raise RequestError(msg)
    return tools


def _completion(body: dict[str, Any]) -> Any:
    completion = body.get("completion")
    if not isinstance(completion, str | list):
        msg = f"completion: {completion!r:.80} is neither text nor token ids"
        raise PromptError(msg)
    return completion


def _grammar(said: Any) -> Grammar | None:
    """A grammar as its client has it, built anew from its parts: what comes over a wire is not trusted."""
    if said is None:
        return None
    try:
        kind, source = said["kind"], said["source"]
        if kind == "calls":
            asked = json.loads(source)
            tools = [{"type": "function", "function": each} for each in asked["tools"]]
            otherwise = None if asked["otherwise"] is None else Grammar.json(asked["otherwise"])
            return Grammar.calls(tools, many=bool(asked["many"]), otherwise=otherwise)
        return Grammar.of({kind: json.loads(source) if kind == "choice" else source})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DelegateError):
            raise
        msg = f"grammar: {said!r:.80} is none"
        raise GrammarError(msg) from error
