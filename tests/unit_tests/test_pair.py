"""A pair in use: settings, seeds, streams, threads, and everything that can go wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from models import EOS
from scripts import END, PIECES, POLICY, A, B, says, scripted

from delegate_llm import (
    DelegationPolicy,
    GateError,
    Generation,
    NumericsError,
    Pair,
    Piece,
    PolicyError,
    PromptError,
    RequestError,
    Trace,
)


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
    ],
)
def test_bad_settings(pair: Pair, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        pair.generate("a", **settings)
    with pytest.raises(RequestError, match=said):
        pair.generate_batch(["a"], **settings)
    with pytest.raises(RequestError, match=said):
        pair.stream("a", **settings)


def test_unknown_settings_are_named(pair: Pair) -> None:
    with pytest.raises(RequestError, match=r"'max_token'.*max_tokens"):
        pair.generate_batch(["a"], max_token=3)
    with pytest.raises(RequestError, match=r"'max_token'.*max_tokens"):
        pair.stream("a", max_token=3)


def test_a_policy_may_be_its_fields(pair: Pair) -> None:
    settings = {"max_tokens": 20, "trace": "full"}
    wanted = pair.generate("the", policy=DelegationPolicy(threshold=2.0, budget=3), **settings)
    assert pair.generate("the", policy={"threshold": 2.0, "budget": 3}, **settings) == wanted
    for call in (pair.generate, pair.stream):
        with pytest.raises(PolicyError, match=r"threshold.*-1"):
            call("the", policy={"threshold": -1})


def test_bad_batches(pair: Pair) -> None:
    assert pair.generate_batch([]) == []
    with pytest.raises(PromptError, match="list of prompts"):
        pair.generate_batch("one prompt")
    with pytest.raises(RequestError, match="2 seeds for 1 prompts"):
        pair.generate_batch(["a"], temperature=1.0, seed=[1, 2])
    with pytest.raises(RequestError, match="tempreature"):
        pair.generate_batch(["a"], tempreature=1.0)


# --- Records ---


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("trace", {"summary": {"tokens": -5}}),
        ("trace", {"summary": {"takeovers": -1}}),
        ("usage", {"base_forwards": -1}),
        ("usage", {"reasoner_flops": -1.0}),
    ],
)
def test_no_count_is_below_nothing(pair: Pair, part: str, changes: dict[str, Any]) -> None:
    fields = pair.generate("the", policy=POLICY, max_tokens=3).to_fields()
    assert Generation.of_fields(fields)
    with pytest.raises(PolicyError, match="greater than or equal to 0"):
        Generation.of_fields({**fields, part: {**fields[part], **changes}})


def test_no_position_is_before_the_first(pair: Pair) -> None:
    trace = pair.generate("the", policy=POLICY, max_tokens=3, trace="full").trace.to_json()
    with pytest.raises(PolicyError, match=r"decisions\.1\.position"):
        Trace.from_json(trace.replace('"position":1', '"position":-1'))


# --- Seeds ---


def test_a_seed_names_a_text_and_none_draws_one(pair: Pair) -> None:
    settings = {"policy": POLICY, "max_tokens": 20, "temperature": 1.0}
    drawn = pair.generate("the", **settings)
    assert drawn.seed is not None
    assert pair.generate("the", seed=drawn.seed, **settings) == drawn
    assert pair.generate("the", policy=POLICY, max_tokens=3).seed is None


def test_a_greedy_answer_tells_its_seed_where_the_lot_says_who_is_heard(pair: Pair) -> None:
    settings = {"policy": DelegationPolicy(divergence="random", threshold=0.5), "max_tokens": 20}
    made = [pair.generate("the", seed=seed, **settings) for seed in (None, 5)]
    assert [each.seed for each in made] == [0, 5]
    assert made[0].trace.takeovers != made[1].trace.takeovers
    assert pair.generate("the", seed=0, **settings) == made[0]
    assert [each.seed for each in pair.generate_batch(["a", "b"], seed=[3, 4], **settings)] == [3, 4]


def test_a_batch_without_seeds_draws_one_a_row(pair: Pair) -> None:
    settings: dict[str, Any] = {"policy": POLICY, "max_tokens": 12, "temperature": 1.5, "ignore_eos": True}
    made = pair.generate_batch(["the"] * 4, **settings)
    assert len({each.seed for each in made}) == 4
    assert len({each.token_ids for each in made}) > 1
    first, second, third = pair.generate_batch(["the"] * 3, seed=[None, 3, None], **settings)
    assert second.token_ids == pair.generate("the", seed=3, **settings).token_ids
    assert len({first.seed, second.seed, third.seed}) == 3
    again = pair.generate_batch(["the"], seed=[first.seed], **settings)
    assert again[0].token_ids == first.token_ids


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
