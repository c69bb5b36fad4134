"""Reasoning at base-model cost: a base writes, a reasoner is heard at the few tokens that decide.

    from delegate_llm import load_pair

    pair = load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    answer = pair.generate([{"role": "user", "content": "..."}])
    print(answer.text, answer.trace.summary)

Names are imported when they are first used, so `import delegate_llm` is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from delegate_llm._version import __version__

if TYPE_CHECKING:
    from delegate_llm.errors import (
        DelegateError,
        GateError,
        LoadError,
        MissingExtraError,
        NumericsError,
        PolicyError,
        PromptError,
        RequestError,
        VocabularyMismatchError,
    )
    from delegate_llm.gates import BoundaryGate, EntropyGate, GateView, WindowGate
    from delegate_llm.pairs import load_pair
    from delegate_llm.pairs.pair import Pair, Piece
    from delegate_llm.policy import Budget, DelegationPolicy
    from delegate_llm.trace import Decision, Generation, Summary, Trace, Usage

__all__ = (
    "BoundaryGate",
    "Budget",
    "Decision",
    "DelegateError",
    "DelegationPolicy",
    "EntropyGate",
    "GateError",
    "GateView",
    "Generation",
    "LoadError",
    "MissingExtraError",
    "NumericsError",
    "Pair",
    "Piece",
    "PolicyError",
    "PromptError",
    "RequestError",
    "Summary",
    "Trace",
    "Usage",
    "VocabularyMismatchError",
    "WindowGate",
    "__version__",
    "load_pair",
)

_HOMES = {
    "errors": (
        "DelegateError",
        "GateError",
        "LoadError",
        "MissingExtraError",
        "NumericsError",
        "PolicyError",
        "PromptError",
        "RequestError",
        "VocabularyMismatchError",
    ),
    "gates": ("BoundaryGate", "EntropyGate", "GateView", "WindowGate"),
    "pairs": ("load_pair",),
    "pairs.pair": ("Pair", "Piece"),
    "policy": ("Budget", "DelegationPolicy"),
    "trace": ("Decision", "Generation", "Summary", "Trace", "Usage"),
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
