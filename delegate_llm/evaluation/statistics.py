"""What numbers say, and how surely: intervals, tests, and how unevenly scores lie over positions.

Plain functions of arrays, which know no trace and no model. Whatever draws at random draws from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delegate_llm.errors import RequestError
from delegate_llm.evaluation._arrays import (
    as_amounts,
    as_array,
    as_mask,
    as_numbers,
    at_least,
    rows,
    scaled,
    within_one,
)

__all__ = (
    "Estimate",
    "auroc",
    "bootstrap",
    "carriers",
    "gini",
    "holm",
    "iou",
    "lorenz",
    "pass_at_k",
    "sign_flip",
    "top",
    "wilson",
)

_Z: Final = 1.959964
"""Standard deviations to either side that hold 95 % of a normal distribution."""
_ROUNDING: Final = 1e-12
"""Relative; what differs by less is equal, or 0.07 of 100 positions would be 8 of them."""
_ENUMERATED: Final = 16
"""Differences whose signs are all tried, not drawn: 2^15 ways, as two-sided is symmetric."""
_BLOCK: Final = 2**20
"""Signs drawn at once, to bound the memory."""


class Estimate(NamedTuple):
    """A number with its 95 % interval, or one of another confidence that was asked for."""

    value: float
    low: float
    high: float


def wilson(solved: int, tasks: int) -> tuple[float, float]:
    """Within which a success rate lies, with 95 % confidence (Wilson, 1927).

    Unlike the textbook's normal interval, it holds for few tasks and for rates near 0 and 1.

    Args:
        solved: How many succeeded.
        tasks: Of how many; of none, anything is possible.
    """
    if not tasks:
        return 0.0, 1.0
    share, square = solved / tasks, _Z * _Z / tasks
    middle = share + square / 2
    half = math.sqrt(square * share * (1 - share) + square * square / 4)
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    # What rounding does must not leave the rate itself outside, nor end beyond 0 and 1.
    return max(0.0, min(share, low)), min(1.0, max(share, high))


def lorenz(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Lorenz curve: how much of the sum the lowest positions carry.

    Args:
        values: `[n]`, at least 0.

    Returns:
        x, the share of positions in increasing order of value, and y, their share of the sum: `[n + 1]`
        each, from (0, 0) to (1, 1), never above the diagonal; on it where all values are equal.

    Raises:
        RequestError: If there are no values, or one is negative or not finite.
    """
    rising = np.sort(as_amounts(values))
    x = np.arange(rising.size + 1) / rising.size
    if not rising[-1]:
        return x, x.copy()
    y = np.concatenate(([0.0], np.cumsum(rising)))
    return x, np.minimum(y / y[-1], x)


def gini(values: ArrayLike) -> float:
    """The Gini coefficient: 0 where all positions have the same, (n - 1) / n where one has it all.

    Args:
        values: `[n]`, at least 0.

    Returns:
        In [0, 1]; 0 where all values are 0.

    Raises:
        RequestError: If there are no values, or one is negative or not finite.
    """
    rising = np.sort(as_amounts(values))
    size = rising.size
    if not rising[-1]:
        return 0.0
    # Both ends have opposite weights: equal values cancel without rounding, and no term is negative.
    spread = float((rising - rising[::-1]) @ np.arange(1 - size, size, 2)) / 2
    return min(1.0, spread / (size * float(rising.sum())))


def carriers(values: ArrayLike, fraction: float) -> float:
    """The smallest share of positions that together carry a fraction of the sum.

    Args:
        values: `[n]`, at least 0.
        fraction: Of the sum, in [0, 1]; it counts as carried when at most 1e-12 of it is missing.

    Returns:
        In [0, 1]; 0 where all values are 0, since then there is nothing to carry.

    Raises:
        RequestError: If there are no values, one is negative or not finite, or the fraction is out of range.
    """
    falling = np.sort(as_amounts(values))[::-1]
    carried = np.concatenate(([0.0], np.cumsum(falling)))
    enough = within_one("fraction", fraction) * carried[-1] * (1 - _ROUNDING)
    return int(np.searchsorted(carried, enough)) / falling.size


def top(values: ArrayLike, share: float) -> NDArray[np.bool_]:
    """Which positions have the highest values.

    Args:
        values: `[n]`; infinite ones may be among them.
        share: Of the positions, in [0, 1].

    Returns:
        `[n]`, True at the ceil(share * n) highest; of equal values the first ones win.

    Raises:
        RequestError: If a value is NaN or the share is out of range.
    """
    numbers = as_numbers(values)
    count = math.ceil(within_one("share", share) * numbers.size * (1 - _ROUNDING))
    mask = np.zeros(numbers.size, dtype=np.bool_)
    mask[np.argsort(-numbers, kind="stable")[:count]] = True
    return mask


def iou(a: ArrayLike, b: ArrayLike) -> float:
    """Intersection over union: how far two masks mark the same positions.

    Args:
        a: `[n]`, of booleans.
        b: `[n]`, of booleans.

    Returns:
        In [0, 1]; 1 where neither marks any.

    Raises:
        RequestError: If they differ in length, or are not of booleans.
    """
    one, other = as_mask(a), as_mask(b)
    rows(one, other)
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 1.0


def auroc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """How often a positive scores above a negative; equal scores count half (Mann and Whitney, 1947).

    Args:
        scores: `[n]`; infinite ones may be among them.
        positive: `[n]`, of booleans.

    Returns:
        In [0, 1]: 0.5 is chance. None where there is no positive or no negative.

    Raises:
        RequestError: If a score is NaN, the lengths differ, or `positive` is not of booleans.
    """
    numbers, mask = as_numbers(scores), as_mask(positive)
    rows(numbers, mask)
    positives = int(np.count_nonzero(mask))
    pairs = positives * (mask.size - positives)
    if not pairs:
        return None
    _, group, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    # Halves of integers, so nothing is rounded before the division.
    return (float(ranks[mask].sum()) - positives * (positives + 1) / 2) / pairs


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that of k answers at least one is right, without bias (Chen et al., 2021, eq. 1).

    Args:
        n: Answers to the problem.
        c: How many of them are right.
        k: How many may be tried.

    Returns:
        1 - C(n - c, k) / C(n, k), from integers, so that only the division rounds.

    Raises:
        RequestError: Unless 1 <= k <= n and 0 <= c <= n.
    """
    if not 1 <= k <= n:
        msg = f"k: {k} is outside 1..{n}, as there are {n} answers; take another k, or sample more answers"
        raise RequestError(msg)
    if not 0 <= c <= n:
        msg = f"c: {c} is outside 0..{n}, as there are {n} answers; give how many of them are right"
        raise RequestError(msg)
    ways = math.comb(n, k)
    return (ways - math.comb(n - c, k)) / ways


def bootstrap(
    statistic: Callable[..., float | None],
    *samples: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic with the interval that its percentiles over resamples span (Efron, 1979).

    Units, which are the rows, are drawn with replacement, the same ones from every sample. The ends are
    values that resamples gave, the next ones outward, never between two. The interval of a biased
    statistic may leave out its value, and that of few units is too narrow.

    Args:
        statistic: Of arrays like the samples; NaN or None where it is undefined.
        samples: `[units, ...]` each: tasks or answers in the same order.
        resamples: How often to draw; those where the statistic is undefined are dropped.
        seed: Names the draws; one seed gives one result.
        confidence: Of the interval, in (0, 1).

    Returns:
        The statistic of the samples themselves and its interval. The interval is (NaN, NaN) where nothing
        can be known about it: with fewer than two units, or undefined on every resample. Without units
        the statistic is not even called, and all is NaN.

    Raises:
        RequestError: If there is no sample, the lengths differ, or a setting is out of range.
    """
    at_least("resamples", resamples, 1)
    at_least("seed", seed, 0)
    if not 0 < confidence < 1:
        msg = f"confidence: {confidence!r} is outside (0, 1); 0.95 is usual"
        raise RequestError(msg)
    arrays = [as_array(each) for each in samples]
    units = rows(*arrays)
    value = _defined(statistic(*arrays)) if units else math.nan
    unknown = Estimate(value, math.nan, math.nan)
    if units < 2:  # noqa: PLR2004 - one unit says nothing of the spread
        return unknown
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, units, units) for _ in range(resamples))
    found = np.array([_defined(statistic(*(each[drawn] for each in arrays))) for drawn in draws])
    found = found[~np.isnan(found)]
    if not found.size:
        return unknown
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, tail, method="lower"), np.quantile(found, 1 - tail, method="higher")
    return Estimate(value, float(low), float(high))


def sign_flip(differences: ArrayLike, *, seed: int = 0, resamples: int = 10_000) -> float:
    """Whether paired differences lean to one side: the two-sided p-value of the permutation test.

    If the pairs' sides were exchangeable, every difference might as well have the other sign; p is the
    share of all signs under which the sum is at least as far from 0. Differences that are 0, up to rounding,
    say nothing. Exact for at most 16 others, and where all have one magnitude, as those of solved and
    failed have: that is McNemar's exact test. Else signs are drawn, and the observed ones are counted
    among them (Phipson and Smyth, 2010).

    Args:
        differences: `[pairs]`.
        seed: Names the draws, where there are any.
        resamples: How often to draw all signs.

    Returns:
        In (0, 1]; 1 where no difference is other than 0.

    Raises:
        RequestError: If a difference is not finite, or a setting is out of range.
    """
    at_least("resamples", resamples, 1)
    at_least("seed", seed, 0)
    numbers = scaled(as_numbers(differences, finite=True))
    numbers = numbers[np.abs(numbers) > _ROUNDING]
    if not numbers.size:
        return 1.0
    if np.abs(numbers).min() >= 1 - _ROUNDING:
        return _binomial(int(np.count_nonzero(numbers > 0)), numbers.size)
    # Counted as far out as observed unless it is clearly nearer.
    far = abs(float(numbers.sum())) - _ROUNDING * float(np.abs(numbers).sum())
    if numbers.size <= _ENUMERATED:
        sums = numbers[:1]
        for each in numbers[1:]:
            sums = np.concatenate((sums + each, sums - each))
        return int(np.count_nonzero(np.abs(sums) >= far)) / sums.size
    rng, block = np.random.default_rng(seed), max(1, _BLOCK // numbers.size)
    counts = (min(block, resamples - start) for start in range(0, resamples, block))
    drawn = (rng.choice(np.array([-1.0, 1.0]), (count, numbers.size)) @ numbers for count in counts)
    return (1 + sum(int(np.count_nonzero(np.abs(sums) >= far)) for sums in drawn)) / (1 + resamples)


def _binomial(positive: int, size: int) -> float:
    """The two-sided p-value of as many heads of a fair coin, exact."""
    fewer = min(positive, size - positive)
    ways = total = 1
    for each in range(fewer):
        ways = ways * (size - each) // (each + 1)
        total += ways
    # Of very many pairs the share is below what a float holds, but it is not 0.
    return min(1.0, max(math.ulp(0.0), total / (1 << (size - 1))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that any false alarm stays as rare as promised (Holm, 1979).

    Args:
        p_values: One for each test, in [0, 1].

    Returns:
        The adjusted ones, in the order given, in [0, 1].

    Raises:
        RequestError: If one is not in [0, 1].
    """
    numbers = [within_one("a p-value", each) for each in p_values]
    adjusted, highest = [0.0] * len(numbers), 0.0
    for rank, index in enumerate(sorted(range(len(numbers)), key=numbers.__getitem__)):
        highest = max(highest, min(1.0, (len(numbers) - rank) * numbers[index]))
        adjusted[index] = highest
    return adjusted


def _defined(number: float | None) -> float:
    return math.nan if number is None else float(number)
