"""What users give as numbers, made into arrays and checked, for the statistics.

A value that a statistic could not take would otherwise come out as a NaN, far from where it came in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delegate_llm.errors import RequestError

__all__ = ("as_amounts", "as_array", "as_mask", "as_numbers", "at_least", "rows", "scaled", "within_one")


def as_array(values: ArrayLike) -> NDArray[np.generic]:
    """As `[units, ...]`."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        msg = f"samples: one is no array ({error}); give rows of one shape"
        raise RequestError(msg) from error
    if not array.ndim:
        msg = f"samples: one is {values!r}; give an array with a row for each unit"
        raise RequestError(msg)
    return array


def as_numbers(values: ArrayLike, *, finite: bool = False) -> NDArray[np.float64]:
    """As `[n]`, none of them NaN, nor infinite if they have to be finite."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"values: some are no numbers ({error}); give one number for each position"
        raise RequestError(msg) from error
    if numbers.ndim != 1:
        msg = f"values: their shape is {numbers.shape}; give one number for each position"
        raise RequestError(msg)
    bad = ~np.isfinite(numbers) if finite else np.isnan(numbers)
    if bad.any():
        at = int(bad.argmax())
        msg = f"values: {numbers[at]} at position {at} cannot be used; leave it out, or bound it"
        raise RequestError(msg)
    return numbers


def as_amounts(values: ArrayLike) -> NDArray[np.float64]:
    """As `[n]` in [0, 1], scaled: shares of a sum do not depend on the scale."""
    numbers = as_numbers(values, finite=True)
    if not numbers.size:
        msg = "values: there are 0, and nothing has a share of no sum; give at least one"
        raise RequestError(msg)
    if numbers.min() < 0:
        at = int(numbers.argmin())
        msg = f"values: {numbers[at]} at position {at} is negative; shares of a sum need values of at least 0"
        raise RequestError(msg)
    return scaled(numbers)


def as_mask(values: ArrayLike) -> NDArray[np.bool_]:
    """As `[n]`; numbers other than 0 and 1 are refused, since they may be meant as positions."""
    numbers = as_numbers(values)
    bad = ~np.isin(numbers, (0, 1))
    if bad.any():
        at = int(bad.argmax())
        msg = f"mask: {numbers[at]} at position {at} is no boolean; give one for each position"
        raise RequestError(msg)
    return numbers.astype(np.bool_)


def scaled(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divided by the highest magnitude, so that no sum of them overflows."""
    highest = float(np.abs(numbers).max(initial=0.0))
    return numbers / highest if highest else numbers


def rows(*arrays: NDArray[np.generic]) -> int:
    """How many rows all of them have."""
    lengths = [len(each) for each in arrays]
    if len(set(lengths)) != 1:
        msg = f"samples: {len(lengths)} given, of lengths {lengths}; give at least one, all of one length"
        raise RequestError(msg)
    return lengths[0]


def within_one(name: str, value: float) -> float:
    """The value, if it lies in [0, 1]."""
    if not 0 <= value <= 1:
        msg = f"{name}: {value!r} is outside [0, 1]; give a fraction, such as 0.05 for 5 %"
        raise RequestError(msg)
    return float(value)


def at_least(name: str, value: int, least: int) -> None:
    """Refuse a count that is too low."""
    if value < least:
        msg = f"{name}: {value!r} is below {least}; give a whole number from {least} on"
        raise RequestError(msg)
