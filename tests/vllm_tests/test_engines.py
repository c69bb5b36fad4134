"""Small engines under pressure, other models, and draws: lock-step's answers all the same."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from models import save
from safetensors.torch import load_file, save_file
from scipy import stats

from delegate_llm import DelegatedChatModel, DelegationPolicy, load_pair
from delegate_llm.divergence import cross_entropy, log_probs
from delegate_llm.errors import EngineError, NumericsError
from delegate_llm.tiny.problems import messages, problems

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from prometheus_client import REGISTRY  # vLLM's

BASE, REASONER = "delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"
CHATS = [messages(each) for each in problems(32, seed=5, split="test")]
POLICIES = [{}, {"threshold": 0.1}, {"budget": 0}, {"divergence": "js", "threshold": 0.05, "spike": 1.2}]


def settings(at):
    return {
        "policy": POLICIES[at % 4],
        "temperature": 0.6 * (at % 2),
        "seed": at,
        "max_tokens": 100,
        "trace": "full",
    }


def essence(generation):
    kept = ("position", "token_id", "asked", "takeover", "changed", "base_token_id", "reasoner_token_id")
    return (
        generation.text,
        generation.finish_reason,
        [[getattr(each, name) for name in kept] for each in generation.trace.decisions],
    )


def all_at_once(pair):
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda at: essence(pair.generate(CHATS[at], **settings(at))), range(32)))


@pytest.fixture(scope="module")
def wanted(reference):
    return [
        essence(reference.generate(chat, schedule="lockstep", **settings(at)))
        for at, chat in enumerate(CHATS)
    ]


@pytest.mark.parametrize(
    ("ahead", "engine_args"),
    [
        (1, {"enable_prefix_caching": False}),
        (3, {"max_num_batched_tokens": 128, "max_num_seqs": 8, "enable_chunked_prefill": True}),
        (12, {"async_scheduling": False, "max_model_len": 400}),
    ],
    ids=["no prefix cache", "prompts in parts", "long drafts"],
)
def test_however_the_engine_is_set_up(wanted, ahead, engine_args):
    pair = load_pair(BASE, REASONER, backend="vllm", ahead=ahead, engine_args=engine_args)
    try:
        assert all_at_once(pair) == wanted
        assert all_at_once(pair) == wanted  # prompts are in the cache now, where there is one
    finally:
        pair.close()


def test_answers_that_are_put_off_and_begun_again(wanted):
    """Keys and values of a fifth of the answers fit: vLLM drops some half-way, and computes them anew."""
    few = {"block_size": 32, "num_gpu_blocks_override": 24, "max_model_len": 256, "disable_log_stats": False}
    pair = load_pair(BASE, REASONER, backend="vllm", ahead=4, engine_args=few)
    try:
        assert all_at_once(pair) == wanted
        assert all_at_once(pair) == wanted
        counted = [
            sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
            if sample.name == "vllm:num_preemptions_total"
        ]
        assert sum(counted) > 0
    finally:
        pair.close()


def test_the_chat_model(reference):
    model = DelegatedChatModel(BASE, REASONER, backend="vllm", ahead=6, temperature=0.5, seed=1)
    local = DelegatedChatModel(pair=reference, temperature=0.5, seed=1)
    question = "Tom has 3 boxes with 4 pens in each. How many pens does Tom have now?"
    try:
        found, wanted = model.invoke(question), local.invoke(question)
        assert found.content == wanted.content
        mine, theirs = (each.response_metadata["delegation"] for each in (found, wanted))
        assert mine["takeovers"] == theirs["takeovers"]
        assert mine["summary"] == theirs["summary"]
        assert "".join(each.content for each in model.stream(question)) == wanted.content
        assert [each.content for each in model.batch([question] * 3)] == [wanted.content] * 3
    finally:
        model.load().close()


@pytest.fixture(scope="module")
def random_pairs(tmp_path_factory):
    """Two random models over 46 tokens, by vLLM and by transformers."""
    folder = tmp_path_factory.mktemp("random")
    for seed, who in enumerate(("base", "reasoner")):
        save(folder / who, seed, head_dim=32, hidden_size=128)
    both = folder / "base", folder / "reasoner"
    hosted = load_pair(*both, backend="vllm", ahead=3, engine_args={"max_model_len": 128, "block_size": 32})
    yield hosted, load_pair(*both)
    hosted.close()


def test_draws_are_distributed_as_the_method_says(random_pairs):
    """Two tokens at temperature 0.9 over many seeds, against the probabilities by enumeration."""
    hosted, local = random_pairs
    prompt, seeds, temperature = [3, 7, 1], 6000, 0.9
    logits = _logits(local, [prompt])
    first = _scores(logits)
    policy = DelegationPolicy(threshold=0.0)  # set below, so that both models speak
    heard = [[*prompt, token] for token in range(local.vocabulary.size)]
    second = _logits(local, heard)
    bar = float(_scores(second).median())
    policy = DelegationPolicy(threshold=bar)
    speaks = lambda both, scores: torch.where((scores > bar).unsqueeze(1), both[1], both[0])  # noqa: E731
    start = (speaks(logits, first) / temperature).softmax(-1)[0]
    then = (speaks(second, _scores(second)) / temperature).softmax(-1)
    eos = local.vocabulary.size - 1
    expected = {(a, b): float(start[a] * then[a, b]) for a in range(eos) for b in range(eos + 1)}
    expected |= {(eos,): float(start[eos])}
    answers = hosted.generate_batch(
        [prompt] * seeds, seed=list(range(seeds)), policy=policy, temperature=temperature, max_tokens=2
    )
    counts = Counter(each.token_ids for each in answers)
    common = [pair for pair, chance in expected.items() if chance * seeds >= 5]
    observed = np.array([counts[pair] for pair in common])
    chances = np.array([expected[pair] for pair in common])
    observed = np.append(observed, seeds - observed.sum())
    chances = np.append(chances, 1 - chances.sum())
    assert len(common) > 20
    assert stats.chisquare(observed, chances * seeds).pvalue > 1e-3
    both_spoke = sum(each.trace.summary.takeovers for each in answers)
    assert 0.1 * seeds < both_spoke < 1.9 * seeds
    again = local.generate_batch(
        [prompt] * 64, seed=list(range(64)), policy=policy, temperature=0.9, max_tokens=2
    )
    assert [each.token_ids for each in again] == [each.token_ids for each in answers[:64]]


def test_random_models_and_long_answers(random_pairs):
    hosted, local = random_pairs
    for at, policy in enumerate(POLICIES):
        more = {"policy": policy, "temperature": 0.9, "max_tokens": 90, "trace": "full", "ignore_eos": True}
        prompts = [[at, each, 5] for each in range(12)]
        found = hosted.generate_batch(prompts, seed=list(range(12)), **more)
        assert list(map(essence, found)) == list(
            map(essence, local.generate_batch(prompts, seed=list(range(12)), **more))
        )


def test_answers_that_are_begun_again_at_once(random_pairs):
    """Emptying the cache puts off all answers, and the same step begins them anew."""
    hosted, local = random_pairs
    engine, loop = hosted.engine._held["engine"], hosted.engine._loop
    more = {"policy": {"threshold": 0.5}, "max_tokens": 80, "trace": "full", "ignore_eos": True}
    prompts = [[at * 3, at * 5 % 40, *([7, 8, 9, at] * 8)] for at in range(12)]
    wanted = [essence(local.generate(each, schedule="lockstep", **more)) for each in prompts]
    emptied = 0
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(hosted.generate_batch, prompts, **more)
            while not found.done():
                time.sleep(0.1)
                emptying = engine.reset_prefix_cache(reset_running_requests=True)
                emptied += asyncio.run_coroutine_threadsafe(emptying, loop).result(60)
        assert list(map(essence, found.result())) == wanted
    assert emptied > 3


def _logits(pair, sequences):
    ids = torch.tensor(sequences)
    with torch.inference_mode():
        return [reader.model(ids).logits[:, -1] for reader in (pair.base, pair.reasoner)]


def _scores(logits):
    return cross_entropy(*map(log_probs, logits))


def test_both_models_split_over_two_workers(wanted, monkeypatch):
    """Tensor parallelism: what each worker decides for itself must be the same."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # two cores may be all there are
    pair = load_pair(BASE, REASONER, backend="vllm", ahead=5, engine_args={"tensor_parallel_size": 2})
    try:
        assert all_at_once(pair) == wanted
    finally:
        pair.close()


def test_a_pair_that_is_closed_under_a_call():
    pair = load_pair(BASE, REASONER, backend="vllm", ahead=4)
    stream = pair.stream(CHATS[0], ignore_eos=True, max_tokens=900)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(pair.generate, CHATS[1], ignore_eos=True, max_tokens=900)
        time.sleep(0.2)
        pair.close()
        for call in (lambda: list(stream), lambda: whole.result(30), lambda: pair.generate(CHATS[2])):
            with pytest.raises(EngineError):
                call()


@pytest.mark.parametrize("who", ["base", "reasoner"])
def test_weights_that_give_no_number(tmp_path, who):
    for seed, each in enumerate(("base", "reasoner")):
        folder = save(tmp_path / each, seed, head_dim=32, hidden_size=128)
        if each == who:
            weights = load_file(folder / "model.safetensors")
            weights["model.norm.weight"].fill_(torch.nan)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    pair = load_pair(
        tmp_path / "base", tmp_path / "reasoner", backend="vllm", engine_args={"max_model_len": 64}
    )
    try:
        for policy in ({"threshold": 0.0}, {"divergence": "random", "threshold": 0.0}):
            with pytest.raises(NumericsError, match="nan"):
                pair.generate([3, 1, 4], policy=policy, max_tokens=5)
        for level in ("off", "full") if who == "base" else ():
            with pytest.raises(NumericsError, match="nan"):
                pair.generate([3, 1, 4], policy={"budget": 0}, max_tokens=5, trace=level)
        if who == "reasoner":  # which is not asked
            assert pair.generate([3, 1, 4], policy={"budget": 0}, max_tokens=5).token_ids
    finally:
        pair.close()
