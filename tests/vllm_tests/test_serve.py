"""`delegate-llm serve`: what OpenAI's own client, httpx and LangChain do with it, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

if find_spec("vllm") is None:
    pytest.skip(
        "vLLM is not installed in this environment; `make test-vllm` makes one", allow_module_level=True
    )

import openai
from vllm_server import MODEL, Server, serving

from delegate_llm import Pair, load_pair
from delegate_llm.tiny.agent import TOOLS, execute
from delegate_llm.tiny.problems import grade, problems

PROBLEMS = problems(24, seed=11, split="test")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["add", "multiply"]},
        "value": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "value"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("served") / "log"
    with serving(log, "--enable-auto-tool-choice", "--tool-call-parser", "hermes") as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def tiny() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


def xargs(policy: Any = None, trace: Any = None) -> dict[str, Any]:
    given = {"delegation": None if policy is None else json.dumps(policy), "delegation_trace": trace}
    return {"vllm_xargs": {name: value for name, value in given.items() if value is not None}}


def ask(client: openai.OpenAI, at: int = 0, *, policy: Any = None, trace: Any = None, **more: Any) -> Any:
    settings = {"model": MODEL, "temperature": 0, "max_tokens": 120, **more}
    messages = [{"role": "user", "content": PROBLEMS[at].question}]
    return client.chat.completions.create(messages=messages, extra_body=xargs(policy, trace), **settings)


def text(response: Any) -> str:
    return response.choices[0].message.content


# --- OpenAI's client, which knows nothing of delegation ---


def test_its_name(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == [MODEL]


def test_answers_are_right(client: openai.OpenAI) -> None:
    answers = [ask(client, at) for at in range(8)]
    right = sum(grade(PROBLEMS[at], text(each)) for at, each in enumerate(answers))
    alone = [ask(client, at, policy={"budget": 0}) for at in range(8)]
    assert right >= 7
    assert right > sum(grade(PROBLEMS[at], text(each)) for at, each in enumerate(alone))
    for each in answers:
        assert "delegation" not in each.model_extra
        assert each.choices[0].logprobs is None
        assert each.choices[0].finish_reason == "stop"
        assert each.usage.total_tokens == each.usage.prompt_tokens + each.usage.completion_tokens


def test_streamed(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == text(whole)
    assert chunks[-1].usage == whole.usage
    assert not any("delegation" in each.model_extra for each in chunks)


def test_completions(client: openai.OpenAI) -> None:
    settings = {"model": MODEL, "max_tokens": 20, "temperature": 0}
    both = client.completions.create(prompt=["First add 2", "3 + 4 = "], **settings)
    assert [each.index for each in both.choices] == [0, 1]
    one = client.completions.create(prompt="3 + 4 = ", **settings)
    assert one.choices[0].text == both.choices[1].text
    chunks = client.completions.create(prompt="3 + 4 = ", stream=True, **settings)
    assert "".join(each.choices[0].text for each in chunks) == one.choices[0].text


def test_seed_names_a_text(client: openai.OpenAI) -> None:
    hot = {"temperature": 2.0, "max_tokens": 40}
    texts = [[text(ask(client, seed=seed, **hot)) for seed in range(4)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


@pytest.mark.parametrize("seed", [0, -7, 2**63 - 1])
def test_choices_differ(client: openai.OpenAI, seed: int) -> None:
    hot = {"temperature": 2.0, "max_tokens": 40, "n": 4}
    first, again = ([each.message.content for each in ask(client, seed=seed, **hot).choices] for _ in "ab")
    assert first == again
    assert len(set(first)) > 1


def test_stop_string(client: openai.OpenAI) -> None:
    whole = text(ask(client))
    cut = ask(client, stop=[". Next"])
    assert text(cut) == whole.partition(". Next")[0]
    assert cut.choices[0].finish_reason == "stop"


def test_one_token(client: openai.OpenAI) -> None:
    answer = ask(client, max_tokens=1)
    assert answer.usage.completion_tokens == 1
    assert answer.choices[0].finish_reason == "length"
    assert text(ask(client)).startswith(text(answer))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("top", [0, 3, 20])
def test_logprobs(client: openai.OpenAI, tiny: Pair, top: int, *, stream: bool) -> None:
    answer = ask(client, logprobs=True, top_logprobs=top, stream=stream)
    if stream:
        told = [each for chunk in answer for each in (chunk.choices[0].logprobs or Nothing).content]
    else:
        told = answer.choices[0].logprobs.content
    mine = tiny.generate([{"role": "user", "content": PROBLEMS[0].question}], logprobs=top)
    assert [each.token for each in told][:-1] == [each.token for each in mine.logprobs][:-1]
    for each, own in zip(told, mine.logprobs, strict=True):
        assert each.logprob == pytest.approx(own.logprob, abs=1e-3)
        assert len(each.top_logprobs) == top
        assert bytes(each.bytes).decode() == each.token
        # vLLM names the token that was said first, whatever its rank.
        assert top == 0 or each.top_logprobs[0].token == each.token
        for one, other in zip(sorted(each.top_logprobs, key=likely), own.top[: top - 1], strict=False):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-2) or each.token != own.top[0].token


class Nothing:
    content = ()


def likely(each: Any) -> float:
    return -each.logprob


def test_logprobs_of_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="3 + 4 = ", max_tokens=4, temperature=0, logprobs=2, echo=False
    )
    told = answer.choices[0].logprobs
    assert "".join(told.tokens[:4]) == answer.choices[0].text[: len("".join(told.tokens[:4]))]
    assert all(len(each) == 2 for each in told.top_logprobs)


# --- Tools and schemas ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "multiply"}}]
)
@pytest.mark.parametrize("strict", [False, True])
def test_tools(client: openai.OpenAI, choice: Any, *, stream: bool, strict: bool) -> None:
    tools = [{**each, "function": {**each["function"], "strict": strict}} for each in TOOLS]
    answer = ask(client, tools=tools, tool_choice=choice, stream=stream)
    if stream:
        chunks = [each.choices[0] for each in answer]
        parts = [call.function for each in chunks for call in each.delta.tool_calls or ()]
        name, arguments = ("".join(getattr(each, of) or "" for each in parts) for of in ("name", "arguments"))
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name in {"add", "subtract", "multiply"}
    given = json.loads(arguments)
    if strict or choice == "auto":
        assert isinstance(execute(name, given), int)
    if isinstance(choice, dict):
        assert name == "multiply"


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_schema(client: openai.OpenAI, temperature: float) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "step", "schema": SCHEMA, "strict": True}}
    answer = ask(client, response_format=form, temperature=temperature, seed=3, max_tokens=200, trace="full")
    found = json.loads(text(answer))
    assert found["name"] in {"add", "multiply"}
    assert isinstance(found["value"], int)
    assert answer.delegation["choices"][0]["trace"]["summary"]["tokens"] == answer.usage.completion_tokens


def test_langchain(server: Server) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="pip install langchain-openai")
    model = langchain.ChatOpenAI(
        base_url=f"{server.url}/v1", api_key="any", model=MODEL, temperature=0, max_tokens=120
    )
    answer = model.invoke(PROBLEMS[0].question)
    assert grade(PROBLEMS[0], answer.content)
    assert "".join(each.content for each in model.stream(PROBLEMS[0].question)) == answer.content
    traced = model.invoke(PROBLEMS[0].question, extra_body=xargs(trace=1))
    assert traced.content == answer.content
    called = model.bind_tools(TOOLS).invoke(PROBLEMS[0].question)
    assert called.tool_calls
    kept = httpx.get(f"{server.url}/v1/delegation/traces/{answer.response_metadata['id']}", trust_env=False)
    assert kept.json()["choices"][0]["trace"]["summary"]["takeovers"] > 0


@pytest.mark.parametrize("path", ["responses", "messages", "chat/completions/batch"])
def test_other_routes_are_delegated(server: Server, path: str) -> None:
    question = [{"role": "user", "content": PROBLEMS[0].question}]
    body = {
        "responses": {"input": question, "max_output_tokens": 120},
        "messages": {"messages": question, "max_tokens": 120},
        "chat/completions/batch": {"messages": [question], "max_tokens": 120},
    }[path]
    answer = httpx.post(
        f"{server.url}/v1/{path}",
        json={"model": MODEL, "temperature": 0, **body},
        timeout=60,
        trust_env=False,
    )
    assert answer.is_success, answer.text
    assert json.dumps(text(ask(server.client())))[1:-1] in answer.text


# --- Many, and those who leave ---


def test_two_hundred(client: openai.OpenAI) -> None:
    alone = [text(ask(client, at)) for at in range(20)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda at: ask(client, at % 20, trace=1), range(200)))
    assert [text(each) for each in answers] == [alone[at % 20] for at in range(200)]
    assert len({each.id for each in answers}) == 200
    for each in answers:
        assert each.delegation["choices"][0]["trace"]["summary"]["tokens"] == each.usage.completion_tokens


def test_who_leaves_stops_the_engine(server: Server, client: openai.OpenAI) -> None:
    long = {"max_tokens": 900, "extra_body": {"ignore_eos": True}}
    settings = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, **long}
    for _ in range(3):
        with client.chat.completions.create(stream=True, **settings) as chunks:
            next(iter(chunks))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**settings)
    assert grade(PROBLEMS[0], text(ask(client)))
    metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text
    running = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running")]
    assert running
    assert all(float(line.split()[-1]) == 0 for line in running)
    tokens = [line for line in metrics.splitlines() if line.startswith("delegate_llm:takeovers_total")]
    assert float(tokens[0].split()[-1]) > 0
