"""The paper's rule against numpy and on known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import PolicyError
from delegate_llm.calibration import policy_for, spike_for, threshold_for


@given(st.lists(st.floats(0, 50), min_size=1, max_size=200), st.floats(0.001, 0.999))
def test_threshold_is_the_quantile(scores: list[float], share: float) -> None:
    made = threshold_for(scores, share)
    assert made == pytest.approx(np.quantile(scores, 1 - share), rel=1e-9, abs=1e-12)
    assert sum(score > made for score in scores) <= math.ceil(share * len(scores))


def test_spike_is_how_far_the_high_ones_stand_out() -> None:
    assert spike_for([1.0, 1.0, 1.0, 5.0], 2.0) == pytest.approx(5.0 / 2.0)
    assert spike_for([1.0, 1.0], 2.0) == 0.0
    assert spike_for([], 2.0) == 0.0


@pytest.mark.parametrize(
    ("scores", "share"), [([], 0.1), ([1.0, math.nan], 0.1), ([1.0], 0.0), ([1.0], 1.0), ([1.0], math.nan)]
)
def test_what_cannot_be(scores: list[float], share: float) -> None:
    with pytest.raises(PolicyError):
        threshold_for(scores, share)


@pytest.mark.parametrize("scores", [[1.0] * 300 + [0.5] * 1000, [0.7] * 1000])
def test_scores_that_are_equal_give_no_share(scores: list[float]) -> None:
    with pytest.raises(PolicyError, match=r"share: 0 of the scores are above .*, and not 0.08, for many are"):
        policy_for([scores], 0.08)
