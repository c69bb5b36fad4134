"""Single values that users give, checked at the door: each error names the setting and the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from delegate_llm.errors import RequestError

__all__ = ("flag", "hook", "integer", "number", "seconds")


def integer(name: str, value: Any, *, low: int | None = None) -> int:
    """An integer, numpy's among them; True and False are none.

    Raises:
        RequestError: If it is none, or below `low`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or (low is not None and value < low):
        least = "" if low is None else f" of at least {low}"
        msg = f"{name}: {value!r:.80} is not an integer{least}"
        raise RequestError(msg)
    return int(value)


def number(name: str, value: Any, *, low: float) -> float:
    """A finite number.

    Raises:
        RequestError: If it is none, or below `low`.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"{name}: {value!r:.80} is not a number"
        raise RequestError(msg)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not (math.isfinite(found) and found >= low):
        msg = f"{name}: {value!r:.80} is not a finite number of at least {low:g}"
        raise RequestError(msg)
    return found


def seconds(name: str, value: Any) -> float:
    """A time, that may be infinite.

    Raises:
        RequestError: If it is none, or not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        msg = f"{name}: {value!r:.80} is not a number of seconds above 0"
        raise RequestError(msg)
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that only looks like it.

    Raises:
        RequestError: If it is neither.
    """
    if not isinstance(value, bool):
        msg = f"{name}: {value!r:.80} is neither True nor False"
        raise RequestError(msg)
    return value


def hook(name: str, value: Callable[[], object] | None) -> None:
    """Something to be called, or nothing.

    Raises:
        RequestError: If it is neither.
    """
    if value is not None and not callable(value):
        msg = f"{name}: {value!r:.80} cannot be called"
        raise RequestError(msg)
