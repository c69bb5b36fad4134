"""One at a time, in the order they came: a queue before a thread that does the work.

Models serve one generation at a time here, and everyone who waits is told how many are before them. The
thread is a daemon, so a program that ends does not wait for weights that are still being read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from delegate_llm.errors import DelegateError

__all__ = ("BusyError", "Job", "Line")

_MOST: Final = 8
"""In the line, whoever is served included."""
_PATIENCE: Final = 1.0
"""Seconds that closing waits for the job under way."""


class BusyError(DelegateError, RuntimeError):
    """Too many are waiting already; try again later."""


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """A piece of work in a line."""

    work: Callable[[], None]
    """Called in the line's thread; must not raise."""
    placed: Callable[[int], None] = lambda _: None
    """Told how many are before it whenever that changes; with 0 its turn has come. Must return at once."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set once nobody wants the work any more; the work looks at it."""


class Line:
    """Jobs, done one after the other."""

    def __init__(self, name: str, *, most: int = _MOST) -> None:
        """Open an empty line; its thread starts with the first job.

        Args:
            name: Of the thread.
            most: Jobs at once, the one under way included.
        """
        self._name = name
        self._most = most
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def enter(self, job: Job) -> None:
        """Put a job at the end.

        Raises:
            BusyError: If there are too many.
        """
        with self._changed:
            if self._closed:
                msg = "the playground ends; start it again"
                raise BusyError(msg)
            if len(self._jobs) >= self._most:
                msg = f"{len(self._jobs)} questions are before this one, the most that may wait; ask later"
                raise BusyError(msg)
            self._jobs.append(job)
            job.placed(len(self._jobs) - 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def leave(self, job: Job) -> None:
        """Nobody wants a job any more: it stops if it is under way, and never begins if it is not."""
        job.stop.set()
        with self._changed:
            if job in self._jobs[1:]:
                self._jobs.remove(job)
                self._tell()

    @property
    def empty(self) -> bool:
        """Whether nothing is under way or waiting."""
        with self._changed:
            return not self._jobs

    def close(self) -> None:
        """Let go of all who wait, stop the job under way, and wait a little for it."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.stop.set()
            del self._jobs[1:]
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.work()
            with self._changed:
                del self._jobs[0]
                self._tell()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return None if self._closed else self._jobs[0]

    def _tell(self) -> None:
        for before, job in enumerate(self._jobs):
            job.placed(before)
