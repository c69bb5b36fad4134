"""Over graphs at random, spent never exceeds the total, and every call that is kept is charged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from random_graphs import Block, Crashed, blocks, build, is_calm

from delegate_llm.graph import DelegationContext

both = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
budgets = st.tuples(st.integers(0, 7), st.none() | st.integers(0, 9), st.sampled_from(["state", "context"]))
Budget = tuple[int, int | None, str]


class Answers(BaseCallbackHandler):
    """The ids of all answers that models gave, or caches in their place."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.ids.add(response.generations[0][0].message.response_metadata["delegation"]["id"])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A run that crashes leaves nodes behind whose writes LangGraph can no longer take, and says so."""
    logger = logging.getLogger("concurrent.futures")
    logger.disabled = True
    yield
    logger.disabled = False


def start(budget: Budget) -> tuple[dict[str, Any], DelegationContext | None]:
    """The input and the context of a run."""
    total, asks, where = budget
    if where == "context":
        return {"messages": []}, DelegationContext(total=total, asks=asks)
    return {"messages": [], "delegation_budget": {"takeovers": total, "asks": asks}}, None


async def finish(graph: Any, budget: Budget, config: Any, *, sync: bool, one: bool = False) -> dict[str, Any]:
    """The end of a run that is resumed for as long as it breaks off.

    Args:
        graph: Compiled.
        budget: Of the run.
        config: Of the run.
        sync: Whether it runs sync.
        one: Whether one person at a time answers, where several are asked.
    """
    following, context = start(budget)
    while True:
        try:
            if sync:
                state = graph.invoke(following, config, context=context)
            else:
                state = await graph.ainvoke(following, config, context=context)
        except Crashed:
            following = None
            await _leftovers()
            continue
        waiting = [each.id for each in state.get("__interrupt__", ())]
        if not waiting:
            return state
        following = Command(resume=dict.fromkeys(waiting[:1] if one else waiting, "go on"))


async def _leftovers() -> None:
    """Wait for what a crashed run leaves on the loop: LangGraph may still be saving what a node wrote."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def config_of(name: str, *callbacks: BaseCallbackHandler) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}, "callbacks": [*callbacks], "recursion_limit": 200}


def holds(state: dict[str, Any], budget: Budget) -> set[str]:
    """Check the books; the ids of the calls in them."""
    total, asks, _ = budget
    held = state.get("delegation_spent") or {"takeovers": 0, "asks": 0, "calls": {}}
    calls, traces = held["calls"], state.get("delegation_traces", [])
    assert held["takeovers"] == sum(each["takeovers"] for each in calls.values()) <= total
    assert held["asks"] == sum(each["asks"] for each in calls.values())
    assert asks is None or held["asks"] <= asks
    assert sorted(each["id"] for each in traces) == sorted(calls)
    for trace in traces:
        charge = calls[trace["id"]]
        assert len(trace["takeovers"]) == charge["takeovers"] <= charge["allotted"]
        assert (trace["node"], trace["asks"]) == (charge["node"], charge["asks"])
        assert charge["allotted"] > 0 or trace["reasoner_forwards"] == 0
    return set(calls)


@both
@few
@given(block=blocks(breaks=False), budget=budgets)
def test_a_run_in_one_go(block: Block, budget: Budget, sync: bool) -> None:
    answers = Answers()
    state = asyncio.run(finish(build(block), budget, config_of("1", answers), sync=sync))
    charged = holds(state, budget)
    assert charged == answers.ids if is_calm(block) else charged <= answers.ids


@both
@few
@given(block=blocks(breaks=True), budget=budgets, one=st.booleans())
def test_a_run_that_breaks_off_and_is_resumed(block: Block, budget: Budget, one: bool, sync: bool) -> None:
    answers = Answers()
    graph = build(block, InMemorySaver())
    state = asyncio.run(finish(graph, budget, config_of("1", answers), sync=sync, one=one))
    charged = holds(state, budget)
    assert charged == answers.ids if is_calm(block) else charged <= answers.ids


@settings(few, max_examples=20)
@given(block=blocks(breaks=True), given=st.lists(budgets, min_size=2, max_size=4))
def test_threads_that_run_side_by_side(block: Block, given: list[Budget]) -> None:
    """One compiled graph, one saver; each thread has its own budget."""
    graph = build(block, InMemorySaver(), shared=True)

    def go(at: int) -> dict[str, Any]:
        return asyncio.run(finish(graph, given[at], config_of(str(at)), sync=at % 2 == 0))

    with ThreadPoolExecutor(len(given)) as pool:
        states = [*pool.map(go, range(len(given)))]
    charged = [holds(state, budget) for state, budget in zip(states, given, strict=True)]
    assert len(set().union(*charged)) == sum(map(len, charged))


@few
@given(block=blocks(breaks=True), turns=st.lists(budgets, min_size=2, max_size=3))
def test_turns_of_one_thread(block: Block, turns: list[Budget]) -> None:
    """What earlier turns spent stays spent, whatever the later ones are given."""
    graph = build(block, InMemorySaver())
    before = 0
    for at, budget in enumerate(turns):
        state = asyncio.run(finish(graph, budget, config_of("1"), sync=at % 2 == 0))
        taken = (state.get("delegation_spent") or {"takeovers": 0})["takeovers"]
        assert before <= taken <= max(before, budget[0])
        before = taken
