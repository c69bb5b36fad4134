"""Both models along a given text."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from models import SIZE, WORDS, random_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from delegate_llm import Budget, DelegateError, DelegationPolicy, Pair, Trace, load_pair
from delegate_llm.pairs.scripted import scripted_pair


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


@pytest.mark.parametrize("asks", [1, 3, None])
@pytest.mark.parametrize(
    ("divergence", "threshold"), [("entropy", 3.63), ("top1", 0.935), ("random", 0.6), ("js", 0.1)]
)
def test_score_counts_asks_as_generate_does(pair: Pair, divergence: Any, threshold: float, asks: Any) -> None:
    policy = DelegationPolicy(divergence=divergence, threshold=threshold, budget=Budget(asks=asks))
    made = pair.generate("the", policy=policy, max_tokens=40, trace="full", ignore_eos=True, seed=0)
    trace = pair.score("the", made.token_ids, policy=policy)
    heard = [each.position for each in made.trace.takeovers]
    assert heard
    assert [each.position for each in trace.takeovers] == heard


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


def test_a_batch_scores_every_text_as_it_would_be_scored_alone(pair: Pair) -> None:
    texts = [[each % (SIZE - 1) for each in range(start, start + length)] for start, length in LENGTHS]
    prompts = ["go", "the", "a b", "go", "the"]
    together = pair.score_batch(prompts, texts, policy={"threshold": 4.0, "budget": 3})
    for prompt, text, trace in zip(prompts, texts, together, strict=True):
        alone = pair.score(prompt, text, policy={"threshold": 4.0, "budget": 3})
        assert trace.summary == alone.summary
        for mine, its in zip(trace.decisions, alone.decisions, strict=True):
            assert mine.score == pytest.approx(its.score, abs=1e-3)
            near = {"score": None, "base_entropy": None}
            assert mine.model_copy(update=near) == its.model_copy(update=near)


LENGTHS = [(0, 1), (3, 64), (1, 13), (5, 150), (0, 65)]


def test_no_texts_have_no_scores(pair: Pair) -> None:
    assert pair.score_batch([], []) == []


@pytest.mark.parametrize(
    ("prompts", "completions"), [(["a"], []), ("a", ["a"]), (["a"], "a"), (["a", "b"], ["a"]), (["a"], [""])]
)
def test_bad_batches(pair: Pair, prompts: Any, completions: Any) -> None:
    with pytest.raises(DelegateError):
        pair.score_batch(prompts, completions)


def test_the_most_probable_tokens_of_both(pair: Pair) -> None:
    plain, (told,) = pair.score("go", [1, 2, 3]), pair.score_batch(["go"], [[1, 2, 3]], top=4)
    for mine, its in zip(told.decisions, plain.decisions, strict=True):
        for first, top in ((mine.base_token_id, mine.base_top), (mine.reasoner_token_id, mine.reasoner_top)):
            assert top[0].token_id == first
            assert len({each.token_id for each in top}) == 4
            assert [each.logprob for each in top] == sorted((each.logprob for each in top), reverse=True)
            assert sum(math.exp(each.logprob) for each in top) <= 1 + 1e-5
        assert (its.base_top, its.reasoner_top) == ((), ())
        assert "base_top" not in its.model_dump_json(), "what was not asked for takes no room"
    assert Trace.from_json(told.to_json()) == told
    everything = pair.score("go", [1], top=10_000).decisions[0]
    assert sum(math.exp(each.logprob) for each in everything.base_top) == pytest.approx(1.0, abs=1e-5)


def test_ids_without_a_token_are_nobodys_choice() -> None:
    words = {"u": 0, "a": 1, "b": 2, "c": 5}
    inner = Tokenizer(models.WordLevel(words, unk_token="u"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    holed = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="u")
    pair = load_pair((_wishing(1, 3), holed), (_wishing(2, 4), holed))
    assert pair.vocabulary.holes == (3, 4)
    made = pair.generate("ab", max_tokens=8, policy={"threshold": 0.0}, trace="full")
    trace = pair.score("ab", made.token_ids, policy={"threshold": 0.0}, top=8)
    for mine, its in zip(trace.decisions, made.trace.decisions, strict=True):
        assert (mine.base_token_id, mine.reasoner_token_id) == (its.base_token_id, its.reasoner_token_id)
        for top in (mine.base_top, mine.reasoner_top):
            assert sorted(each.token_id for each in top) == sorted(words.values())
    assert trace.summary.changed == made.trace.summary.changed


def _wishing(seed: int, hole: int) -> PreTrainedModel:
    """A model that would rather say an id that is no token."""
    model = random_model("llama", seed, rows=8)
    model.generation_config.eos_token_id = None
    head = torch.nn.Linear(model.config.hidden_size, 8)
    with torch.no_grad():
        head.bias.copy_(50.0 * (torch.arange(8) == hole))
    model.lm_head = head
    return model


def test_what_a_model_forbids_is_none_of_its_choices() -> None:
    pair = scripted_pair(lambda _: [1.0, 2.0, -math.inf], lambda _: [2.0, -math.inf, 1.0], ["a", "b", "c"])
    decision = pair.score("a", "b", top=3).decisions[0]
    assert [each.token for each in decision.base_top] == ["b", "a"]
    assert [each.token for each in decision.reasoner_top] == ["a", "c"]


@pytest.mark.parametrize("top", [-1, True, 1.5, "2"])
def test_no_count_of_choices(pair: Pair, top: Any) -> None:
    with pytest.raises(DelegateError, match=r"top"):
        pair.score("a", "a", top=top)
