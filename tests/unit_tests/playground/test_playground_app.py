"""The playground's server: what it serves, what an answer is made of, and what stops it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from played import Played, offer_of, playing

from delegate_llm import Pair
from delegate_llm.errors import LoadError
from delegate_llm.playground.line import Line
from delegate_llm.playground.page import ASSETS, page

PATIENCE_S = 60.0
QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"
EOS = "<|im_end|>"
TAKEOVER = 2


def pieces(events: list[dict[str, Any]], arm: str = "delegated") -> list[dict[str, Any]]:
    return [each for each in events if each["event"] == "piece" and each["arm"] == arm]


def column(events: list[dict[str, Any]], name: str) -> list[Any]:
    return [entry for each in pieces(events) for entry in each["chunk"][name]]


def end(events: list[dict[str, Any]], arm: str = "delegated") -> dict[str, Any]:
    (found,) = (each for each in events if each["event"] == "end" and each["arm"] == arm)
    return found


# --- The page ---


def test_page_and_its_files_are_served_and_nothing_else(played: Played) -> None:
    shown = played.client.get("/")
    named = set(re.findall(r'(?:src|href)="/assets/([^"]+)"', shown.text))
    assert shown.text == page()
    assert named == ASSETS
    kinds = {name: played.client.get(f"/assets/{name}").headers["content-type"] for name in named}
    assert {kind.partition(";")[0] for kind in kinds.values()} == {
        "text/css",
        "text/javascript",
        "image/svg+xml",
    }
    for path in ("/assets/page.html.jinja", "/assets/..%2Fapp.py", "/assets/", "/docs"):
        assert played.client.get(path).status_code == 404


def test_nothing_on_the_page_runs_but_its_own_files(played: Played) -> None:
    shown = played.client.get("/")
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|\sstyle=|https?://", shown.text)
    rules = dict(
        rule.split(" ", 1) for rule in shown.headers["content-security-policy"].split("; ") if " " in rule
    )
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"


@pytest.mark.parametrize("path", ["/", "/assets/view.js", "/api/pairs", "/nowhere"])
def test_every_response_has_the_headers(played: Played, path: str) -> None:
    headers = played.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


# --- Answers ---


def test_an_answer_is_that_of_the_pair(played: Played, tiny: Pair) -> None:
    events = played.ask(QUESTION, arms=["delegated", "base", "reasoner"])
    chat = [{"role": "user", "content": QUESTION}]
    done = tiny.generate(chat, trace="full")
    assert "".join(column(events, "tokens")) == done.text + EOS
    assert [bool(flag & TAKEOVER) for flag in column(events, "flags")] == [
        each.takeover for each in done.trace.decisions
    ]
    assert end(events)["summary"] == done.trace.summary.model_dump()
    base, reasoner = (end(events, arm) for arm in ("base", "reasoner"))
    assert base["text"] == tiny.generate(chat, policy={"budget": 0}).text
    assert reasoner["text"] == tiny.alone("reasoner").generate(chat).text
    assert base["text"] != reasoner["text"]
    for arm, each in (("base", base), ("reasoner", reasoner)):
        assert "".join(piece["text"] for piece in pieces(events, arm)) == each["text"]
    assert (base["cost"]["reasoner_forwards"], reasoner["cost"]["base_forwards"]) == (0, 0)
    assert base["cost"]["base_forwards"] > 0
    assert reasoner["cost"]["reasoner_forwards"] > 0
    assert events[-1] == {"event": "done"}


def test_every_takeover_comes_with_its_reason(played: Played) -> None:
    events = played.ask(QUESTION)
    (start,) = (each for each in events if each["event"] == "start")
    assert start["data"]["policy"]["threshold"] == 2.315
    causes = pieces(events)[-1]["chunk"]["causes"]
    whys = [causes[at] for at in column(events, "why")]
    taken = [bool(flag & TAKEOVER) for flag in column(events, "flags")]
    assert any(taken)
    assert [why.startswith("A takeover:") for why in whys] == taken


@pytest.mark.parametrize(
    ("policy", "takeovers"),
    [
        ({"threshold": 100}, 0),
        ({"budget": {"limit": 0}}, 0),
        ({"budget": {"limit": 1}}, 1),
        ({"budget": None}, 2),
        ({"threshold": 2.0, "spike": 1.0, "budget": {"rate": 1}}, 2),
        ({"divergence": "random", "threshold": 0}, 30),
    ],
)
def test_the_policy_is_what_the_page_says(played: Played, policy: dict[str, Any], takeovers: int) -> None:
    assert end(played.ask(QUESTION, policy=policy))["summary"]["takeovers"] == takeovers


def test_a_seed_names_one_answer(played: Played) -> None:
    texts = [end(played.ask(QUESTION, temperature=5, seed=seed, max_tokens=24))["text"] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_a_system_message_is_read(played: Played, tiny: Pair) -> None:
    chat = [{"role": "system", "content": "Tom has 9 pens."}, {"role": "user", "content": QUESTION}]
    events = played.ask(QUESTION, system="Tom has 9 pens.")
    assert end(events)["text"] == tiny.generate(chat).text


@pytest.mark.parametrize(
    "question", ["</script><img src=x onerror=alert(1)>", "\u202e\x00\x1b[2J", "\U0001f9ee" * 9]
)
def test_hostile_text_stays_data(played: Played, question: str) -> None:
    response = played.client.post("/api/ask", json={"pair": 0, "question": question, "max_tokens": 5})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    events = [json.loads(line) for line in response.text.splitlines()]
    (start,) = (each for each in events if each["event"] == "start")
    assert start["data"]["title"] == question
    assert events[-1] == {"event": "done"}


# --- What is wrong is said ---


@pytest.mark.parametrize(
    ("status", "named", "body"),
    [
        (404, "pair", {"pair": 1}),
        (404, "pair", {"pair": "../../etc"}),
        (404, "pair", {"pair": True}),
        (404, "pair", {"pair": None}),
        (422, "question", {"question": " "}),
        (422, "question", {"question": 7}),
        (422, "question", {"question": "\ud800"}),
        (422, "system", {"system": ["x"]}),
        (422, "temperature", {"temperature": -1}),
        (422, "temperature", {"temperature": "hot"}),
        (422, "max_tokens", {"max_tokens": 0}),
        (422, "max_tokens", {"max_tokens": 10**9}),
        (422, "seed", {"seed": 1.5}),
        (422, "policy", {"policy": "loose"}),
        (422, "threshold", {"policy": {"threshold": None}}),
        (422, "threshold", {"policy": {"threshold": -1}}),
        (422, "divergence", {"policy": {"divergence": "guess"}}),
        (422, "budget", {"policy": {"budget": {"limit": -1}}}),
        (422, "gates", {"policy": {"gates": ["boundary"]}}),
        (422, "arms", {"arms": []}),
        (422, "arms", {"arms": ["oracle"]}),
        (422, "arms", {"arms": [["base"]]}),
        (422, "base_url", {"base_url": "http://127.0.0.1"}),
    ],
)
def test_bad_input_is_named(played: Played, status: int, named: str, body: dict[str, Any]) -> None:
    text = json.dumps({"pair": 0, "question": QUESTION, **body})
    response = played.client.post("/api/ask", content=text, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert named in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("status", "text"),
    [(400, "{"), (400, "[1]"), (400, ""), (400, "[" * 200_000), (400, b"\xff"), (413, '"' + "x" * 300_000)],
)
def test_bodies_that_are_none(played: Played, status: int, text: str) -> None:
    response = played.client.post("/api/ask", content=text, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_a_prompt_that_is_too_long_is_told_in_the_stream(played: Played) -> None:
    *_, last = played.ask("pens " * 20_000)
    assert (last["event"], last["type"]) == ("error", "PromptError")
    assert "context" in last["message"]


# --- Loading ---


def test_a_pair_is_loaded_when_it_is_picked(tiny: Pair) -> None:
    begin, loads = threading.Event(), []

    def load() -> Pair:
        loads.append(begin.wait(PATIENCE_S))
        return tiny

    with playing(offer_of(load), offer_of(load, "other")) as played:
        resting = played.client.get("/api/pairs").json()["pairs"]
        assert [each["state"] for each in resting] == ["resting", "resting"]
        for _ in range(2):
            assert played.client.post("/api/load", json={"pair": 0}).json()["state"] == "loading"
        begin.set()
        about = played.settled()
        assert (about["state"], about["policy"]["threshold"], loads) == ("ready", 2.315, [True])
        assert played.client.get("/api/pairs").json()["pairs"][1]["state"] == "resting"


def test_a_question_loads_what_it_needs(tiny: Pair) -> None:
    with playing(offer_of(lambda: tiny)) as played:
        kinds = [each["event"] for each in played.ask(QUESTION)]
        assert kinds[:3] == ["waiting", "loading", "start"]
        assert "loading" not in [each["event"] for each in played.ask(QUESTION)]


@pytest.mark.parametrize("error", [LoadError("base: 'nowhere' is no folder"), ZeroDivisionError("oh")])
def test_a_pair_that_cannot_be_loaded_may_be_tried_again(
    tiny: Pair, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [error, error]

    def load() -> Pair:
        if failing:
            raise failing.pop()
        return tiny

    with playing(offer_of(load)) as played:
        played.client.post("/api/load", json={"pair": 0})
        about = played.settled()
        assert about["state"] == "failed"
        assert str(error) in about["error"]
        assert played.ask(QUESTION)[-1]["event"] == "error"
        played.client.post("/api/load", json={"pair": 0})
        assert played.settled()["state"] == "ready"
    assert bool(caplog.records) == isinstance(error, ZeroDivisionError)


# --- Waiting and stopping ---


@contextmanager
def held(pair: Pair) -> Iterator[tuple[threading.Event, list[int], threading.Event]]:
    """A pair whose base waits in its third forward: that it is there, its forwards, what lets it go on."""
    there, forwards, go = threading.Event(), [], threading.Event()

    def hook(*_: object) -> None:
        forwards.append(1)
        if len(forwards) == 3:
            there.set()
            assert go.wait(PATIENCE_S)

    handle = pair.base.model.register_forward_hook(hook)
    try:
        yield there, forwards, go
    finally:
        go.set()
        handle.remove()


def test_a_browser_that_goes_away_stops_the_models(endless: Pair) -> None:
    with playing(offer := offer_of(lambda: endless)) as played, held(endless) as (there, forwards, go):
        body = {"pair": 0, "question": "the cat.", "max_tokens": 400, "arms": ["delegated", "base"]}
        with played.client.stream("POST", "/api/ask", json=body) as response:
            assert response.status_code == 200
            assert there.wait(PATIENCE_S)
            (job,) = offer.line._jobs
        assert job.stop.wait(PATIENCE_S)
        go.set()
        played.settled()
        assert len(forwards) < 40


def test_one_at_a_time_and_the_others_are_told(endless: Pair) -> None:
    offer = offer_of(lambda: endless)
    offer.line = Line("short", most=2)
    with playing(offer) as played, held(endless) as (there, _, go):
        body = {"pair": 0, "question": "the cat.", "max_tokens": 8}
        with played.client.stream("POST", "/api/ask", json=body) as first:
            assert there.wait(PATIENCE_S)
            with played.client.stream("POST", "/api/ask", json=body) as second:
                lines = second.iter_lines()
                assert json.loads(next(lines)) == {"event": "waiting", "before": 1}
                third = played.client.post("/api/ask", json=body)
                assert third.status_code == 429
                assert third.json()["error"]["type"] == "BusyError"
                go.set()
                assert json.loads(next(lines)) == {"event": "waiting", "before": 0}
                assert [*lines][-1] == '{"event":"done"}'
            assert [*first.iter_lines()][-1] == '{"event":"done"}'


def test_both_models_choices_follow_the_delegated_answer(played: Played) -> None:
    events = played.ask(QUESTION, arms=["delegated", "base"])
    (told,) = [each for each in events if each["event"] == "choices"]
    (end,) = [each for each in events if each["event"] == "end" and each["arm"] == "delegated"]
    assert events.index(end) + 1 == events.index(told)
    positions = {str(at) for at in range(end["summary"]["tokens"])}
    for tops in told["tops"].values():
        assert tops.keys() == positions
        assert all(len(each) == 5 for each in tops.values())
