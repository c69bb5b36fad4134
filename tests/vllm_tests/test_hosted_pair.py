"""What vLLM writes is what lock-step writes, to the last decision."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from delegate_llm import Generation, load_pair
from delegate_llm.errors import (
    EngineError,
    GrammarError,
    LoadError,
    PolicyError,
    PromptError,
    RequestError,
)
from delegate_llm.tiny.problems import messages, problems

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from vllm import exceptions

from delegate_llm.pairs.vllm_engine import write

BASE, REASONER = "delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"
CHATS = [messages(each) for each in problems(32, seed=3, split="test")]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "why": {"type": "string", "maxLength": 8}},
    "required": ["n", "why"],
}
POLICIES = [
    {},
    {"threshold": 0.05, "budget": 3},
    {"divergence": "js", "threshold": 0.1, "spike": 1.5, "spike_window": 4},
    {"budget": 0},
    {"divergence": "random", "threshold": 0.9},
    {"divergence": "entropy", "threshold": 0.3, "budget": {"rate": 0.1, "burst": 2}},
    {"threshold": 0.2, "gates": ["boundary", {"entropy": 0.1}], "budget": {"asks": 5}},
    {"divergence": "tv", "threshold": 0.2, "gates": [{"window": 20}, {"turn": {"final": 2}}]},
    {"divergence": "nll_gap", "threshold": 0.5},
    {"divergence": "kl", "threshold": 0.3, "gates": [{"window": 12}]},
]


def essence(generation):
    """All that must not depend on who carries the models, but for rounding."""
    return (
        generation.text,
        generation.token_ids,
        generation.finish_reason,
        generation.trace.summary,
        [
            each.model_copy(update={"score": each.score is None, "base_entropy": None})
            for each in generation.trace.decisions
        ],
        generation.seed,
        generation.usage.prompt_tokens,
        generation.usage.completion_tokens,
    )


def same_choices(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        for here, there in zip(one.decisions, other.decisions, strict=True):
            for name in ("base_top", "reasoner_top"):
                mine, theirs = getattr(here, name), getattr(there, name)
                assert len(mine) == 5
                assert [each.token for each in mine] == [each.token for each in theirs]
                assert [each.logprob for each in mine] == pytest.approx(
                    [each.logprob for each in theirs], abs=1e-2
                )


def same(found, wanted):
    assert [essence(each) for each in found] == [essence(each) for each in wanted]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_any_policy(hosted, reference, policy, temperature):
    settings = {"policy": policy, "temperature": temperature, "seed": 5, "max_tokens": 60, "trace": "full"}
    found = hosted.generate_batch(CHATS[:8], **settings)
    same(found, reference.generate_batch(CHATS[:8], schedule="lockstep", **settings))
    for one, other in zip(found, reference.generate_batch(CHATS[:8], **settings), strict=True):
        for here, there in zip(one.trace.decisions, other.trace.decisions, strict=True):
            assert here.score == pytest.approx(there.score, abs=1e-3)
            assert here.base_entropy == pytest.approx(there.base_entropy, abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": ["Step", "="]},
        {"max_tokens": 1},
        {"max_tokens": 2, "temperature": 1.0, "seed": 1},
        {"ignore_eos": True, "max_tokens": 200},
        {"ignore_eos": False, "max_tokens": 300, "policy": {"divergence": "random", "threshold": 0.5}},
        {"temperature": 0.9, "top_p": 0.8, "seed": 4},
        {"temperature": 1.3, "top_k": 7, "top_p": 0.95, "seed": 4},
        {"grammar": {"json": SCHEMA}},
        {"grammar": {"json": SCHEMA}, "temperature": 1.0, "top_p": 0.9, "seed": 9},
        {"grammar": {"choice": ["yes", "no"]}},
        {"grammar": {"regex": "[a-f]{3,9}"}, "temperature": 1.0, "seed": 2},
        {"trace": "off"},
    ],
    ids=str,
)
def test_any_setting(hosted, reference, settings):
    same(
        hosted.generate_batch(CHATS[:6], **settings),
        reference.generate_batch(CHATS[:6], schedule="lockstep", **settings),
    )


def test_alone_and_among_thirty_one_others(hosted, reference):
    """Every answer has a policy, a seed and a length of its own, and they all are under way at once."""
    settings = [
        {
            "policy": POLICIES[at % len(POLICIES)],
            "temperature": 0.7 * (at % 3),
            "seed": at,
            "max_tokens": 20 + 3 * at,
            "trace": "full",
        }
        for at in range(32)
    ]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda chat, each: hosted.generate(chat, **each), CHATS, settings))
    same(together, [reference.generate(chat, **each) for chat, each in zip(CHATS, settings, strict=True)])
    same(together[::7], [hosted.generate(CHATS[at], **settings[at]) for at in range(0, 32, 7)])


def test_the_first_token_is_decided_like_any_other(hosted, reference):
    settings = {"policy": {"divergence": "random", "threshold": 0.5}, "max_tokens": 1, "trace": "full"}
    found = [hosted.generate(chat, seed=at, **settings) for at, chat in enumerate(CHATS[:12])]
    same(found, [reference.generate(chat, seed=at, **settings) for at, chat in enumerate(CHATS[:12])])
    takeovers = [each.trace.summary.takeovers for each in found]
    assert set(takeovers) == {0, 1}


def test_log_probabilities(hosted, reference):
    found, wanted = (pair.generate(CHATS[0], logprobs=3) for pair in (hosted, reference))
    for one, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert (one.token_id, one.token) == (other.token_id, other.token)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [each.token_id for each in one.top] == [each.token_id for each in other.top]


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {"divergence": "js", "threshold": 0.1, "budget": 2},
        {"gates": ["boundary"]},
        {"divergence": "random", "threshold": 0.5},
        {"divergence": "entropy", "threshold": 0.2},
        {"divergence": "top1", "threshold": 0.2, "budget": 1},
    ],
)
def test_a_given_text_is_scored(hosted, reference, policy):
    text = "First, 3 + 4 = 7. So the answer is 7."
    found, short = hosted.score_batch(CHATS[:2], [text, text[:9]], policy=policy)
    assert short.summary == reference.score(CHATS[1], text[:9], policy=policy).summary
    wanted = reference.score(CHATS[0], text, policy=policy)
    assert found.summary == wanted.summary
    for one, other in zip(found.decisions, wanted.decisions, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-3, abs=1e-3)
        assert one.model_copy(update={"score": None, "base_entropy": None}) == other.model_copy(
            update={"score": None, "base_entropy": None}
        )


def test_both_models_first_choices_are_told(hosted, reference):
    texts = ["First, 3 + 4 = 7. So the answer is 7.", "First"]
    found = hosted.score_batch(CHATS[:2], texts, top=5)
    same_choices(found, reference.score_batch(CHATS[:2], texts, top=5))
    assert [each.summary for each in found] == [each.summary for each in hosted.score_batch(CHATS[:2], texts)]
    with pytest.raises(RequestError, match="top: 21 is more than the 20 choices"):
        hosted.score(CHATS[0], "So", top=21)


def test_what_a_grammar_forbids_is_no_alternative(hosted, reference):
    settings = {"grammar": {"choice": ["yes", "no"]}, "logprobs": 4}
    found, wanted = (each.generate(CHATS[0], **settings) for each in (hosted, reference))
    assert found.text == wanted.text
    for one, other in zip(found.logprobs, wanted.logprobs, strict=True):
        assert {each.token_id for each in one.top} == {each.token_id for each in other.top}


@pytest.mark.parametrize("gates", [["boundary"], {"turn": {"final": 2}}], ids=str)
def test_a_prompt_of_one_token_among_others(hosted, reference, gates):
    """Where vLLM has nothing to draft from, it fills the draft up with what is no token."""
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(hosted.generate, CHATS[0], max_tokens=200, ignore_eos=True)
        found = [hosted.generate([5], policy={"gates": gates}, max_tokens=5) for _ in range(4)]
        assert len(busy.result().token_ids) == 200
    same(found, [reference.generate([5], policy={"gates": gates}, max_tokens=5)] * 4)


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1 << 64}, {"seed": 10**30}, {"seed": -(1 << 63) - 1}, {"seed": 3, "top_k": 10**30}],
    ids=str,
)
def test_large_numbers_are_numbers(hosted, reference, settings):
    settings = {**settings, "temperature": 0.7, "max_tokens": 12}
    same([hosted.generate(CHATS[1], **settings)], [reference.generate(CHATS[1], **settings)])


@pytest.mark.parametrize("who", ["base", "reasoner"])
def test_one_of_the_two_alone(hosted, reference, who):
    settings = {"temperature": 0.5, "seed": 3}
    found = hosted.alone(who).generate_batch(CHATS[:6], **settings)
    same(found, reference.alone(who).generate_batch(CHATS[:6], **settings))
    assert all(each.usage.reasoner_forwards == 0 for each in found)
    with pytest.raises(RequestError, match="nobody to be compared with"):
        hosted.alone(who).score(CHATS[0], "So 7.")


def test_without_budget_the_reasoner_does_not_run(hosted):
    alone = hosted.generate(CHATS[0], policy={"budget": 0})
    assert alone.usage.reasoner_forwards == 0
    assert alone.usage.base_forwards > 0
    heard = hosted.generate(CHATS[0])
    assert heard.usage.reasoner_forwards > 0
    # What the reasoner has not read is not taken for read.
    again = hosted.generate(CHATS[0], policy={"threshold": 0.1})
    assert again.token_ids == hosted.generate(CHATS[0], policy={"threshold": 0.1}).token_ids


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trace": "off"},
        {"trace": "full"},
        {"logprobs": 2},
        {"temperature": 0.9, "seed": 5},
        {"temperature": 0.8, "seed": 6, "top_p": 0.9, "top_k": 40, "stop": ["So"]},
        {"grammar": {"json": SCHEMA}, "max_tokens": 60},
    ],
    ids=str,
)
def test_without_budget_the_base_says_what_it_says_alone(hosted, reference, settings):
    chats, quiet = CHATS[:12], {"policy": {"budget": 0}, **settings}
    same(hosted.generate_batch(chats, **quiet), reference.generate_batch(chats, schedule="lockstep", **quiet))
    wanted = [reference.generate(chat, schedule="lockstep", **quiet) for chat in chats]
    with ThreadPoolExecutor(len(chats)) as pool:  # some come while others write, some are listened to
        mixed = [quiet if at % 3 else {"policy": {"threshold": 0.1}} for at in range(len(chats))]
        futures = [
            pool.submit(hosted.generate, chat, **each) for chat, each in zip(chats, mixed, strict=True)
        ]
        found = [each.result() for each in futures]
    same(found[1::3] + found[2::3], wanted[1::3] + wanted[2::3])


def test_the_reasoner_is_right_behind_a_prompt_that_the_base_read_alone(hosted, reference):
    long = [{"role": "user", "content": "Tom has 3 boxes with 4 pens in each. " * 12}]
    hosted.generate(long, policy={"budget": 0}, max_tokens=40)
    settings = {"policy": {"threshold": 0.1}, "max_tokens": 40, "trace": "full"}
    same([hosted.generate(long, **settings)], [reference.generate(long, **settings)])
    same([hosted.generate(long, **settings)], [reference.generate(long, **settings)])  # from the cache


def test_a_stream_adds_up(hosted, reference):
    *pieces, last = hosted.stream(CHATS[1], temperature=0.6, seed=2, stop=["zzz"])
    assert isinstance(last, Generation)
    assert "".join(each.text for each in pieces) == last.text
    assert [each.token_id for piece in pieces for each in piece.decisions] == list(last.token_ids)
    same([last], [reference.generate(CHATS[1], temperature=0.6, seed=2, stop=["zzz"])])


def test_an_abandoned_stream_stops_the_engine_s_work(hosted):
    stream = hosted.stream(CHATS[0], ignore_eos=True, max_tokens=900)
    next(stream)
    stream.close()
    engine = hosted.engine._held["engine"]
    deadline = time.monotonic() + 10
    while engine.output_processor.has_unfinished_requests() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not engine.output_processor.has_unfinished_requests()


def test_a_caller_who_has_had_enough(hosted):
    calls = threading.Event()

    def on_step():
        if calls.is_set():
            raise KeyboardInterrupt
        calls.set()

    with pytest.raises(KeyboardInterrupt):
        hosted.generate(CHATS[0], ignore_eos=True, max_tokens=900, on_step=on_step)
    assert hosted.generate(CHATS[0], max_tokens=3).token_ids


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"policy": {"gates": [lambda view: True]}}, PolicyError, "callable"),
        ({"policy": {"threshold": -1}}, PolicyError, "threshold"),
        ({"max_tokens": 0}, RequestError, "max_tokens"),
        ({"logprobs": 21}, RequestError, "logprobs: 21 is more than the 20"),
        ({"temperature": float("nan")}, RequestError, "temperature"),
        ({"temperature": 3.0}, RequestError, "temperature: 3.0 is more than vLLM takes"),
        ({"policy": {"budget": 10**400}}, PolicyError, "limit"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_bad_settings(hosted, settings, error, said):
    with pytest.raises(error, match=said):
        hosted.generate(CHATS[0], **settings)
    assert hosted.generate(CHATS[0], max_tokens=3).token_ids


ENDLESS = {
    "$ref": "#/$defs/a",
    "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}},
}


def test_a_grammar_that_gives_up_cuts_no_answer_off(hosted):
    for writing in (hosted.generate, lambda *chat, **how: list(hosted.stream(*chat, **how))):
        with pytest.raises(GrammarError, match="simplify"):
            writing(CHATS[0], grammar={"json": ENDLESS}, max_tokens=300)


@pytest.mark.parametrize("temperature", [0.009, 0.0003, 2e-6])
def test_a_seed_names_the_same_text_at_low_temperatures(hosted, reference, temperature):
    how = {"temperature": temperature, "max_tokens": 40, "ignore_eos": True, "policy": {"budget": 0}}
    prompts = [[each, 5, 7] for each in range(8)]
    found, wanted = (
        [pair.generate(each, seed=at, **how).text for at, each in enumerate(prompts)]
        for pair in (hosted, reference)
    )
    assert found == wanted


class Refusing:
    """An engine that takes nothing."""

    def __init__(self, error):
        self.error = error

    async def generate(self, *_):
        raise self.error
        yield


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (exceptions.VLLMValidationError("no"), RequestError),
        (exceptions.QueueOverflowError(), EngineError),
        (exceptions.GenerationError("no"), EngineError),
        (ValueError("no"), RequestError),
    ],
)
def test_what_vllm_raises_is_raised_as_ours(error, ours):
    sampling = SimpleNamespace(extra_args={})
    with pytest.raises(ours, match="vLLM"):
        asyncio.run(write(Refusing(error), SimpleNamespace(prompt=[1]), sampling, lambda _: True))


def test_a_prompt_that_is_too_long(hosted):
    with pytest.raises(PromptError, match="context"):
        hosted.generate([5] * 1020)
    full = hosted.generate([5] * 1008, max_tokens=50, ignore_eos=True)
    assert full.finish_reason == "length"
    assert len(full.token_ids) == hosted.base.context - 1008


def test_an_engine_that_dies_is_started_again(hosted, reference):
    stream = hosted.stream(CHATS[0], ignore_eos=True, max_tokens=900)
    next(stream)
    for process in hosted.engine._held["engine"].engine_core.resources.engine_manager.processes:
        process.kill()
    with pytest.raises(EngineError, match="died"):
        list(stream)
    same([hosted.generate(CHATS[2])], [reference.generate(CHATS[2])])


def test_what_cannot_be_loaded():
    with pytest.raises(LoadError, match="vLLM loads checkpoints itself"):
        load_pair(("model", "tokenizer"), REASONER, backend="vllm")
    with pytest.raises(RequestError, match="ahead"):
        load_pair(BASE, REASONER, backend="vllm", ahead=0)
    with pytest.raises(LoadError, match="engine_args"):
        load_pair(
            "delegate-llm/tiny-base",
            "delegate-llm/tiny-reasoner",
            backend="vllm",
            engine_args={"nonsense": 1},
        )
    with pytest.raises(RequestError, match="unknown option"):
        load_pair(BASE, REASONER, backend="vllm", device="cpu")
