"""A delegated node: what it asks the model, what it writes, what it tells, and what it costs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from answers import answering
from budgeted import ASK, THREAD, WORDS, chain, charges, disagreeing, graph_of, node, run, spent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.types import RetryPolicy, Send

from delegate_llm import DelegatedChatModel, PolicyError, RequestError
from delegate_llm.graph import DelegationContext, delegated_node
from delegate_llm.watching import watch

both = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])


def metadata(graph: Any, given: Any, **settings: Any) -> list[dict[str, Any]]:
    """What each call of a model said of itself."""
    seen: list[dict[str, Any]] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, metadata: dict[str, Any], **__: Any) -> None:
            seen.append(metadata)

    graph.invoke(given, {"callbacks": [Listener()]}, **settings)
    return seen


def counted() -> tuple[DelegatedChatModel, list[int]]:
    """A model, and the positions at which its reasoner was run."""
    asked: list[int] = []
    pair = answering("a" * WORDS, "b" * WORDS)
    script = pair.reasoner.script

    def listen(ids: Any) -> Any:
        asked.append(len(ids))
        return script(ids)

    pair.reasoner.script = listen
    return DelegatedChatModel(pair=pair), asked


# --- What it writes ---


@both
def test_it_writes_the_answer_what_it_spent_and_the_trace(sync: bool) -> None:
    state = run(
        chain("a", "b", takeovers=3).compile(),
        {**ASK, "delegation_budget": {"takeovers": 4, "asks": 40}},
        sync=sync,
    )
    assert [each.text for each in state["messages"][1:]] == ["bbbaaaaa", "baaaaaaa"]
    assert charges(state) == [("a", 3), ("b", 1)]
    first, second = state["delegation_traces"]
    assert (first["node"], first["step"], first["call"], first["allotted"]) == ("a", 1, 0, 4)
    assert (second["node"], second["step"], second["call"], second["allotted"]) == ("b", 2, 0, 1)
    assert (first["tokens"], first["changed"], first["share"]) == (WORDS + 1, 3, round(3 / (WORDS + 1), 4))
    assert first["reasoner_forwards"] > 0
    assert first["reasoner_tokens"] >= first["asks"] == WORDS + 1
    for trace, message in zip(state["delegation_traces"], state["messages"][1:], strict=True):
        said = message.response_metadata["delegation"]
        assert trace["id"] == said["id"]
        assert trace["asks"] == said["summary"]["asked"]
    assert [each["position"] for each in first["takeovers"]] == [0, 1, 2]
    assert first["takeovers"][0] == {
        "position": 0,
        "token": "b",
        "base_token": "a",
        "reasoner_token": "b",
        "score": first["takeovers"][0]["score"],
        "changed": True,
    }
    assert sum(each["asks"] for each in state["delegation_traces"]) == state["delegation_spent"]["asks"] <= 40


@both
def test_asks_are_capped_too(sync: bool) -> None:
    graph = chain("a", "b", "c", takeovers=1).compile()
    state = run(graph, {**ASK, "delegation_budget": {"takeovers": 9, "asks": 12}}, sync=sync)
    assert state["delegation_spent"]["asks"] <= 12
    assert charges(state)[:2] == [("a", 1), ("b", 1)]


def test_its_calls_are_counted() -> None:
    graph = graph_of({"a": node("a", 2)})
    graph.add_conditional_edges(
        "a", lambda state: "a" if len(state["messages"]) < 4 else "__end__", ["a", "__end__"]
    )
    compiled = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke({**ASK, "delegation_budget": 5}, THREAD)
    state = compiled.invoke(ASK, THREAD)
    assert [each["call"] for each in state["delegation_traces"]] == [0, 1, 2, 3]
    assert charges(state) == [("a", 2), ("a", 2), ("a", 1), ("a", 0)]


def test_an_update_of_the_users_own() -> None:
    def shout(message: AIMessage, state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(message.text.upper())], "delegation_spent": 99}

    state = chain("a", update=shout).compile().invoke({**ASK, "delegation_budget": 2})
    assert state["messages"][-1].text == "BBAAAAAA"
    assert spent(state) == 2  # the books are the node's own


def test_it_can_be_called_without_a_graph() -> None:
    made = node("a").invoke({"delegation_budget": 3})
    assert spent(made) == 3
    assert made["messages"][0].text == "bbbaaaaa"
    assert made["delegation_traces"][0]["step"] is None
    assert spent(asyncio.run(node("a").ainvoke({"delegation_budget": 3}))) == 3


# --- What it asks ---


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (None, ["what, go?"]),
        ("Be kind. ", ["Be kind. ", "what, go?"]),
        (lambda state: state["messages"][0].text + " now", ["what, go? now"]),
        (lambda state: [HumanMessage("go?"), *state["messages"]], ["go?", "what, go?"]),
    ],
)
def test_its_prompt(prompt: Any, told: list[str]) -> None:
    seen: list[list[str]] = []

    class Listener(BaseCallbackHandler):
        def on_chat_model_start(self, _: Any, messages: Any, **__: Any) -> None:
            seen.append([each.text for each in messages[0]])

    graph = chain("a", prompt=prompt).compile()
    asked = {"messages": [("user", "what, go?")], "delegation_budget": 1}
    graph.invoke(asked, {"callbacks": [Listener()]})
    assert seen == [told]


@pytest.mark.parametrize(
    "settings", [{"max_tokens": 3}, lambda state: {"max_tokens": 2 + len(state["messages"])}]
)
def test_its_settings(settings: Any) -> None:
    state = chain("a", settings=settings).compile().invoke({**ASK, "delegation_budget": 2})
    assert state["messages"][-1].text == "bba"


@pytest.mark.parametrize(
    "settings",
    [{"max_takeovers": 9}, {"budget": 9}, {"budget": 0.9}, {"n": 3}, {"policy": {"threshold": 0.5}}],
    ids=repr,
)
def test_no_setting_raises_its_limit(settings: Any) -> None:
    made: list[int] = []

    class Listener(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **_: Any) -> None:
            made.append(len(response.generations[0]))

    budget = {"takeovers": 2, "asks": 5}
    for model in (disagreeing(), disagreeing().bind(**settings)):
        graph = graph_of({"a": delegated_node(model, name="a", settings=settings)}).compile()
        state = graph.invoke({**ASK, "delegation_budget": budget}, {"callbacks": [Listener()]})
        assert spent(state) == 2
        assert 2 <= state["delegation_spent"]["asks"] <= 5
    assert made == [1, 1]  # each answer would spend as much


def test_a_models_own_budget_may_be_smaller() -> None:
    graph = graph_of({"a": delegated_node(disagreeing(budget=1), name="a")})
    assert spent(graph.compile().invoke({**ASK, "delegation_budget": 5})) == 1


def test_a_runs_threshold_replaces_the_models_own() -> None:
    graph = chain("a").compile()
    quiet = graph.invoke(ASK, context=DelegationContext(total=5, threshold=math.inf))
    assert spent(quiet) == 0
    assert quiet["delegation_spent"]["asks"] > 0
    assert spent(graph.invoke(ASK, context=DelegationContext(total=5))) == 5


@both
def test_a_run_may_choose_its_models(sync: bool) -> None:
    chosen: list[Any] = []

    def choose(context: Any) -> Any:
        chosen.append(context)
        return disagreeing(context.total).bind(max_tokens=6)

    graph = graph_of({"a": delegated_node(choose, name="a")}).compile()
    for total in (2, 3):
        state = run(graph, ASK, context={"total": total}, sync=sync)
        assert state["messages"][-1].text == "b" * total + "a" * (6 - total)
    assert chosen == [DelegationContext(total=2), DelegationContext(total=3)]


@pytest.mark.parametrize(
    "model",
    [
        FakeListChatModel(responses=["hi"]),
        disagreeing() | StrOutputParser(),
        RunnableLambda(lambda _: AIMessage("hi")),
        "delegate-llm/tiny-base",
        DelegatedChatModel,
        None,
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_model_that_is_not_delegated_is_refused(model: Any) -> None:
    with pytest.raises(RequestError, match="model: "):
        delegated_node(model, name="a")
    with pytest.raises(RequestError, match="DelegatedChatModel"):
        delegated_node(lambda _: model, name="a").invoke({"delegation_budget": 2})


@pytest.mark.parametrize(
    "settings",
    [
        {"share": 0.5, "budget": 2},
        *({"share": each} for each in (-0.1, 1.1, math.nan, True, "0.5")),
        *({"budget": each} for each in (-1, math.nan, 2.0, True, "2")),
        {"strategy": "evn"},
        {"strategy": 3},
    ],
    ids=repr,
)
def test_a_node_out_of_range_is_refused_when_it_is_made(settings: Any) -> None:
    with pytest.raises(PolicyError):
        node("a", **settings)


def test_a_state_that_cannot_hold_a_budget_is_refused() -> None:
    graph = graph_of({"begin": lambda _: {}, "a": node("a")}, (START, "begin"))
    graph.add_conditional_edges("begin", lambda _: [Send("a", {"messages": []})], ["a"])
    with pytest.raises(PolicyError, match="fan_out"):
        graph.compile().invoke({**ASK, "delegation_budget": 2}, context={"total": 2})


# --- What it costs ---


@both
@pytest.mark.parametrize(
    ("settings", "given", "context"),
    [
        ({"share": 0.0}, {"delegation_budget": 4}, None),
        ({"budget": 0}, {"delegation_budget": 4}, None),
        ({}, {"delegation_budget": 0}, None),
        ({}, {"delegation_budget": {"takeovers": 4, "asks": 0}}, None),
        ({}, {"delegation_budget": 4, "delegation_spent": 4}, None),
        ({}, {"delegation_budget": 4, "delegation_alone": True}, None),
        ({}, {}, DelegationContext(total=0)),
        ({}, {}, DelegationContext(total=4, asks=0)),
        ({"share": 1.0}, {}, DelegationContext(total=4, shares={"a": 0.0})),
        ({"strategy": lambda _: 0}, {"delegation_budget": 4}, None),
    ],
)
def test_where_nothing_is_allotted_no_reasoner_is_run(
    settings: Any, given: Any, context: Any, sync: bool
) -> None:
    model, asked = counted()
    graph = graph_of({"a": delegated_node(model, name="a", **settings)}).compile()
    state = run(graph, {**ASK, **given}, context=context, sync=sync)
    assert state["messages"][-1].text == "a" * WORDS
    assert not asked
    (trace,) = state["delegation_traces"]
    assert (trace["reasoner_forwards"], trace["reasoner_tokens"], trace["asks"]) == (0, 0, 0)
    assert trace["allotted"] == 0 or "asks" in repr((given, context))


# --- What it tells ---


@both
@pytest.mark.parametrize("mode", ["custom", ["custom", "messages"]])
def test_it_tells_every_takeover_as_it_happens(sync: bool, mode: Any) -> None:
    graph = chain("a", "b", takeovers=3).compile()
    given = {**ASK, "delegation_budget": 5}

    async def stream() -> list[Any]:
        return [each async for each in graph.astream(given, stream_mode=mode)]

    told = [*graph.stream(given, stream_mode=mode)] if sync else asyncio.run(stream())
    if mode != "custom":
        told = [each for kind, each in told if kind == "custom"]
    assert [(each["node"], each["step"], each["position"], each["left"]) for each in told] == [
        ("a", 1, 0, 4),
        ("a", 1, 1, 3),
        ("a", 1, 2, 2),
        ("b", 2, 0, 1),
        ("b", 2, 1, 0),
    ]
    assert told[0] == {
        "type": "takeover",
        "node": "a",
        "step": 1,
        "call": 0,
        "position": 0,
        "token": "b",
        "base_token": "a",
        "score": told[0]["score"],
        "changed": True,
        "left": 4,
    }
    assert told[0]["score"] > 3.0


@both
def test_whoever_watches_from_outside_is_told_too(sync: bool) -> None:
    seen: list[tuple[str, int]] = []
    graph = chain("a", takeovers=2).compile()
    with watch(lambda each: seen.append(("outer", each.position))):
        with watch(lambda each: seen.append(("inner", each.position))):
            run(graph, {**ASK, "delegation_budget": 5}, sync=sync)
        run(graph, {**ASK, "delegation_budget": 1}, sync=sync)
    assert seen == [("outer", 0), ("inner", 0), ("outer", 1), ("inner", 1), ("outer", 0)]
    run(graph, {**ASK, "delegation_budget": 5}, sync=sync)
    assert len(seen) == 5


def test_a_trace_says_whose_call_it_was() -> None:
    seen = metadata(chain("a", "b", takeovers=3).compile(), {**ASK, "delegation_budget": 5})
    assert [(each["delegation_node"], each["delegation_allotted"]) for each in seen] == [("a", 5), ("b", 2)]
    assert [each["langgraph_node"] for each in seen] == ["a", "b"]


# --- When something fails ---


@both
@pytest.mark.parametrize("where", ["prompt", "settings", "update", "model"])
def test_what_a_failed_call_held_goes_back(where: str, sync: bool) -> None:
    """The node fails twice, before or after the model was asked; then it has the whole budget still."""
    failures = [RuntimeError("once"), RuntimeError("twice")]

    def failing(result: Any) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            if failures:
                raise failures.pop()
            return result

        return call

    model: Any = disagreeing()
    settings: dict[str, Any] = {"prompt": lambda _: "go?"}
    match where:
        case "prompt":
            settings["prompt"] = failing("go?")
        case "settings":
            settings["settings"] = failing({})
        case "update":
            settings["update"] = failing({})
        case "model":
            model = failing(model)
    graph = graph_of({})
    policy = RetryPolicy(initial_interval=0, jitter=False, retry_on=RuntimeError)
    graph.add_node("a", delegated_node(model, name="a", **settings), retry_policy=policy)
    graph.add_edge(START, "a")
    state = run(graph.compile(), {**ASK, "delegation_budget": 3}, sync=sync)
    assert not failures
    assert charges(state) == [("a", 3)]  # what the attempts before spent is not the run's


def test_whoever_is_told_may_end_the_run() -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    graph = chain("a").compile()
    with pytest.raises(KeyboardInterrupt), watch(stop):
        graph.invoke({**ASK, "delegation_budget": 3})
    assert spent(graph.invoke({**ASK, "delegation_budget": 3})) == 3
