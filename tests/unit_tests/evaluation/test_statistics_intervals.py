"""Intervals and tests of significance, against scipy, closed forms, and what must hold of any numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from delegate_llm import RequestError
from delegate_llm.evaluation.statistics import Estimate, auroc, bootstrap, holm, sign_flip

NAN, INF = math.nan, math.inf
chances = st.lists(st.floats(0, 1), max_size=12)

# --- Intervals ---


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(one.mean() - other.mean())


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_a_bootstrap_draws_the_same_units_from_all_samples_as_scipy_does(confidence: float) -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    found = bootstrap(difference, one, other, resamples=500, seed=3, confidence=confidence)
    known = scipy.stats.bootstrap(
        (one, other), difference, paired=True, vectorized=False, n_resamples=500, method="percentile",
        confidence_level=confidence, rng=np.random.default_rng(3),
    )  # fmt: skip
    ordered, tail = np.sort(known.bootstrap_distribution), (1 - confidence) / 2
    assert found.value == difference(one, other)
    # scipy's ends lie between two resamples; ours are those two, outward.
    for ours, theirs, at in (
        (found.low, known.confidence_interval.low, math.floor(tail * 499 + 1e-9)),
        (found.high, known.confidence_interval.high, math.ceil((1 - tail) * 499 - 1e-9)),
    ):
        assert ours == pytest.approx(ordered[at], rel=1e-12)
        assert abs(ours - theirs) <= abs(ordered[at + 1] - ordered[at - 1])
    assert found.low <= known.confidence_interval.low
    assert found.high >= known.confidence_interval.high


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    found = [bootstrap(np.mean, rng.exponential(size=60), resamples=300) for _ in range(200)]
    covered = sum(each.low <= 1 <= each.high for each in found)
    # Percentile intervals of skewed samples this small cover a little less than 95 %.
    assert 0.88 <= covered / 200 <= 0.99


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.integers(0, 9))
def test_an_interval_of_means_lies_among_the_values(values: list[float], seed: int) -> None:
    found = bootstrap(np.mean, values, resamples=50, seed=seed)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack
    assert found == bootstrap(np.mean, values, resamples=50, seed=seed)


def test_a_seed_names_the_draws() -> None:
    values = np.arange(20.0)
    assert bootstrap(np.mean, values, seed=1) != bootstrap(np.mean, values, seed=2)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    values = np.random.default_rng(2).normal(size=30)
    found = [bootstrap(np.mean, values, confidence=each) for each in (0.5, 0.8, 0.95, 0.999)]
    assert all(a.low > b.low and a.high < b.high for a, b in pairwise(found))


def test_units_may_be_rows() -> None:
    rows = np.arange(12.0).reshape(6, 2)
    found = bootstrap(lambda each: (each[:, 1] - each[:, 0]).mean(), rows, resamples=100)
    assert found == Estimate(1.0, 1.0, 1.0)


def test_resamples_on_which_nothing_is_defined_are_dropped() -> None:
    scores, positive = np.array([1.0, 2.0, 3.0]), np.array([False, False, True])
    found = bootstrap(auroc, scores, positive)
    assert found == Estimate(1.0, 1.0, 1.0)
    undefined = bootstrap(lambda each: each.mean() if (each == 0).all() else NAN, np.array([0.0, 4.0]))
    assert (undefined.low, undefined.high) == (0, 0)
    assert math.isnan(undefined.value)


@pytest.mark.parametrize("nothing", [None, NAN])
def test_where_no_resample_is_defined_nothing_is_known(nothing: float | None) -> None:
    assert all(map(math.isnan, bootstrap(lambda _: nothing, [1.0, 2.0, 3.0], resamples=20)))


def test_one_unit_has_a_value_and_no_interval_and_none_has_neither() -> None:
    one = bootstrap(np.mean, [3.0])
    assert one.value == 3
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert all(map(math.isnan, bootstrap(np.mean, [])))


def test_an_infinite_resample_counts_as_one() -> None:
    found = bootstrap(np.max, [1.0, 2.0, INF], resamples=200)
    assert found == Estimate(INF, 1.0, INF)


@pytest.mark.parametrize(
    ("samples", "settings", "said"),
    [((), {}, r"0 given"), (([1, 2], [1]), {}, r"lengths \[2, 1\]"), ((1.0,), {}, r"samples: one is 1\.0"),
     (([[1], [1, 2]],), {}, r"no array"), (([1, 2],), {"resamples": 0}, r"resamples: 0 is below 1"),
     (([1, 2],), {"seed": -1}, r"seed: -1 is below 0"), (([1, 2],), {"confidence": 1}, r"confidence: 1 is"),
     (([1, 2],), {"confidence": NAN}, r"confidence: nan is")],
)  # fmt: skip
def test_what_cannot_be_resampled_is_refused(samples, settings, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        bootstrap(np.mean, *samples, **settings)


# --- Tests ---


def scipy_flips(differences: list[float]) -> float:
    return float(
        scipy.stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", vectorized=True, n_resamples=INF
        ).pvalue
    )


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9).filter(any))
def test_few_differences_give_the_p_value_of_scipy(differences: list[int]) -> None:
    assert sign_flip(differences) == pytest.approx(min(1, scipy_flips(differences)), rel=1e-12)


@given(st.integers(0, 80), st.integers(0, 80), st.floats(1e-300, 1e300))
def test_solved_and_failed_give_mcnemars_exact_test(better: int, worse: int, magnitude: float) -> None:
    assume(better + worse)
    found = sign_flip([magnitude] * better + [0.0] * 5 + [-magnitude] * worse)
    assert found == pytest.approx(scipy.stats.binomtest(better, better + worse).pvalue, rel=1e-9)


def test_drawn_signs_come_near_to_all_of_them() -> None:
    differences = np.random.default_rng(11).normal(0.2, 1, 17)
    exact = scipy_flips(list(differences))
    drawn = sign_flip(differences, resamples=40_000)
    assert 0.02 < exact < 0.6
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / 40_000))
    assert drawn == sign_flip(differences, resamples=40_000)
    assert drawn != sign_flip(differences, resamples=40_000, seed=1)


def test_drawn_signs_count_the_observed_ones_among_them() -> None:
    assert sign_flip(np.arange(1, 101), resamples=99) == 1 / 100


def test_many_differences_are_drawn_a_block_at_a_time() -> None:
    differences = np.random.default_rng(4).normal(0, 1, 3000)
    normal = 2 * scipy.stats.norm.sf(abs(differences.sum()) / np.sqrt((differences**2).sum()))
    assert sign_flip(differences, resamples=2000) == pytest.approx(normal, abs=0.06)


@given(st.lists(st.integers(-999, 999), max_size=16), st.integers(-290, 290))
def test_a_p_value_depends_on_neither_scale_nor_order(values: list[int], exponent: int) -> None:
    scaled = [each * 10.0**exponent for each in reversed(values)]
    assert sign_flip(scaled) == pytest.approx(sign_flip(values), rel=1e-12)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=24))
def test_a_p_value_is_one_whatever_the_numbers_and_the_same_for_either_side(values: list[float]) -> None:
    found = sign_flip(values, resamples=200)
    assert 0 < found <= 1
    assert sign_flip([-each for each in values], resamples=200) == found


def test_differences_that_rounding_made_count_as_none_or_as_equal() -> None:
    differences = [0.3 - 0.2, 0.2 - 0.1, 0.1 - 0.2, 0.3 - 0.1 - 0.2, 0.4 - 0.3]
    assert len({abs(each) for each in differences}) > 2
    assert sign_flip(differences) == sign_flip([1, 1, -1, 1]) == 5 / 8
    # Of more than are enumerated, too, where signs would else be drawn.
    assert sign_flip(differences * 9) == sign_flip([1, 1, -1, 1] * 9)


@pytest.mark.parametrize("differences", [[], [0.0], [0, 0, 0]])
def test_no_difference_is_no_evidence(differences: list[float]) -> None:
    assert sign_flip(differences) == 1


def test_the_p_value_of_overwhelming_evidence_is_not_0() -> None:
    assert 0 < sign_flip([1] * 5000) < 1e-300


@pytest.mark.parametrize(
    ("differences", "settings", "said"),
    [([1, NAN], {}, r"nan at position 1"), ([INF], {}, r"inf at position 0"),
     ([1], {"seed": -1}, r"seed: -1 is"), ([1], {"resamples": 0}, r"resamples: 0"),
     ([[1, 2]], {}, r"shape is \(1, 2\)")],
)  # fmt: skip
def test_differences_that_cannot_be_summed_are_refused(differences, settings, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        sign_flip(differences, **settings)


def test_holm_has_its_closed_form() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(chances, st.floats(0, 1, exclude_max=True))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] > level:
            break
        rejected.add(index)
    assert {index for index, each in enumerate(holm(p_values)) if each <= level} == rejected


@given(chances)
def test_holm_only_raises_p_values_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= each <= 1 for p, each in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[each] for each in order] == sorted(adjusted)


@pytest.mark.parametrize("p_value", [-0.1, 1.1, NAN])
def test_what_is_no_p_value_is_refused(p_value: float) -> None:
    with pytest.raises(RequestError, match=r"a p-value: .* is outside \[0, 1\]"):
        holm([0.5, p_value])
