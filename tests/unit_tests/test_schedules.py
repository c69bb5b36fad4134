"""Every schedule says what the method says: held to a naive reference, and to each other."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from models import EOS, SIZE, random_model, tokenizer
from reference import decode
from spelled import spelling

from delegate_llm import Budget, DelegationPolicy, Generation, Pair, Piece, load_pair
from delegate_llm.gates import GateView, TurnGate, boundary, entropy, window
from delegate_llm.pairs.products import SlicedProducts
from delegate_llm.trace import TokenLogprobs

PROMPTS = (
    "the cat. ",
    "a",
    "12 eggs and 3 hens\n",
    "where is it",
    "z" * 40,
    "go",
    "the the the",
    "x.",
)
# float32 rounding may decide closer calls than this either way.
CLOSE = 1e-4


@functools.cache
def pair(kind: str = "llama", seed: int = 0, rows: tuple[int, int] = (SIZE, SIZE)) -> Pair:
    seeds, scales = (2 * seed, 2 * seed + 1), (6.0, 6.0)
    if seed == 2:  # a reasoner that is less sure, but mostly of the same mind: takeovers that change nothing
        seeds, scales = (4, 4), (6.0, 3.0)
    models = [
        random_model(kind, each, rows=count, scale=scale)
        for each, count, scale in zip(seeds, rows, scales, strict=True)
    ]
    two = spelling(load_pair(*((model, tokenizer()) for model in models)))
    if seed % 2:  # guess as where blocks are cheap, in bfloat16 or on a GPU
        two.base.block = 0.1
    if seed > 1:  # multiply as large models do
        for each in (two.base, two.reasoner):
            each.products = SlicedProducts(each.model, large=0)
    return two


def gates() -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(
        st.one_of(
            st.floats(0.0, 3.0).map(entropy),
            st.integers(0, 40).map(window),
            st.sampled_from([boundary(), boundary("sentence"), boundary("line")]),
            st.just(lambda view: view.position % 3 != 1),
            st.just(lambda view: "e" in view.text or view.budget > 2),
            st.just(lambda view: view.spent != 1 or view.position > 6),
            st.integers(0, 4).map(lambda most: TurnGate(limits={"final": most})),
            st.integers(0, 4).map(lambda most: TurnGate(limits={"final": most, "tool_call": 2})),
        ),
        max_size=2,
    ).map(tuple)


budgets = st.builds(
    Budget,
    rate=st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]),
    burst=st.none() | st.integers(0, 6),
    limit=st.none() | st.integers(0, 12),
    asks=st.none() | st.integers(0, 20),
)
# Where there is no choice, hardly any, and much; what ends by itself, and what goes on and on.
grammars = st.sampled_from(
    [
        {"choice": ["the cat. sat there", "the hen", "a"]},
        {"regex": "([a-f]{1,3} ){2,9}[0-9]{2}(e |th|x)"},
        {"regex": "the (cat|hen)[a-z .]*"},
        {"json": {"type": "integer", "minimum": 0}},
        {"lark": 'start: "<" start ">" | /[a-z]+/'},
    ]
)
THRESHOLDS = {"js": 0.3, "tv": 0.6, "top1": 0.5, "random": 0.8, "entropy": 1.5, "nll_gap": 3.0}


@st.composite
def policies(draw: st.DrawFn) -> DelegationPolicy:
    name = draw(
        st.sampled_from(
            [
                "cross_entropy",
                "reverse_kl",
                "kl",
                "js",
                "tv",
                "nll_gap",
                "random",
                "entropy",
                "top1",
            ]
        )
    )
    return DelegationPolicy(
        divergence=name,
        threshold=THRESHOLDS.get(name, 4.0) * draw(st.floats(0.2, 1.6)),
        spike=draw(st.sampled_from([0.0, 0.0, 0.7, 1.2])),
        spike_window=draw(st.integers(1, 12)),
        gates=draw(gates()),
        budget=draw(budgets),
    )


def near(value: float | None, other: float | None) -> bool:
    """Equal up to rounding, or both not there."""
    if value is None or other is None:
        return value is other
    return value == pytest.approx(other, rel=1e-3, abs=1e-3)


def same(one: Generation, other: Generation) -> None:
    """Equal in all that is decided; the cost may differ."""
    assert one.token_ids == other.token_ids
    same_logprobs(one.logprobs, other.logprobs)
    assert one.text == other.text
    assert one.finish_reason == other.finish_reason
    assert one.trace.summary == other.trace.summary
    assert len(one.trace.decisions) == len(other.trace.decisions)
    for mine, its in zip(one.trace.decisions, other.trace.decisions, strict=True):
        assert mine.model_copy(update={"score": None, "base_entropy": None}) == its.model_copy(
            update={"score": None, "base_entropy": None}
        )
        for name in ("score", "base_entropy"):
            assert near(getattr(mine, name), getattr(its, name))


def same_logprobs(one: tuple[TokenLogprobs, ...] | None, other: tuple[TokenLogprobs, ...] | None) -> None:
    """Equal up to rounding, which may also put two alternatives the other way round."""
    assert (one is None) == (other is None)
    for mine, its in zip(one or (), other or (), strict=True):
        assert (mine.token_id, mine.token, len(mine.top)) == (its.token_id, its.token, len(its.top))
        assert near(mine.logprob, its.logprob)
        assert all(near(a.logprob, b.logprob) for a, b in zip(mine.top, its.top, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3", "hybrid"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_lockstep_is_the_method(kind: str, data: st.DataObject) -> None:
    two = pair(kind, data.draw(st.integers(0, 2)))
    name = data.draw(
        st.sampled_from(["cross_entropy", "reverse_kl", "kl", "js", "tv", "nll_gap", "entropy", "top1"])
    )
    above = data.draw(st.none() | st.floats(0.2, 2.0))
    first = data.draw(st.none() | st.integers(0, 20))
    turn = data.draw(st.none() | st.tuples(st.integers(0, 4), st.integers(0, 4)))
    policy = DelegationPolicy(
        divergence=name,
        threshold=THRESHOLDS.get(name, 4.0) * data.draw(st.floats(0.3, 1.4)),
        spike=data.draw(st.sampled_from([0.0, 0.8, 1.1])),
        spike_window=data.draw(st.integers(1, 6)),
        gates=[
            *([] if above is None else [entropy(above)]),
            *([] if first is None else [window(first)]),
            *([] if turn is None else [TurnGate(limits={"tool_call": turn[0], "final": turn[1]})]),
        ],
        budget=data.draw(budgets),
    )
    prompt = tokenizer()(data.draw(st.sampled_from(PROMPTS))).input_ids
    wanted = decode(
        two.base.model,
        two.reasoner.model,
        prompt,
        policy.model_dump(),
        max_tokens=24,
        size=SIZE,
        eos={SIZE - 1},
        entropy_above=above,
        first=first,
        turn=turn,
    )
    # Where a comparison is closer than rounding, neither side is wrong.
    assume(min(each.margin for each in wanted) > CLOSE)
    made = two.generate(prompt, policy=policy, max_tokens=24, schedule="lockstep", trace="full")
    assert list(made.token_ids) == [each.token for each in wanted]
    for decision, each in zip(made.trace.decisions, wanted, strict=True):
        assert (decision.asked, decision.takeover) == (each.asked, each.takeover)
        assert near(decision.score, each.score)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_draft_says_what_lockstep_says(kind: str, data: st.DataObject) -> None:
    two = pair(kind, data.draw(st.integers(0, 3)))
    policy = data.draw(policies())
    grammar = data.draw(st.none() | grammars)
    common = {
        "policy": policy,
        "max_tokens": data.draw(st.integers(1, 60)),
        "temperature": data.draw(st.sampled_from([0.0, 0.7, 1.0])),
        "top_p": data.draw(st.sampled_from([1.0, 0.9])),
        "top_k": data.draw(st.sampled_from([0, 5])),
        "seed": data.draw(st.integers(0, 1 << 40)),
        "stop": data.draw(st.none() | st.sampled_from(["e ", ".", "th", ["zz", "\n"], "ab"])),
        "ignore_eos": grammar is None and data.draw(st.booleans()),
        "trace": data.draw(st.sampled_from(["full", "takeovers"])),
        "grammar": grammar,
        "logprobs": data.draw(st.none() | st.sampled_from([0, 2, SIZE])),
    }
    prompts = data.draw(st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=5))
    wanted = [two.generate(prompt, schedule="lockstep", **common) for prompt in prompts]
    length = data.draw(st.integers(0, 20))
    same(wanted[0], two.generate(prompts[0], draft=length, **common))
    for schedule in ("draft", "lockstep"):
        made = two.generate_batch(prompts, schedule=schedule, draft=length, **common)
        for one, other in zip(wanted, made, strict=True):
            same(one, other)
    *pieces, last = two.stream(prompts[0], draft=length, **common)
    assert isinstance(last, Generation)
    same(wanted[0], last)
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == wanted[0].text
    told = tuple(each for piece in pieces for each in piece.decisions)
    assert len(told) == len(last.token_ids)
    assert last.trace.decisions == tuple(each for each in told if each.takeover or common["trace"] == "full")
    assert tuple(each for piece in pieces for each in piece.logprobs) == (last.logprobs or ())


def test_hybrid_model_falls_back_to_lockstep_with_a_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    two = pair("hybrid", 7)
    policy = DelegationPolicy(threshold=3.0)
    with caplog.at_level("WARNING", logger="delegate_llm"):
        made = two.generate("the cat. ", policy=policy, max_tokens=30, trace="full")
    assert "cannot be rolled back" in caplog.text
    same(
        two.generate("the cat. ", policy=policy, max_tokens=30, trace="full", schedule="lockstep"),
        made,
    )


def test_padding_ids_are_never_said() -> None:
    """One family pads its embedding rows to different sizes; the rows beyond the tokens are no tokens."""
    two = pair("llama", 5, rows=(SIZE + 18, SIZE + 50))
    with torch.no_grad():
        for reader in (two.base, two.reasoner):
            reader.model.lm_head.weight[SIZE:] = 3.0 * reader.model.lm_head.weight[:1]
    for temperature in (0.0, 1.0):
        made = two.generate(
            "the cat. ",
            policy=DelegationPolicy(threshold=2.0),
            max_tokens=80,
            temperature=temperature,
            seed=1,
            ignore_eos=True,
        )
        assert max(made.token_ids) < SIZE


def test_takeovers_happen_in_these_tests() -> None:
    """The properties above would hold in an empty world; this one is not empty."""
    made = pair().generate(
        "the cat. ", policy=DelegationPolicy(threshold=4.0), max_tokens=60, ignore_eos=True
    )
    assert 3 < made.trace.summary.takeovers < 57
    assert made.trace.summary.changed > 2
    assert EOS not in made.text
    assert GateView(0, 0.0, 1.0).text == ""
