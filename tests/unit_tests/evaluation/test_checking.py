"""A policy on other prompts: what it spends there, and what it does not see."""

from __future__ import annotations

import math

import pytest

from delegate_llm import Pair, load_pair
from delegate_llm.evaluation.checking import audit, check, parts
from delegate_llm.evaluation.statistics import Estimate, wilson
from delegate_llm.evaluation.tasks import Task, shipped_tasks
from delegate_llm.policy import DelegationPolicy

TASKS = shipped_tasks(24, seed=9)
GATED = DelegationPolicy(threshold=0.5, gates={"entropy": 0.5})


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


def test_a_check_counts_what_was_spent_and_what_was_right(pair: Pair) -> None:
    policy, steps = DelegationPolicy(threshold=0.5), []
    found, made = check(pair, TASKS, policy, batch=10, settings={"max_tokens": 200}, done=steps.append)
    assert steps == [10, 10, 4] * 2
    one_by_one = [pair.generate(list(task.messages), policy=policy) for task in TASKS]
    counts = [each.trace.summary for each in one_by_one]
    assert found.tokens == sum(each.tokens for each in counts)
    assert found.takeovers == sum(each.takeovers for each in counts)
    assert found.share.value == pytest.approx(found.takeovers / found.tokens)
    assert found.share.low < found.share.value < found.share.high
    assert found.asked == (1.0, 1.0, 1.0)
    assert [each.generation.text for each in made] == [each.text for each in one_by_one]
    right = sum(
        f"The answer is {task.answer}." in each.text for task, each in zip(TASKS, one_by_one, strict=True)
    )
    assert (found.answers, found.graded, found.correct) == (24, 24, right)
    assert found.base_correct is not None
    assert found.base_correct < right


def test_tasks_without_answers_are_not_graded_and_cost_no_second_run(pair: Pair) -> None:
    tasks, steps = [Task(each.id, each.messages) for each in TASKS[:4]], []
    found, _ = check(pair, tasks, DelegationPolicy(threshold=0.5), done=steps.append)
    assert (found.graded, found.correct, found.base_correct, steps) == (0, None, None, [4])


def test_an_audit_of_everything_finds_every_miss(pair: Pair) -> None:
    found, made = check(pair, TASKS, GATED)
    assert found.asked.value < 0.2
    audited = audit(pair, made, GATED, count=10**6, batch=7)
    missed = 0
    for one in made:
        trace = pair.score(list(one.job.task.messages), one.generation.token_ids)
        for decided, scored in zip(one.generation.trace.decisions, trace.decisions, strict=True):
            assert scored.score is not None
            missed += not decided.asked and scored.score > GATED.threshold
    assert audited.missed == missed > 0
    assert audited.audited == audited.skipped == found.tokens - round(found.asked.value * found.tokens)
    assert audited.missed_per_thousand.value == pytest.approx(1000 * missed / found.tokens)
    assert audited.missed_share.value == pytest.approx(missed / (missed + found.takeovers))


def test_an_audit_of_some_draws_them_by_the_seed(pair: Pair) -> None:
    _, made = check(pair, TASKS, GATED)
    some = audit(pair, made, GATED, count=100, seed=4)
    assert (some.audited, audit(pair, made, GATED, count=100, seed=4)) == (100, some)
    low, high = wilson(some.missed, 100)
    share = some.skipped / sum(each.generation.trace.summary.tokens for each in made)
    assert some.missed_per_thousand[1:] == pytest.approx((1000 * low * share, 1000 * high * share))
    whole = audit(pair, made, GATED, count=10**6)
    assert some.missed_per_thousand.low <= whole.missed_per_thousand.value <= some.missed_per_thousand.high
    assert some.missed_share.low <= whole.missed_share.value <= some.missed_share.high


def test_where_everything_was_asked_nothing_was_missed(pair: Pair) -> None:
    policy = DelegationPolicy(threshold=0.5)
    _, made = check(pair, TASKS[:3], policy)
    found = audit(pair, made, policy)
    assert (found.skipped, found.audited, found.missed) == (0, 0, 0)
    assert found.missed_per_thousand == found.missed_share == (0, 0, 0)


@pytest.mark.parametrize(
    ("realised", "said"),
    [
        (Estimate(0.08, 0.07, 0.09), None),
        (Estimate(0.1, 0.06, 0.14), None),
        (Estimate(0.06, math.nan, math.nan), None),  # one answer has no interval
        (Estimate(0.07, 0.065, 0.075), "outside the interval of the realised one, 0.065 to 0.075"),
        (Estimate(0.09, 0.085, 0.1), "outside the interval"),
        (Estimate(0.03, 0.01, 0.09), "the realised share 0.03 is more than 50% off the nominal 0.08"),
        (Estimate(0.00021, 0.0001, 0.001), "the realised share 0.00021 is more than"),
        (Estimate(0.13, 0.07, 0.2), "more than 50% off"),
        (Estimate(math.nan, math.nan, math.nan), "more than 50% off"),
    ],
)
def test_shares_that_part_are_said(realised: Estimate, said: str | None) -> None:
    found = parts(0.08, realised)
    assert found is None if said is None else said in (found or "")
