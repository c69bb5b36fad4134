"""The package's own errors: each message says what was wrong, with which value, and what to do.

Everything raised on purpose derives from `DelegateError`; the subclasses also derive from the builtin
that a caller would expect, so `except ValueError` keeps working.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = (
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
    "require",
)


class DelegateError(Exception):
    """Base of every error that this package raises on purpose."""


class PolicyError(DelegateError, ValueError):
    """A policy, budget or trace that cannot be: an unknown name, a number out of range, bad JSON."""


class CancelledError(DelegateError, RuntimeError):
    """A call was cancelled while the models were at it; they have stopped."""


class DeadlineError(DelegateError, TimeoutError):
    """A call took longer than its `timeout`; the models have stopped."""


class EngineError(DelegateError, RuntimeError):
    """The engine that carries the models has stopped, or a server cannot be reached or has failed."""


class GateError(DelegateError, RuntimeError):
    """A user's gate raised while it was asked about a position; the cause is chained."""


class RequestError(DelegateError, ValueError):
    """A generation setting out of range: `max_tokens`, `temperature`, `top_p`, `stop`, ..."""


class GrammarError(RequestError):
    """A schema or grammar that cannot be followed: not one, or not one that the grammar engine takes."""


class PromptError(DelegateError, ValueError):
    """A prompt that cannot be used: empty, too long, of a wrong type, or without a chat template."""


class LoadError(DelegateError, OSError):
    """A checkpoint that cannot be loaded, or two that cannot be made into a pair."""


class VocabularyMismatchError(LoadError):
    """The two tokenizers do not give the same meaning to the same token ids."""


class NumericsError(DelegateError, ArithmeticError):
    """A model returned logits from which no token can be drawn (NaN, or nothing finite)."""


class MissingExtraError(DelegateError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def require(module: str, extra: str) -> Any:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: The module to import, such as `"peft"`.
        extra: The extra of this distribution that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        msg = f"this needs `{module}`, which is not installed: pip install 'delegate-llm[{extra}]'"
        raise MissingExtraError(msg) from error
