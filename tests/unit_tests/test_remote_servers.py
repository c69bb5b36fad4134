"""A remote pair before servers that are none, or that lose an answer."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pretending import ABOUT, ANSWER, EVENT, Said, serving
from scripts import POLICY

from delegate_llm import Pair, load_pair
from delegate_llm.errors import EngineError, PolicyError, PromptError, RequestError


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ((200, {}, "{}"), "no delegate-llm server"),
        ((200, {}, "[]"), "no delegate-llm server"),
        ((200, {}, "null"), "no delegate-llm server"),
        ((200, {}, "<html>"), "no delegate-llm server"),
        ((302, {"Location": "http://elsewhere/"}, ""), "sends on to 'http://elsewhere/'"),
        ((404, {}, "nothing here"), "no delegate-llm server"),
    ],
)
def test_servers_that_are_none(said: Said, wanted: str) -> None:
    with serving(lambda path, body: said) as url, pytest.raises(EngineError, match=wanted):
        load_pair(backend="remote", base_url=url, max_retries=0)


@pytest.mark.parametrize("retries", [0, 1])
def test_an_answer_whose_engine_died_is_asked_for_again(pair: Pair, retries: int) -> None:
    """Behind one address may stand several servers, and another one answers."""
    whole = pair.generate("the", policy=POLICY, max_tokens=5)
    events = [
        f"data: {json.dumps({'error': {'type': 'EngineError', 'message': 'the engine has died'}})}\n\n",
        f'data: {{"generation": {whole.to_json()}}}\n\n',
    ]
    tries = iter(events)

    def say(path: str, body: Any) -> Said:
        body = json.dumps(ABOUT) if path.endswith("/pair") else next(tries)
        return 200, {"Content-Type": "text/event-stream"}, body

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url, max_retries=retries)
        if retries:
            assert remote.generate("the") == whole
        else:
            with pytest.raises(EngineError, match="the engine has died"):
                remote.generate("the")
        remote.close()


def test_an_error_in_what_was_asked_is_no_reason_to_ask_again() -> None:
    asked = []

    def say(path: str, body: Any) -> Said:
        if path.endswith("/pair"):
            return 200, {}, json.dumps(ABOUT)
        asked.append(path)
        return 200, {}, f"data: {json.dumps({'error': {'type': 'PolicyError', 'message': 'no'}})}\n\n"

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url, max_retries=3)
        with pytest.raises(PolicyError, match="no"):
            remote.generate("the")
        remote.close()
    assert len(asked) == 1


def test_a_batch_takes_no_more_connections_than_there_are() -> None:
    """A process may open a thousand files or so; those beyond wait, however long."""
    lock, now, most = threading.Lock(), 0, 0

    def say(path: str, body: Any) -> Said:
        nonlocal now, most
        if path.endswith("/pair"):
            return 200, {}, json.dumps(ABOUT)
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.2)
        with lock:
            now -= 1
        return 200, {}, EVENT

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url, timeout=10, max_retries=0)
        assert remote.generate_batch(["the"] * 300) == [ANSWER] * 300
        remote.close()
    assert 100 < most <= 128


def _in_a_while() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)


@pytest.mark.parametrize(
    ("status", "after", "least"),
    [
        (429, lambda: "1.5", 1.5),
        (503, _in_a_while, 1.5),
        (529, lambda: "", 0.3),
        (524, lambda: "soon", 0.3),
        (409, lambda: "-5", 0.3),
        (408, lambda: "nan", 0.3),
    ],
)
def test_a_busy_server_is_asked_again_when_it_says(
    status: int, after: Callable[[], str], least: float
) -> None:
    tries: list[float] = []

    def say(path: str, body: Any) -> Said:
        if path.endswith("/pair"):
            return 200, {}, json.dumps(ABOUT)
        tries.append(time.monotonic())
        return (200, {}, EVENT) if len(tries) > 1 else (status, {"Retry-After": after()}, "busy")

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url, max_retries=1)
        assert remote.generate("the") == ANSWER
        remote.close()
    assert least <= tries[1] - tries[0] < 30


def test_nobody_waits_longer_than_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def say(path: str, body: Any) -> Said:
        return (
            (200, {}, json.dumps(ABOUT)) if path.endswith("/pair") else (429, {"Retry-After": "9e9"}, "busy")
        )

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url, max_retries=9)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        with pytest.raises(EngineError, match="429 'busy'"):
            remote.generate("the")
        remote.close()
    assert slept == [60.0] * 9


@pytest.mark.parametrize(
    "said",
    [
        *("{}", "null", "5", "[]", "[DONE]", '{"piece": {}}', '{"error": "boom"}', '{"generation": "x"}'),
        '{"generation": {"text": "x"}}',
        '{"piece": {"text": 5, "decisions": [], "logprobs": []}}',
    ],
)
def test_odd_events_are_told_with_the_address(said: str) -> None:
    def say(path: str, body: Any) -> Said:
        return 200, {}, json.dumps(ABOUT) if path.endswith("/pair") else f"data: {said}\n\n"

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url)
        with pytest.raises(EngineError, match="no delegate-llm server") as caught:
            remote.generate("the")
        remote.close()
        assert url in str(caught.value)
        assert repr(said) in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [{"stops": None}, {"context": "many"}, {"policy": {"new_field": 1}}, {"policy": None}, {"base": 3}],
)
def test_odd_pairs_are_told_with_the_address(said: dict[str, Any]) -> None:
    with serving(lambda path, body: (200, {}, json.dumps(ABOUT | said))) as url:
        with pytest.raises(EngineError, match="no delegate-llm server") as caught:
            load_pair(backend="remote", base_url=url)
        assert url in str(caught.value)


@pytest.mark.parametrize("said", ["{}", "null", "[]", '{"base": 1, "ids": 5}', '{"base": "x", "ids": ["x"]}'])
def test_odd_prompts_and_scores_are_told_with_the_address(said: str) -> None:
    def say(path: str, body: Any) -> Said:
        return 200, {}, json.dumps(ABOUT) if path.endswith("/pair") else said

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url)
        for ask in (
            lambda: remote.prompter.render("the"),
            lambda: remote.prompter.completion_ids("the"),
            lambda: remote.score("the", "cat") if said != "{}" else remote.prompter.render("the"),
        ):
            with pytest.raises(EngineError, match=f"{url} is no delegate-llm server"):
                ask()
        remote.close()


@pytest.mark.parametrize("status", [400, 402, 413, 422])
def test_refusals_by_others_have_address_status_and_little_more(status: int) -> None:
    def say(path: str, body: Any) -> Said:
        page = "<html>\n<h1>Nope</h1>" + "<p>no</p>" * 1000
        return (200, {}, json.dumps(ABOUT)) if path.endswith("/pair") else (status, {}, page)

    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url)
        with pytest.raises(EngineError, match=f"{url} refuses this: {status} '<html> <h1>Nope") as caught:
            remote.generate("the")
        remote.close()
    assert len(str(caught.value)) < 250


def test_a_body_in_another_coding_than_it_says_is_no_answer() -> None:
    with (
        serving(lambda path, body: (200, {"Content-Encoding": "gzip"}, "{}")) as url,
        pytest.raises(EngineError, match="no delegate-llm server"),
    ):
        load_pair(backend="remote", base_url=url)


def _with_default(value: float) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": {"a": {"default": value}}}
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


def test_what_json_has_not_is_not_sent() -> None:
    asked = []

    def say(path: str, body: Any) -> Said:
        asked.append(path)
        return 200, {}, json.dumps(ABOUT) if path.endswith("/pair") else EVENT

    half, chat = "\ud83d", [{"role": "user", "content": "x"}]
    with serving(say) as url:
        remote = load_pair(backend="remote", base_url=url)
        wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
            (PromptError, "prompt", lambda: remote.generate(half)),
            (PromptError, "prompt", lambda: remote.generate([{"role": "user", "content": half}])),
            (PromptError, "prompt", lambda: remote.generate([{"role": "user", "content": b"x"}])),
            (PromptError, "prompt", lambda: remote.prompter.render(half)),
            (PromptError, "completion", lambda: remote.score("the", half)),
            (PromptError, "completion", lambda: remote.prompter.completion_ids(half)),
            (RequestError, "stop", lambda: remote.generate("the", stop=[half])),
            (RequestError, "tools", lambda: remote.generate(chat, tools=_with_default(math.nan))),
            (RequestError, "tools", lambda: list(remote.stream(chat, tools=_with_default(math.inf)))),
            (RequestError, "seed", lambda: remote.generate("the", seed=10**5000)),
        ]
        for error, named, ask in wrong:
            with pytest.raises(error, match=f"{named}: it cannot be sent as JSON"):
                ask()
        assert remote.generate("the", policy={"threshold": math.inf}, stop="ü😀") == ANSWER
        remote.close()
    assert len(asked) == 2


_FORKING = """
import os, signal, sys
from delegate_llm import load_pair
remote = load_pair(backend="remote", base_url=sys.argv[1], max_retries=0)
remote.generate("the")
child = os.fork()
signal.alarm(30)
said = remote.generate("the").text, len(remote.generate_batch(["the"] * 3)), len(list(remote.stream("the")))
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert remote.generate("the").text == "x"
    remote.close()
print(said)
"""


def test_a_fork_has_a_line_of_its_own() -> None:
    def say(path: str, body: Any) -> Said:
        return 200, {}, json.dumps(ABOUT) if path.endswith("/pair") else EVENT

    with serving(say) as url:
        said = subprocess.run(
            [sys.executable, "-c", _FORKING, url], check=True, timeout=60, capture_output=True, text=True
        )
    assert said.stdout == "('x', 3, 1)\n" * 2
