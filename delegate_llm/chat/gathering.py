"""Calls that come side by side, run as one batch.

LangChain runs a batch as so many single calls, each with its own callbacks, cache and trace. `Gathering`
keeps all that and still lets the models read everything in one forward: each call brings its job here and
waits; whoever comes last runs them all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from delegate_llm.errors import CancelledError

__all__ = ("Gathering", "Seat", "free_seat", "gathered", "seated")

Job = TypeVar("Job")
Result = TypeVar("Result")


class Gathering(Generic[Job, Result]):
    """A number of calls that are awaited, and the jobs of those that came."""

    def __init__(self, seats: int, run: Callable[[Sequence[Job]], Sequence[Result | BaseException]]) -> None:
        """Wait for `seats` calls.

        Args:
            seats: How many calls there are; each must `bring` a job or leave.
            run: Runs all jobs; the result or the error of each, in order.
        """
        self._lock = threading.Lock()
        self._awaited = seats
        self._run = run
        self._jobs: list[tuple[Job, Future[Result]]] = []

    def bring(self, job: Job) -> Future[Result]:
        """Bring the job of one call; if it is the last, all are run before this returns."""
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up must not make it refuse its result
        self._leave([(job, future)])
        return future

    def leave(self) -> None:
        """One call needs nothing run, or has failed; if it was the last awaited, the others are run."""
        self._leave([])

    def _leave(self, brought: list[tuple[Job, Future[Result]]]) -> None:
        with self._lock:
            self._jobs += brought
            self._awaited -= 1
            if self._awaited:
                return
        try:
            results = self._run([job for job, _ in self._jobs]) if self._jobs else []
        except BaseException as error:
            for _, future in self._jobs:
                future.set_exception(error)
            raise
        for (_, future), result in zip(self._jobs, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)


class Seat:
    """The place of one call in a gathering: it brings a job or leaves, once, whichever comes first."""

    def __init__(self, gathering: Gathering[Any, Any]) -> None:
        """Take a place in a gathering."""
        self._gathering = gathering
        self._claim = threading.Lock()

    @property
    def free(self) -> bool:
        """Whether the call may still bring its job."""
        return not self._claim.locked()

    def bring(self, job: Any) -> Future[Any]:
        """As `Gathering.bring`; raises `CancelledError` if the call has left, as a cancelled one does."""
        if not self._claim.acquire(blocking=False):
            msg = "the call has left its batch"
            raise CancelledError(msg)
        return self._gathering.bring(job)

    def leave(self) -> None:
        """As `Gathering.leave`, unless the job was brought."""
        if self._claim.acquire(blocking=False):
            self._gathering.leave()


# What a batch opens, and the seat that each of its calls takes in a context of its own.
_OPEN: ContextVar[tuple[object, Gathering[Any, Any]] | None] = ContextVar("delegate_llm_batch", default=None)
_SEAT: ContextVar[tuple[object, Seat] | None] = ContextVar("delegate_llm_seat", default=None)


@contextmanager
def gathered(owner: object, gathering: Gathering[Any, Any]) -> Iterator[None]:
    """Calls to `owner` that start within this context belong to a gathering."""
    token = _OPEN.set((owner, gathering))
    try:
        yield
    finally:
        _OPEN.reset(token)


@contextmanager
def seated(owner: object) -> Iterator[Seat | None]:
    """One call to `owner`: it has a seat if it belongs to a gathering, and gives it up at its end.

    Yields:
        The seat; whoever got one has to see to it that it is left, if it was not taken.
    """
    opened = _OPEN.get()
    seat = Seat(opened[1]) if opened is not None and opened[0] is owner else None
    # What this call starts itself, in a callback say, has nothing to do with the batch.
    tokens = _OPEN.set(None), _SEAT.set((owner, seat) if seat else None)
    try:
        yield seat
    finally:
        _OPEN.reset(tokens[0])
        _SEAT.reset(tokens[1])


def free_seat(owner: object) -> Seat | None:
    """The seat of the call to `owner` that runs in this context, unless it was taken already."""
    found = _SEAT.get()
    return found[1] if found and found[0] is owner and found[1].free else None
