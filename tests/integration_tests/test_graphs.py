"""The graphs that `langgraph dev` serves, on the pair that ships: right answers within the budget."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from served import (
    FRESH,
    GRAPHS,
    HARD,
    MANY,
    PLENTY,
    all_right,
    asked,
    by_agent,
    by_name,
    said,
    takeovers,
    thread,
)

from delegate_llm.graph import ModelContext, model_of, remaining
from delegate_llm.tiny.problems import grade
from graphs import human_budget, map_reduce, plan_execute, react_agent

ROOT = Path(__file__).parents[2]
# --- Right answers ---


@by_agent
def test_agents_solve_fresh_problems(name: str) -> None:
    for problem in FRESH:
        state = GRAPHS[name].graph.invoke(asked(problem.question), context=PLENTY)
        assert grade(problem, said(state)), problem.question
        assert takeovers(state) > 0
        calls = [each for message in state["messages"] for each in getattr(message, "tool_calls", ())]
        assert [each["name"] for each in calls] == [each.operation for each in problem.steps]


def test_map_reduce_solves_many_at_once() -> None:
    state = map_reduce.graph.invoke(asked(*(each.question for each in MANY)), context=PLENTY)
    assert all_right(state, MANY)
    assert takeovers(state) > 0


@pytest.mark.parametrize("name", ["plan_execute", "react_agent"])
def test_agents_without_budget_fail_as_the_base_does(name: str) -> None:
    states = [GRAPHS[name].graph.invoke(asked(each.question), context={"total": 0}) for each in FRESH]
    assert sum(map(grade, FRESH, map(said, states))) <= 1
    assert sum(map(takeovers, states)) == 0


@by_name
async def test_async_answers_are_the_same(name: str) -> None:
    question = asked(FRESH[0].question)
    sync = GRAPHS[name].graph.invoke(question, context=PLENTY)
    one, other = await asyncio.gather(
        GRAPHS[name].graph.ainvoke(question, context=PLENTY),
        GRAPHS[name].build_graph(InMemorySaver()).ainvoke(question, thread(), context=PLENTY),
    )
    assert said(sync) == said(one) == said(other)
    assert takeovers(sync) == takeovers(one) == takeovers(other)


@by_name
def test_threads_go_on(name: str) -> None:
    graph = GRAPHS[name].build_graph(InMemorySaver())
    first = graph.invoke(asked(FRESH[0].question), thread(), context=PLENTY)
    second = graph.invoke(asked(FRESH[1].question), thread(), context=PLENTY)
    # Whether the answer is right, too, is another matter: the tiny models have learned single questions.
    assert re.search(r"The answer is \d+\.$", said(second))
    assert len(said(second).splitlines()) == 1
    assert takeovers(second) > takeovers(first)
    assert second["messages"][: len(first["messages"])] == first["messages"]


@by_name
def test_module_level_graph_has_no_checkpointer(name: str) -> None:
    # `langgraph dev` brings its own, and refuses a graph that has one.
    module = GRAPHS[name]
    assert module.graph.checkpointer is None
    assert module.graph.name == module.build_graph().name == name
    assert json.loads((ROOT / "langgraph.json").read_text())["graphs"][name] == f"./graphs/{name}.py:graph"


# --- The budget ---


@by_name
@pytest.mark.parametrize("total", [0, 1, 2, 3])
def test_budget_is_never_exceeded(name: str, total: int) -> None:
    graph, question = GRAPHS[name].build_graph(InMemorySaver()), asked(*(each.question for each in MANY[:3]))
    state = graph.invoke(question, thread(), context={"total": total})
    while "__interrupt__" in state:
        state = graph.invoke(Command(resume={"action": "base"}), thread(), context={"total": total})
    assert takeovers(state) <= total
    assert remaining(state, ModelContext(total=total)) == total - takeovers(state)


@by_name
def test_asks_are_never_exceeded(name: str) -> None:
    graph, context = GRAPHS[name].build_graph(InMemorySaver()), {"total": 8, "asks": 12}
    state = graph.invoke(asked(FRESH[0].question), thread(), context=context)
    while "__interrupt__" in state:
        state = graph.invoke(Command(resume={"action": "base"}), thread(), context=context)
    takeovers(state)
    assert 0 < sum(each["asks"] for each in state["delegation_traces"]) <= 12


@pytest.mark.parametrize(
    "shares", [{}, {"planner": 1.0, "executor": 0.0, "critic": 0.0}], ids=["its own", "planner only"]
)
async def test_no_reasoner_runs_where_the_plan_is_carried_out(shares: dict[str, float]) -> None:
    context = {"total": 8, "shares": shares}
    runs = [await plan_execute.graph.ainvoke(asked(each.question), context=context) for each in FRESH[:3]]
    for state, problem in zip(runs, FRESH, strict=False):
        assert grade(problem, said(state))
        assert takeovers(state) > 0
        silent = {"executor", "critic"} if shares else {"executor"}
        for each in state["delegation_traces"]:
            if each["node"] in silent:
                assert each["reasoner_forwards"] == each["reasoner_tokens"] == each["asks"] == 0
        executed = [each for each in state["delegation_traces"] if each["node"] == "executor"]
        assert len(executed) == len(state["plan"]) == len(problem.steps)


def test_plan_is_made_of_takeovers() -> None:
    for problem in FRESH:
        state = plan_execute.graph.invoke(asked(problem.question), context={"total": 8})
        heard = [each["token"].strip() for trace in state["delegation_traces"] for each in trace["takeovers"]]
        assert set(heard) <= {step.operation for step in problem.steps}


def test_parts_come_to_the_total_and_what_is_left_goes_to_those_that_ran_out() -> None:
    context = ModelContext(total=8)
    state = map_reduce.graph.invoke(asked(*(each.question for each in MANY)), context=context)
    first, second = state["answers"][: len(MANY)], state["answers"][len(MANY) :]
    assert sorted(each["at"] for each in first) == list(range(len(MANY)))
    assert sum(each["part"] for each in first) == 8
    assert {each["part"] for each in first} == {1, 2}

    spent = [len(each["takeovers"]) for each in state["delegation_traces"]]
    hungry = {each["at"]: each["part"] for each in first if each["ran_out"]}
    assert second, "some question was easy and left its part, in these fixed problems"
    assert {each["at"] for each in second} <= hungry.keys()
    assert all(each["part"] > hungry[each["at"]] for each in second)
    assert sum(each["part"] for each in second) == 8 - sum(spent[: len(MANY)])
    assert takeovers(state) <= 8


def test_map_reduce_forgets_the_answers_of_the_turn_before() -> None:
    graph = map_reduce.build_graph(InMemorySaver())
    graph.invoke(asked(*(each.question for each in MANY)), thread(), context=PLENTY)
    again = graph.invoke(asked(*(each.question for each in FRESH[:2])), thread(), context=PLENTY)
    assert all_right(again, FRESH[:2])


@pytest.mark.parametrize("question", ["", " \n "])
def test_map_reduce_of_nothing(question: str) -> None:
    assert said(map_reduce.graph.invoke(asked(question))) == ""


# --- A person decides ---


def halted(context: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    graph = human_budget.build_graph(InMemorySaver())
    return graph, graph.invoke(asked(HARD.question), thread(), context=context)


def test_person_is_asked_once_the_budget_is_spent() -> None:
    _, state = halted({"total": 1})
    (question,) = state["__interrupt__"]
    assert question.value["type"] == "delegation_budget"
    assert question.value["total"] == question.value["spent"] == takeovers(state) == 1
    for answer in question.value["answers"]:
        assert json.loads(answer)["action"] in ("grant", "base", "stop")
    assert "error" not in question.value


def test_grant_goes_on_and_solves() -> None:
    graph, _ = halted({"total": 1})
    grant = Command(resume={"action": "grant", "takeovers": 4})
    state = graph.invoke(grant, thread(), context={"total": 1})
    assert "__interrupt__" not in state
    assert grade(HARD, said(state))
    assert 1 < takeovers(state) <= 5


def test_base_goes_on_alone() -> None:
    graph, before = halted({"total": 1})
    state = graph.invoke(Command(resume={"action": "base"}), thread(), context={"total": 1})
    assert "__interrupt__" not in state
    assert said(state).startswith("The answer is ")
    after = state["delegation_traces"][len(before["delegation_traces"]) :]
    assert after
    assert all(each["reasoner_forwards"] == 0 for each in after)
    assert takeovers(state) == 1


def test_stop_ends_the_run() -> None:
    graph, before = halted({"total": 1})
    state = graph.invoke(Command(resume={"action": "stop"}), thread(), context={"total": 1})
    assert "__interrupt__" not in state
    assert state["messages"] == before["messages"]
    assert not graph.get_state(thread()).next


@pytest.mark.parametrize(
    "nonsense",
    ["yes", 7, [], {"action": "more"}, {"action": "grant"}]
    + [{"action": "grant", "takeovers": count} for count in (0, -3, 1.5, "many", True, None)],
    ids=str,
)
async def test_nonsense_is_asked_again(nonsense: Any) -> None:
    graph = human_budget.build_graph(InMemorySaver())
    context = {"total": 0}
    await graph.ainvoke(asked(FRESH[0].question), thread(), context=context)
    state = await graph.ainvoke(Command(resume=nonsense), thread(), context=context)
    (question,) = state["__interrupt__"]
    assert question.value["error"]
    assert not state.get("delegation_traces")
    grant = Command(resume={"action": "grant", "takeovers": 16})
    state = await graph.ainvoke(grant, thread(), context=context)
    assert grade(FRESH[0], said(state))


def test_empty_answer_is_none() -> None:
    # LangGraph takes it for answers to no interrupt, so that the gate does not even hear of it.
    graph, before = halted({"total": 1})
    state = graph.invoke(Command(resume={}), thread(), context={"total": 1})
    assert state["__interrupt__"] == before["__interrupt__"]


# --- Models ---


def names(state: dict[str, Any]) -> set[str]:
    return {each.response_metadata["model_name"] for each in state["messages"] if each.type == "ai"}


def test_models_come_from_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATE_LLM_BASE", "nowhere/to-be-found")
    monkeypatch.setenv("DELEGATE_LLM_REASONER", "nowhere/to-be-found")
    tiny = "delegate-llm/tiny-reasoner"
    state = react_agent.graph.invoke(asked(FRESH[0].question), context={"base": tiny, "reasoner": tiny})
    assert names(state) == {f"delegated:{tiny}+{tiny}"}
    assert grade(FRESH[0], said(state))


@by_agent
def test_models_come_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATE_LLM_BASE", "delegate-llm/tiny-reasoner")
    state = GRAPHS[name].graph.invoke(asked(FRESH[0].question))
    assert names(state) == {"delegated:delegate-llm/tiny-reasoner+delegate-llm/tiny-reasoner"}


@pytest.mark.parametrize("name", ["base", "reasoner"])
def test_empty_variable_means_the_models_that_ship(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DELEGATE_LLM_{name.upper()}", "")
    assert getattr(model_of(ModelContext()), name) == f"delegate-llm/tiny-{name}"


def test_answers_are_as_long_as_the_context_says() -> None:
    state = react_agent.graph.invoke(asked(FRESH[0].question), context={"max_tokens": 3})
    assert all(each["tokens"] <= 3 for each in state["delegation_traces"])


async def test_models_are_made_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # To know its profile, a model reads the configuration in its folder.
    read, here = [], Path.read_text

    def noted(path: Path, *given: Any, **more: Any) -> str:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            read.append(path.name)
        else:
            pytest.fail(f"{path} was read on the event loop")
        return here(path, *given, **more)

    monkeypatch.setattr(Path, "read_text", noted)
    await react_agent.graph.ainvoke(asked(FRESH[0].question))
    assert "config.json" in read
