"""Traces of finished answers, kept for a while: bounded in number, in age and in bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ("AGE_S", "COUNT", "TraceStore")

COUNT: Final = 1024
"""Traces that are kept at most."""
AGE_S: Final = 600.0
"""Seconds that a trace is kept at most."""
_BYTES: Final = 64 << 20


class _Kept(NamedTuple):
    until: float
    text: bytes


class TraceStore:
    """By owner and id: whoever did not make a request learns nothing of it, not even that it was."""

    def __init__(
        self,
        count: int = COUNT,
        age_s: float = AGE_S,
        *,
        size: int = _BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            count: Traces at most; the oldest go first.
            age_s: Seconds at most.
            size: Bytes at most, of all traces.
            clock: Seconds that never go back.
        """
        self._count, self._age, self._size, self._clock = count, age_s, size, clock
        self._kept: OrderedDict[tuple[bytes, str], _Kept] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def held(self) -> int:
        """Bytes of all traces."""
        return self._held

    def put(self, owner: bytes, name: str, text: bytes) -> None:
        """Keep a trace.

        Args:
            owner: Who may read it: a digest of the key that the request came with.
            name: The id of the response.
            text: JSON.
        """
        self._drop((owner, name))
        if len(text) <= self._size:
            self._kept[owner, name] = _Kept(self._clock() + self._age, text)
            self._held += len(text)
        self._expire()
        while len(self._kept) > self._count or self._held > self._size:
            self._drop(next(iter(self._kept)))

    def get(self, owner: bytes, name: str) -> bytes | None:
        """A trace, or None if there is none (any more) that this owner may read."""
        self._expire()
        kept = self._kept.get((owner, name))
        return None if kept is None else kept.text

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))  # all are kept equally long
            if self._kept[oldest].until > now:
                break
            self._drop(oldest)

    def _drop(self, key: tuple[bytes, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._held -= len(kept.text)
