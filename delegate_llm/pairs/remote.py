"""`load_pair(backend="remote", base_url=...)`: a pair on a server that `delegate-llm serve` has started.

Whatever a pair does is done there, by the same code; here it is asked for over HTTP, checked at the door, and
its events are put together again. No state lives between requests, so several servers behind one address
are one.
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel

from delegate_llm._checks import flag, hook, integer
from delegate_llm.errors import DelegateError, LoadError, PromptError, RequestError
from delegate_llm.pairs.batches import check_batch, check_texts, check_top
from delegate_llm.pairs.http import API_KEY, Client
from delegate_llm.pairs.pair import OnStep, Pair, Piece
from delegate_llm.pairs.prompts import Prompt, Rendered, Tools, Who
from delegate_llm.pairs.telling import Hosted, following, wait
from delegate_llm.policy import DelegationPolicy
from delegate_llm.request import Request
from delegate_llm.rows import Vocabulary
from delegate_llm.trace import Generation, Trace
from delegate_llm.vllm_plugin.defaults import ALTERNATIVES

__all__ = ("PAIR", "RENDER", "SCORE", "TOKENS", "RemotePair", "load_remote_pair")

PAIR: Final = "/v1/delegation/pair"
RENDER: Final = "/v1/delegation/render"
SCORE: Final = "/v1/delegation/score"
TOKENS: Final = "/v1/delegation/tokens"

_READ: Final = 600.0
"""Seconds."""


class _About(BaseModel):
    """What a server tells of its pair."""

    base: str
    reasoner: str
    context: int | None
    size: int
    stops: tuple[str, ...]
    policy: dict[str, Any]


def load_remote_pair(
    base: str | None = None,
    reasoner: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    timeout: float = _READ,
    max_retries: int = 2,
    policy: DelegationPolicy | Mapping[str, Any] | str | Path | None = None,
    fallback_template: Any = None,
) -> RemotePair:
    """Connect to a server; see `delegate_llm.load_pair`."""
    del fallback_template  # the server has its own
    own = DelegationPolicy.read(policy) if isinstance(policy, str | Path) else policy
    own = None if own is None else DelegationPolicy.of(own)
    client = Client(_address(base_url), api_key or os.environ.get(API_KEY), timeout, max_retries)

    def read(said: Any) -> tuple[dict[str, Any], DelegationPolicy]:
        about = _About.model_validate(said).model_dump()
        for who, wanted in (("base", base), ("reasoner", reasoner)):
            if wanted is not None and str(wanted) != about[who]:
                found = about[who]
                msg = f"{who}: the server carries {found!r}, not {str(wanted)!r}; leave it out to take that"
                raise LoadError(msg)
        return about, own or DelegationPolicy.of(about["policy"])

    try:
        about, policy = client.ask(read, "GET", PAIR)
    except BaseException:
        client.close()
        raise
    return RemotePair(client, about, policy=policy)


def _address(base_url: str | None) -> str:
    try:
        parts = urlsplit(base_url or "")
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        httpx.URL(base_url or "")
    except (ValueError, TypeError, AttributeError, httpx.InvalidURL):
        fits = False
    if not fits:
        msg = f"base_url: {base_url!r:.200} is no address of a server, such as 'http://127.0.0.1:8000'"
        raise RequestError(msg)
    return (base_url or "").rstrip("/").removesuffix("/v1")


class RemotePair(Pair):
    """A pair on a server."""

    def __init__(
        self,
        client: Client,
        about: Mapping[str, Any],
        *,
        policy: DelegationPolicy,
        writer: Who | None = None,
    ) -> None:
        """Put a pair together from what a server tells of itself.

        Args:
            client: Talks to it.
            about: What it carries.
            policy: Used by calls that give none.
            writer: Who writes alone, if one of the two does.
        """
        models = {
            who: Hosted(about[who], about["size"], about["context"], lambda *_: None)
            for who in ("base", "reasoner")
        }
        if writer is not None:
            models = dict.fromkeys(models, models[writer])
        vocabulary = Vocabulary(about["size"], about["size"], frozenset(), _nowhere, _nowhere)
        prompter = _RemotePrompter(client, tuple(about["stops"]), writer)
        super().__init__(models["base"], models["reasoner"], vocabulary, prompter, policy=policy)
        self._client = client
        self._about = about
        self._writer = writer

    def alone(self, who: Who) -> RemotePair:
        """One of the two writing by itself, on the same server; see `Pair.alone`."""
        super().alone(who)  # checks the name
        silent = DelegationPolicy(budget=0)
        return RemotePair(self._client, self._about, policy=silent, writer=self._writer or who)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check_prompt(self, prompt: Prompt, *, tools: Tools = None) -> None:
        """Raise nothing: the server says what is wrong with a prompt when it is to answer it."""

    def generate(self, prompt: Prompt, *, on_step: OnStep | None = None, **settings: Any) -> Generation:
        """Write one answer; see `Pair.generate`."""
        return self.generate_batch([prompt], on_step=on_step, **settings)[0]

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """Write one answer to each prompt, all at once; see `Pair.generate_batch`."""
        hook("on_step", on_step)
        seeds = check_batch(prompts, settings.pop("seed", None))
        asked = [
            self._asked(prompt, tools, self._request(policy, seed=seed, **settings))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        if on_step is not None:
            on_step()
        # A seed names its text, so an answer that was lost on its way can be asked for again.
        futures = [self._client.start(self._client.answer(each)) for each in asked]
        wait(futures, on_step)
        return [future.result() for future in futures]

    def stream(
        self,
        prompt: Prompt,
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> Iterator[Piece | Generation]:
        """Write one answer piece by piece; see `Pair.stream`."""
        hook("on_step", on_step)
        asked = self._asked(prompt, tools, self._request(policy, **settings))
        return self._events({**asked, "stream": True}, on_step)

    def score_batch(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str | Sequence[int]],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        top: int = 0,
    ) -> list[Trace]:
        """Read given texts with both models, all at once; see `Pair.score_batch`."""
        check_texts(prompts, completions)
        check_top(top, ALTERNATIVES)
        request = self._request(policy)
        futures = [
            self._client.start(
                self._client.asked(
                    Trace.model_validate,
                    "POST",
                    SCORE,
                    {
                        **self._asked(prompt, tools, request),
                        "completion": _told_text(text),
                        **({"top": top} if top else {}),
                    },
                )
            )
            for prompt, text in zip(prompts, completions, strict=True)
        ]
        wait(futures, None)
        return [future.result() for future in futures]

    def _asked(self, prompt: Prompt, tools: Tools, request: Request) -> dict[str, Any]:
        """A call as the server takes it."""
        settings = {
            "policy": request.policy.to_fields(),
            "max_tokens": request.max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "top_k": request.sampling.top_k,
            "seed": request.seed,
            "stop": list(request.stop),
            "trace": request.trace,
            "ignore_eos": request.ignore_eos,
            "logprobs": request.logprobs,
            "grammar": None
            if request.grammar is None
            else {"kind": request.grammar.kind, "source": request.grammar.source},
        }
        for name, value in settings.items():
            _check_told(name, value)
        return {**_told(prompt, tools, self._writer), **settings}

    def _events(self, asked: dict[str, Any], on_step: OnStep | None) -> Iterator[Piece | Generation]:
        heard = queue.SimpleQueue[Piece | Generation | None]()
        if on_step is not None:
            on_step()
        future = self._client.start(self._client.follow(asked, heard.put))
        future.add_done_callback(lambda _: heard.put(None))
        try:
            while (event := following(heard, on_step)) is not None:
                yield event
            wait([future], None)
        finally:
            future.cancel()


class _RemotePrompter:
    """Has prompts rendered by the server, whose tokenizers and templates they are."""

    def __init__(self, client: Client, stops: tuple[str, ...], writer: Who | None) -> None:
        self._client = client
        self.stops = stops
        self._writer = writer

    def render(self, prompt: Prompt, *, tools: Tools = None) -> Rendered:
        """Token ids for the base and for the reasoner."""
        if isinstance(prompt, Rendered):
            return prompt if self._writer is None else prompt.alone(self._writer)
        return self._client.ask(_rendered, "POST", RENDER, _told(prompt, tools, self._writer))

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        """Token ids of a given answer."""
        told = {"completion": _told_text(completion)}
        return self._client.ask(lambda said: _ids(said["ids"]), "POST", TOKENS, told)

    def alone(self, who: Who) -> _RemotePrompter:
        """The prompts of one model, for both."""
        return _RemotePrompter(self._client, self.stops, self._writer or who)


def _told(prompt: Prompt, tools: Tools, writer: Who | None) -> dict[str, Any]:
    """A prompt as JSON."""
    if isinstance(prompt, Rendered):
        given: Any = asdict(prompt)
    elif isinstance(prompt, str):
        given = prompt
    elif isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        msg = f"prompt: {type(prompt).__name__} is neither text nor messages nor token ids"
        raise PromptError(msg)
    else:
        given = [dict(each) if isinstance(each, Mapping) else each for each in prompt]
    _check_told("prompt", given, PromptError)
    shown = None if tools is None else list(tools)
    _check_told("tools", shown)
    return {"prompt": given, "tools": shown, "writer": writer}


def _told_text(completion: str | Sequence[int]) -> str | list[int]:
    """A given answer as JSON."""
    told = completion if isinstance(completion, str) else list(completion)
    _check_told("completion", told, PromptError)
    return told


def _check_told(name: str, value: Any, error: type[DelegateError] = RequestError) -> None:
    """Raise an error if a value is none that JSON has: a NaN, half a character (a lone surrogate), bytes."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        msg = f"{name}: it cannot be sent as JSON: {wrong}"
        raise error(msg) from wrong


def _rendered(said: Any) -> Rendered:
    """A prompt that the server has rendered."""
    ids = tuple(_ids(said["base"])), tuple(_ids(said["reasoner"]))
    thinking = flag("thinking", said["thinking"]), flag("thinking", said["reasoner_thinking"])
    return Rendered(*ids, *thinking, tuple(map(str, said.get("stops", ()))))


def _ids(said: Any) -> list[int]:
    return [integer("id", each, low=0) for each in said]


def _nowhere(_: Any) -> str:
    msg = "the vocabulary of a remote pair is the server's"
    raise NotImplementedError(msg)
