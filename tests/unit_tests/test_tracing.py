"""LangSmith's real client against a loopback server: what arrives of each run, by every route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing, nullcontext

import pytest
from answers import chat
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import tracing_v2_enabled
from langchain_core.tracers.langchain import LangChainTracer
from langsmith import Client, traceable
from langsmith.anonymizer import create_anonymizer
from langsmith.run_helpers import tracing_context
from loopback import Loopback, loopback
from traced import (
    COST,
    PROMOTED,
    ROUTES,
    SUMMARY,
    TAKEOVER,
    TEXT,
    TOLD,
    Model,
    joined,
    llm_runs,
    metadata_of,
    parents,
    promoted,
    takeovers,
    tracing,
)

from delegate_llm.tracing import MAX_TAKEOVER_EVENTS, DelegationTracer, TracedRoutes, annotated

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


@pytest.fixture
def model() -> TracedRoutes:
    return Model()


@pytest.fixture
def smith() -> Iterator[Loopback]:
    with loopback() as server:
        yield server


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("multipart", "how"), [(True, "context"), (False, "context"), (True, "langchain's"), (True, "ours")]
)
def test_each_run_arrives_once_with_what_the_reasoner_did(route, multipart, how, model):
    ask, ancestors = ROUTES[route]
    with loopback(multipart=multipart) as smith:
        tracer = {"langchain's": LangChainTracer, "ours": DelegationTracer}.get(how)
        config = {"callbacks": [tracer(client=smith.client, project_name="p")]} if tracer else {}
        with tracing(smith) if tracer is None else nullcontext():
            answers = ask(model, config)
        runs = smith.runs()

    assert set(answers) == {TEXT}
    assert set(smith.requests) == {f"POST /runs/{'multipart' if multipart else 'batch'}"}
    delegated = llm_runs(runs)
    assert sorted(promoted(run)["delegation_id"] for run in delegated) == ["q0?", "q1?"][: len(answers)]
    for run in delegated:
        assert promoted(run) == PROMOTED | {"delegation_id": promoted(run)["delegation_id"]}
        assert takeovers(run) == [TOLD]
        message = run["outputs"]["generations"][0][0]["message"]["kwargs"]
        assert message["response_metadata"]["delegation"]["takeovers"] == [TAKEOVER]
        assert message["response_metadata"]["delegation_cost"] == COST
        assert metadata_of(run)["usage_metadata"]["output_tokens"] == 4
        assert run["session_name"] == "p"
        assert not run.get("error")
        assert parents(run, runs) == ancestors
    assert [promoted(run) for run in runs if run["run_type"] != "llm"] == [{}] * (len(runs) - len(delegated))


@pytest.mark.parametrize("route", ROUTES)
def test_the_real_model_is_recorded_so_too(route, smith):
    ask, ancestors = ROUTES[route]
    with tracing(smith):
        answers = ask(chat("It is Monday.", "It is Friday."), {})
    runs = smith.runs()
    assert set(answers) == {"It is Friday."}
    assert len(llm_runs(runs)) == len(answers)
    for run in llm_runs(runs):
        details = run["outputs"]["generations"][0][0]["message"]["kwargs"]["response_metadata"]
        record = details["delegation"]
        assert takeovers(run) == [{name: each[name] for name in TOLD} for each in record["takeovers"]]
        assert [each["token"] for each in takeovers(run)] == list("Fri")
        counted = record["summary"] | details["delegation_cost"]
        assert counted.keys() == (SUMMARY | COST).keys()
        assert promoted(run).items() >= {f"delegation_{name}": counted[name] for name in counted}.items()
        assert promoted(run).keys() == {*PROMOTED, "delegation_id"}
        assert parents(run, runs) == ancestors


@pytest.mark.parametrize("multipart", [True, False])
def test_only_the_record_is_added(multipart, model):
    config = {"metadata": {"user": "u"}, "tags": ["mine"], "run_name": "named"}
    with loopback(multipart=multipart) as smith:
        with tracing(smith, metadata={"of": "context"}, tags=["ambient"]):
            model.invoke("q", config)
            super(TracedRoutes, model).generate(
                [[HumanMessage("q")]], metadata={"user": "u"}, tags=["mine"], run_name="named"
            )
        ours, theirs = smith.runs()
    added = set(metadata_of(ours)) - set(metadata_of(theirs))
    assert added == {*PROMOTED, "delegation_id"}
    assert {key: value for key, value in metadata_of(ours).items() if key not in added} == metadata_of(theirs)
    assert sorted(ours["tags"]) == sorted(theirs["tags"]) == ["ambient", "mine"]
    assert [each["name"] for each in ours["events"]] == ["start", "end", "takeover"]
    assert set(ours) == set(theirs)
    assert ours["inputs"] == theirs["inputs"]


def test_other_models_are_left_alone(model, smith):
    other = GenericFakeChatModel(messages=iter([AIMessage("no record")]))
    with tracing(smith):
        (model | RunnableLambda(lambda message: [HumanMessage(message.text)]) | other).invoke("q")
    mine, others = llm_runs(smith.runs())
    assert promoted(mine)
    assert promoted(others) == {}
    assert takeovers(others) == []


def test_prompts_of_one_generate_do_not_mix(model, smith):
    with tracing(smith):
        model.generate([[HumanMessage("q0")], [HumanMessage("q1")]])
        asyncio.run(model.agenerate([[HumanMessage("q2")], [HumanMessage("q3")]]))
    asked = {
        run["inputs"]["messages"][0][0]["kwargs"]["content"]: promoted(run)["delegation_id"]
        for run in smith.runs()
    }
    assert asked == {f"q{i}": f"q{i}" for i in range(4)}


def test_several_answers_are_one_run_that_costs_them_all(smith):
    with tracing(smith):
        result = chat("It is Monday.", "It is Friday.", n=2).generate([[HumanMessage("q?")]])
    (run,) = smith.runs()
    costs = [each.message.response_metadata["delegation_cost"] for each in result.generations[0]]
    told = promoted(run)
    assert {name: told[f"delegation_{name}"] for name in COST} == {
        name: sum(each[name] for each in costs) for name in COST
    }
    assert len(takeovers(run)) == told["delegation_takeovers"] == 6
    assert told["delegation_share"] == 6 / told["delegation_tokens"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_traceable_parent_is_linked(streamed, model, smith):
    @traceable(client=smith.client, name="outer")
    def outer():
        return joined(model.stream("q")) if streamed else model.invoke("q").text

    with tracing(smith):
        assert outer() == TEXT
    runs = smith.runs()
    assert [run["name"] for run in runs] == ["outer", "Model"]
    assert parents(runs[1], runs) == ["outer"]
    assert promoted(runs[1])


def test_tracing_that_begins_within_a_chain(model, smith):
    def ask(_):
        with tracing(smith):
            return model.invoke("q")

    with tracing_context(enabled=False):
        RunnableLambda(ask).invoke("")
    (run,) = smith.runs()
    assert promoted(run)


def test_langchains_own_context_manager(model, smith):
    with tracing_v2_enabled(client=smith.client, project_name="p"):
        model.invoke("q")
    (run,) = smith.runs()
    assert promoted(run)


@pytest.mark.parametrize("enabled", [True, None])
def test_a_tracer_on_the_model_itself(enabled, smith):
    model = Model(callbacks=[LangChainTracer(client=smith.client, project_name="own")])
    with tracing(smith, enabled=enabled):
        model.invoke("q0")
        joined(model.stream("q1"))
    runs = smith.runs()
    assert [promoted(run)["delegation_id"] for run in runs] == ["q0", "q1"]
    assert {run["session_name"] for run in runs} == {"own"}


def test_a_stream_left_early_ends_its_run(model, smith):
    async def first():
        async with aclosing(model.astream("q")) as chunks:
            async for _ in chunks:
                break

    with tracing(smith):
        stream = model.stream("q")
        next(stream)
        stream.close()
        asyncio.run(first())
    runs = smith.runs()
    assert len(runs) == 2
    assert all("GeneratorExit" in run["error"] and not promoted(run) for run in runs)


def test_off_nothing_happens(model, smith):
    spy = BaseCallbackHandler()
    with tracing_context(enabled=False):
        for callbacks in (None, [], [spy], CallbackManager([spy], [spy]), AsyncCallbackManager([spy], [spy])):
            assert annotated(callbacks) is callbacks
        for ask, _ in ROUTES.values():
            assert set(ask(model, {})) == {TEXT}
    assert smith.runs() == []
    assert not smith.requests


@pytest.mark.parametrize("manager_class", [CallbackManager, AsyncCallbackManager])
def test_the_callers_callbacks_stay_as_they_are(manager_class, smith):
    tracer, other = (
        LangChainTracer(client=smith.client, tags=["t"], metadata={"k": "v"}),
        BaseCallbackHandler(),
    )
    manager = manager_class([tracer, other], [tracer], tags=["a"], metadata={"b": "c"})
    ours = annotated(manager)
    assert manager.handlers == [tracer, other]
    assert manager.inheritable_handlers == [tracer]
    assert type(tracer) is LangChainTracer
    assert type(ours) is manager_class
    assert (ours.tags, ours.metadata) == (manager.tags, manager.metadata)
    assert [type(each) for each in ours.handlers] == [DelegationTracer, BaseCallbackHandler]
    assert [type(each) for each in ours.inheritable_handlers] == [DelegationTracer]
    twin = ours.handlers[0]
    assert twin.run_map is tracer.run_map
    assert twin.order_map is tracer.order_map
    assert twin._external_run_ids is tracer._external_run_ids
    assert (twin.client, twin.tags, twin.tracing_metadata) == (tracer.client, ["t"], {"k": "v"})
    assert annotated(ours) is ours


@pytest.mark.parametrize("manager_class", [CallbackManager, AsyncCallbackManager])
def test_a_manager_that_gains_a_tracer_keeps_its_class(manager_class, smith):
    with tracing(smith):
        manager = annotated(manager_class([], tags=["a"]))
    assert type(manager) is manager_class
    assert [type(each) for each in manager.inheritable_handlers] == [DelegationTracer]
    assert manager.tags == ["a"]


def test_a_tracer_of_the_users_is_not_replaced(smith):
    class Masking(LangChainTracer):
        pass

    tracer = [Masking(client=smith.client)]
    with tracing(smith):
        assert annotated(tracer) is tracer


def test_langchain_copies_the_tracer(smith):
    tracer = DelegationTracer(client=smith.client, project_name="p", metadata={"a": "b"})
    twin = tracer.copy_with_metadata_defaults(metadata={"c": "d"}, tags=["t"])
    assert type(twin) is DelegationTracer
    assert twin.run_map is tracer.run_map


def test_many_takeovers_are_told_in_part(smith):
    many = [TAKEOVER | {"position": at} for at in range(MAX_TAKEOVER_EVENTS + 5)]
    with tracing(smith):
        Model(record={"takeovers": many}).invoke("q")
    (run,) = smith.runs()
    assert [each["position"] for each in takeovers(run)] == list(range(MAX_TAKEOVER_EVENTS))
    assert run["events"][-1]["name"] == "takeovers_left_out"
    assert run["events"][-1]["kwargs"] == {"count": 5}
    assert promoted(run)["delegation_takeover_log"].count("\n") == MAX_TAKEOVER_EVENTS - 1


@pytest.mark.parametrize(
    "settings",
    [
        {"hide_outputs": True},
        {"hide_outputs": lambda outputs: {}},
        {"anonymizer": create_anonymizer([{"pattern": "Tuesday|Monday", "replace": "[day]"}])},
    ],
)
def test_hidden_outputs_stay_hidden(settings, model, smith):
    client: Client = smith.new_client(**settings)
    with tracing(smith, client=client):
        model.invoke("q")
    (run,) = smith.runs(client)
    client.close()
    assert takeovers(run) == [{"position": 2, "score": 2.345}]
    assert promoted(run)["delegation_share"] == 0.25
    assert "Tuesday" not in json.dumps(run)
    assert "Monday" not in json.dumps(run)


def test_a_cached_answer_costs_nothing(smith):
    model = Model(cache=InMemoryCache())
    with tracing(smith):
        model.invoke("q")
        model.invoke("q")
    paid, free = map(promoted, smith.runs())
    assert paid["delegation_reasoner_flops"] == COST["reasoner_flops"]
    assert set(paid) - set(free) == {f"delegation_{name}" for name in COST}
    assert free["delegation_cached"] is True


@pytest.mark.parametrize(
    "record",
    [
        None,
        "a record",
        [1],
        {"takeovers": 7},
        {"takeovers": [None, 3, {"score": {}, "position": [1]}], "summary": 5, "policy": []},
        {"summary": {"share": [1]}, "policy": {"threshold": None}},
        {},
    ],
)
def test_a_broken_record_breaks_no_run(record, smith):
    with tracing(smith):
        assert Model(record=record).invoke("q").text == TEXT
    (run,) = smith.runs()
    assert not run.get("error")
    assert run["outputs"]
    assert all(isinstance(value, str | int | float) for value in promoted(run).values())
