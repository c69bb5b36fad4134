"""`delegate-llm serve`: policies go in, decisions come out, and each key reads its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

if find_spec("vllm") is None:
    pytest.skip(
        "vLLM is not installed in this environment; `make test-vllm` makes one", allow_module_level=True
    )

import openai
from vllm_server import MODEL, Server, alone, command, serving

from delegate_llm import DelegationPolicy, Pair, load_pair
from delegate_llm.tiny.problems import problems
from delegate_llm.trace import Decision, Trace

KEYS = ("first-key", "second-key")
PROBLEMS = problems(6, seed=12, split="test")
SAVED = {"divergence": "cross_entropy", "threshold": 2.315}
POLICIES = [
    None,
    {**SAVED, "budget": 1},
    {**SAVED, "budget": {"rate": 0.05, "burst": 1}},
    {**SAVED, "budget": {"asks": 20}},
    {**SAVED, "gates": {"entropy": 0.5}},
    {**SAVED, "gates": {"window": 12}},
    {**SAVED, "gates": ["boundary"]},
    {**SAVED, "gates": {"turn": {"final": 1}}},
    {"divergence": "js", "threshold": 0.1, "spike": 1.5, "spike_window": 4},
    {"divergence": "random", "threshold": 0.8},
    {"divergence": "entropy", "threshold": 0.5},
    {"budget": 0},
]
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=json.dumps)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("served") / "log"
    keys = [each for key in KEYS for each in ("--api-key", key)]
    with serving(log, "--host", "0.0.0.0", *keys) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client(KEYS[0])


@pytest.fixture(scope="module")
def tiny() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


def complete(
    client: openai.OpenAI, prompt: Any, *, policy: Any = None, trace: Any = "full", **more: Any
) -> Any:
    given = {} if policy is None else {"delegation": json.dumps(policy)}
    settings = {"model": MODEL, "temperature": 0, "max_tokens": 80, **more}
    extra = {"vllm_xargs": {**given, "delegation_trace": trace}, **settings.pop("extra_body", {})}
    return client.completions.create(prompt=prompt, extra_body=extra, **settings)


def ids(tiny: Pair, at: int) -> list[int]:
    return tiny.prompter.render([{"role": "user", "content": PROBLEMS[at].question}]).reasoner


def traces(answer: Any) -> list[Trace]:
    told = answer.delegation["choices"]
    assert [each["index"] for each in told] == list(range(len(told)))
    return [Trace.model_validate(each["trace"]) for each in told]


def close(mine: Trace, theirs: Trace) -> bool:
    """Whether two traces are the same, but for what another order of the same sums makes of numbers."""
    loose = {"score": None, "base_entropy": None}
    assert [each.model_copy(update=loose) for each in mine.decisions] == [
        each.model_copy(update=loose) for each in theirs.decisions
    ]
    for one, other in zip(mine.decisions, theirs.decisions, strict=True):
        assert (one.score is None) == (other.score is None)
        assert one.score is None or one.score == pytest.approx(other.score, rel=1e-3, abs=1e-3)
        # Where nothing needs it, a pair does not compute it.
        assert other.base_entropy is None or one.base_entropy == pytest.approx(other.base_entropy, abs=1e-3)
    return mine.summary == theirs.summary


# --- Decisions are those of lock-step ---


@by_policy
@pytest.mark.parametrize(
    "hot", [{}, {"temperature": 1.2, "top_p": 0.9, "seed": 7}], ids=["greedy", "sampled"]
)
def test_as_in_lock_step(client: openai.OpenAI, tiny: Pair, policy: Any, hot: dict[str, Any]) -> None:
    settings = {"max_tokens": 80, "seed": 3, **hot}
    for at in range(3):
        answer = complete(client, ids(tiny, at), policy=policy, **settings)
        mine = tiny.generate(
            ids(tiny, at),
            policy=policy or DelegationPolicy(**SAVED),
            schedule="lockstep",
            trace="full",
            **settings,
        )
        (told,) = traces(answer)
        assert answer.choices[0].text == mine.text
        assert close(told, mine.trace)
        assert answer.delegation["choices"][0]["seed"] == mine.seed


def test_stop_string_ends_the_trace(client: openai.OpenAI, tiny: Pair) -> None:
    for stop in (".", ". Next", "The"):
        for stream in (False, True):
            answer = complete(client, ids(tiny, 0), stop=stop, stream=stream)
            told = streamed(answer)[1] if stream else traces(answer)[0]
            mine = tiny.generate(ids(tiny, 0), stop=stop, schedule="lockstep", trace="full", max_tokens=80)
            assert close(told, mine.trace)


def streamed(chunks: Any) -> tuple[list[Decision], Trace]:
    """What a stream told on its way, and at the end."""
    news, whole = [], None
    for chunk in chunks:
        for each in chunk.model_extra.get("delegation", {}).get("choices", ()):
            news += map(Decision.model_validate, each.get("decisions", ()))
            whole = Trace.model_validate(each["trace"]) if "trace" in each else whole
    assert whole is not None
    return news, whole


@pytest.mark.parametrize("level", [1, "takeovers", "full"])
@pytest.mark.parametrize("chat", [False, True])
def test_streamed_as_they_happen(client: openai.OpenAI, tiny: Pair, level: Any, *, chat: bool) -> None:
    if chat:
        question = [{"role": "user", "content": PROBLEMS[0].question}]
        settings = {"model": MODEL, "messages": question, "temperature": 0, "max_tokens": 80}
        extra = {"vllm_xargs": {"delegation_trace": level}}
        whole = client.chat.completions.create(extra_body=extra, **settings)
        chunks = list(client.chat.completions.create(extra_body=extra, stream=True, **settings))
    else:
        whole = complete(client, ids(tiny, 0), trace=level)
        chunks = list(complete(client, ids(tiny, 0), trace=level, stream=True))
    news, told = streamed(chunks)
    assert tuple(news) == told.decisions
    assert told == traces(whole)[0]
    assert told.level == ("full" if level == "full" else "takeovers")
    assert 0 < len(news) <= len(chunks) * 9
    assert sum("delegation" in each.model_extra for each in chunks) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_each_choice_has_its_own(client: openai.OpenAI, tiny: Pair, *, stream: bool) -> None:
    prompts, hot = [ids(tiny, 0), ids(tiny, 1)], {"temperature": 1.5, "max_tokens": 30, "seed": 5, "n": 2}
    answer = complete(
        client, prompts, stream=stream, stream_options={"include_usage": True} if stream else None, **hot
    )
    if stream:
        told = {}
        for chunk in answer:
            for each in chunk.model_extra.get("delegation", {}).get("choices", ()):
                told.update({each["index"]: each} if "trace" in each else {})
        found = [told[index] for index in range(4)]
    else:
        found = answer.delegation["choices"]
    assert [each["seed"] for each in found] == [5, 6, 5, 6]
    for index, each in enumerate(found):
        mine = tiny.generate(
            prompts[index // 2],
            temperature=1.5,
            max_tokens=30,
            seed=5 + index % 2,
            trace="full",
            schedule="lockstep",
        )
        assert close(Trace.model_validate(each["trace"]), mine.trace)


# --- What cannot be is refused, and nothing breaks ---

XML = {
    "type": "structural_tag",
    "format": {"type": "json_schema", "json_schema": {"type": "object"}, "style": "qwen_xml"},
}
BAD = [
    ({"vllm_xargs": {"delegation": "{"}}, "no JSON"),
    ({"vllm_xargs": {"delegation": '{"treshold": 1}'}}, "treshold"),
    ({"vllm_xargs": {"delegation": '{"threshold": -1}'}}, "threshold"),
    ({"vllm_xargs": {"delegation": '{"gates": "moon"}'}}, "unknown gate"),
    ({"vllm_xargs": {"delegation": '{"budget": "lots"}'}}, "budget"),
    ({"vllm_xargs": {"delegation": 3}}, "policy"),
    ({"vllm_xargs": {"delegation_trace": "all"}}, "takeovers"),
    ({"vllm_xargs": {"delegation_trace": [1]}}, "takeovers"),
    ({"vllm_xargs": {"delegation_seed": "a"}}, "integer"),
    ({"vllm_xargs": {"delegation_forced": [5]}}, "no such argument"),
    ({"vllm_xargs": {"delegation_idle": 1}}, "no such argument"),
    ({"presence_penalty": 1}, "presence_penalty"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"repetition_penalty": 1.1}, "repetition_penalty"),
    ({"min_p": 0.1}, "min_p"),
    ({"min_tokens": 3}, "min_tokens"),
    ({"logit_bias": {"5": 3}}, "logit_bias"),
    ({"bad_words": ["add"]}, "bad_words"),
    ({"allowed_token_ids": [3, 4]}, "allowed_token_ids"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"use_beam_search": True, "n": 2}, "beam"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 1, "logprob_token_ids": [5]}, "logprob_token_ids"),
    ({"prompt": [5] * 1010}, "tokens"),
    ({"structured_outputs": {"structural_tag": json.dumps(XML)}}, "xgrammar"),
]


@pytest.mark.parametrize(("more", "named"), BAD, ids=[named for _, named in BAD])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests(client: openai.OpenAI, more: dict[str, Any], named: str, *, stream: bool) -> None:
    body = {"prompt": "3 + 4 = ", "max_tokens": 5, "stream": stream and "prompt_logprobs" not in more, **more}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/completions", body={"model": MODEL, **body}, cast_to=dict)
    assert named in caught.value.body["message"]
    assert caught.value.body["type"]
    assert complete(client, "3 + 4 = ", max_tokens=2).choices[0].text


def test_who_is_not_heard_spoils_nobodys_cache(client: openai.OpenAI, tiny: Pair) -> None:
    prompt = tiny.prompter.render(
        [{"role": "user", "content": " ".join(PROBLEMS[3].question for _ in "abc")}]
    )
    mine = tiny.generate(prompt.reasoner, schedule="lockstep", trace="full", max_tokens=80)
    for policy in ({"budget": 0}, None, {"budget": 0}, None):
        answer = complete(client, prompt.reasoner, policy=policy)
        if policy is None:
            assert close(traces(answer)[0], mine.trace)
        else:
            assert traces(answer)[0].summary.asked == 0


def test_the_context_ends(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": PROBLEMS[0].question}]
    answer = client.chat.completions.create(
        model=MODEL, messages=question, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 1024 - 2 * 8 - 1


# --- Who may read what ---


def read(server: Server, name: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/v1/delegation/traces/{name}", headers=headers, trust_env=False)


@pytest.mark.parametrize("stream", [False, True])
def test_traces_are_kept_for_whose_they_are(server: Server, tiny: Pair, *, stream: bool) -> None:
    answer = complete(server.client(KEYS[0]), ids(tiny, 0), stream=stream)
    if stream:
        chunks = list(answer)
        name, told = chunks[0].id, streamed(chunks)[1]
    else:
        name, (told,) = answer.id, traces(answer)
    kept = read(server, name, KEYS[0])
    assert Trace.model_validate(kept.json()["choices"][0]["trace"]) == told
    for response in (read(server, name, KEYS[1]), read(server, "cmpl-none", KEYS[0])):
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "NotFoundError"
    assert read(server, name, None).status_code == read(server, name, "third-key").status_code == 401


def test_a_chosen_id_opens_no_other_trace(server: Server, tiny: Pair) -> None:
    header = {"X-Request-Id": "mine"}
    for key, at in zip(KEYS, range(2), strict=True):
        complete(server.client(key), ids(tiny, at), trace=0, extra_headers=header)
    texts = [read(server, "cmpl-mine", key).json() for key in KEYS]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("path", ["/v1/completions", "/invocations", "/generative_scoring", "/tokenize"])
def test_nothing_without_a_key(server: Server, path: str) -> None:
    body = {"model": MODEL, "prompt": "3 + 4 = ", "max_tokens": 2}
    response = httpx.post(f"{server.url}{path}", json=body, trust_env=False)
    assert response.status_code == 401


def test_no_key_in_the_log(server: Server, client: openai.OpenAI) -> None:
    complete(client, "3 + 4 = ")
    assert not any(key in server.said() for key in KEYS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_not_open_to_all_without_a_key(host: str) -> None:
    done = subprocess.run(command("--host", host), env=alone(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--api-key" in done.stderr
