"""The numbers of a run, on answers whose numbers are known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from delegate_llm.evaluation.arms import Arm, control
from delegate_llm.evaluation.run_summary import markdown
from delegate_llm.evaluation.run_table import comparisons, rows
from delegate_llm.policy import DelegationPolicy

POLICY = DelegationPolicy()
ARMS = [
    Arm("base", "base"),
    Arm("reasoner", "reasoner"),
    Arm("delegated 0.1", "delegated", POLICY, 0.1),
    Arm("random for delegated 0.1", "random", POLICY, 0.1, "delegated 0.1"),
]
RIGHT = {
    "base": [[0, 0], [0, 0], [0, 1], [1, 1]],
    "reasoner": [[1, 1], [1, 1], [1, 1], [1, 0]],
    "delegated 0.1": [[1, 1], [0, 1], [1, 1], [0, 1]],
    "random for delegated 0.1": [[0, 0], [0, 0], [1, 0], [1, 1]],
}


def record(arm: str, task: int, sample: int, *, correct: int) -> dict[str, Any]:
    usage = {f"{who}_{what}": 2.0 for who in ("base", "reasoner") for what in ("forwards", "tokens", "flops")}
    return {
        "arm": arm,
        "task": str(task),
        "sample": sample,
        "correct": bool(correct),
        "parsed": "1" if correct else None,
        "finish_reason": "stop" if correct else "length",
        "summary": {"tokens": 10 + task, "takeovers": 1 + sample, "asked": 5},
        "usage": usage,
        "seconds": 0.5,
    }


@pytest.fixture(params=[0, 1, 2])
def records(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    found = [
        record(arm, task, sample, correct=correct)
        for arm, tasks in RIGHT.items()
        for task, samples in enumerate(tasks)
        for sample, correct in enumerate(samples)
    ]
    # A resumed run wrote them in another order.
    return [found[at] for at in np.random.default_rng(request.param).permutation(len(found))]


def test_what_each_arm_found(records: list[dict[str, Any]]) -> None:
    base, reasoner, delegated, random = rows(ARMS, records)
    assert [each.accuracy.value for each in (base, reasoner, delegated, random)] == [
        3 / 8,
        7 / 8,
        6 / 8,
        3 / 8,
    ]
    assert delegated.pass_at[1].value == delegated.accuracy.value
    assert [each.pass_at[2].value for each in (base, reasoner, delegated)] == [0.5, 1.0, 1.0]
    assert delegated.recovery is not None
    assert delegated.recovery.value == pytest.approx(3 / 4)
    assert (delegated.to_right, delegated.to_wrong) == (4, 1)
    assert (base.to_right, base.to_wrong, base.share) == (0, 0, None)
    assert delegated.share is not None
    assert delegated.share.value == pytest.approx(12 / (2 * (10 + 11 + 12 + 13)))
    assert delegated.share.low < delegated.share.value < delegated.share.high
    assert (delegated.unread, delegated.ended) == (2, {"length": 2, "stop": 6})
    assert (delegated.tokens, delegated.reasoner_forwards, delegated.seconds) == (11.5, 2.0, 0.5)
    assert delegated.asked == pytest.approx(40 / 92)
    assert reasoner.pass_at[2].low < 1, "four tasks solved of four do not prove that all will be"


def test_differences_are_taken_task_by_task(records: list[dict[str, Any]]) -> None:
    found = {each.other: each for each in comparisons(ARMS, records)}
    assert list(found) == ["base", "reasoner", "random for delegated 0.1"]
    for other, each in found.items():
        one, two = (np.mean(RIGHT[name], axis=1) for name in ("delegated 0.1", other))
        assert each.difference.value == pytest.approx(np.mean(one - two))
        expected = stats.permutation_test(
            (one, two),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            vectorized=True,
        )
        assert each.p == pytest.approx(expected.pvalue)
        assert each.p <= each.p_holm <= 1


def test_no_interval_where_all_tasks_say_the_same() -> None:
    arms = [Arm("base", "base"), Arm("reasoner", "reasoner"), Arm("all", "delegated", DelegationPolicy())]
    same = [record(arm.name, task, 0, correct=arm.kind != "base") for arm in arms for task in range(3)]
    found = rows(arms, same)[-1]
    assert found.recovery is not None
    assert found.recovery.value == 1.0
    assert math.isnan(found.recovery.low)
    assert found.accuracy.low < found.accuracy.high == 1.0, "Wilson's"
    by_other = {each.other: each.difference for each in comparisons(arms, same)}
    assert by_other["reasoner"].value == 0.0
    assert math.isnan(by_other["reasoner"].high)


def test_no_gap_has_no_recovery(records: list[dict[str, Any]]) -> None:
    swapped = [ARMS[1], ARMS[0], ARMS[2]]
    assert [each.recovery for each in rows(swapped, records)] == [None] * 3


def test_the_table_as_markdown(records: list[dict[str, Any]]) -> None:
    lines = markdown(rows(ARMS, records)).splitlines()
    assert len(lines) == 2 + len(ARMS)
    assert len({line.count("|") for line in lines}) == 1
    assert "pass@2" in lines[0]
    assert json.dumps(lines)


@pytest.mark.parametrize("share", [0.02, 0.11, 0.5])
@pytest.mark.parametrize("tokens", [7.5, 40.0, 1000.0])
def test_first_positions_spend_the_share(share: float, tokens: float) -> None:
    policy = control("early", share=share, tokens=tokens, entropies=[])
    assert policy is not None
    first = policy.gates[0].first
    assert first * (1 - policy.threshold) / tokens == pytest.approx(share)
    assert first - 1 < share * tokens


def test_controls_of_nothing() -> None:
    assert control("random", share=0.0, tokens=10, entropies=[1.0]) is None
    assert control("entropy", share=0.1, tokens=10, entropies=[]) is None
    entropy = control("entropy", share=0.25, tokens=10, entropies=[0.0, 1.0, 2.0, 3.0, 4.0])
    assert (entropy.divergence, entropy.threshold) == ("entropy", 3.0)
