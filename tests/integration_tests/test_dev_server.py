"""`langgraph dev` serves the graphs without an account, a key or a network, and nothing blocks its loop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client

from delegate_llm.graph import ModelContext
from delegate_llm.tiny.problems import Problem, grade, problems

if find_spec("langgraph_cli") is None or find_spec("langgraph_api") is None:
    pytest.skip("langgraph-cli[inmem] is not installed: pip install -e '.[dev]'", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SERVED = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
GRAPHS = sorted(SERVED["graphs"])
PATIENCE_S = 60.0
PROBLEM, OTHER = [
    each
    for each in problems(40, seed=77, split="test")
    if len({step.operation for step in each.steps} - {"add"}) == 2
    and all(fact.operation is not None for fact in each.facts)
][:2]
# What a careless graph does; that the server notices shows that it would notice it of ours, too.
CARELESS = """
import time
from langgraph.graph import START, MessagesState, StateGraph

async def sleep(state):
    time.sleep(0.01)

graph = StateGraph(MessagesState).add_node("sleep", sleep).add_edge(START, "sleep").compile()
"""

by_graph = pytest.mark.parametrize("name", GRAPHS)


class Server(NamedTuple):
    url: str
    log: Path
    client: Any
    ids: dict[str, str]
    """Of the assistant that each graph is."""

    def thread(self) -> str:
        return self.client.threads.create()["thread_id"]

    def wait(self, name: str, thread: str | None = None, **more: Any) -> Any:
        return self.client.runs.wait(thread or self.thread(), name, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "careless.py").write_text(CARELESS, encoding="utf-8")
    config, log = folder / "langgraph.json", folder / "log"
    graphs = {**SERVED["graphs"], "careless": f"{folder / 'careless.py'}:graph"}
    # All as it is served, but nobody's threads of yesterday are loaded, and none of today's are kept.
    config.write_text(json.dumps({**SERVED, "graphs": graphs, "disable_persistence": True}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, running(config, log) as url:
        patch.setenv("NO_PROXY", "127.0.0.1")
        with get_sync_client(url=url, api_key=None) as client:
            ids = {each["graph_id"]: each["assistant_id"] for each in client.assistants.search()}
            yield Server(url, log, client, ids)


@contextmanager
def running(config: Path, log: Path) -> Iterator[str]:
    """A server from the repository's root, in a process group of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*program, "--port", str(port), "--config", str(config)],
            cwd=ROOT,
            env=alone(),
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group


def alone() -> dict[str, str]:
    """An environment with no key, no word about where else to go, and no way out of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LANG", "DELEGATE_LLM"))}
    nowhere = "http://127.0.0.1:9"  # a proxy that is not there: who leaves this machine fails, and says so
    return {
        **kept,
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1",
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_STRICT_MSGPACK": "true",
        "LOG_COLOR": "false",
        "OMP_NUM_THREADS": "1",  # tiny models lose time to more
        "PYTHONIOENCODING": "utf-8",
    }


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end and process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/ok").is_success:
                    return
            time.sleep(0.1)
    pytest.fail(f"the server did not come up:\n{log.read_text(encoding='utf-8')[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def asked(*of: Problem, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "\n".join(each.question for each in of)}], **more}


def said(state: dict[str, Any]) -> str:
    return state["messages"][-1]["content"]


def spent(state: dict[str, Any]) -> int:
    return state["delegation_spent"]["takeovers"]


# --- What is served ---


def test_all_graphs_are_listed(server: Server) -> None:
    assert sorted(server.ids) == sorted([*GRAPHS, "careless"])


@by_graph
def test_schemas(server: Server, name: str) -> None:
    schemas = server.client.assistants.get_schemas(server.ids[name])
    assert schemas["input_schema"]["properties"].keys() == {"messages", "delegation_budget"}
    assert schemas["context_schema"]["properties"].keys() == {each.name for each in fields(ModelContext)}
    kept = {"delegation_budget", "delegation_spent", "delegation_traces", "delegation_grants"}
    assert kept <= schemas["state_schema"]["properties"].keys()


@by_graph
def test_drawn(server: Server, name: str) -> None:
    drawn = server.client.assistants.get_graph(server.ids[name])
    assert {"__start__", "__end__"} < {each["id"] for each in drawn["nodes"]}


# --- Runs ---


@by_graph
def test_run(server: Server, name: str) -> None:
    thread = server.thread()
    state = server.wait(name, thread, input=asked(PROBLEM), context={"total": 6})
    assert grade(PROBLEM, said(state))
    assert 0 < spent(state) <= 6
    kept = server.client.threads.get_state(thread)
    assert kept["values"] == state
    assert not kept["next"]


@by_graph
def test_stream(server: Server, name: str) -> None:
    told: dict[str, list[Any]] = {}
    modes = ["custom", "values", "messages"]
    parts = server.client.runs.stream(
        server.thread(), name, input=asked(PROBLEM), context={"total": 6}, stream_mode=modes
    )
    for each in parts:
        told.setdefault(each.event, []).append(each.data)
    assert "error" not in told
    state, events = told["values"][-1], told["custom"]
    assert grade(PROBLEM, said(state))
    traces = state["delegation_traces"]
    assert [each["token"] for each in events] == [
        takeover["token"] for trace in traces for takeover in trace["takeovers"]
    ]
    assert {each["type"] for each in events} == {"takeover"}
    assert {each["node"] for each in events} <= {each["node"] for each in traces}
    assert [each["left"] for each in events] == list(range(5, 5 - len(events), -1))
    assert any(message["content"] for data in told["messages/partial"] for message in data)


def test_planner_alone_has_a_reasoner(server: Server) -> None:
    context = {"total": 6, "shares": {"planner": 1, "executor": 0, "critic": 0}}
    state = server.wait("plan_execute", input=asked(PROBLEM), context=context)
    assert grade(PROBLEM, said(state))
    forwards = {each["node"]: each["reasoner_forwards"] for each in state["delegation_traces"]}
    assert forwards.pop("planner") > 0
    assert forwards == {"executor": 0, "critic": 0}


def test_map_reduce_answers_each_line(server: Server) -> None:
    state = server.wait("map_reduce", input=asked(PROBLEM, OTHER), context={"total": 12})
    assert all(map(grade, (PROBLEM, OTHER), said(state).splitlines()))
    assert sum(each["part"] for each in state["answers"][:2]) == 12


async def test_runs_side_by_side(server: Server) -> None:
    async with get_client(url=server.url, api_key=None) as client:

        async def ran(problem: Problem, total: int) -> Any:
            thread = await client.threads.create()
            return await client.runs.wait(
                thread["thread_id"], "react_agent", input=asked(problem), context={"total": total}
            )

        states = await asyncio.gather(ran(PROBLEM, 6), ran(OTHER, 6), ran(PROBLEM, 0))
    assert [grade(PROBLEM, said(states[0])), grade(OTHER, said(states[1]))] == [True, True]
    assert spent(states[2]) == 0


def test_context_chooses_the_models(server: Server) -> None:
    tiny = "delegate-llm/tiny-reasoner"
    state = server.wait("react_agent", input=asked(PROBLEM), context={"base": tiny, "reasoner": tiny})
    names = {
        each["response_metadata"].get("model_name") for each in state["messages"] if each["type"] == "ai"
    }
    assert names == {f"delegated:{tiny}+{tiny}"}


# --- A person decides ---


@pytest.mark.parametrize(
    "answer", [{"action": "grant", "takeovers": 8}, {"action": "base"}, {"action": "stop"}], ids=str
)
def test_interrupt_is_answered(server: Server, answer: dict[str, Any]) -> None:
    thread = server.thread()
    halted = server.wait("human_budget", thread, input=asked(PROBLEM), context={"total": 1})
    (question,) = halted["__interrupt__"]
    assert question["value"]["total"] == question["value"]["spent"] == 1
    assert server.client.threads.get(thread)["status"] == "interrupted"

    state = server.wait("human_budget", thread, command={"resume": answer}, context={"total": 1})
    assert "__interrupt__" not in state
    assert server.client.threads.get(thread)["status"] == "idle"
    assert (spent(state) > 1) is ("takeovers" in answer)
    assert grade(PROBLEM, said(state)) is ("takeovers" in answer)
    assert (state["messages"] == halted["messages"]) is (answer["action"] == "stop")


def test_nonsense_is_asked_again(server: Server) -> None:
    thread = server.thread()
    server.wait("human_budget", thread, input=asked(PROBLEM), context={"total": 0})
    again = server.wait("human_budget", thread, command={"resume": "hello"}, context={"total": 0})
    assert "'hello' is no answer" in again["__interrupt__"][0]["value"]["error"]


# --- Bad input ---


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"context": {"total": -1}}, "total: -1 is not a count"),
        ({"context": {"shares": {"planer": 1}}}, "node 'planner' is not among 'planer'"),
        ({"input": asked(PROBLEM, delegation_budget="much")}, "'much' is not a count"),
    ],
    ids=str,
)
def test_bad_input_is_told(server: Server, given: dict[str, Any], told: str) -> None:
    with pytest.raises(Exception, match=re.escape(told)):
        server.wait("plan_execute", **{"input": asked(PROBLEM), **given})


def test_models_that_are_not_there_are_told_in_the_log(server: Server) -> None:
    # Of errors that are no ValueError the server tells its callers the name alone.
    with pytest.raises(Exception, match="LoadError"):
        server.wait("react_agent", input=asked(PROBLEM), context={"base": "delegate-llm/huge"})
    assert "base: 'delegate-llm/huge' does not ship" in server.log.read_text(encoding="utf-8")


@by_graph
def test_input_cannot_raise_its_own_limit(server: Server, name: str) -> None:
    more = {"type": "__overwrite__", "value": 99}
    grants = {"delegation_grants": {"mine": 99}, "delegation_spent": {"type": "__overwrite__", "value": None}}
    given = asked(PROBLEM, delegation_budget=more, **grants)
    state = server.wait(name, input=given, context={"total": 1})
    assert spent(state) <= 1


# --- The log ---


def test_what_blocks_the_loop_is_noticed_and_nothing_of_ours_does(server: Server) -> None:
    with pytest.raises(Exception, match="BlockingError"):
        server.wait("careless", input=asked(PROBLEM))
    log = server.log.read_text(encoding="utf-8")
    assert set(re.findall(r"Blocking call to ([\w.]+)", log)) == {"time.sleep"}


def test_nobody_tried_to_leave_the_machine(server: Server) -> None:
    server.wait("react_agent", input=asked(PROBLEM), context={"total": 1})
    log = server.log.read_text(encoding="utf-8")
    for said_of_it in ("ProxyError", "ConnectError", "Connection refused", "127.0.0.1:9\n", "LangSmithError"):
        assert said_of_it not in log
