"""A pair in use: prompts, stops, limits, streams, threads, and everything that can be asked wrongly."""

from __future__ import annotations

import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from models import EOS, SIZE, WORDS, random_model, tokenizer

from delegate_llm import (
    DelegateError,
    DelegationPolicy,
    GateError,
    Generation,
    NumericsError,
    Pair,
    Piece,
    PromptError,
    RequestError,
    load_pair,
)
from delegate_llm.pairs.scripted import scripted_pair

PIECES = ["a", "b", "c", "ST", "OP", "OPT", "<", ">", "x"]
A, B, C, ST, OP, OPT, END = 0, 1, 2, 3, 4, 5, 8
POLICY = DelegationPolicy(threshold=3.0)


def says(*ids: int, after: int = 1, sure: float = 9.0) -> Any:
    """A script that says these ids, one after the other, behind a prompt of `after` tokens."""

    def script(seen: Any) -> list[float]:
        at = min(len(seen) - after, len(ids) - 1)
        return [sure if each == ids[at] else 0.0 for each in range(len(PIECES))]

    return script


def scripted(base: Any, reasoner: Any, **options: Any) -> Pair:
    return scripted_pair(base, reasoner, PIECES, eos=END, **options)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2)))


# --- The method, on paper ---


def test_one_token_takeover_then_straight_back() -> None:
    two = scripted(says(A, A, A, A, END), says(A, B, A, A, END))
    made = two.generate("x", policy=POLICY, trace="full")
    assert made.text == "abaa"
    assert made.finish_reason == "stop"
    assert [each.takeover for each in made.trace.decisions] == [False, True, False, False, False]
    taken = made.trace.decisions[1]
    assert (taken.token, taken.base_token, taken.reasoner_token) == ("b", "a", "b")
    assert taken.changed
    assert made.trace.summary.model_dump() == {
        "tokens": 5, "takeovers": 1, "changed": 1, "asked": 5, "share": 0.2,
    }  # fmt: skip


def test_a_takeover_that_agrees_changes_nothing_and_drops_no_draft() -> None:
    two = scripted(says(A, A, A, A, END), says(A, A, A, A, END, sure=3.0))
    made = two.generate("x", policy=DelegationPolicy(threshold=0.1), trace="full")
    summary = made.trace.summary
    assert (summary.takeovers, summary.changed) == (5, 0)
    assert made.usage.base_forwards <= 5


def test_trace_levels() -> None:
    two = scripted(says(A, A, A, END), says(A, B, A, END))
    kept = {
        level: two.generate("x", policy=POLICY, trace=level).trace for level in ("takeovers", "full", "off")
    }
    assert [len(trace.decisions) for trace in kept.values()] == [1, 4, 0]
    assert len({trace.summary for trace in kept.values()}) == 1
    assert kept["full"].takeovers == kept["takeovers"].decisions
    for trace in kept.values():
        assert type(trace).from_json(trace.to_json()) == trace


def test_budget_zero_runs_no_reasoner() -> None:
    two = scripted(says(A, A, END), says(B, B, END))
    made = two.generate("x", policy=DelegationPolicy(threshold=0, budget=0))
    assert made.text == "aa"
    assert (made.usage.reasoner_forwards, made.trace.summary.asked) == (0, 0)


def test_a_spent_budget_stops_the_reasoner() -> None:
    two = scripted(says(*[A] * 30, END), says(*[B] * 30, END))
    made = two.generate("x", policy=DelegationPolicy(threshold=1.0, budget=2))
    assert made.text == "bb" + "a" * 28
    assert made.trace.summary.asked == 2
    assert made.usage.reasoner_forwards <= 2


def test_closed_gates_cost_no_reasoner_forward_until_they_open() -> None:
    two = scripted(says(*[A] * 20, END), says(*[B] * 20, END))
    policy = DelegationPolicy(threshold=1.0, gates=lambda view: view.position == 12)
    made = two.generate("x", policy=policy)
    assert made.text == "a" * 12 + "b" + "a" * 7
    assert (made.usage.reasoner_forwards, made.trace.summary.asked) == (1, 1)


@pytest.mark.parametrize("name", ["random", "entropy", "top1"])
def test_controls_ask_only_where_they_take_over(name: str, pair: Pair) -> None:
    given = pair.score("the", "the hen. 12 eggs, go", policy=DelegationPolicy(divergence=name))
    median = statistics.median(each.score or 0.0 for each in given.decisions)
    made = pair.generate("the", policy=DelegationPolicy(divergence=name, threshold=median), max_tokens=60)
    assert 0 < made.trace.summary.takeovers < made.trace.summary.tokens
    assert made.trace.summary.asked == made.trace.summary.takeovers


def test_random_takes_its_share() -> None:
    two = scripted(says(*[A] * 600), says(*[B] * 600))
    policy = DelegationPolicy(divergence="random", threshold=0.9)
    made = two.generate("x", policy=policy, max_tokens=600, seed=4, ignore_eos=True)
    assert 0.06 < made.trace.summary.share < 0.14


# --- Where an answer ends ---


@pytest.mark.parametrize("schedule", ["draft", "lockstep"])
@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("STOP", "ab", "stop"),  # split over two tokens
        (["zz", "TOP"], "abS", "stop"),
        ("OPa", "abST", "stop"),
        ("c", "abSTOPa", "stop"),
        (None, "abSTOPac", "stop"),
    ],
)
def test_stop_strings(schedule: str, stop: Any, text: str, reason: str) -> None:
    two = scripted(says(A, B, ST, OP, A, C, END), says(A, B, ST, OP, A, C, END))
    made = two.generate("x", policy=POLICY, stop=stop, schedule=schedule)
    assert (made.text, made.finish_reason) == (text, reason)
    pieces = list(two.stream("x", policy=POLICY, stop=stop, schedule=schedule))
    assert "".join(each.text for each in pieces[:-1]) == text


def test_a_stop_inside_a_draft_that_is_taken_over_is_no_stop() -> None:
    """The base would have said the stop string; the reasoner did not."""
    two = scripted(says(A, ST, OP, A, END), says(A, ST, B, A, END))
    made = two.generate("x", policy=POLICY, stop="STOP")
    assert (made.text, made.finish_reason) == ("aSTba", "stop")


def test_an_end_inside_a_draft_that_is_taken_over_is_no_end() -> None:
    two = scripted(says(A, END, A, END), says(A, B, A, END))
    assert two.generate("x", policy=POLICY).text == "aba"


def test_max_tokens_and_context() -> None:
    forever = says(A)
    assert scripted(forever, forever).generate("x", policy=POLICY, max_tokens=1).finish_reason == "length"
    made = scripted(forever, forever, context=10).generate("xxx", policy=POLICY, max_tokens=100)
    assert (len(made.token_ids), made.finish_reason) == (7, "length")


def test_a_loop_is_noticed() -> None:
    cycle = lambda seen: [9.0 if each == len(seen) % 3 else 0.0 for each in range(len(PIECES))]  # noqa: E731
    made = scripted(cycle, cycle).generate("x", policy=POLICY, max_tokens=1000)
    assert made.finish_reason == "repetition"
    assert len(made.token_ids) < 200
    going_on = scripted(cycle, cycle).generate("x", policy=POLICY, max_tokens=300, ignore_eos=True)
    assert (len(going_on.token_ids), going_on.finish_reason) == (300, "length")


# --- Prompts ---


def test_text_and_ids_are_the_same_prompt(pair: Pair) -> None:
    ids = tokenizer()("the cat").input_ids
    settings = {"policy": POLICY, "max_tokens": 12}
    assert pair.generate("the cat", **settings) == pair.generate(ids, **settings)
    assert pair.generate("the cat", **settings).usage.prompt_tokens == len(ids)


def test_each_model_has_its_own_prompt_for_the_shared_answer() -> None:
    model = random_model("llama", 1)
    two = load_pair(
        (model, tokenizer()),
        (model, tokenizer()),
        base_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        reasoner_template="{% for m in messages %}{{ m.content }}{% endfor %}{{ hint }}",
        reasoner_template_kwargs={"hint": ". think"},
    )
    base, reasoner = two.prompter.ids([{"role": "user", "content": "go"}])
    assert tokenizer().decode(base) == "go"
    assert tokenizer().decode(reasoner) == "go. think"
    assert two.base.model is two.reasoner.model
    usage = two.generate([{"role": "user", "content": "go"}], policy=POLICY, max_tokens=4).usage
    assert usage.reasoner_prompt_tokens > usage.prompt_tokens


def test_a_template_is_borrowed_or_missed() -> None:
    models = [(random_model("llama", seed), tokenizer()) for seed in (1, 2)]
    messages = [{"role": "user", "content": "go"}]
    borrowed = load_pair(*models, reasoner_template="{{ messages[0].content }}!".replace("!", "."))
    base, reasoner = borrowed.prompter.ids(messages)
    assert base == reasoner
    with pytest.raises(PromptError, match=r"chat template.*base_template"):
        load_pair(*models).generate(messages)
    broken = load_pair(*models, base_template="{{ raise_exception('no') }}")
    with pytest.raises(PromptError, match="cannot render"):
        broken.generate(messages)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        ([], "empty"),
        ([SIZE], "token id"),
        ([-1], "token id"),
        ([1.5], "token id"),
        ([{"role": "user", "content": "a"}, 3], "token id|message"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        (7, "int"),
        ("a" * 512, "512"),
        ("a" * 600, "600.*context is 512"),
    ],
)
def test_bad_prompts(pair: Pair, prompt: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        pair.generate(prompt, policy=POLICY)
    with pytest.raises(PromptError, match=said):
        pair.stream(prompt, policy=POLICY)
    assert pair.generate("ok", policy=POLICY, max_tokens=2).text is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"max_tokens": 2.5}, "max_tokens: 2.5"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -0.1}, "temperature: -0.1"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"top_p": 0}, "top_p: 0"),
        ({"top_p": 1.01}, "top_p: 1.01"),
        ({"top_p": "0.5"}, "top_p"),
        ({"top_k": -1}, "top_k: -1"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"stop": ""}, "stop: ''"),
        ({"stop": ["a", 3]}, "stop"),
        ({"stop": 3}, "stop: 3"),
        ({"schedule": "fast"}, "'fast'.*'lockstep'"),
        ({"trace": "some"}, "'some'.*'full'"),
        ({"draft": -1}, "draft: -1"),
        ({"policy": "strict"}, "policy: 'strict'"),
        ({"policy": {"threshold": 1}}, "policy"),
    ],
)
def test_bad_settings(pair: Pair, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        pair.generate("a", **settings)
    with pytest.raises(RequestError, match=said):
        pair.generate_batch(["a"], **settings)
    with pytest.raises(RequestError, match=said):
        pair.stream("a", **settings)


def test_bad_batches(pair: Pair) -> None:
    assert pair.generate_batch([]) == []
    with pytest.raises(PromptError, match="list of prompts"):
        pair.generate_batch("one prompt")
    with pytest.raises(RequestError, match="2 seeds for 1 prompts"):
        pair.generate_batch(["a"], temperature=1.0, seed=[1, 2])
    with pytest.raises(RequestError, match="tempreature"):
        pair.generate_batch(["a"], tempreature=1.0)


# --- Seeds ---


def test_a_seed_names_a_text_and_none_draws_one(pair: Pair) -> None:
    settings = {"policy": POLICY, "max_tokens": 20, "temperature": 1.0}
    drawn = pair.generate("the", **settings)
    assert drawn.seed is not None
    assert pair.generate("the", seed=drawn.seed, **settings) == drawn
    assert pair.generate("the", policy=POLICY, max_tokens=3).seed is None


def test_a_batch_may_have_a_seed_a_row(pair: Pair) -> None:
    settings = {"policy": POLICY, "max_tokens": 12, "temperature": 1.0}
    made = pair.generate_batch(["the", "the"], seed=[5, 6], **settings)
    assert [each.token_ids for each in made] == [
        pair.generate("the", seed=seed, **settings).token_ids for seed in (5, 6)
    ]


# --- Streams, threads, failures ---


def test_an_abandoned_stream_computes_nothing_more() -> None:
    calls = []

    def base(seen: Any) -> list[float]:
        calls.append(len(seen))
        return says(A)(seen)

    stream = scripted(base, says(A)).stream("x", policy=DelegationPolicy(budget=0), max_tokens=50)
    assert isinstance(next(stream), Piece)
    assert isinstance(next(stream), Piece)
    stream.close()
    assert len(calls) == 2


def test_a_stream_tells_every_decision_as_it_falls() -> None:
    two = scripted(says(A, A, A, END), says(A, B, A, END))
    *pieces, last = two.stream("x", policy=POLICY, trace="off")
    assert [each.text for each in pieces] == ["a", "b", "a", ""] or sum(len(p.decisions) for p in pieces) == 4
    assert isinstance(last, Generation)
    assert last.trace.decisions == ()


def test_threads_may_share_a_pair(pair: Pair) -> None:
    prompts = ["the", "a cat", "12", "go on", "x", "hen"]
    settings = {"policy": POLICY, "max_tokens": 25, "trace": "full"}
    wanted = [pair.generate(prompt, **settings) for prompt in prompts]
    start = threading.Barrier(3)

    def work(prompt: str) -> Generation:
        if prompt in prompts[:3]:
            start.wait()
        return pair.generate(prompt, **settings)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, prompts)) == wanted


@pytest.mark.parametrize("who", ["base", "reasoner"])
def test_nan_is_named_and_the_pair_stays_usable(who: str) -> None:
    bad = [False]

    def script(seen: Any) -> list[float]:
        return [float("nan")] * len(PIECES) if bad[0] and len(seen) == 4 else says(A)(seen)

    two = scripted(*((script, says(A)) if who == "base" else (says(A), script)))
    bad[0] = True
    for call in (two.generate, lambda *a, **k: two.generate_batch([a[0]] * 2, **k)):
        with pytest.raises(NumericsError, match=f"{who}.*position 3"):
            call("x", policy=POLICY, max_tokens=9)
    with pytest.raises(NumericsError, match=who):
        two.score("x", "aaaaaa")
    bad[0] = False
    assert two.generate("x", policy=POLICY, max_tokens=3).text == "aaa"


def test_a_gate_that_raises_leaves_the_pair_usable(pair: Pair) -> None:
    with pytest.raises(GateError, match="KeyError"):
        pair.generate("a", policy=DelegationPolicy(gates=lambda view: {}[view.position]))
    assert pair.generate("a", policy=POLICY, max_tokens=2)


def test_ctrl_c_leaves_the_pair_usable(pair: Pair) -> None:
    wanted = pair.generate("the", policy=POLICY, max_tokens=20)

    def interrupt(view: Any) -> bool:
        if view.position == 5:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        pair.generate("the", policy=DelegationPolicy(threshold=3.0, gates=interrupt))
    assert pair.generate("the", policy=POLICY, max_tokens=20) == wanted


def test_grad_mode_is_left_as_it_was(pair: Pair) -> None:
    stream = pair.stream("the", policy=POLICY, max_tokens=5)
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    stream.close()


# --- Scoring a given text ---


def test_score_of_an_own_answer_repeats_its_decisions(pair: Pair) -> None:
    policy = DelegationPolicy(threshold=4.0, budget=6)
    made = pair.generate("the", policy=policy, max_tokens=40, trace="full", ignore_eos=True)
    trace = pair.score("the", made.token_ids, policy=policy)
    assert [each.takeover for each in trace.decisions] == [each.takeover for each in made.trace.decisions]
    for mine, its in zip(trace.decisions, made.trace.decisions, strict=True):
        assert mine.token_id == its.token_id
        if its.score is not None:
            assert mine.score == pytest.approx(its.score, abs=1e-3)
    assert trace.summary.asked == 40
    assert all(each.score is not None for each in trace.decisions)


def test_score_over_several_blocks_and_as_text(pair: Pair) -> None:
    ids = [each % (SIZE - 1) for each in range(150)]
    whole = pair.score("go", ids)
    assert [each.token_id for each in whole.decisions] == ids
    part = pair.score("go", ids[:10])
    for mine, its in zip(part.decisions, whole.decisions, strict=False):
        assert mine.score == pytest.approx(its.score, abs=1e-3)
    text = "".join(WORDS[each] for each in ids[:10])
    assert pair.score("go", text) == part


@pytest.mark.parametrize("completion", ["", [], "a" * 512, [SIZE + 1]])
def test_bad_completions(pair: Pair, completion: Any) -> None:
    with pytest.raises(DelegateError):
        pair.score("a", completion)


def test_each_model_alone(pair: Pair) -> None:
    settings = {"max_tokens": 20, "ignore_eos": True}
    base, reasoner = (pair.alone(who).generate("the", **settings) for who in ("base", "reasoner"))
    assert base.token_ids == pair.generate("the", policy=DelegationPolicy(budget=0), **settings).token_ids
    every = DelegationPolicy(divergence="random", threshold=0)
    assert reasoner.token_ids == pair.generate("the", policy=every, **settings).token_ids
    assert reasoner.usage.reasoner_forwards == 0
    with pytest.raises(RequestError, match="judge"):
        pair.alone("judge")


def test_special_tokens_are_not_text(pair: Pair) -> None:
    made = pair.generate("the", policy=POLICY, max_tokens=60, ignore_eos=True, temperature=1.0, seed=1)
    assert EOS not in made.text
