"""`DelegatedChatModel`: every route ends with the same answer, and bad input with an error of ours."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from answers import answering, chat
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from models import save
from pydantic import BaseModel
from typing_extensions import TypedDict

from delegate_llm import (
    Budget,
    CancelledError,
    ChatDelegated,
    DeadlineError,
    DelegatedChatModel,
    DelegateError,
    DelegationPolicy,
    GrammarError,
    LoadError,
    PolicyError,
    PromptError,
    RequestError,
    watch,
)
from delegate_llm.tiny.agent import TOOLS
from delegate_llm.tiny.problems import messages, problems

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

PAIR = {"base": "delegate-llm/tiny-base", "reasoner": "delegate-llm/tiny-reasoner"}
QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"
OTHER = "Ann has 5 eggs. Ann loses 2 of them. How many eggs are left?"


@pytest.fixture(scope="module")
def model() -> DelegatedChatModel:
    return DelegatedChatModel(**PAIR)


def record(message: Any) -> dict[str, Any]:
    """What was decided; the id is another on each call."""
    kept = dict(message.response_metadata["delegation"])
    assert kept.pop("id")
    return kept


def near(one: Any, other: Any) -> bool:
    """Whether two records are equal, but for what rounding in a batch changes."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-3)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == other


# --- One answer on every route ---


def _stream(model: Any, prompt: Any) -> Any:
    merged = None
    for chunk in model.stream(prompt):
        merged = chunk if merged is None else merged + chunk
    return merged


async def _astream(model: Any, prompt: Any) -> Any:
    merged = None
    async for chunk in model.astream(prompt):
        merged = chunk if merged is None else merged + chunk
    return merged


async def _v2(model: Any, prompt: Any) -> Any:
    async for event in model.astream_events(prompt, version="v2"):
        if event["event"] == "on_chat_model_end":
            return event["data"]["output"]
    return None


async def _v3(model: Any, prompt: Any) -> Any:
    stream = await model.astream_events(prompt, version="v3")
    return await stream.output


ROUTES = {
    "invoke": lambda model, prompt: model.invoke(prompt),
    "ainvoke": lambda model, prompt: asyncio.run(model.ainvoke(prompt)),
    "stream": _stream,
    "astream": lambda model, prompt: asyncio.run(_astream(model, prompt)),
    "events v2": lambda model, prompt: asyncio.run(_v2(model, prompt)),
    "events v3": lambda model, prompt: model.stream_events(prompt, version="v3").output,
    "async events v3": lambda model, prompt: asyncio.run(_v3(model, prompt)),
    "batch": lambda model, prompt: model.batch([prompt, OTHER, prompt])[2],
    "abatch": lambda model, prompt: asyncio.run(model.abatch([prompt, OTHER, prompt]))[2],
    "generate": lambda model, prompt: model.generate([[HumanMessage(prompt)]]).generations[0][0].message,
}


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


# --- Arms, policies, settings ---


def test_each_arm_and_what_it_costs(model: DelegatedChatModel) -> None:
    by_arm = {arm: model.invoke(QUESTION, model=arm) for arm in ("delegated", "base", "reasoner")}
    assert by_arm["delegated"].content == by_arm["reasoner"].content != by_arm["base"].content
    for arm, message in by_arm.items():
        assert message.response_metadata["model_name"].startswith(f"{arm}:")
        cost = message.response_metadata["delegation_cost"]
        assert (cost["base_forwards"] > 0) == (arm != "reasoner")
        assert (cost["reasoner_forwards"] > 0) == (arm != "base")
    named = by_arm["base"].response_metadata["model_name"]
    assert model.invoke(QUESTION, model=named).content == by_arm["base"].content
    assert DelegatedChatModel(**PAIR, arm="base").invoke(QUESTION).content == by_arm["base"].content
    delegated = by_arm["delegated"]
    assert delegated.usage_metadata["output_token_details"]["delegated"] == len(
        delegated.response_metadata["delegation"]["takeovers"]
    )


def test_a_budget_of_zero_runs_no_reasoner(model: DelegatedChatModel) -> None:
    for call in (
        model.bind(budget=0),
        model.bind(budget=Budget(limit=0)),
        DelegatedChatModel(**PAIR, budget=0),
    ):
        said = call.invoke(QUESTION)
        assert said.response_metadata["delegation_cost"]["reasoner_forwards"] == 0
        assert said.content == model.invoke(QUESTION, model="base").content


def test_a_call_changes_the_policy_field_by_field(caplog: pytest.LogCaptureFixture) -> None:
    own = DelegationPolicy(threshold=2.0, budget=Budget(limit=5), gates={"window": 50})
    model = DelegatedChatModel(**PAIR, policy=own, budget=3)

    def policy(**settings: Any) -> dict[str, Any]:
        return model.invoke(QUESTION, **settings).response_metadata["delegation"]["policy"]

    assert policy()["threshold"] == 2.0
    assert policy()["budget"]["limit"] == 3
    assert policy(threshold=4.0)["budget"]["limit"] == 3
    assert policy(policy=own)["budget"]["limit"] == 5  # a policy given with the call stands as it is
    assert policy(policy=own, budget=1)["budget"]["limit"] == 1
    assert policy(divergence="js", threshold=0.3)["divergence"] == "js"
    assert not caplog.records
    policy(divergence="js")
    assert "give threshold too" in caplog.text
    assert policy(policy={"threshold": 7.0})["threshold"] == 7.0
    gated = policy(policy=DelegationPolicy(gates=[lambda view: view.position > 3]))
    assert gated["gates"][0]["kind"] == "callable"


def test_stop_max_tokens_and_n(model: DelegatedChatModel) -> None:
    whole = model.invoke(QUESTION).content
    cut = DelegatedChatModel(**PAIR, stop=["Next"])
    assert cut.invoke(QUESTION).content == whole.split("Next")[0]
    assert cut.invoke(QUESTION, stop=[]).content == whole  # a call's own list replaces the model's
    assert model.invoke(QUESTION, stop=["answer"]).content == whole.split("answer")[0]
    short = model.invoke(QUESTION, max_tokens=3)
    assert short.response_metadata["finish_reason"] == "length"
    assert short.usage_metadata["output_tokens"] == 3
    sampled = DelegatedChatModel(**PAIR, n=3, temperature=1.5, seed=4)
    several = sampled.generate([[HumanMessage(QUESTION)]]).generations[0]
    assert len(several) == 3
    assert [each.message.response_metadata["delegation"]["seed"] for each in several] == [4, 5, 6]
    assert sampled.invoke(QUESTION).content == several[0].message.content
    assert _stream(sampled, QUESTION).content == several[0].message.content


def test_log_probabilities_in_the_usual_form(model: DelegatedChatModel) -> None:
    assert "logprobs" not in model.invoke(QUESTION).response_metadata
    said = model.invoke(QUESTION, logprobs=True, top_logprobs=2)
    content = said.response_metadata["logprobs"]["content"]
    assert len(content) == said.usage_metadata["output_tokens"]
    for each in content:
        assert each["logprob"] <= 0
        assert bytes(each["bytes"]).decode() == each["token"]
        assert len(each["top_logprobs"]) == 2
    assert all(
        each["top_logprobs"] == []
        for each in model.invoke(QUESTION, logprobs=True).response_metadata["logprobs"]["content"]
    )


def test_a_seed_names_the_text_and_without_one_it_differs() -> None:
    model = DelegatedChatModel(**PAIR, temperature=2.0)
    assert model.invoke(QUESTION, seed=1).content == model.invoke(QUESTION, seed=1).content
    assert len({model.invoke(QUESTION).content for _ in range(4)}) > 1
    assert len({each.content for each in model.batch([QUESTION] * 4)}) > 1


def test_a_policy_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(DelegationPolicy(threshold=5.0).to_json())
    said = DelegatedChatModel(**PAIR, policy=file).invoke(QUESTION)
    assert said.response_metadata["delegation"]["policy"]["threshold"] == 5.0
    with pytest.raises(LoadError, match="policy: cannot read"):
        DelegatedChatModel(**PAIR, policy=str(tmp_path / "none.json"))


def test_models_without_a_template_are_asked_in_plain_words(folders: tuple[Path, Path]) -> None:
    model = DelegatedChatModel(*folders, max_tokens=8)
    said = model.invoke([SystemMessage("be kind"), HumanMessage("a b")])
    assert said.usage_metadata["output_tokens"] == 8
    assert said.text == said.text.lstrip()
    assert model.load().prompter.stops
    asked = [HumanMessage("a b")]
    told = model.get_num_tokens_from_messages(asked, tools=TOOLS)  # Hermes' way, since the template has none
    assert told > model.get_num_tokens_from_messages(asked) + 500


def test_an_agent_of_langchains_own(model: DelegatedChatModel) -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    def subtract(a: int, b: int) -> int:
        """Subtract b from a."""
        return a - b

    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    agent = create_agent(model, [add, subtract, multiply])
    asked = {"messages": [("user", QUESTION)]}
    for ended in (agent.invoke(asked), asyncio.run(agent.ainvoke(asked))):
        assert ended["messages"][-1].text == "The answer is 7."
        assert [each.content for each in ended["messages"] if each.type == "tool"] == ["12", "7"]
    *_, (last, _) = agent.stream(asked, stream_mode="messages")
    assert last.response_metadata["delegation"]["id"]


def test_the_random_control_fires_by_the_seed() -> None:
    lot = {"policy": {"divergence": "random", "threshold": 0.5}}
    model = DelegatedChatModel(**PAIR, **lot)
    for seed in (3, 4):
        own = model.load().generate([{"role": "user", "content": QUESTION}], seed=seed, **lot).trace.takeovers
        said = [record(call.invoke(QUESTION)) for call in (model.bind(seed=seed), model.bind(seed=seed))]
        assert [each["position"] for each in said[0]["takeovers"]] == [each.position for each in own]
        assert said[0] == said[1]
        batched = record(model.batch([QUESTION, OTHER], seed=seed)[0])
        assert near(batched, said[0])
    places = [
        tuple(each["position"] for each in record(model.invoke(QUESTION, seed=seed))["takeovers"])
        for seed in (3, 4)
    ]
    assert places[0] != places[1]


# --- Loading ---


def test_one_process_loads_once(tmp_path: Path, loads: list[str]) -> None:
    folders = base, reasoner = save(tmp_path / "base", 1), save(tmp_path / "reasoner", 2)
    model = DelegatedChatModel(base, reasoner, max_tokens=4)
    turned = model.configurable_fields(temperature=ConfigurableField(id="temperature"))
    hot = turned.with_config(configurable={"temperature": 0.5})
    assert not loads
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(lambda each: each.invoke("a b"), [model, model.bind(budget=1), hot, model.model_copy()])
        )
    assert asyncio.run(DelegatedChatModel(str(base), str(reasoner), arm="base", max_tokens=2).ainvoke("a b"))
    assert DelegatedChatModel(base, base, max_tokens=2).invoke("a b")
    assert sorted(loads) == sorted(map(str, folders))


def test_it_is_made_without_loading_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELEGATE_LLM_BASE", "nobody/nothing")
    monkeypatch.setenv("DELEGATE_LLM_REASONER", "nobody/much")
    model = ChatDelegated()
    assert (model.base, model.reasoner) == ("nobody/nothing", "nobody/much")
    assert "nobody/nothing" not in repr(model)
    assert model.profile["tool_calling"]
    assert DelegatedChatModel(**PAIR).profile["max_input_tokens"] == 1024


def test_names_say_nothing_of_weights_or_folders(model: DelegatedChatModel) -> None:
    private = DelegatedChatModel("/home/somebody/models/base-1b", "~/secret/reasoner-8b", dtype="bfloat16")
    params = private._identifying_params
    assert params["model_name"] == "delegated:base-1b+reasoner-8b"
    assert "somebody" not in json.dumps(params)
    assert json.loads(json.dumps(params)) == params
    assert params["loaded_as"] != model._identifying_params["loaded_as"]
    assert model._get_ls_params()["ls_provider"] == "delegate_llm"
    assert model._get_ls_params(model="base")["ls_model_name"] == "base:delegate-llm/tiny-base"


def test_tokens_are_counted_by_the_pairs_own_tokenizer(model: DelegatedChatModel) -> None:
    assert model.get_num_tokens(QUESTION) < len(QUESTION) / 2
    assert model.get_num_tokens("") == 0
    counted = model.get_num_tokens_from_messages([HumanMessage(QUESTION)])
    assert counted == model.invoke(QUESTION).usage_metadata["input_tokens"]
    assert model.get_num_tokens_from_messages([HumanMessage(QUESTION)], tools=TOOLS) > counted


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


def test_too_long_a_prompt_in_a_batch_is_its_own_error(model: DelegatedChatModel) -> None:
    answers = model.batch([QUESTION, "pens " * 2000, OTHER], return_exceptions=True)
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


# --- Bad input ---


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"tempature": 1}, RequestError, r"unknown setting 'tempature'; did you mean 'temperature'\?"),
        ({"temperature": -1}, RequestError, "temperature: -1"),
        ({"temperature": "hot"}, RequestError, "temperature"),
        ({"top_p": 0}, RequestError, "top_p"),
        ({"max_tokens": 0}, RequestError, "max_tokens: 0"),
        ({"stop": [""]}, RequestError, "stop"),
        ({"n": 0}, RequestError, "n: 0"),
        ({"seed": "x"}, RequestError, "seed"),
        ({"timeout": 0}, RequestError, "timeout: 0"),
        ({"arm": "both"}, RequestError, "arm"),
        ({"trace": "none"}, RequestError, "trace"),
        ({"budget": 1.5}, DelegateError, "budget: 1.5"),
        ({"threshold": float("nan")}, DelegateError, "threshold"),
        ({"divergence": "jsd"}, DelegateError, "unknown divergence 'jsd'"),
        ({"policy": 3}, DelegateError, "policy: 3"),
        ({"top_logprobs": -1}, RequestError, "logprobs"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        DelegatedChatModel(**PAIR, **settings)
    model = chat("fine")
    with pytest.raises(error, match=says):
        model.invoke("what?", **settings)
    with pytest.raises(error, match=says):
        list(model.stream("what?", **settings))
    assert model.invoke("what?").content == "fine"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "gpt-5"}, "model: 'gpt-5' is unknown"),
        ({"tool_choice": "any"}, "there are no tools"),
        ({"tools": [3]}, "3 is no tool"),
        ({"tools": [{"type": "web_search_preview"}]}, "provider's server"),
        ({"tools": TOOLS, "tool_choice": "divide"}, "'divide'"),
        ({"response_format": {"type": "xml"}}, "Invalid type: xml"),
        ({"response_format": 3}, "response_format: 3"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "Unimplemented",
        ),
        ({"grammar": {"regex": "("}}, "regex"),
        ({"grammar": {"regex": "a"}, "response_format": {"type": "json_object"}}, "one form"),
    ],
)
def test_bad_calls_are_refused(settings: Any, says: str) -> None:
    model = chat("fine")
    with pytest.raises(RequestError, match=says):
        model.invoke("what?", **settings)
    assert model.invoke("what?").content == "fine"


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        [HumanMessage([{"type": "image", "base64": "x", "mime_type": "image/png"}])],
        [HumanMessage("a?"), ToolMessage("3", tool_call_id="nobody")],
    ],
    ids=["empty", "image", "orphan"],
)
def test_bad_messages_are_refused_on_every_route(prompt: Any) -> None:
    model = chat("fine")
    for route in ("invoke", "ainvoke", "stream", "astream", "events v3"):
        with pytest.raises(PromptError):
            ROUTES[route](model, prompt)
    assert model.invoke("what?").content == "fine"


def test_sources_are_named_once() -> None:
    with pytest.raises(RequestError, match="first, once each"):
        DelegatedChatModel("a", "b", "c")
    with pytest.raises(RequestError, match="first, once each"):
        DelegatedChatModel("a", base="b")
    with pytest.raises(RequestError, match="base: there is none"):
        DelegatedChatModel().invoke("what?")


# --- Tools and forms ---


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


class PersonDict(TypedDict):
    """Somebody."""

    name: str
    age: int


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize(
    "schema", [Person, PersonDict, Person.model_json_schema()], ids=["pydantic", "typed", "json"]
)
def test_structured_output_has_the_form_whatever_the_model_wants(method: Any, schema: Any) -> None:
    model = DelegatedChatModel(
        **PAIR, temperature=1.0, seed=3, policy={"divergence": "random", "threshold": 0.5}, max_tokens=400
    )
    if isinstance(schema, dict):
        # Bounds, lest a small model writes digits for ever.
        schema = {
            **schema,
            "properties": {
                "name": {"type": "string", "maxLength": 9},
                "age": {"type": "integer", "maximum": 99, "minimum": 0},
            },
        }
    chain = model.with_structured_output(schema, method=method, include_raw=True)
    said = chain.invoke("Who is it?")
    if said["raw"].response_metadata["finish_reason"] != "length":
        assert said["parsing_error"] is None
        parsed = said["parsed"] if isinstance(said["parsed"], dict) else said["parsed"].model_dump()
        assert set(parsed) == {"name", "age"}
        assert isinstance(parsed["age"], int)


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_a_form_that_was_cut_off_is_an_error(model: DelegatedChatModel, method: Any) -> None:
    chain = model.with_structured_output(Person, method=method, max_tokens=6)
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        chain.invoke("Who?")
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        list(chain.stream("Who?"))
    with pytest.raises(OutputParserException, match="cut off after 6 tokens"):
        asyncio.run(chain.ainvoke("Who?"))
    raw = model.with_structured_output(Person, method=method, max_tokens=6, include_raw=True).invoke("Who?")
    assert "cut off" in str(raw["parsing_error"])


def test_json_mode_and_unknown_methods(model: DelegatedChatModel) -> None:
    said = model.with_structured_output(Person, method="json_mode", include_raw=True).invoke(
        "Who?", max_tokens=60
    )
    assert said["raw"].content.startswith("{")
    with pytest.raises(RequestError, match="method: 'xml'"):
        model.with_structured_output(Person, method="xml")


def test_tool_choice(model: DelegatedChatModel) -> None:
    def names(message: AIMessage) -> list[str]:
        return [each["name"] for each in message.tool_calls]

    assert names(model.bind_tools(TOOLS, tool_choice="any").invoke("Hello!"))
    (call,) = model.bind_tools(TOOLS, tool_choice="subtract").invoke("Hello!").tool_calls
    assert call["name"] == "subtract"
    assert all(isinstance(each, int) for each in call["args"].values())
    named = {"type": "function", "function": {"name": "add"}}
    assert names(model.bind_tools(TOOLS, tool_choice=named).invoke("Hello!")) == ["add"]
    assert names(model.bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False).invoke("Hello!"))
    assert names(model.bind_tools(TOOLS).invoke(QUESTION)) == ["multiply"]
    assert not names(model.bind_tools(TOOLS, tool_choice="none").invoke(QUESTION))
    with pytest.raises(RequestError, match="'divide'"):
        model.bind_tools(TOOLS, tool_choice="divide")


def test_tools_or_a_form(model: DelegatedChatModel) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {
            "name": "n",
            "schema": {
                "type": "object",
                "properties": {"n": {"type": "integer", "maximum": 99}},
                "required": ["n"],
            },
        },
    }
    called = model.bind_tools(TOOLS, response_format=form).invoke(QUESTION)
    assert called.tool_calls or "n" in json.loads(called.content)


def test_stop_strings_do_not_cut_a_form(model: DelegatedChatModel) -> None:
    (call,) = model.bind_tools(TOOLS, tool_choice="add", stop=["name", "}"]).invoke("Hello!").tool_calls
    assert call["name"] == "add"


def test_a_conversation_with_tools(model: DelegatedChatModel) -> None:
    bound = model.bind_tools(TOOLS)
    history: list[Any] = [HumanMessage(QUESTION)]
    functions = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
    for _ in range(6):
        said = bound.invoke(history)
        history.append(said)
        if not said.tool_calls:
            break
        for call in said.tool_calls:
            result = str(functions[call["name"]](**call["args"]))
            history.append(ToolMessage(result, tool_call_id=call["id"]))
    assert "7" in history[-1].content


def test_system_messages_and_cancelled_errors_are_what_they_say() -> None:
    model = chat("fine")
    assert model.invoke([SystemMessage("be kind"), HumanMessage("what?")]).content == "fine"
    assert issubclass(CancelledError, DelegateError)
    assert issubclass(GrammarError, RequestError)
    assert issubclass(PolicyError, ValueError)
    assert issubclass(DelegatedChatModel, BaseChatModel)
