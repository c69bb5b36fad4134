"""Requests as vLLM's worker has them, as far as seats look at them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from delegate_llm.vllm_plugin.wire import KEY


def request(policy: dict[str, Any], most: int, *ends: int) -> Any:
    """Of a greedy answer of at most so many tokens, that ends with some of them."""
    return SimpleNamespace(
        sampling_params=SimpleNamespace(
            extra_args={KEY: policy},
            temperature=0.0,
            top_p=1.0,
            top_k=0,
            logprobs=None,
            seed=0,
            stop_token_ids=list(ends),
            eos_token_id=None,
            max_tokens=most,
        )
    )
