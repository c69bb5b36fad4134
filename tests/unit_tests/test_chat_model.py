"""`DelegatedChatModel`: arms, policies, settings, loading, names, and errors for what is none."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from answers import chat
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField
from models import save
from routes import OTHER, PAIR, QUESTION, ROUTES, near, record, stream

from delegate_llm import (
    Budget,
    ChatDelegated,
    DelegatedChatModel,
    DelegateError,
    DelegationPolicy,
    LoadError,
    PromptError,
    RequestError,
)
from delegate_llm.tiny.agent import FUNCTIONS, TOOLS

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


@pytest.fixture(scope="module")
def model() -> DelegatedChatModel:
    return DelegatedChatModel(**PAIR)


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
    assert stream(sampled, QUESTION).content == several[0].message.content


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
    agent = create_agent(model, list(FUNCTIONS))
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


# --- Bad input ---


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"tempature": 1}, RequestError, r"unknown setting 'tempature'; did you mean 'temperature'\?"),
        ({"temperature": -1}, RequestError, "temperature: -1"),
        ({"temperature": "hot"}, RequestError, "temperature"),
        ({"top_p": 0}, RequestError, "top_p"),
        ({"max_tokens": 0}, RequestError, "max_tokens: 0"),
        ({"max_tokens": True}, RequestError, "max_tokens: .*True"),
        ({"max_tokens": 8.0}, RequestError, "max_tokens: .*8.0"),
        ({"temperature": True}, RequestError, "temperature: .*True"),
        ({"logprobs": 1}, RequestError, "logprobs: .*1"),
        ({"stop": 5}, RequestError, "stop"),
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
        ({"tools": 3}, "tools: 3 is not a list"),
        ({"model": {}}, r"model: \{\} is unknown"),
        ({"tools": [{"type": "web_search_preview"}]}, "provider's server"),
        ({"tools": TOOLS, "tool_choice": "divide"}, "'divide'"),
        ({"response_format": {"type": "xml"}}, "Invalid type: xml"),
        ({"response_format": 3}, "response_format: 3"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "Unimplemented",
        ),
        ({"grammar": {"regex": "("}}, "regex"),
        ({"grammar": {"regex": "a"}, "stop": [""]}, "stop"),
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
