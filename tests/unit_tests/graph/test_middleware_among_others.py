"""The middleware among all else that an agent has: retries, caches, streams, forms, contexts, models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from counting import ASK, PETS, RUNS, SAID, THREAD, Pets, Run, agent, by_call, count, said, saver, spent
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import LLMResult
from scripted_chat import conversing

import delegate_llm.graph
from delegate_llm import DelegatedChatModel
from delegate_llm.errors import DelegateError, MissingExtraError, PolicyError, RequestError
from delegate_llm.graph import DelegationContext, DelegationMiddleware


@pytest.fixture
def kept() -> dict[str, Any]:
    return {"checkpointer": saver()}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    """Invokes an agent, in both ways."""
    return RUNS[request.param]


# --- Retries and caches ---


class Stumbling(AgentMiddleware):
    """Falls over each answer once, after the model has given it."""

    def __init__(self) -> None:
        self.fell: set[int] = set()

    def _stumble(self, request: Any) -> None:
        if len(request.messages) not in self.fell:
            self.fell.add(len(request.messages))
            msg = "lost the answer"
            raise RuntimeError(msg)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        response = handler(request)
        self._stumble(request)
        return response

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        response = await handler(request)
        self._stumble(request)
        return response


def retrying(**settings: Any) -> ModelRetryMiddleware:
    return ModelRetryMiddleware(retry_on=(RuntimeError,), initial_delay=0, **settings)


@pytest.mark.parametrize("cache", [None, InMemoryCache()], ids=["afresh", "from a cache"])
def test_a_call_that_is_tried_again_is_charged_once(run: Run, cache: InMemoryCache | None) -> None:
    model = DelegatedChatModel(pair=conversing(), cache=cache)
    result = run(agent(retrying(), Stumbling(), model=model, run_limit=3))
    assert by_call(result) == [1, 2]
    assert said(result) == SAID[3]


def test_a_retry_inside_the_middleware_is_charged_once(run: Run) -> None:
    model = DelegatedChatModel(pair=conversing())
    budget = DelegationMiddleware(run_limit=3)
    result = run(create_agent(model, [count], middleware=[budget, retrying(), Stumbling()]))
    assert by_call(result) == [1, 2]


def test_a_failure_told_by_another_middleware_costs_nothing(run: Run) -> None:
    model = DelegatedChatModel(pair=conversing())
    budget = DelegationMiddleware(run_limit=3)
    result = run(create_agent(model, [count], middleware=[budget, retrying(max_retries=0), Stumbling()]))
    assert "lost the answer" in said(result)
    assert spent(result) == 0


def test_a_message_of_nobody_is_no_charge() -> None:
    class Answering(AgentMiddleware):
        """Answers by itself."""

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            del request, handler
            return AIMessage("It is closed today.")

    made = create_agent(
        DelegatedChatModel(pair=conversing()), middleware=[DelegationMiddleware(run_limit=3), Answering()]
    )
    result = made.invoke({"messages": [HumanMessage("Hello?")]})
    assert said(result) == "It is closed today."
    assert spent(result) == 0


def test_a_cached_answer_is_charged_once_a_thread(run: Run, kept: dict[str, Any]) -> None:
    model = DelegatedChatModel(pair=conversing(), cache=InMemoryCache())
    counting = agent(model=model, run_limit=3, of=kept)
    first = run(counting, config=THREAD)
    (before,) = [each for each in counting.get_state_history(THREAD) if each.next == ("tools",)]
    again = run(counting, None, before.config)
    assert again["delegation_spent"] == first["delegation_spent"]
    other = run(counting, config={"configurable": {"thread_id": "2"}})
    assert spent(other) == 3


def test_it_goes_with_other_limits(run: Run) -> None:
    result = run(agent(ModelCallLimitMiddleware(run_limit=1), run_limit=3))
    assert by_call(result) == [1]
    assert "Model call limits exceeded" in said(result)


# --- What is told ---


def test_takeovers_are_told_as_they_happen() -> None:
    told = []
    for mode, part in agent(run_limit=3, name="counter").stream(ASK, stream_mode=["custom", "updates"]):
        told.append(part if mode == "custom" else list(part))
    assert [each for each in told if isinstance(each, list) and each[0] in ("model", "tools")]
    assert told.index(["model"]) > 0
    events = [each for each in told if isinstance(each, dict)]
    assert [(each["type"], each["node"], each["call"], each["left"]) for each in events] == [
        ("takeover", "counter", 0, 2),
        ("takeover", "counter", 1, 1),
        ("takeover", "counter", 1, 0),
    ]
    assert [(each["base_token"], each["token"]) for each in events] == [("8", "3"), ("8", "3"), ("r", "t")]
    assert all(each["score"] > 1 and each["changed"] for each in events)


async def test_takeovers_are_told_in_async_runs_too() -> None:
    counting = agent(run_limit=3)
    told = [each async for each in counting.astream(ASK, stream_mode="custom")]
    result = await counting.ainvoke(ASK)
    traced = [
        (each["node"], each["step"], each["call"], one["position"], one["token"])
        for each in result["delegation_traces"]
        for one in each["takeovers"]
    ]
    names = ("node", "step", "call", "position", "token")
    assert [tuple(each[name] for name in names) for each in told] == traced
    assert all(isinstance(each["step"], int) for each in told)


def test_messages_can_be_streamed_as_ever() -> None:
    text = "".join(
        message.text
        for message, about in agent(run_limit=3).stream(ASK, stream_mode="messages")
        if about["langgraph_node"] == "model"
    )
    assert text == "The tool says: 3 cats"


# --- Forms ---


@pytest.mark.parametrize("form", [Pets, ProviderStrategy(Pets)], ids=["of a class", "of the model"])
@pytest.mark.parametrize(("limit", "animals"), [(0, "Two cars."), (1, "Two cats.")])
def test_structured_output_keeps_its_form(run: Run, form: Any, limit: int, animals: str) -> None:
    result = run(agent(run_limit=limit, of={"response_format": form}), PETS)
    assert result["structured_response"] == Pets(animals=animals)
    assert spent(result) == limit


def test_structured_output_by_a_tool_keeps_its_form(run: Run) -> None:
    asked = {"messages": [("user", "Which Pets are there? 'Two cats.'")]}
    for limit, animals in ((0, "Two cars."), (1, "Two cats.")):
        form = {"response_format": ToolStrategy(Pets)}
        result = run(agent(tools=(), run_limit=limit, of=form), asked)
        assert result["structured_response"] == Pets(animals=animals)
        assert spent(result) == limit


# --- The run's context ---


@pytest.mark.parametrize(("total", "most"), [(1, 1), (2, 2), (100, 2)])
def test_a_context_may_lower_a_runs_limit_and_never_raise_it(run: Run, total: int, most: int) -> None:
    counting = agent(run_limit=2, of={"context_schema": DelegationContext})
    assert spent(run(counting, context={"total": total})) == most


def test_a_context_may_limit_a_run_that_only_its_thread_limits(run: Run, kept: dict[str, Any]) -> None:
    counting = agent(thread_limit=9, of={**kept, "context_schema": DelegationContext})
    assert spent(run(counting, config=THREAD)) == 3
    assert spent(run(counting, config=THREAD, context=DelegationContext(total=1))) == 4
    asked = run(counting, config=THREAD, context=DelegationContext(asks=5))["delegation_spent"]
    assert sum(each["asks"] for each in list(asked["calls"].values())[-2:]) == 5


def test_a_context_has_the_other_settings_of_a_run(run: Run) -> None:
    counting = agent(run_limit=4, of={"context_schema": DelegationContext})
    assert spent(run(counting, context={"threshold": 50.0})) == 0
    halved = run(counting, context={"strategy": "front-loaded"})
    assert [each["allotted"] for each in halved["delegation_traces"]] == [2, 2]
    assert spent(run(counting, context={"shares": {"model": 0.5}})) == 2
    with pytest.raises(PolicyError, match="'model' is not among 'planner'"):
        run(counting, context={"shares": {"planner": 0.5}})


def test_a_context_of_ones_own_is_left_alone(run: Run) -> None:
    assert spent(run(agent(run_limit=3), context={"total": "12 EUR", "shares": "all"})) == 3


# --- Models ---


def test_a_model_that_is_not_delegated_is_an_error(run: Run) -> None:
    made = create_agent(FakeListChatModel(responses=["Hi!"]), middleware=[DelegationMiddleware(run_limit=3)])
    with pytest.raises(RequestError, match=r"FakeListChatModel.* or leave DelegationMiddleware out"):
        run(made)


@pytest.mark.parametrize("tools", [(), (count,)], ids=["alone", "with tools"])
def test_settings_bound_to_the_model_hold(run: Run, tools: Any) -> None:
    asked = {"messages": [("user", "Hi!")]}
    model = DelegatedChatModel(pair=conversing())
    assert said(run(agent(model=model.bind(max_tokens=3), tools=tools, run_limit=3), asked)) == "Hel"
    assert spent(run(agent(model=model.bind(threshold=50.0), tools=tools, run_limit=3), asked)) == 0


def test_a_model_of_many_answers_gives_and_pays_for_one(run: Run) -> None:
    made = []

    class Counting(BaseCallbackHandler):
        def on_llm_end(self, response: LLMResult, **_: Any) -> None:
            made.append(len(response.generations[0]))

    model = DelegatedChatModel(pair=conversing(), n=3)
    assert said(run(agent(model=model, run_limit=3), config={"callbacks": [Counting()]})) == SAID[3]
    assert made == [1, 1]


def test_tools_are_the_agents_to_bind(run: Run) -> None:
    model = DelegatedChatModel(pair=conversing()).bind_tools([count])
    with pytest.raises(RequestError, match="give create_agent the model and its tools"):
        run(agent(model=model, run_limit=3))


# --- The extra ---


def test_without_langchain_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(delegate_llm.graph, "DelegationMiddleware", raising=False)
    monkeypatch.delitem(sys.modules, "delegate_llm.graph.middleware")
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'delegate-llm\[agents\]'"):
        _ = delegate_llm.graph.DelegationMiddleware
    assert issubclass(MissingExtraError, DelegateError)


def test_graphs_without_it_load_no_langchain() -> None:
    script = "import sys, delegate_llm.graph; print(*(each for each in sys.modules if each == 'langchain'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(AttributeError, match="DelegatedMiddleware"):
        _ = delegate_llm.graph.DelegatedMiddleware  # type: ignore[attr-defined]
    assert "DelegationMiddleware" in dir(delegate_llm.graph)
