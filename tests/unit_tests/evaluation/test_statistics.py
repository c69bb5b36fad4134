"""Rates, shares and positions, against scipy, closed forms, and what must hold of any numbers."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from delegate_llm import RequestError
from delegate_llm.evaluation.statistics import (
    auroc,
    carriers,
    gini,
    iou,
    lorenz,
    pass_at_k,
    top,
    wilson,
)

NAN, INF = math.nan, math.inf
amounts = st.lists(st.floats(0, allow_infinity=False), min_size=1, max_size=30)
counts = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)

# --- Rates ---


@pytest.mark.parametrize(("solved", "tasks"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (199, 200)])
def test_the_interval_of_a_rate_is_that_of_scipy(solved: int, tasks: int) -> None:
    known = scipy.stats.binomtest(solved, tasks).proportion_ci(method="wilson")
    found = wilson(solved, tasks)
    assert found == pytest.approx((known.low, known.high), abs=1e-6)
    assert found[0] <= solved / tasks <= found[1]


def test_of_no_tasks_any_rate_is_possible() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("n", "c", "k"), [(1, 0, 1), (5, 2, 1), (5, 2, 3), (6, 3, 4), (6, 6, 2), (8, 1, 8)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(n: int, c: int, k: int) -> None:
    draws = [min(draw) < c for draw in combinations(range(n), k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws), rel=1e-15)


def test_pass_at_k_holds_where_the_product_of_floats_would_not() -> None:
    assert pass_at_k(10**5, 1, 1) == 1e-5
    assert pass_at_k(4000, 1, 2000) == 0.5
    known = scipy.stats.hypergeom(4000, 7, 900).sf(0)
    assert pass_at_k(4000, 7, 900) == pytest.approx(known, rel=1e-9)


@given(st.integers(1, 60), st.data())
def test_pass_at_k_grows_with_k_up_to_whether_any_is_right(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    found = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert found == sorted(found)
    assert found[0] == c / n
    assert found[-1] == (c > 0)


@pytest.mark.parametrize(
    ("n", "c", "k", "said"),
    [(4, 2, 5, r"k: 5 is outside 1\.\.4"), (4, 2, 0, r"k: 0 is"), (4, 5, 2, r"c: 5 is outside 0\.\.4"),
     (4, -1, 2, r"c: -1 is")],
)  # fmt: skip
def test_pass_at_k_of_what_cannot_be_is_refused(n: int, c: int, k: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        pass_at_k(n, c, k)


# --- How unevenly ---


@pytest.mark.parametrize(
    ("values", "known"),
    [([3.0], 0), ([0.1] * 7, 0), ([0, 0, 0], 0), ([0, 0, 0, 8], 3 / 4), ([1, 2, 3], 2 / 9), ([1, 3], 1 / 4)],
)
def test_gini_has_its_closed_forms(values: list[float], known: float) -> None:
    assert gini(values) == pytest.approx(known, rel=1e-15, abs=0)


@given(amounts)
def test_gini_is_the_mean_difference_of_pairs_over_twice_the_mean(values: list[float]) -> None:
    assume(max(values) > 0)
    scaled = np.array(values) / max(values)
    known = np.abs(scaled[:, None] - scaled).mean() / (2 * scaled.mean())
    assert gini(values) == pytest.approx(known, abs=1e-12)
    assert 0 <= gini(values) <= 1


@given(amounts)
def test_gini_is_twice_the_area_between_the_curve_and_the_diagonal(values: list[float]) -> None:
    x, y = lorenz(values)
    assert gini(values) == pytest.approx(1 - (y[1:] + y[:-1]) @ np.diff(x), abs=1e-12)


@given(st.floats(0, 1e300), st.integers(1, 50))
def test_equal_values_are_spread_evenly(value: float, size: int) -> None:
    x, y = lorenz([value] * size)
    assert gini([value] * size) == 0
    assert np.array_equal(x, y)


@given(amounts)
def test_the_lorenz_curve_rises_to_the_corner_under_the_diagonal(values: list[float]) -> None:
    x, y = lorenz(values)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert len(x) == len(y) == len(values) + 1
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    assert (y <= x).all()


def test_rounding_lifts_no_curve_above_the_diagonal() -> None:
    x, y = lorenz([1.0] * 9 + [1 + 2**-52])
    assert (y <= x).all()


def test_the_lorenz_curve_of_known_values() -> None:
    x, y = lorenz([5, 1, 2])
    assert x == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert y == pytest.approx([0, 1 / 8, 3 / 8, 1])


@pytest.mark.parametrize(
    ("values", "fraction", "known"),
    [([1, 1, 6, 2], 0.6, 0.25), ([1, 1, 6, 2], 0.61, 0.5), ([1, 1, 6, 2], 1, 1), ([1, 1], 0, 0),
     ([0, 0], 1, 0), ([0, 5], 1, 0.5), ([0.1] * 100, 0.07, 0.07),
     ([0.1] * 1000, 0.29, 0.29), ([1e308] * 4, 0.5, 0.5)],
)  # fmt: skip
def test_carriers_are_the_fewest_positions(values: list[float], fraction: float, known: float) -> None:
    assert carriers(values, fraction) == known


@given(counts, st.integers(0, 20))
def test_carriers_carry_the_fraction_and_one_fewer_would_not(values: list[float], twentieths: int) -> None:
    found = carriers(values, twentieths / 20)
    count = round(found * len(values))
    falling = sorted(values, reverse=True)
    assert 20 * sum(falling[:count]) >= twentieths * sum(values)
    assert count == 0 or 20 * sum(falling[: count - 1]) < twentieths * sum(values)


@pytest.mark.parametrize("of", [lorenz, gini, lambda values: carriers(values, 0.5)])
@pytest.mark.parametrize(
    ("values", "said"),
    [([], r"there are 0"), ([1, -2, 3], r"-2\.0 at position 1 is negative"), ([1, NAN], r"nan at position 1"),
     ([INF, 1], r"inf at position 0"), ([[1, 2]], r"shape is \(1, 2\)"), (["a"], r"no numbers")],
)  # fmt: skip
def test_what_has_no_shares_of_a_sum_is_refused(of, values, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        of(values)


# --- Positions ---


def test_the_first_of_equal_values_are_on_top() -> None:
    assert top([1, 3, 3, 2, 3], 0.4).tolist() == [False, True, True, False, False]
    assert top([0.0, -0.0, 0.0], 0.5).tolist() == [True, True, False]
    assert top([7, 8] * 500, 0.6).nonzero()[0].tolist() == sorted([*range(1, 1000, 2), *range(0, 200, 2)])
    assert top([-INF, INF, 0], 0.1).tolist() == [False, True, False]
    assert top([], 0.5).tolist() == []


@given(counts, st.floats(0, 1).filter(lambda share: share == 0 or share > 1e-6))
def test_nothing_outside_is_higher_than_what_is_on_top(values: list[float], share: float) -> None:
    mask, numbers = top(values, share), np.array(values)
    assert numbers[mask].min(initial=INF) >= numbers[~mask].max(initial=-INF)
    assert share * len(values) - 1e-9 <= mask.sum() < share * len(values) + 1


@pytest.mark.parametrize(
    ("share", "size", "count"), [(0.07, 100, 7), (0.071, 100, 8), (1e-9, 5, 1), (0, 5, 0), (1, 5, 5)]
)
def test_a_share_is_rounded_up_but_rounding_is_not(share: float, size: int, count: int) -> None:
    assert top(range(size), share).sum() == count


@pytest.mark.parametrize(
    ("one", "other", "known"),
    [
        ([1, 1, 0], [0, 1, 1], 1 / 3),
        ([1, 0], [0, 1], 0),
        ([1, 0], [1, 0], 1),
        ([0, 0], [0, 0], 1),
        ([], [], 1),
    ],
)
def test_iou_has_its_closed_forms(one: list[int], other: list[int], known: float) -> None:
    assert iou(np.array(one, bool), np.array(other, bool)) == iou(other, one) == known


def test_positions_are_not_taken_for_a_mask() -> None:
    with pytest.raises(RequestError, match=r"mask: 4\.0 at position 1 is no boolean"):
        iou([1, 4, 7], [True, False, True])
    with pytest.raises(RequestError, match=r"2 given, of lengths \[2, 3\]"):
        iou([True, False], [True, False, True])


@given(st.lists(st.tuples(st.sampled_from([-INF, -1, 0, 0.5, 2, INF]), st.booleans()), max_size=25))
def test_auroc_is_how_often_a_positive_scores_higher(units: list[tuple[float, bool]]) -> None:
    pairs = [(a, b) for (a, is_a), (b, is_b) in product(units, units) if is_a and not is_b]
    found = auroc([score for score, _ in units], [positive for _, positive in units])
    assert found == (sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs) if pairs else None)


def test_auroc_is_the_u_of_scipy_over_its_greatest() -> None:
    rng = np.random.default_rng(5)
    scores, positive = rng.integers(0, 40, 300) / 7, rng.random(300) < 0.3
    known = scipy.stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auroc(scores, positive) == pytest.approx(known / (positive.sum() * (~positive).sum()), rel=1e-15)


def test_a_score_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match=r"nan at position 1"):
        auroc([1, NAN], [True, False])
    with pytest.raises(RequestError, match=r"nan at position 0"):
        top([NAN], 1)
    with pytest.raises(RequestError, match=r"lengths \[2, 1\]"):
        auroc([1, 2], [True])


@pytest.mark.parametrize("share", [-0.1, 1.1, NAN])
def test_a_share_lies_between_0_and_1(share: float) -> None:
    with pytest.raises(RequestError, match=r"share: .* is outside \[0, 1\]"):
        top([1, 2], share)
    with pytest.raises(RequestError, match=r"fraction: .* is outside"):
        carriers([1, 2], share)
