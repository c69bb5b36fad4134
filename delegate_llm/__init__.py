"""Reasoning at base-model cost: a base writes, a reasoner is heard at the few tokens that decide.

    from delegate_llm import DelegatedChatModel

    model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    answer = model.invoke("...")
    print(answer.content, answer.response_metadata["delegation"]["summary"])

`load_pair` gives the two models without LangChain.

Names are imported when they are first used, so `import delegate_llm` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from delegate_llm._version import __version__

if TYPE_CHECKING:
    from delegate_llm.chat_model import ChatDelegated, DelegatedChatModel
    from delegate_llm.errors import (
        CancelledError,
        DeadlineError,
        DelegateError,
        EngineError,
        GateError,
        GrammarError,
        LoadError,
        MissingExtraError,
        NumericsError,
        PolicyError,
        PromptError,
        RequestError,
        VocabularyMismatchError,
    )
    from delegate_llm.gates import BoundaryGate, EntropyGate, GateView, TurnGate, WindowGate
    from delegate_llm.grammar import Grammar
    from delegate_llm.pairs import load_pair
    from delegate_llm.pairs.pair import Pair, Piece
    from delegate_llm.pairs.registry import forget_pairs, shared_pair
    from delegate_llm.policy import Budget, DelegationPolicy
    from delegate_llm.trace import Decision, Generation, Logprob, Summary, TokenLogprobs, Trace, Usage
    from delegate_llm.tracing import DelegationTracer
    from delegate_llm.watching import watch, watch_pieces

__all__ = (
    "BoundaryGate",
    "Budget",
    "CancelledError",
    "ChatDelegated",
    "DeadlineError",
    "Decision",
    "DelegateError",
    "DelegatedChatModel",
    "DelegationPolicy",
    "DelegationTracer",
    "EngineError",
    "EntropyGate",
    "GateError",
    "GateView",
    "Generation",
    "Grammar",
    "GrammarError",
    "LoadError",
    "Logprob",
    "MissingExtraError",
    "NumericsError",
    "Pair",
    "Piece",
    "PolicyError",
    "PromptError",
    "RequestError",
    "Summary",
    "TokenLogprobs",
    "Trace",
    "TurnGate",
    "Usage",
    "VocabularyMismatchError",
    "WindowGate",
    "__version__",
    "forget_pairs",
    "load_pair",
    "shared_pair",
    "watch",
    "watch_pieces",
)

_HOMES = {
    "chat_model": ("ChatDelegated", "DelegatedChatModel"),
    "errors": (
        "CancelledError",
        "DeadlineError",
        "DelegateError",
        "EngineError",
        "GateError",
        "GrammarError",
        "LoadError",
        "MissingExtraError",
        "NumericsError",
        "PolicyError",
        "PromptError",
        "RequestError",
        "VocabularyMismatchError",
    ),
    "gates": ("BoundaryGate", "EntropyGate", "GateView", "TurnGate", "WindowGate"),
    "grammar": ("Grammar",),
    "pairs": ("load_pair",),
    "pairs.pair": ("Pair", "Piece"),
    "pairs.registry": ("forget_pairs", "shared_pair"),
    "policy": ("Budget", "DelegationPolicy"),
    "trace": ("Decision", "Generation", "Logprob", "Summary", "TokenLogprobs", "Trace", "Usage"),
    "tracing": ("DelegationTracer",),
    "watching": ("watch", "watch_pieces"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
