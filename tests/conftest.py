"""Shared settings and fixtures of the test suite."""

import os
from pathlib import Path
from typing import Any

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # read when langgraph is imported

import pytest
import torch
from hypothesis import settings
from models import random_model, save, tokenizer
from transformers import AutoModelForCausalLM

from delegate_llm import Pair, load_pair

torch.set_num_threads(1)  # tiny models lose time to more
settings.register_profile("suite", print_blob=True, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Two random models that share a vocabulary."""
    return load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The checkpoints of a base and a reasoner."""
    root = tmp_path_factory.mktemp("pair")
    return save(root / "base", 1), save(root / "reasoner", 2)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What transformers has loaded, model by model."""
    loaded, load = [], AutoModelForCausalLM.from_pretrained

    def noted(where: Any, **options: Any) -> Any:
        loaded.append(str(where))
        return load(where, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noted)
    return loaded
