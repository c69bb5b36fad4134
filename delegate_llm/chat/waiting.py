"""Calls of pairs that run elsewhere: their threads only wait, so there may be many of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache, partial
from typing import Any, Final, TypeVar

from langchain_core.runnables.config import run_in_executor

__all__ = ("AT_ONCE", "aside", "elsewhere")

AT_ONCE: Final = 512
"""Threads at most."""
_Value = TypeVar("_Value")


def elsewhere(pair: Any) -> bool:
    """Whether a pair's models run in an engine or on a server, which bring calls together themselves."""
    from delegate_llm.pairs.telling import Hosted  # noqa: PLC0415 - brings torch

    return isinstance(pair.base, Hosted)


async def aside(pair: Any, work: Callable[..., _Value], *given: Any) -> _Value:
    """Do some work of a call of a pair in a thread.

    Where this process does the work itself, the event loop's own threads are enough.
    """
    if not elsewhere(pair):
        return await run_in_executor(None, work, *given)
    return await run_in_executor(_threads(os.getpid()), partial(copy_context().run, work, *given))


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of a process; a fork has none of its parent's."""
    return ThreadPoolExecutor(AT_ONCE, f"delegate-llm-call-{process}")
