"""Every route into the chat model ends with the same answer, alone, in a batch, or cut short."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from answers import answering, chat
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnablePassthrough
from routes import OTHER, PAIR, QUESTION, ROUTES, near, record

from delegate_llm import (
    DeadlineError,
    DelegatedChatModel,
    PromptError,
    RequestError,
    watch,
)
from delegate_llm.tiny.problems import messages, problems

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


@pytest.fixture(scope="module")
def model() -> DelegatedChatModel:
    return DelegatedChatModel(**PAIR)


@pytest.mark.parametrize("route", [name for name in ROUTES if name != "invoke"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.9, "seed": 7, "trace": "full"}, {"output_version": "v1", "top_logprobs": 2}],
    ids=["greedy", "sampled", "v1"],
)
def test_every_route_ends_with_the_same_record(route: str, settings: dict[str, Any]) -> None:
    model = DelegatedChatModel(**PAIR, **settings)
    expected, got = model.invoke(QUESTION), ROUTES[route](model, QUESTION)
    assert got.text == expected.text
    assert near(record(got), record(expected))
    assert "batch" in route or record(got) == record(expected)
    assert got.usage_metadata == expected.usage_metadata
    for name in ("model_name", "finish_reason", "model_provider"):
        assert got.response_metadata[name] == expected.response_metadata[name]
    if "top_logprobs" in settings:
        mine, its = (each.response_metadata["logprobs"]["content"] for each in (got, expected))
        assert [each["token"] for each in mine] == [each["token"] for each in its]
        assert [each["logprob"] for each in mine] == pytest.approx(
            [each["logprob"] for each in its], abs=1e-4
        )


@pytest.mark.parametrize("route", ROUTES)
def test_calls_and_thoughts_on_every_route(route: str) -> None:
    said = (
        "<think>\nhm</think>\n\nWell.\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now"}\n</tool_call>\n<tool_call>\n{"name": "add", "argu\n</tool_call>'
    )
    model = chat(said, said.replace('"a": 1', '"a": 7'))
    prompt = QUESTION if route in ("batch", "abatch") else "what?"
    got = ROUTES[route](model, prompt)
    assert got.text == "Well."
    assert [(each["name"], each["args"]) for each in got.tool_calls] == [
        ("add", {"a": 7, "b": 2}),
        ("now", {}),
    ]
    assert len({each["id"] for each in (*got.tool_calls, *got.invalid_tool_calls)}) == 3
    (broken,) = got.invalid_tool_calls
    assert '{"name": "add", "argu' in broken["args"]
    assert [each["type"] for each in got.content_blocks][:2] == ["reasoning", "text"]
    assert got.content_blocks[0]["reasoning"] == "hm"
    assert got.response_metadata["finish_reason"] == "tool_calls"
    (takeover,) = got.response_metadata["delegation"]["takeovers"]
    assert (takeover["token"], takeover["base_token"]) == ("7", "1")


def test_a_record_survives_json_pickle_and_the_cache() -> None:
    model = DelegatedChatModel(**PAIR, cache=InMemoryCache())
    first = model.invoke(QUESTION)
    assert json.loads(json.dumps(first.response_metadata)) == first.response_metadata
    assert pickle.loads(pickle.dumps(first)) == first
    again = model.invoke(QUESTION)
    assert again.response_metadata["delegation"] == first.response_metadata["delegation"]  # the id, too
    assert again.usage_metadata["total_cost"] == 0
    assert model.invoke(QUESTION, budget=0).response_metadata["delegation"]["takeovers"] == []
    other = DelegatedChatModel(**PAIR, cache=model.cache, threshold=9.0)
    assert other.invoke(QUESTION).response_metadata["delegation"]["policy"]["threshold"] == 9.0


def test_the_cache_tells_loaded_pairs_apart() -> None:
    cache = InMemoryCache()
    for said in ("one", "two"):
        model = DelegatedChatModel(pair=answering(said), cache=cache)
        assert model.invoke("what?").content == said


# --- Batches and threads ---


def test_a_batch_is_one_batch_on_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    model = chat("one two three")
    widths: list[int] = []
    run = type(model.pair).generate_batch

    def counted(self: Any, prompts: Any, **settings: Any) -> Any:
        widths.append(len(prompts))
        return run(self, prompts, **settings)

    monkeypatch.setattr(type(model.pair), "generate_batch", counted)
    assert [each.content for each in model.batch(["a?"] * 40)] == ["one two three"] * 40
    assert widths == [32, 8]
    widths.clear()
    assert len(asyncio.run(model.abatch(["a?"] * 6, {"max_concurrency": 4}))) == 6
    assert widths == [4, 2]
    widths.clear()
    (model | StrOutputParser()).batch(["a?"] * 3)
    assert widths == [3]
    assert [each.id for each in model.batch(["a?"] * 2)] != [None, None]
    assert model.batch([]) == []


def test_a_batch_may_have_a_seed_for_each_input(model: DelegatedChatModel) -> None:
    seeds, settings = [3, 4, 3], {"temperature": 1.0, "divergence": "random", "threshold": 0.8}
    expected = [record(model.invoke(QUESTION, seed=each, **settings)) for each in seeds]
    bound = model.bind(seed=seeds, **settings)
    for got in (
        model.batch([QUESTION] * 3, {"max_concurrency": 2}, seed=seeds, **settings),
        (RunnablePassthrough() | bound).batch([QUESTION] * 3),
        asyncio.run(model.abatch([QUESTION] * 3, seed=tuple(seeds), **settings)),
    ):
        assert all(near(record(one), other) for one, other in zip(got, expected, strict=True))
        assert [each.response_metadata["delegation"]["seed"] for each in got] == seeds
    assert expected[0]["takeovers"] != expected[1]["takeovers"]
    with pytest.raises(RequestError, match=r"seed: 3 seeds for 2 inputs; give one, or one an input"):
        bound.batch([QUESTION] * 2)
    with pytest.raises(RequestError, match=r"seed: \[3, 4, 3\] is not an integer"):
        bound.invoke(QUESTION)
    assert model.batch([], seed=[]) == []


def test_one_bad_input_spoils_no_batch() -> None:
    model = chat("fine")
    bad = [HumanMessage([{"type": "image_url", "image_url": "x"}])]
    inputs = ["a?", bad, "b?", [], "c?"]
    for answers in (
        model.batch(inputs, return_exceptions=True),
        asyncio.run(model.abatch(inputs, return_exceptions=True)),
    ):
        assert [getattr(each, "content", type(each)) for each in answers] == [
            "fine",
            PromptError,
            "fine",
            PromptError,
            "fine",
        ]
    with pytest.raises(PromptError, match="image_url"):
        model.batch(inputs)
    assert model.batch(["a?", "b?"])[1].content == "fine"


def test_too_long_a_prompt_in_a_batch_is_its_own_error(
    model: DelegatedChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    run = type(model.load()).generate_batch

    def counted(self: Any, prompts: Any, **settings: Any) -> Any:
        ran.append(len(prompts))
        return run(self, prompts, **settings)

    monkeypatch.setattr(type(model.load()), "generate_batch", counted)
    answers = model.batch([QUESTION, "pens " * 2000, OTHER], return_exceptions=True)
    assert ran == [2]
    monkeypatch.undo()
    assert isinstance(answers[1], PromptError)
    assert near(record(answers[0]), record(model.invoke(QUESTION)))
    assert near(record(answers[2]), record(model.invoke(OTHER)))


def test_a_batch_takes_from_the_cache_what_is_there() -> None:
    model = DelegatedChatModel(pair=answering("fine"), cache=InMemoryCache())
    model.invoke("a?")
    answers = model.batch(["a?", "b?", "a?"])
    assert [each.usage_metadata.get("total_cost") for each in answers] == [0, None, 0]


def test_fifty_calls_at_once(model: DelegatedChatModel) -> None:
    questions = [messages(each)[0]["content"] for each in problems(10, seed=5, split="test")]
    expected = [record(model.invoke(each)) for each in questions]
    with ThreadPoolExecutor(50) as pool:
        got = list(pool.map(model.invoke, questions * 5))
    assert [record(each) for each in got] == expected * 5

    async def many() -> list[AIMessage]:
        return await asyncio.gather(*(model.ainvoke(each) for each in questions * 5))

    assert [record(each) for each in asyncio.run(many())] == expected * 5


# --- Stopping ---


def test_an_abandoned_stream_computes_no_further() -> None:
    steps: list[int] = []
    long = "word " * 2000
    model = DelegatedChatModel(pair=answering(long, told=lambda: steps.append(1)), max_tokens=len(long))
    stream = model.stream("what?")
    next(stream)
    stream.close()
    assert len(steps) <= 33  # a step drafts 32 tokens at most
    steps.clear()

    async def leave() -> None:
        async for _ in model.astream("what?"):
            break

    asyncio.run(leave())  # waits for the workers to end
    assert len(steps) < len(long) / 4


def test_a_cancelled_task_stops_within_a_step() -> None:
    started, go_on = threading.Event(), threading.Event()
    steps: list[int] = []

    def step() -> None:
        steps.append(1)
        if len(steps) == 3:
            started.set()
            go_on.wait(30)

    model = DelegatedChatModel(pair=answering("word " * 100, told=step))

    async def cancel(call: Any) -> None:
        task = asyncio.ensure_future(call)
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    async def drain() -> None:
        async for _ in model.astream("what?"):
            pass

    for call in (model.ainvoke("what?"), drain(), model.abatch(["what?", "why?"])):
        started.clear()
        go_on.clear()
        steps.clear()
        asyncio.run(cancel(call))  # waits for the workers to end
        assert len(steps) < 60  # a step drafts at most 33 tokens, and an answer has 500
    assert model.invoke("what?").content.startswith("word")


def test_a_call_that_takes_too_long_ends() -> None:
    model = chat("word " * 50, timeout=1e-9)
    for route in ("invoke", "ainvoke", "stream", "batch", "abatch"):
        with pytest.raises(DeadlineError, match="timeout: no answer within 1e-09 s"):
            ROUTES[route](model, "what?" if "batch" not in route else QUESTION)
    assert isinstance(DeadlineError("x"), TimeoutError)
    assert model.invoke("what?", timeout=60).content.startswith("word")


def test_watching_takeovers_as_they_happen() -> None:
    model = chat("one two", "one too")
    seen: list[Any] = []
    with watch(seen.append):
        model.invoke("what?")
        (model | StrOutputParser()).invoke("what?")
        asyncio.run(model.ainvoke("what?"))
        list(model.stream("what?"))
    model.invoke("what?")
    assert [(each.position, each.token, each.base_token) for each in seen] == [(5, "o", "w")] * 4


def test_the_rate_limiter_is_asked() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1e-3, max_bucket_size=1)
    model = DelegatedChatModel(pair=answering("fine"), rate_limiter=limiter)
    limiter.available_tokens = 1.0
    model.invoke("a?")
    assert limiter.available_tokens < 1
