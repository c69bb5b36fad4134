"""Tiny random models and a tokenizer for them, from the libraries' own classes; nothing is downloaded."""

from __future__ import annotations

import functools
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

WORDS = [*string.ascii_lowercase, *string.digits, " ", ".", ",", "\n", "<", ">", "e ", "th", ". "]
EOS = "<|end|>"
SIZE = len(WORDS) + 1
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Letters, digits and a few longer tokens; its last id ends an answer."""
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="."))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)
    assert len(fast) == SIZE
    return fast


def random_model(
    kind: str, seed: int, *, rows: int = SIZE, scale: float = 4.0, **changes: Any
) -> PreTrainedModel:
    """A random model; `scale` sharpens its distributions, since fresh weights are nearly flat."""
    torch.manual_seed(seed)
    model = _BUILDERS[kind](rows, changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.generation_config.eos_token_id = SIZE - 1
    return model


def save(folder: Path, seed: int, *, safe: bool = True, **changes: Any) -> Path:
    """Write a random checkpoint, if need be pickled."""
    model = random_model("llama", seed, scale=6.0, **changes)
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer().save_pretrained(folder)
    return folder


def _llama(rows: int, changes: dict[str, Any]) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(vocab_size=rows, **{**_SMALL, **changes}))


def _qwen3(rows: int, changes: dict[str, Any]) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=rows, **{**_SMALL, **changes}))


def _mistral(rows: int, changes: dict[str, Any]) -> PreTrainedModel:
    """Every layer looks back eight tokens."""
    return MistralForCausalLM(MistralConfig(vocab_size=rows, sliding_window=8, **{**_SMALL, **changes}))


def _gemma3(rows: int, changes: dict[str, Any]) -> PreTrainedModel:
    """Sliding-window and full layers in turn."""
    config = Gemma3TextConfig(
        vocab_size=rows,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        **{**_SMALL, **changes},
    )
    return Gemma3ForCausalLM(config)


def _hybrid(rows: int, changes: dict[str, Any]) -> PreTrainedModel:
    """A linear-attention layer, whose state cannot be rolled back, and a full one."""
    config = Qwen3NextConfig(
        vocab_size=rows,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        **{**_SMALL, **changes},
    )
    return Qwen3NextForCausalLM(config)


_BUILDERS = {
    "llama": _llama,
    "qwen3": _qwen3,
    "mistral": _mistral,
    "gemma3": _gemma3,
    "hybrid": _hybrid,
}
