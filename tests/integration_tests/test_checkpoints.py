"""Checkpoints: what every saver keeps is the whole budget, through strict serialization, kills and forks."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import killed_run
import postgres
import pytest
from budgeted import ASK, THREAD, chain, charges, graph_of, node, spent
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START
from langgraph.types import Command, interrupt

from delegate_llm.graph import DelegationState, budget_gate, fan_out, remaining

TESTS = Path(killed_run.__file__).parent
BOOKS = [name for name in DelegationState.__annotations__ if name != "messages"]


_MEMORIES: dict[str, InMemorySaver] = {}


class Kept(NamedTuple):
    """A saver under test, opened anew for each use, and a thread of its own."""

    kind: str
    address: str
    sync: bool
    thread: dict[str, Any]

    @asynccontextmanager
    async def graph(self, made: Any) -> AsyncIterator[Any]:
        """A graph on it, with nothing left of whoever used it before."""
        async with _open(self) as saver:
            yield made.compile(checkpointer=saver)

    async def run(self, made: Any, given: Any, config: Any = None, **settings: Any) -> dict[str, Any]:
        """What a graph makes of an input."""
        async with self.graph(made) as graph:
            if self.sync:
                return graph.invoke(given, config or self.thread, **settings)
            return await graph.ainvoke(given, config or self.thread, **settings)

    async def history(self, made: Any) -> list[Any]:
        """The thread's states, the newest first."""
        async with self.graph(made) as graph:
            if self.sync:
                return list(graph.get_state_history(self.thread))
            return [each async for each in graph.aget_state_history(self.thread)]


@asynccontextmanager
async def _open(kept: Kept) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    match kept.kind, kept.sync:
        case "memory", _:
            yield _MEMORIES.setdefault(kept.address, InMemorySaver())
        case "sqlite", True:
            with SqliteSaver.from_conn_string(kept.address) as saver:
                yield saver
        case "sqlite", False:
            async with AsyncSqliteSaver.from_conn_string(kept.address) as saver:
                yield saver
        case "postgres", True:
            with PostgresSaver.from_conn_string(kept.address) as saver:
                saver.setup()
                yield saver
        case "postgres", False:
            async with AsyncPostgresSaver.from_conn_string(kept.address) as saver:
                await saver.setup()
                yield saver


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL, where there is one."""
    started = postgres.running()
    try:
        address = started.__enter__()
    except postgres.NoPostgresError as reason:
        pytest.skip(str(reason))
    yield address
    started.__exit__(None, None, None)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("server") if kind == "postgres" else str(tmp_path / "checkpoints.sqlite")


@pytest.fixture(params=["sync", "async"])
def kept(kind: str, address: str, request: pytest.FixtureRequest) -> Kept:
    thread = {"configurable": {"thread_id": uuid.uuid4().hex}}
    return Kept(kind, address, request.param == "sync", thread)


@pytest.fixture(autouse=True)
def _no_word_of_warning(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A type that a checkpoint should not hold is only logged."""
    assert _msgpack.STRICT_MSGPACK_ENABLED
    yield
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


def books(state: Any) -> dict[str, Any]:
    """All that is kept of delegation, without the names of calls, which are drawn anew."""
    held = {name: json.loads(json.dumps(state[name])) for name in BOOKS if state.get(name)}
    held["delegation_budget"].pop("account")
    held["delegation_spent"]["calls"] = sorted(map(repr, held["delegation_spent"]["calls"].values()))
    traces = [{**each, "id": None, "call": None} for each in held["delegation_traces"]]
    held["delegation_traces"] = sorted(map(repr, traces))
    return held


def types(value: Any) -> set[type]:
    """Every type in a value."""
    found = {type(value)}
    if isinstance(value, dict | list):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            found |= types(each)
    return found


def pausing(name: str, takeovers: int) -> Any:
    """A node that waits for a person, in a graph of its own, and then calls a model."""
    return graph_of({"wait": lambda _: interrupt(name) and {}, name: node(name, takeovers)}).compile()


async def test_a_state_comes_back_as_it_was(kept: Kept) -> None:
    made = chain("a", "b", takeovers=3)
    first = await kept.run(made, {**ASK, "delegation_budget": {"takeovers": 5, "asks": 60}})
    newest, *_ = await kept.history(made)
    assert {name: newest.values[name] for name in BOOKS if name in newest.values} == {
        name: first[name] for name in BOOKS if name in first
    }
    assert types({name: newest.values[name] for name in BOOKS if newest.values.get(name)}) <= {
        dict, list, str, int, float, bool, type(None),
    }  # fmt: skip
    said = [each.response_metadata["delegation"]["id"] for each in newest.values["messages"][1:]]
    assert said == list(newest.values["delegation_spent"]["calls"])
    second = await kept.run(made, {**ASK, "delegation_budget": 100})
    assert charges(second) == [("a", 3), ("b", 2), ("a", 0), ("b", 0)]


async def test_a_person_may_answer_another_process(kept: Kept) -> None:
    made = graph_of({"a": node("a", 3)}, (START, "gate"), ("a", "gate"))
    made.add_node("gate", budget_gate(then="a"), destinations=("a", "__end__"))
    state = await kept.run(made, {**ASK, "delegation_budget": 3})
    for answer in ("nonsense", {"action": "grant", "takeovers": 2}, {"action": "stop"}):
        assert state["__interrupt__"]
        state = await kept.run(made, Command(resume=answer))
    assert charges(state) == [("a", 3), ("a", 2)]
    assert list(state["delegation_grants"].values()) == [2]


@pytest.mark.parametrize("first", [0, -1])
async def test_whoever_is_resumed_sees_what_others_of_the_step_spent(kept: Kept, first: int) -> None:
    """One node is done, two subgraphs and two branches are not; each is resumed by another process."""
    long = {f"step {at}": lambda _: {} for at in range(20)}  # so many that they are not read at once
    sub = graph_of({"a": node("a", budget=3), **long, "sub": pausing("b", 8)}).compile()
    nodes = {
        "done": node("done", budget=1),
        "sub": sub,
        "other": pausing("c", 8),
        "map": lambda _: {},
        "w": pausing("w", 2),
    }
    made = graph_of(nodes, (START, "map"), ("map", "done"), ("map", "sub"), ("map", "other"))
    made.add_conditional_edges("map", lambda state: fan_out("w", [{"messages": []}] * 2, state), ["w"])
    state = await kept.run(made, {**ASK, "delegation_budget": {"takeovers": 6, "asks": 100}})
    while waiting := state.get("__interrupt__"):
        state = await kept.run(made, Command(resume={waiting[first].id: "go on"}))
    found = dict(charges(state))
    assert (found["done"], found["a"]) == (1, 3)
    assert spent(state) == 6
    assert state["delegation_budget"]["takeovers"] == 6


@pytest.mark.parametrize("why", ["it has no list", "it is asked from its own loop"])
async def test_a_saver_that_cannot_be_read_is_no_obstacle(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegated = node("a", 3)

    async def blocking(state: Any) -> Any:
        return delegated.invoke(state)

    if why == "it has no list":
        monkeypatch.setattr(AsyncSqliteSaver, "alist", BaseCheckpointSaver.alist)
    made = graph_of({"a": delegated if why == "it has no list" else blocking})
    kept = Kept("sqlite", str(tmp_path / "kept.sqlite"), sync=False, thread=THREAD)
    for left in (3, 0):
        state = await kept.run(made, {**ASK, "delegation_budget": 3})
        assert charges(state)[-1] == ("a", left)


@pytest.mark.parametrize("durability", ["exit", "async", "sync"])
async def test_a_thread_is_the_same_whenever_it_is_written(kept: Kept, durability: str) -> None:
    made = killed_run.graph()
    state = await kept.run(made, killed_run.INPUT, durability=durability)
    assert books(state) == books(made.compile().invoke(killed_run.INPUT))
    assert spent(state) == 14
    newest, *_ = await kept.history(made)
    assert books(newest.values) == books(state)


async def test_time_travel_forks_the_budget(kept: Kept) -> None:
    made = chain("a", "b", "c", takeovers=2)
    await kept.run(made, {**ASK, "delegation_budget": 5})
    history = await kept.history(made)
    (after_a,) = [each for each in history if each.next == ("b",)]
    assert charges(after_a.values) == [("a", 2)]
    assert remaining(after_a.values) == 3

    again = await kept.run(made, None, after_a.config)
    assert charges(again) == [("a", 2), ("b", 2), ("c", 1)]
    one, *others = history[0].values["delegation_spent"]["calls"]
    same, *anew = again["delegation_spent"]["calls"]
    assert one == same  # the call before the fork
    assert not {*others} & {*anew}

    async with kept.graph(made) as graph:
        changed = {"delegation_budget": 3}
        if kept.sync:
            fork = graph.update_state(after_a.config, changed)
        else:
            fork = await graph.aupdate_state(after_a.config, changed)
    lower = await kept.run(made, None, fork)
    assert charges(lower) == [("a", 2), ("b", 1), ("c", 0)]
    newest = next(each for each in await kept.history(made) if each.config == history[0].config)
    assert charges(newest.values) == [("a", 2), ("b", 2), ("c", 1)]  # the branch before is as it was


@pytest.mark.parametrize("kind", ["sqlite", "postgres"], indirect=True)
def test_a_run_that_is_killed_goes_on_where_it_was(kind: str, address: str) -> None:
    """Killed beside a node, within a subgraph and in its branches; nothing is lost or charged twice."""
    thread = uuid.uuid4().hex
    for place in killed_run.PLACES:
        assert process(kind, address, thread, place).returncode == -signal.SIGKILL
    state = json.loads(process(kind, address, thread, "nowhere").stdout)
    wanted = killed_run.graph().compile().invoke(killed_run.INPUT)
    assert books(state) == books(wanted)
    assert state["said"] == [each.text for each in wanted["messages"]]
    assert sorted(state["delegation_spent"]["calls"]) == sorted(
        each["id"] for each in state["delegation_traces"]
    )


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One process of the run."""
    return subprocess.run(
        [sys.executable, str(TESTS / "killed_run.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
