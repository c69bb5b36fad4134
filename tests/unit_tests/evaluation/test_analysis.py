"""What is said of scored tokens, on answers for which it is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listened import answer
from scipy import integrate, stats

from delegate_llm.evaluation.analysis import OVERLAPS, predicted, roc, summarize
from delegate_llm.evaluation.statistics import auroc
from delegate_llm.evaluation.tokens import token_table
from delegate_llm.evaluation.words import read_lexicon

LEXICON = read_lexicon()
PLAN = ("so", 9.0, 2.0)
STEP = (" 4", 1.0, 0.1)


def summary(answers: list, share: float = 0.1, resamples: int = 200) -> dict:
    return summarize(token_table(answers, LEXICON, share), share, resamples=resamples)


def flat(found: dict) -> tuple[float, float, float]:
    return found["value"], found["low"], found["high"]


def test_one_plan_word_in_ten_tokens_is_found_to_carry_the_half() -> None:
    """Ten answers, each a plan word of score 9 before nine numbers of score 1."""
    found = summary([answer(str(at), [PLAN, *[STEP] * 9]) for at in range(10)])
    assert found["counts"] == {
        "answers": 10,
        "tokens": 100,
        "sentences": 10,
        "graded": 0,
        "correct": 0,
        "finish_reasons": {"stop": 10},
    }
    assert found["score"]["mean"] == pytest.approx(1.8)
    assert (found["score"]["quantiles"]["0.5"], found["score"]["quantiles"]["1.0"]) == (1.0, 9.0)
    # Two values: Gini is the share of the sum that the few have, less the share that they are.
    assert flat(found["gini"]) == pytest.approx((0.4, 0.4, 0.4))
    assert [each["fraction"] for each in found["carriers"]] == [0.5, 0.8, 0.9]
    assert [each["tokens"]["value"] for each in found["carriers"]] == pytest.approx([0.1, 0.64, 0.82])
    assert found["top"] == {"share": 0.1, "tokens": 10, "least": 9.0}
    words = found["words"]
    assert words["planning"]["over_representation"] == {"value": 10.0, "low": 10.0, "high": 10.0}
    assert words["execution"]["over_representation"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert words["planning_to_execution"] == {"value": None, "low": None, "high": None}  # none above
    assert words["planning"]["rate"] == 1.0
    assert [each["iou"]["value"] for each in found["overlap"]] == pytest.approx([1.0] * 4 + [1.0])
    assert found["wrong_answers"]["reason"] == "the tasks have no answers to grade by"
    tenths = found["position"]["answer"]
    assert [each["mean"]["value"] for each in tenths] == pytest.approx([9] + [1] * 9)
    assert [each["sum"] for each in tenths] == pytest.approx([0.5] + [0.5 / 9] * 9)
    assert [each["top"] for each in tenths] == pytest.approx([1] + [0] * 9)
    assert [each["tokens"] for each in tenths] == pytest.approx([10] * 10)


def test_the_lorenz_curve_bends_where_the_few_begin() -> None:
    found = summary([answer(str(at), [PLAN, *[STEP] * 9]) for at in range(10)])["lorenz"]
    curve = dict(zip(np.round(found["tokens"], 2), found["score"], strict=True))
    assert (curve[0.0], curve[0.9], curve[1.0]) == pytest.approx((0.0, 0.5, 1.0))
    assert curve[0.45] == pytest.approx(0.25)


def test_odds_are_the_ratio_of_the_rates_at_which_classes_are_among_the_top() -> None:
    """Of 20 plan words 10 are on top, of 80 numbers 10: rates of 1/2 and 1/8."""
    one = [PLAN, (" so", 0.0, 0.0), (" 4", 9.0, 0.0), *[(" 4", 0.0, 0.0)] * 7]
    found = summary([answer(str(at), one) for at in range(10)], 0.2)
    assert flat(found["words"]["planning_to_execution"]) == pytest.approx((4.0, 4.0, 4.0))
    assert found["words"]["planning"]["over_representation"]["value"] == pytest.approx(0.5 / 0.2)
    assert (found["words"]["planning"]["rate"], found["words"]["execution"]["rate"]) == (0.5, 0.125)


def test_scores_that_lie_elsewhere_than_entropy_do_not_overlap_with_it() -> None:
    tokens = [("a", float(at), float(-at % 100)) for at in range(100)]
    found = summary([answer("a", tokens), answer("b", tokens)])
    by_share = {each["share"]: each for each in found["overlap"]}
    assert tuple(by_share) == OVERLAPS
    assert by_share[0.1]["iou"]["value"] == 0.0
    # By lot, two sets of 20 of 200 share 2 on average.
    assert by_share[0.1]["chance"] == pytest.approx(2 / 38)


@pytest.mark.parametrize(
    ("correct", "reason"),
    [
        ([None, None, None], "the tasks have no answers to grade by"),
        ([True, True, None], "all 2 answers are right"),
        ([False, False, False], "all 3 answers are wrong"),
    ],
)
def test_nothing_is_predicted_where_there_is_one_outcome(correct: list, reason: str) -> None:
    found = summary([answer(str(at), [PLAN, STEP], each) for at, each in enumerate(correct)])["wrong_answers"]
    assert (found["reason"], found["score"], found["entropy"]) == (reason, None, None)
    assert found["wrong"] == correct.count(False)


def test_few_right_answers_give_no_interval() -> None:
    rng = np.random.default_rng(5)
    answers = [
        answer(str(at), [("w", float(each), 1.0) for each in rng.exponential(1, 20)], correct=at < 4)
        for at in range(60)
    ]
    found = summary(answers)["wrong_answers"]
    assert found["caveat"].startswith("only 4 right answers: too few")
    for name in ("score", "difference"):
        assert (found[name]["low"], found[name]["high"]) == (None, None)
        assert found[name]["value"] is not None


def test_wrong_answers_are_predicted_as_the_rank_test_says() -> None:
    rng = np.random.default_rng(3)
    answers = []
    for at in range(60):
        scores, entropies = rng.exponential(1 + at % 3, 25), rng.exponential(1, 25)
        tokens = [("w", *each) for each in zip(scores.tolist(), entropies.tolist(), strict=True)]
        answers.append(answer(str(at), tokens, correct=None if at > 50 else at % 3 == 0))
    table = token_table(answers, LEXICON, 0.1)
    scores, entropies, wrong = predicted(table)
    first = sorted((each.score for each in answers[0].decisions), reverse=True)[:3]
    assert (len(wrong), scores[0]) == (51, pytest.approx(np.mean(first)))
    found = summarize(table, 0.1)["wrong_answers"]
    for name, values in (("score", scores), ("entropy", entropies)):
        rank = stats.mannwhitneyu(values[wrong], values[~wrong]).statistic
        assert found[name]["value"] == pytest.approx(rank / (wrong.sum() * (~wrong).sum()))
    assert found["score"]["low"] > 0.6 > found["entropy"]["low"]
    assert found["difference"]["value"] == pytest.approx(found["score"]["value"] - found["entropy"]["value"])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_under_the_curve_is_the_auroc(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in pairs])
    positive = np.array([each for _, each in pairs])
    area = auroc(scores, positive)
    if area is None:
        return
    x, y = roc(scores, positive)
    assert integrate.trapezoid(y, x) == pytest.approx(area)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


TOKENS = st.tuples(st.sampled_from(["so", " 4", ". ", "x"]), st.floats(-2, 10), st.floats(0, 5))


@given(
    st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=4), st.sampled_from([0.1, 0.5])
)
def test_whatever_the_scores_the_summary_is_json_within_its_ranges(
    written: list[list[tuple]], share: float
) -> None:
    answers = [answer(str(at), each, bool(at % 2)) for at, each in enumerate(written)]
    found = json.loads(json.dumps(summary(answers, share, resamples=3), allow_nan=False))
    assert 0 <= found["gini"]["value"] <= 1
    for tenths in found["position"].values():
        assert math.fsum(each["tokens"] for each in tenths) == pytest.approx(found["counts"]["tokens"])
        assert math.fsum(each["top"] for each in tenths) == pytest.approx(1)
        assert math.fsum(each["sum"] for each in tenths) == pytest.approx(1, abs=1e-6) or not any(
            score > 0 for each in written for _, score, _ in each
        )
    assert all(0 <= each["iou"]["value"] <= 1 for each in found["overlap"])


def test_more_answers_make_narrower_intervals() -> None:
    rng = np.random.default_rng(0)

    def width(count: int) -> float:
        written = [[("so", float(each), 0.1) for each in rng.exponential(1, 20)] for _ in range(count)]
        found = summary([answer(str(at), each) for at, each in enumerate(written)])["gini"]
        assert found["low"] <= found["value"] <= found["high"]
        return found["high"] - found["low"]

    assert width(160) < width(10)
