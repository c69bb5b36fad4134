"""Calls that come side by side run as one batch, and nobody waits for one that has left."""

from __future__ import annotations

import pytest

from delegate_llm import CancelledError
from delegate_llm.chat.gathering import Gathering, Seat, free_seat, gathered, seated


def test_the_last_one_runs_them_all() -> None:
    ran: list[list[int]] = []

    def run(jobs: list[int]) -> list[int]:
        ran.append(list(jobs))
        return [10 * each for each in jobs]

    gathering = Gathering(3, run)
    seats = [Seat(gathering) for _ in range(3)]
    first = seats[0].bring(1)
    seats[1].leave()
    assert not first.done()
    assert seats[2].bring(3).result() == 30
    assert (first.result(), ran) == (10, [[1, 3]])


def test_a_seat_is_used_once() -> None:
    gathering = Gathering(2, lambda jobs: jobs)
    seats = [Seat(gathering), Seat(gathering)]
    seats[0].leave()
    seats[0].leave()  # counts once, so the other is still awaited
    with pytest.raises(CancelledError):
        seats[0].bring(1)
    assert seats[1].free
    assert seats[1].bring(2).result() == 2
    seats[1].leave()
    assert not seats[1].free


def test_errors_reach_whose_they_are() -> None:
    gathering = Gathering(2, lambda jobs: [ValueError("mine"), 7])
    one, other = gathering.bring("a"), gathering.bring("b")
    with pytest.raises(ValueError, match="mine"):
        one.result()
    assert other.result() == 7


def test_a_call_within_a_call_has_no_seat() -> None:
    owner = object()
    with gathered(owner, Gathering(1, lambda jobs: jobs)):
        with seated(object()) as seat:
            assert seat is None
        with seated(owner) as seat:
            assert seat is not None
            assert free_seat(owner) is seat
            with seated(owner) as nested:
                assert nested is None
                assert free_seat(owner) is None
            seat.leave()
            assert free_seat(owner) is None
