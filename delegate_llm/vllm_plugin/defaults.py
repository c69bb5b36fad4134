"""What vLLM is started with unless a user says otherwise, in this process and as a server."""

from __future__ import annotations

from typing import Final

__all__ = ("AHEAD", "ALTERNATIVES", "CACHE_BYTES", "MOST_AHEAD", "WORKER")

WORKER: Final = "delegate_llm.vllm_plugin.worker.DelegatingWorker"
AHEAD: Final = 8
"""Positions that the base drafts."""
MOST_AHEAD: Final = 1000
"""Of them at most."""
ALTERNATIVES: Final = 20
"""Log-probabilities that a token may come with, as many as OpenAI allows."""
CACHE_BYTES: Final = 1 << 30
"""Of keys and values on a CPU, where vLLM would otherwise take most of the machine's."""
