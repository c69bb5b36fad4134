"""Log-probabilities are those of whoever was heard, over what a grammar allows, on every route."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import EOS, SIZE, random_model, tokenizer
from spelled import spelling

from delegate_llm import DelegationPolicy, Generation, Pair, load_pair
from delegate_llm.errors import RequestError
from delegate_llm.grammar import Grammar
from delegate_llm.trace import TokenLogprobs

POLICY = DelegationPolicy(threshold=4.0)
GRAMMAR = {"regex": "([a-f]{1,3} ){2,4}[0-9]{2}(e |th|x)"}


@pytest.fixture(scope="module")
def two() -> Pair:
    """Two random models, with more logit rows than tokens, that follow grammars."""
    models = [random_model("llama", seed, scale=6.0, rows=SIZE + seed) for seed in (1, 2)]
    return spelling(load_pair(*((model, tokenizer()) for model in models)))


def naive(pair: Pair, prompt: str, made: Generation, grammar: Any = None) -> list[torch.Tensor]:
    """The log-probabilities `[V]` of whoever was heard at each position, in float64, without a cache."""
    ids = tokenizer()(prompt).input_ids
    speakers = {each.position: pair.reasoner for each in made.trace.takeovers}
    assert pair.vocabulary.grammars is not None
    guide = pair.vocabulary.grammars.guide(Grammar.of(grammar)) if grammar else None
    wanted = []
    for at in range(len(made.token_ids)):
        seen = list(made.token_ids[:at])
        with torch.no_grad():
            model = speakers.get(at, pair.base).model
            logits = model(torch.tensor([ids + seen]), use_cache=False).logits[0, -1, :SIZE].double()
        if guide is not None:
            logits[~torch.from_numpy(guide.allowed(seen))] = -torch.inf
        wanted.append(logits.log_softmax(-1))
    return wanted


def check(pair: Pair, prompt: str, made: Generation, top: int, grammar: Any = None) -> None:
    assert made.logprobs is not None
    assert [each.token_id for each in made.logprobs] == list(made.token_ids)
    for said, wanted in zip(made.logprobs, naive(pair, prompt, made, grammar), strict=True):
        assert said.token == pair.vocabulary.piece(said.token_id)
        assert said.logprob == pytest.approx(float(wanted[said.token_id]), abs=2e-3)
        possible = int(wanted.isfinite().sum())
        assert len(said.top) == min(top, possible)
        for each in said.top:
            assert each.token == pair.vocabulary.piece(each.token_id)
            assert each.logprob == pytest.approx(float(wanted[each.token_id]), abs=2e-3)
        values = [each.logprob for each in said.top]
        assert values == sorted(values, reverse=True)
        assert len({each.token_id for each in said.top}) == len(said.top)
        best = wanted.topk(len(said.top)).values.tolist()
        assert values == pytest.approx(best, abs=2e-3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_logprobs_on_every_route(two: Pair, data: st.DataObject) -> None:
    grammar = data.draw(st.sampled_from([None, GRAMMAR]))
    top = data.draw(st.sampled_from([0, 1, 3, SIZE - 1, SIZE, 1000]))
    common: dict[str, Any] = {
        "policy": data.draw(st.sampled_from([POLICY, DelegationPolicy(divergence="random", threshold=0.5)])),
        "temperature": data.draw(st.sampled_from([0.0, 0.7, 1.5])),
        "top_k": data.draw(st.sampled_from([0, 3])),
        "top_p": data.draw(st.sampled_from([1.0, 0.7])),
        "max_tokens": data.draw(st.integers(1, 24)),
        "logprobs": top,
        "grammar": grammar,
    }
    prompts, seeds = ["the cat. ", "12 eggs"], [data.draw(st.integers(0, 9)), 3]
    for schedule in ("lockstep", "draft"):
        route = {**common, "schedule": schedule}
        for prompt, seed, made in zip(
            prompts, seeds, two.generate_batch(prompts, seed=seeds, **route), strict=True
        ):
            check(two, prompt, made, top, grammar)
            alone = two.generate(prompt, seed=seed, **route)
            check(two, prompt, alone, top, grammar)
            assert alone.token_ids == made.token_ids
    *pieces, last = two.stream(prompts[0], seed=seeds[0], **common)
    assert isinstance(last, Generation)
    check(two, prompts[0], last, top, grammar)
    assert tuple(itertools.chain.from_iterable(piece.logprobs for piece in pieces)) == last.logprobs


def test_takeovers_are_among_them(two: Pair) -> None:
    """The property above would hold in an empty world; this one is not empty."""
    made = two.generate("12 eggs", policy=POLICY, max_tokens=40, ignore_eos=True, logprobs=2)
    assert 3 < made.trace.summary.takeovers < 37
    check(two, "12 eggs", made, 2)


@pytest.mark.parametrize("schedule", ["lockstep", "draft"])
@pytest.mark.parametrize("streamed", [False, True])
def test_none_are_kept_unless_asked_for(two: Pair, schedule: str, *, streamed: bool) -> None:
    common = {"policy": POLICY, "max_tokens": 12, "schedule": schedule}
    if streamed:
        *pieces, made = two.stream("the cat. ", **common)
        assert all(piece.logprobs == () for piece in pieces)
    else:
        made = two.generate("the cat. ", **common)
    assert made.logprobs is None


@pytest.mark.parametrize("trace", ["off", "takeovers", "full"])
@pytest.mark.parametrize("budget", [0, 3])
def test_they_do_not_depend_on_what_the_trace_keeps(two: Pair, trace: str, budget: int) -> None:
    """Once the reasoner is out for good, nothing else needs the base's distribution."""
    policy = DelegationPolicy(threshold=2.0, budget=budget)
    common = {"policy": policy, "max_tokens": 20, "logprobs": 2, "temperature": 1.0, "seed": 4}
    made = two.generate("the cat. ", trace=trace, **common)
    wanted = two.generate("the cat. ", trace="full", schedule="lockstep", **common)
    assert made.logprobs is not None
    assert wanted.logprobs is not None
    check(two, "the cat. ", wanted, 2)
    for one, other in zip(made.logprobs, wanted.logprobs, strict=True):
        assert one.token_id == other.token_id
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_the_end_of_an_answer_and_text_that_is_held_back_are_told_too(two: Pair) -> None:
    *pieces, made = two.stream("the cat. ", grammar={"choice": ["th", "the cat"]}, logprobs=1, stop=["cat"])
    assert made.token_ids[-1] == SIZE - 1
    told = [each for piece in pieces for each in piece.logprobs]
    assert [each.token_id for each in told] == list(made.token_ids)
    assert told[-1].token == EOS


def test_json_in_and_out(two: Pair) -> None:
    made = two.generate("the cat. ", max_tokens=5, logprobs=2, grammar=GRAMMAR)
    assert Generation.model_validate_json(made.model_dump_json()) == made
    assert all(isinstance(each, TokenLogprobs) for each in made.logprobs or ())


def test_where_a_grammar_leaves_no_choice_a_token_is_certain(two: Pair) -> None:
    made = two.generate("the cat. ", grammar={"choice": ["zzz9"]}, logprobs=5, policy=POLICY)
    assert made.text == "zzz9"
    assert made.logprobs is not None
    assert [each.logprob for each in made.logprobs] == pytest.approx([0.0] * len(made.token_ids))
    assert [len(each.top) for each in made.logprobs] == [1] * len(made.token_ids)


@pytest.mark.parametrize("value", [-1, True, 1.5, "2"])
def test_a_count_that_is_none_is_refused(two: Pair, value: Any) -> None:
    with pytest.raises(RequestError, match=f"logprobs: {value!r}"):
        two.generate("a", logprobs=value)
