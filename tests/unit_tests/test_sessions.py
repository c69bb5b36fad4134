"""A session returns the logits of the sequence, whatever was read, rolled back or dropped before."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import SIZE, random_model

from delegate_llm.errors import LoadError
from delegate_llm.pairs import transformers as backend
from delegate_llm.pairs.batches import alike
from delegate_llm.pairs.cache import cache_argument
from delegate_llm.pairs.transformers import TransformersReader


@functools.cache
def reader(kind: str) -> TransformersReader:
    return TransformersReader(random_model(kind, 3), name=kind)


def wanted(kind: str, sequence: list[int], last: int) -> torch.Tensor:
    """From scratch, without a cache."""
    with torch.no_grad():
        return reader(kind).model(torch.tensor([sequence]), use_cache=False).logits[0, -last:]


token = st.integers(0, SIZE - 1)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_reads_are_the_logits_of_the_sequence(kind: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4)) if reader(kind).batches else 1
    session = reader(kind).open(rows)
    texts = [data.draw(st.lists(token, min_size=2, max_size=20)) for _ in range(rows)]
    chunk, backend._CHUNK = backend._CHUNK, data.draw(st.sampled_from([3, 512]))
    try:
        for _ in range(data.draw(st.integers(1, 6))):
            last = [data.draw(st.integers(1, min(4, len(text)))) for text in texts]
            asked: list[Any] = [text if data.draw(st.booleans()) else None for text in texts]
            if not any(asked):
                asked[0] = texts[0]
            logits = session.read(asked, last=last)
            for row, text in enumerate(asked):
                if text is not None:
                    made = logits[row, -last[row] :]
                    assert torch.allclose(made, wanted(kind, text, last[row]), atol=1e-4)
            for text in texts:  # roll some back, then go on
                del text[max(1, len(text) - data.draw(st.integers(0, 6))) :]
                text.extend(data.draw(st.lists(token, min_size=1, max_size=9)))
            if len(texts) > 1 and data.draw(st.booleans()):
                kept = data.draw(st.permutations(range(len(texts))).map(lambda p: p[:-1]))
                session.retain(kept)
                texts = [texts[each] for each in kept]
    finally:
        backend._CHUNK = chunk


def test_a_recurrent_model_moves_on_one_token_at_a_time() -> None:
    session = reader("hybrid").open(1)
    text = [1, 2, 3, 4]
    assert torch.allclose(session.read([text])[0], wanted("hybrid", text, 1), atol=1e-4)
    text += [5, 6, 7]
    assert torch.allclose(session.read([text], last=3)[0], wanted("hybrid", text, 3), atol=1e-4)
    with pytest.raises(RuntimeError, match="rolled back"):
        session.read([[1, 2, 9]])


@pytest.mark.parametrize(
    ("version", "said"), [("5.5.1", r"need transformers 5\.6"), ("5.19.0", "in its own layers")]
)
def test_recurrent_layers_without_a_cache_for_them_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, said: str
) -> None:
    """As in transformers before 5.6, where such models brought caches of their own; some still do."""
    monkeypatch.setattr("delegate_llm.pairs.transformers.__version__", version)
    model = random_model("llama", 3)
    model._is_stateful = True
    with pytest.raises(LoadError, match=said):
        TransformersReader(model, name="old")


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params"])
def test_a_cache_is_handed_over_under_the_models_own_name_for_it(name: str) -> None:
    model = torch.nn.Module()
    model.forward = eval(f"lambda input_ids, {name}: input_ids")
    assert cache_argument(model) == name


def test_meters_count_what_was_done() -> None:
    session = reader("llama").open(2)
    session.read([[1, 2, 3], [1]])
    session.read([[1, 2, 3, 4, 5], None], last=2)
    session.read([[1, 9], None])
    first, second = session.meters
    assert (first.forwards, first.tokens) == (3, 6)
    assert (second.forwards, second.tokens) == (1, 1)
    costs = reader("llama").costs
    assert second.flops == costs.body + costs.head + costs.look_back


def test_flops_are_about_twice_the_weights() -> None:
    model = random_model("llama", 1)
    session = TransformersReader(model, name="x").open(1)
    session.read([[1]])
    matrices = sum(
        each.numel() for name, each in model.named_parameters() if each.ndim > 1 and "embed" not in name
    )
    assert session.meters[0].flops == pytest.approx(2 * matrices, rel=0.02)


def test_a_mixture_counts_its_active_experts() -> None:
    dense, mixture = reader("qwen3").costs, reader("hybrid").costs
    assert mixture.body < 2 * sum(each.numel() for each in reader("hybrid").model.parameters())
    assert dense.body > 0


def test_memory_of_a_cache_is_linear_in_its_tokens() -> None:
    session = reader("llama").open(3)
    for length in (50, 200, 400):
        session.read([[1] * length, [2] * length, [3] * (length // 2)])
        slots = session.cache.layers[0].keys.shape[2]
        assert slots <= 1.5 * length + 64


@given(st.lists(st.integers(0, 2000), max_size=40))
def test_padding_at_most_doubles_a_batch(lengths: list[int]) -> None:
    groups = alike(lengths)
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        tokens = [max(64, lengths[at]) for at in group]
        assert max(tokens) * len(group) <= 2 * sum(tokens)


def test_like_lengths_run_together() -> None:
    assert alike([40, 50, 60, 100]) == [[3, 2, 1, 0]]
    assert alike([12] * 15 + [700]) == [[15, 0], [*range(1, 15)]]
    assert alike([]) == []
