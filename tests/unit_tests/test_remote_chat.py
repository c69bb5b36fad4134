"""A chat model of a pair on a server: calls side by side are so many requests, each with its own answer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pretending import ABOUT, ANSWER, EVENT, Said, serving

from delegate_llm import DelegatedChatModel, PromptError, load_pair

BAD = 13
"""The token of a prompt that the server does not take."""


PIECE = f"data: {json.dumps({'piece': {'text': 'x', 'decisions': [], 'logprobs': []}})}\n\n"
MANY = 60
"""Calls side by side: more than an event loop has threads."""


class Told:
    """What a server was asked, and how much of it at once; it answers once it was asked for enough."""

    def __init__(self, enough: int, seconds: float = 0.0) -> None:
        self.enough = enough
        self.seconds = seconds
        self.answers: Counter[int] = Counter()
        self.most = 0
        self.many = threading.Event()
        self._now = 0
        self._lock = threading.Lock()

    def say(self, path: str, body: Any) -> Said:
        if path.endswith("/pair"):
            return 200, {}, json.dumps(ABOUT)
        if path.endswith("/render"):
            ids = [int(body["prompt"][0]["content"])]
            rendered = {"base": ids, "reasoner": ids, "thinking": False, "reasoner_thinking": False}
            return 200, {}, json.dumps(rendered)
        (token,) = body["prompt"]["base"]
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.answers[token] += 1
            if self._now == self.enough:
                self.many.set()
        self.many.wait(20)
        time.sleep(0 if token == BAD else self.seconds)
        with self._lock:
            self._now -= 1
        if token == BAD:
            return 400, {}, json.dumps({"error": {"type": "PromptError", "message": "unlucky"}})
        return 200, {}, PIECE + EVENT if body.get("stream") else EVENT


@contextmanager
def model_of(told: Told, **settings: Any) -> Iterator[DelegatedChatModel]:
    with serving(told.say) as url, load_pair(backend="remote", base_url=url, max_retries=0) as pair:
        yield DelegatedChatModel(pair=pair, **settings)


def test_what_ends_an_answer_travels_with_its_prompt() -> None:
    """A template in plain words has no token for it; the server that renders a prompt knows the strings."""
    asked = []

    def say(path: str, body: Any) -> Said:
        asked.append(body)
        if path.endswith("/pair"):
            return 200, {}, json.dumps({**ABOUT, "stops": ["User:"]})
        if path.endswith("/render"):
            ids = {"base": [1], "reasoner": [2], "thinking": False, "reasoner_thinking": True}
            return 200, {}, json.dumps({**ids, "stops": ["User:"]})
        return 200, {}, EVENT

    with serving(say) as url, load_pair(backend="remote", base_url=url, max_retries=0) as pair:
        DelegatedChatModel(pair=pair, stop=["x"]).invoke("hello")
    assert asked[-1]["prompt"] == {
        "base": [1],
        "reasoner": [2],
        "thinking": False,
        "reasoner_thinking": True,
        "stops": ["User:"],
    }
    assert asked[-1]["stop"] == ["x"]


@pytest.mark.parametrize("route", ["batch", "abatch"])
@pytest.mark.parametrize("n", [1, 2])
def test_one_bad_prompt_of_a_batch_makes_nothing_run_twice(route: str, n: int) -> None:
    told = Told(20, seconds=0.5)
    asked = [str(at) for at in range(20)]
    with model_of(told, n=n) as model:
        if route == "batch":
            answers = model.batch(asked, return_exceptions=True)
        else:
            answers = asyncio.run(model.abatch(asked, return_exceptions=True))
        assert [at for at, each in enumerate(answers) if isinstance(each, PromptError)] == [BAD]
        assert [each.content for at, each in enumerate(answers) if at != BAD] == [ANSWER.text] * 19
    assert {token: count for token, count in told.answers.items() if token != BAD} == dict.fromkeys(
        set(range(20)) - {BAD}, n
    )
    assert told.most >= 20


def test_calls_of_a_loop_side_by_side_all_wait_at_once() -> None:
    told = Told(MANY)

    async def invoke(model: DelegatedChatModel) -> list[str]:
        return [each.content for each in await asyncio.gather(*(model.ainvoke("1") for _ in range(MANY)))]

    async def follow(model: DelegatedChatModel) -> None:
        async def one() -> None:
            assert "".join([each.content async for each in model.astream("1")]) == ANSWER.text

        await asyncio.gather(*(one() for _ in range(MANY)))

    with model_of(told) as model:
        assert asyncio.run(invoke(model)) == [ANSWER.text] * MANY
        assert told.most == MANY
        told.most = 0
        told.many.clear()
        asyncio.run(follow(model))
        assert told.most == MANY


def test_a_cancelled_call_ends_its_wait() -> None:
    told = Told(MANY, seconds=9)

    async def leave(model: DelegatedChatModel) -> None:
        calls = [asyncio.ensure_future(model.ainvoke("1")) for _ in range(MANY)]
        assert await asyncio.to_thread(told.many.wait, 30)
        for each in calls:
            each.cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in found)

    with model_of(told) as model:
        asyncio.run(leave(model))
        end = time.monotonic() + 6
        while (free := model.pair._client._line.places._value) < 128:
            assert time.monotonic() < end, f"{128 - free} answers are still awaited"
            time.sleep(0.01)
