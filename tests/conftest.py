"""Shared settings and fixtures of the test suite."""

import pytest
import torch
from hypothesis import settings
from models import random_model, tokenizer

from delegate_llm import Pair, load_pair

torch.set_num_threads(1)  # tiny models lose time to more
settings.register_profile("suite", print_blob=True, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Two random models that share a vocabulary."""
    return load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2)))
