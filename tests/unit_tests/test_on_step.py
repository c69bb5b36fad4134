"""A caller can look in between steps, and end a generation by raising."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import random_model, tokenizer

from delegate_llm import DelegationPolicy, Generation, Pair, load_pair

PROMPTS = ["the cat. ", "12 eggs", "a"]


class Enough(Exception):  # noqa: N818 - what it is
    """What a caller raises."""


@pytest.fixture(scope="module")
def two() -> Pair:
    return load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2)))


class Counter:
    """Counts steps, and notes the forwards of the models between them."""

    def __init__(self, most: int | None = None) -> None:
        self.count = 0
        self.most = most
        self.modes: list[bool] = []

    def __call__(self) -> None:
        self.count += 1
        self.modes.append(torch.is_inference_mode_enabled())
        if self.most is not None and self.count > self.most:
            raise Enough


def routes(pair: Pair, **settings: Any) -> dict[str, Any]:
    return {
        "generate": lambda on_step: pair.generate(PROMPTS[0], on_step=on_step, **settings),
        "batch": lambda on_step: pair.generate_batch(PROMPTS, on_step=on_step, **settings),
        "stream": lambda on_step: list(pair.stream(PROMPTS[0], on_step=on_step, **settings)),
    }


@pytest.mark.parametrize("schedule", ["lockstep", "draft"])
@pytest.mark.parametrize("route", ["generate", "batch", "stream"])
def test_it_is_called_before_every_step(two: Pair, schedule: str, route: str) -> None:
    settings = {"schedule": schedule, "max_tokens": 20, "policy": DelegationPolicy(threshold=4.0)}
    call = routes(two, **settings, ignore_eos=True)[route]
    counter = Counter()
    made = call(counter)
    last = made[-1] if isinstance(made, list) else made
    assert isinstance(last, Generation)
    if schedule == "lockstep":
        assert counter.count == 21  # and once where there is no step left
    else:
        assert 1 < counter.count <= last.usage.base_forwards + last.usage.reasoner_forwards + 1
    plain = call(None)
    assert (plain[-1] if isinstance(plain, list) else plain).token_ids == last.token_ids


@pytest.mark.parametrize("schedule", ["lockstep", "draft"])
@pytest.mark.parametrize("route", ["generate", "batch", "stream"])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_what_it_raises_ends_the_call_there(two: Pair, schedule: str, route: str, most: int) -> None:
    forwards = 0
    settings = {"schedule": schedule, "max_tokens": 40, "policy": DelegationPolicy(threshold=4.0)}

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    hooks = [reader.model.register_forward_hook(count) for reader in (two.base, two.reasoner)]
    try:
        counter = Counter(most)
        with pytest.raises(Enough):
            routes(two, **settings, ignore_eos=True)[route](counter)
    finally:
        for hook in hooks:
            hook.remove()
    assert counter.count == most + 1
    assert forwards <= 2 * most
    assert not torch.is_inference_mode_enabled()
    wanted = two.generate(PROMPTS[0], **settings)
    assert two.generate(PROMPTS[0], **settings).token_ids == wanted.token_ids


def test_a_stream_calls_it_only_when_it_is_asked_for_more(two: Pair) -> None:
    counter = Counter(2)
    stream = two.stream(PROMPTS[0], max_tokens=40, ignore_eos=True, on_step=counter, schedule="lockstep")
    assert counter.count == 0
    next(stream)
    seen = counter.count
    assert seen >= 1
    with pytest.raises(Enough):
        list(stream)
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(StopIteration):
        next(stream)


def test_models_that_read_one_row_at_a_time_are_looked_in_on_too() -> None:
    pair = load_pair(*((random_model("hybrid", seed, scale=6.0), tokenizer()) for seed in (1, 2)))
    counter = Counter()
    made = pair.generate_batch(PROMPTS, max_tokens=4, ignore_eos=True, on_step=counter, schedule="lockstep")
    assert [len(each.token_ids) for each in made] == [4, 4, 4]
    assert counter.count == (5 if pair.base.batches and pair.reasoner.batches else 15)


def test_a_step_may_use_the_pair_itself(two: Pair) -> None:
    """Sessions are the call's own; a caller may well ask the pair for something else meanwhile."""
    wanted = two.generate(PROMPTS[0], max_tokens=8, ignore_eos=True)
    inner: list[tuple[int, ...]] = []

    def step() -> None:
        inner.append(two.generate(PROMPTS[1], max_tokens=2, ignore_eos=True).token_ids)

    made = two.generate(PROMPTS[0], max_tokens=8, ignore_eos=True, on_step=step)
    assert made.token_ids == wanted.token_ids
    assert len(set(inner)) == 1
