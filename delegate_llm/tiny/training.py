"""Teaching a model transcripts: batches of one format each, and the loop over them.

Only assistant turns are taught. Batches hold chats of like length, padded on the right, so that
attention needs no mask. The system prompt of the tools is the same in every chat: it is run once a
batch and its keys and values are shared, which halves the work of the agent's format.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from delegate_llm.pairs.cache import cache_argument
from delegate_llm.tiny.authors import FORMATS, Format, Segment
from delegate_llm.tiny.checkpoint import Model, Tokenizer
from delegate_llm.tiny.tokenizer import system_prompt

__all__ = ["Example", "Examples", "encode", "fit", "new_model", "shared_prefix"]

BATCH: Final = {"text": 32, "tools": 24}
"""Chats of each format in a step."""
_BUCKET: Final = 8
"""Batches that are sorted by length together."""


class Example(NamedTuple):
    """One chat as token ids, without its system prompt."""

    ids: list[int]
    spoken: list[bool]
    """Which of them the assistant wrote."""


Examples = Callable[[Format, int, random.Random, int], list[Example]]
"""Draws so many examples of a format, for the steps from the given one on."""


def new_model(tokenizer: Tokenizer, seed: int) -> Model:
    """An untrained model of the pair's size, 0.9 million parameters."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: Tokenizer, chats: Sequence[Sequence[Segment]]) -> list[Example]:
    """Token ids of chats, segment by segment: tokens never reach across a turn's edge."""
    texts = [segment.text for chat in chats for segment in chat]
    pieces = iter(tokenizer(texts).input_ids)
    examples = []
    for chat in chats:
        example = Example([], [])
        for segment in chat:
            piece = next(pieces)
            example.ids.extend(piece)
            example.spoken.extend([segment.spoken] * len(piece))
        examples.append(example)
    return examples


def shared_prefix(model: Model, prefix: list[int], rows: int) -> DynamicCache:
    """The cache after a prefix that `rows` sequences have in common, computed once.

    Gradients flow through it.
    """
    cache = DynamicCache()
    if prefix:
        single = DynamicCache()
        model.model(torch.tensor([prefix]), use_cache=True, **{cache_argument(model.model): single})
        for index, layer in enumerate(single.layers):
            keys, values = (x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values))
            cache.update(keys, values, index)
    return cache


def fit(
    model: Model,
    tokenizer: Tokenizer,
    examples: Examples,
    *,
    steps: int,
    rate: float,
    seed: int,
    state: Path,
    say: Callable[[str], None],
    every: int = 50,
) -> None:
    """Trains a model in place, with AdamW, a warm-up, and a cosine down to a twentieth.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        examples: What to learn from.
        steps: How many updates; each sees both formats.
        rate: The highest learning rate.
        seed: Names the order of the examples.
        state: Where to keep what an interrupted run needs to go on.
        say: Told about progress.
        every: After how many steps to keep the state and tell of progress.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    done = _resume(state, model, optimizer)
    prefixes: dict[Format, list[int]] = {
        form: tokenizer(system_prompt(tokenizer, form)).input_ids for form in FORMATS
    }
    model.train()
    started, losses = time.monotonic(), []
    for step, batches in enumerate(_batches(examples, seed, done, steps), start=done + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * _schedule(step, steps)
        losses.append(_update(model, optimizer, prefixes, batches))
        if step % every == 0 or step == steps:
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({"step": step, **kept}, state)
            pace = (time.monotonic() - started) / (step - done)
            mean = sum(losses) / len(losses)
            losses.clear()
            say(f"step {step}/{steps}  loss {mean:.4f}  {pace:.2f} s a step")
    model.eval()
    state.unlink(missing_ok=True)


def _resume(state: Path, model: Model, optimizer: torch.optim.Optimizer) -> int:
    """Loads what an interrupted run left; how many steps it had done."""
    if not state.exists():
        return 0
    saved: dict[str, Any] = torch.load(state, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def _schedule(step: int, steps: int) -> float:
    """The share of the highest rate that a step uses."""
    warm = min(100, steps // 10 + 1)
    if step < warm:
        return step / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(examples: Examples, seed: int, done: int, steps: int) -> Iterator[dict[Format, list[Example]]]:
    """One batch of each format a step, of like length within a batch."""
    for bucket in range(done // _BUCKET, steps // _BUCKET + 1):
        rng = random.Random(f"{seed} {bucket}")
        drawn = {
            form: _bucket(examples(form, BATCH[form] * _BUCKET, rng, bucket * _BUCKET), rng)
            for form in FORMATS
        }
        for index in range(_BUCKET):
            if done <= bucket * _BUCKET + index < steps:
                yield {form: drawn[form][index] for form in FORMATS}


def _bucket(examples: list[Example], rng: random.Random) -> list[list[Example]]:
    size = len(examples) // _BUCKET
    examples = sorted(examples, key=lambda example: len(example.ids))
    batches = [examples[i : i + size] for i in range(0, len(examples), size)]
    rng.shuffle(batches)
    return batches


def _update(
    model: Model,
    optimizer: torch.optim.Optimizer,
    prefixes: dict[Format, list[int]],
    batches: dict[Format, list[Example]],
) -> float:
    """One step; the mean loss over every spoken token, in nats."""
    spoken = sum(sum(example.spoken) for batch in batches.values() for example in batch)
    total = 0.0
    for form, batch in batches.items():
        loss = _summed_loss(model, prefixes[form], batch) / spoken
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


def _summed_loss(model: Model, prefix: list[int], batch: list[Example]) -> Tensor:
    """Cross-entropy summed over the spoken tokens of a batch."""
    width = max(len(example.ids) for example in batch)
    ids = torch.tensor([e.ids + [0] * (width - len(e.ids)) for e in batch])  # [B, T]
    spoken = torch.tensor([e.spoken + [False] * (width - len(e.ids)) for e in batch])
    cache = shared_prefix(model, prefix, len(batch)) if prefix else None
    held = {} if cache is None else {cache_argument(model.model): cache}
    hidden = model.model(ids[:, :-1], use_cache=cache is not None, **held).last_hidden_state
    # The projection to the vocabulary only where it is taught: a third of the positions.
    logits = model.lm_head(hidden[spoken[:, 1:]])  # [spoken, V]
    return functional.cross_entropy(logits, ids[:, 1:][spoken[:, 1:]], reduction="sum")
