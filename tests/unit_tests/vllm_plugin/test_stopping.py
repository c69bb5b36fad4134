"""Drafts in the engine end where going on does not pay; a clock that the tests move says what pays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from seated import request

from delegate_llm.policy import DelegationPolicy
from delegate_llm.vllm_plugin.acceptance import NOTHING, Block, judge
from delegate_llm.vllm_plugin.seats import Drawing, Seats
from delegate_llm.vllm_plugin.stopping import Stopping

END = 7
SIZE = 8


class Engine:
    """Seats, and a clock: a drafted position takes a second, the rest of a step as many as is said."""

    def __init__(self, *policies: dict[str, Any], most: int = 100, rest: float = 8.0) -> None:
        self.now, self.rest = 0.0, rest
        self.seats = Seats(torch.device("cpu"), DelegationPolicy(), Drawing(), lambda: str)
        names = [f"answer {at}" for at in range(len(policies))]
        requests = {name: request(policy, most, END) for name, policy in zip(names, policies, strict=True)}
        self.seats.arrange(names, requests)
        self.stopping = Stopping(self.seats, lambda: self.now)

    def draft(self, *rows: list[tuple[int, float]], most: int = 20) -> int:
        """Draft what is given for each answer, tokens and how sure the base is of each; positions drafted."""
        self.stopping.begin()
        for at in range(most):
            self.now += 1
            logits = torch.zeros(len(rows), SIZE)
            for row, said in enumerate(rows):
                token, sure = said[min(at, len(said) - 1)]
                logits[row, token] = sure
            if self.stopping.is_time(logits, logits.argmax(-1)):
                break
        self.now += self.rest
        return at + 1

    def settle(self, *counts: int, drafted: int) -> None:
        """Let each answer's draft stand up to a takeover at its last position; whole if that is beyond it."""
        rows = len(counts)
        token = torch.ones(rows, drafted, dtype=torch.int64)
        block = Block(
            exists=torch.ones(rows, drafted, dtype=torch.bool),
            draft=torch.cat([token[:, 1:], torch.full((rows, 1), NOTHING)], 1),
            base=token,
            reasoner=token + 1,
            score=torch.stack([100.0 * (torch.arange(drafted) == count - 1) for count in counts]).double(),
            entropy=torch.zeros(rows, drafted, dtype=torch.float64),
        )
        verdicts, self.seats.standings = judge(self.seats.rules, self.seats.standings, block)
        self.stopping.learn(block, verdicts)


SURE, UNSURE = (1, 50.0), (1, 0.0)
DELEGATED, ALONE = {"threshold": 2.0}, {"budget": 0}  # an unsure base has ln 8 nats


def paced(*policies: dict[str, Any], **settings: Any) -> Engine:
    """One that knows how long its steps take."""
    engine = Engine(*policies, **settings)
    drafted = engine.draft(*[[SURE]] * len(policies), most=4)
    engine.settle(*[9] * len(policies), drafted=drafted)
    return engine


def test_a_sure_base_drafts_on_and_an_unsure_one_is_read_at_once() -> None:
    assert paced(DELEGATED, rest=2.0).draft([SURE]) > 8
    assert paced(DELEGATED, rest=2.0).draft([SURE, SURE, SURE, UNSURE, SURE]) == 4


def test_who_does_not_listen_has_no_reason_to_stop() -> None:
    assert paced(ALONE).draft([UNSURE]) == 20
    spent = paced({"threshold": 2.0, "budget": 1})
    spent.settle(1, drafted=1)
    assert spent.draft([UNSURE]) == 20


def test_where_gates_are_closed_nothing_is_expected() -> None:
    closed = {**DELEGATED, "gates": [{"kind": "entropy", "above": 3.0}]}
    assert paced(closed, rest=2.0).draft([UNSURE]) > 8


def test_a_draft_ends_with_the_answer_and_is_read_up_to_there() -> None:
    engine = paced(DELEGATED)
    assert engine.draft([SURE, SURE, (END, 50.0)]) == 3
    assert engine.stopping.lengths() == [2]
    engine = paced(ALONE, ALONE)
    assert engine.draft([(END, 50.0)], [SURE], most=6) == 6  # the other one goes on
    assert engine.stopping.lengths() == [0, 5]
    engine = paced(ALONE, most=7)  # four of them are said
    assert engine.draft([SURE]) == 3
    assert engine.stopping.lengths() == [2]


@pytest.mark.parametrize(("rest", "least", "most"), [(0.0, 1, 1), (0.5, 8, 12), (200.0, 15, 20)])
def test_the_dearer_the_rest_of_a_step_the_longer_the_draft(rest: float, least: int, most: int) -> None:
    assert least <= paced(DELEGATED, rest=rest).draft([SURE]) <= most


def test_takeovers_that_entropies_do_not_foretell_shorten_drafts() -> None:
    engine = paced(DELEGATED)
    before = engine.draft([SURE], most=12)
    engine.settle(12, drafted=before)
    for _ in range(40):
        drafted = engine.draft([SURE], most=12)
        engine.settle(min(3, drafted), drafted=drafted)
    assert engine.draft([SURE], most=12) < before


def test_a_long_wait_for_requests_is_not_taken_for_a_dear_step() -> None:
    engine, other = paced(DELEGATED), paced(DELEGATED)
    engine.now += 1e6
    assert engine.draft([SURE]) <= other.draft([SURE]) + 2


def test_no_number_stops_nothing() -> None:
    engine = paced(DELEGATED)
    engine.stopping.begin()
    engine.now += 1
    assert not engine.stopping.is_time(torch.full((1, SIZE), torch.nan), torch.tensor([1]))
    engine.settle(9, drafted=1)
    assert engine.draft([SURE]) > 4
