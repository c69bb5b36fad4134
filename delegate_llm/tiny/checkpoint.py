"""Reading and writing the pair's checkpoints."""

import json
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

__all__ = ["Model", "Tokenizer", "load", "save"]

# What transformers annotates is too wide to work with: a tokenizer's `decode` may give a list,
# an automatic class any model at all.
Model: TypeAlias = Any
"""A `Qwen3ForCausalLM`."""
Tokenizer: TypeAlias = Any
"""A `PreTrainedTokenizerFast`."""

_TOKENIZER_CONFIG: Final = {
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "model_max_length": 1024,
    "pad_token": "<|endoftext|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def load(folder: Path) -> tuple[Model, Tokenizer]:
    """A checkpoint in float32, and its tokenizer."""
    model: Model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def save(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a checkpoint, rounded to bfloat16: what is measured later is what ships."""
    # A folder that exists means a finished stage, so it appears at once or not at all.
    draft = folder.with_name(folder.name + ".part")
    model.to(torch.bfloat16).save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    # transformers 5 names a class that older releases, vLLM's among them, do not know.
    config = json.dumps(_TOKENIZER_CONFIG, indent=2) + "\n"
    (draft / "tokenizer_config.json").write_text(config)
    draft.rename(folder)
