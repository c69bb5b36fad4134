"""The line before a pair: one at a time, in order, and nobody holds it up by leaving."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.playground.line import BusyError, Job, Line

PATIENCE_S = 20.0


class Held:
    """A job that says that it has begun, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.places: list[int] = []
        self.job = Job(self._work, self.places.append)

    def _work(self) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE_S)


@given(leaving=st.lists(st.booleans(), max_size=6))
def test_all_who_stay_are_served_in_order(leaving: list[bool]) -> None:
    line, first, served = Line("test"), Held(), []
    line.enter(first.job)
    assert first.begun.wait(PATIENCE_S)
    places: list[list[int]] = [[] for _ in leaving]
    jobs = [Job(lambda at=at: served.append(at), places[at].append) for at in range(len(leaving))]
    for job in jobs:
        line.enter(job)
    for job, leaves in zip(jobs, leaving, strict=True):
        if leaves:
            line.leave(job)
    done = threading.Event()
    line.enter(Job(done.set))
    first.go.set()
    assert done.wait(PATIENCE_S)
    line.close()
    assert served == [at for at, leaves in enumerate(leaving) if not leaves]
    for at, leaves in enumerate(leaving):
        assert places[at][0] == at + 1
        assert places[at] == sorted(places[at], reverse=True)
        assert jobs[at].stop.is_set() == leaves
        assert leaves or places[at][-1] == 0


def test_a_full_line_takes_nobody() -> None:
    line, first = Line("test", most=2), Held()
    line.enter(first.job)
    assert first.begun.wait(PATIENCE_S)
    waiting = Job(lambda: None)
    line.enter(waiting)
    with pytest.raises(BusyError, match=r"2 questions are before"):
        line.enter(Job(lambda: None))
    line.leave(waiting)
    line.enter(Job(lambda: None))
    first.go.set()
    line.close()


def test_leaving_under_way_only_asks_the_work_to_stop() -> None:
    line, first, after = Line("test"), Held(), Held()
    line.enter(first.job)
    assert first.begun.wait(PATIENCE_S)
    line.enter(after.job)
    line.leave(first.job)
    assert first.job.stop.is_set()
    assert not after.begun.is_set()
    first.go.set()
    assert after.begun.wait(PATIENCE_S)
    after.go.set()
    line.close()


def test_a_closed_line_is_over() -> None:
    line, first, never = Line("test"), Held(), Held()
    line.enter(first.job)
    line.enter(never.job)
    assert first.begun.wait(PATIENCE_S)
    first.go.set()
    line.close()
    assert first.job.stop.is_set()
    with pytest.raises(BusyError, match=r"ends"):
        line.enter(Job(lambda: None))
