"""Which models a graph runs: those of the run's context, of the environment, or the pair that ships."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from delegate_llm.chat_model import DelegatedChatModel
from delegate_llm.graph.allocation import DelegationContext
from delegate_llm.tiny.agent import MAX_TOKENS

__all__ = ("ModelContext", "model_of")

_SHIPPED: Final = {"base": "delegate-llm/tiny-base", "reasoner": "delegate-llm/tiny-reasoner"}


@dataclass(frozen=True, kw_only=True)
class ModelContext(DelegationContext):
    """A run's budget, and the two models that it uses."""

    total: int | None = 16
    base: str | None = None
    """A hub id or a folder; by default what `DELEGATE_LLM_BASE` names, or the base that ships."""
    reasoner: str | None = None
    """Likewise, and `DELEGATE_LLM_REASONER`."""
    max_tokens: int = MAX_TOKENS
    """Of each answer."""


def model_of(context: Any) -> DelegatedChatModel:
    """The chat model that a run's context asks for; its weights are loaded once a process.

    Args:
        context: A `ModelContext`; of anything else, what it has of its fields.
    """
    names = {}
    for who, shipped in _SHIPPED.items():
        names[who] = getattr(context, who, None) or os.environ.get(f"DELEGATE_LLM_{who.upper()}") or shipped
    return DelegatedChatModel(**names, max_tokens=getattr(context, "max_tokens", MAX_TOKENS))
