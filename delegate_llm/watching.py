"""Being told of takeovers while they happen, wherever in a chain, an agent or a graph the model is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from delegate_llm.trace import Decision

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Piece

__all__ = ("watch", "watch_pieces", "watcher")

_WATCHER: ContextVar[Callable[[Piece], object] | None] = ContextVar("delegate_llm_watcher", default=None)


@contextmanager
def watch_pieces(told: Callable[[Piece], object]) -> Iterator[None]:
    """Within this context, every piece of an answer is told as soon as it stands, with its decisions.

    It reaches what runs in the context, threads and tasks that LangChain and LangGraph start there too,
    and every route but `batch`, whether the caller streams or not.

    Args:
        told: Called with the `Piece`, in the thread that decodes; what it raises ends the call. Who
            watches from further outside is told first.
    """
    outer = _WATCHER.get()

    def both(piece: Piece) -> None:
        if outer is not None:
            outer(piece)
        told(piece)

    token = _WATCHER.set(both)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def watch(told: Callable[[Decision], object]) -> Iterator[None]:
    """Within this context, every takeover of a chat model is told as it happens; see `watch_pieces`.

    Args:
        told: Called with the `Decision`, in the thread that decodes; what it raises ends the call.
    """

    def takeovers(piece: Piece) -> None:
        for decision in piece.decisions:
            if decision.takeover:
                told(decision)

    with watch_pieces(takeovers):
        yield


def watcher() -> Callable[[Piece], object] | None:
    """Who is to be told in this context, if anyone."""
    return _WATCHER.get()
