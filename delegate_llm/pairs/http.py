"""HTTP to a server that carries a pair, from any thread: tries again, and tells errors as what they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx

from delegate_llm import errors
from delegate_llm._checks import integer, seconds
from delegate_llm._loops import run
from delegate_llm.errors import DelegateError, EngineError, LoadError, RequestError
from delegate_llm.pairs.pair import Piece
from delegate_llm.pairs.telling import wait
from delegate_llm.trace import Decision, Generation, TokenLogprobs

__all__ = ("ANSWERS", "API_KEY", "Client")

ANSWERS: Final = "/v1/delegation/answers"
API_KEY: Final = "DELEGATE_LLM_API_KEY"
"""The environment variable of the key, if none is given."""

_CONNECT: Final = 5.0  # seconds
_AT_ONCE: Final = 128
"""Answers that are awaited at a time, each on a connection of its own, of which a process may have few."""
_BACKOFF: Final = 0.5
_LONGEST: Final = 60.0
"""Seconds between two tries at most, whatever the server says."""
_AGAIN: Final = frozenset({408, 409, 429})
"""Statuses after which another try may do, besides all of 500 and more: as OpenAI's own client has it."""
_Value = TypeVar("_Value")


class _Line:
    """A connection pool in an event loop of its own, in the thread of one process."""

    def __init__(self, **settings: Any) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.http = httpx.AsyncClient(**settings)
        self.places = asyncio.Semaphore(_AT_ONCE)
        threading.Thread(target=run, args=(self.loop,), name="delegate-llm-remote", daemon=True).start()

    def stop(self) -> None:
        """Close all connections, and end the thread."""
        if self.process != os.getpid():  # a fork, where neither is
            return
        with contextlib.suppress(Exception):  # connections that are gone already
            asyncio.run_coroutine_threadsafe(self.http.aclose(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)


class Client:
    """HTTP from any thread: one connection pool, in an event loop of its own."""

    def __init__(self, address: str, key: str | None, timeout: float, retries: int) -> None:
        self.address = address
        self._retries = integer("max_retries", retries, low=0)
        patience = seconds("timeout", timeout)
        headers = {"Authorization": f"Bearer {_key(key)}"} if key else {}
        self._open = partial(
            _Line,
            base_url=address,
            headers=headers,
            timeout=httpx.Timeout(patience, connect=min(_CONNECT, patience)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._line = self._open()
        self._closed = weakref.finalize(self, self._line.stop)
        self._forking = threading.Lock()
        self._left: list[_Line] = []

    def close(self) -> None:
        """Close all connections."""
        self._closed()

    def start(self, work: Coroutine[Any, Any, _Value]) -> Future[_Value]:
        """Begin in the loop; cancelling the future closes the connection, which ends the server's work."""
        if not self._closed.alive:
            work.close()
            msg = "the connection to this server is closed; load the pair again"
            raise EngineError(msg)
        if self._line.process != os.getpid():
            self._begin_anew()
        return asyncio.run_coroutine_threadsafe(work, self._line.loop)

    def _begin_anew(self) -> None:
        """Open a line of our own in a process that was forked, where nobody runs the loop."""
        with self._forking:
            if self._line.process != os.getpid():
                self._left.append(self._line)  # what it holds is the other process's, and is not to be closed
                self._closed.detach()
                self._line = self._open()
                self._closed = weakref.finalize(self, self._line.stop)

    def ask(self, read: Callable[[Any], _Value], method: str, path: str, body: Any = None) -> _Value:
        """One request, and what is read from the JSON that comes back; it waits for no answer's place."""
        future = self.start(self._asked(read, method, path, body))
        wait([future], None)
        return future.result()

    async def answer(self, asked: dict[str, Any]) -> Generation:
        """A whole answer, asked for again if it is lost on its way."""
        found: list[Generation] = []
        async with self._line.places:
            await self._again(lambda: self._read(asked, found.append))
        return found[-1]

    async def follow(self, asked: dict[str, Any], tell: Callable[[Piece | Generation], object]) -> None:
        """An answer as it comes; asked for again only while nothing of it has come."""
        begun = False

        def told(event: Piece | Generation) -> None:
            nonlocal begun
            begun = True
            tell(event)

        async with self._line.places:
            await self._again(lambda: self._read(asked, told), while_=lambda: not begun)

    async def _read(self, asked: dict[str, Any], tell: Callable[[Any], object]) -> None:
        async with self._line.http.stream("POST", ANSWERS, json=asked) as response:
            await self._check(response)
            finished = False
            async for line in response.aiter_lines():
                if not line.startswith("data:"):  # of server-sent events, nothing else says anything
                    continue
                event = self._understood(_event, line.removeprefix("data:"))
                if isinstance(event, EngineError):  # another server may do, or this one after a while
                    raise _PassingError(str(event))
                if isinstance(event, DelegateError):
                    raise event
                tell(event)
                finished = finished or isinstance(event, Generation)
        if not finished:
            msg = "it ended before the answer did"
            raise httpx.RemoteProtocolError(msg)

    async def asked(self, read: Callable[[Any], _Value], method: str, path: str, body: Any = None) -> _Value:
        """As `ask`, for whoever waits himself, and in a place of its own."""
        async with self._line.places:
            return await self._asked(read, method, path, body)

    async def _asked(self, read: Callable[[Any], _Value], method: str, path: str, body: Any) -> _Value:
        async def once() -> _Value:
            response = await self._line.http.request(method, path, json=body)
            await self._check(response)
            return self._understood(lambda said: read(json.loads(said)), response.text)

        return await self._again(once)

    def _understood(self, read: Callable[[str], _Value], said: str) -> _Value:
        """What is read from what the server says."""
        try:
            return read(said)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            msg = (
                f"what answers at {self.address} is no delegate-llm server, or one of another version: "
                f"it says {said.strip()!r:.100} ({type(error).__name__}: {' '.join(str(error).split()):.100})"
            )
            raise EngineError(msg) from error

    async def _again(
        self, once: Callable[[], Coroutine[Any, Any, _Value]], while_: Callable[[], bool] = lambda: True
    ) -> _Value:
        """Try, and try again after what may pass, a little later each time."""
        for left in range(self._retries, -1, -1):
            try:
                return await once()
            except (httpx.TransportError, _PassingError) as error:
                if left and while_():
                    pause = _BACKOFF * 2 ** (self._retries - left) * random.uniform(0.75, 1.25)  # noqa: S311
                    await asyncio.sleep(min(max(pause, getattr(error, "wanted", 0.0)), _LONGEST))
                    continue
                said = str(error) or type(error).__name__
                msg = f"the server at {self.address} does not answer as it should: {said}"
                raise EngineError(msg) from error
            except (ValueError, httpx.HTTPError) as error:
                if isinstance(error, DelegateError):
                    raise
                msg = f"what answers at {self.address} is no delegate-llm server: {error}"
                raise EngineError(msg) from error
        raise AssertionError

    async def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        await response.aread()
        try:
            said = response.json()["error"]
            message = str(said["message"])
        except (ValueError, KeyError, TypeError):
            said, message = {}, f"{' '.join(response.text.split())!r:.100}"
        if response.status_code in {401, 403}:
            msg = (
                f"api_key: the server at {self.address} does not take it; give api_key=..., or set {API_KEY}"
            )
            raise LoadError(msg)
        if response.is_redirect:
            target = response.headers.get("location", "")
            msg = f"what answers at {self.address} sends on to {target!r:.200}; give that address as base_url"
            raise EngineError(msg)
        if response.status_code in _AGAIN or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            msg = f"{response.status_code} {message}"
            raise _PassingError(msg, _wanted(response.headers.get("retry-after", "")))
        if response.status_code == HTTPStatus.NOT_FOUND:
            msg = f"there is no delegate-llm server at {self.address}, but one that says: {message}"
            raise EngineError(msg)
        error = _error({**said, "message": message})
        if type(error) is EngineError:
            msg = f"the server at {self.address} refuses this: {response.status_code} {message}"
            raise EngineError(msg)
        raise error


class _PassingError(Exception):
    """What another try may get past, after as many seconds as the server wants to pass until then."""

    def __init__(self, message: str, wanted: float = 0.0) -> None:
        super().__init__(message)
        self.wanted = wanted


def _wanted(said: str) -> float:
    """Seconds that a `Retry-After` asks for, a number or a date; 0 if it asks for nothing that can be."""
    try:
        wanted = float(said)
    except ValueError:
        try:
            wanted = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return wanted if wanted > 0 else 0.0  # NaN is not


def _event(line: str) -> Piece | Generation | DelegateError:
    """What a line of an answer tells."""
    event = json.loads(line)
    if "error" in event:
        return _error(event["error"])
    if "generation" in event:
        return Generation.model_validate(event["generation"])
    said = event["piece"]
    if not isinstance(text := said["text"], str):
        raise TypeError(text)
    return Piece(
        text,
        tuple(Decision.model_validate(each) for each in said["decisions"]),
        tuple(TokenLogprobs.model_validate(each) for each in said["logprobs"]),
    )


def _error(said: Mapping[str, Any]) -> DelegateError:
    """The error of ours that a server has told of."""
    kind = getattr(errors, str(said.get("type")), None)
    message = str(said.get("message"))
    if isinstance(kind, type) and issubclass(kind, DelegateError):
        return kind(message)
    return EngineError(message)


def _key(given: Any) -> str:
    if not isinstance(given, str) or not (given.isascii() and given.isprintable()) or given != given.strip():
        msg = "api_key: it has to be printable ASCII without spaces around it; look at where it is read from"
        raise RequestError(msg)
    return given
