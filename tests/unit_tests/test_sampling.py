"""Draws: the right distribution, and a seed that names one text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, gumbel_r, kstest

from delegate_llm.request import Sampling
from delegate_llm.sampling import draw, gumbel_noise, uniform

DRAWS = 20_000


def counts(logits: list[float], sampling: Sampling, *, along: str) -> np.ndarray:
    """How often each token is drawn, over many positions or many seeds."""
    rows = torch.tensor(logits).expand(DRAWS, -1)
    fixed, moving = [7] * DRAWS, list(range(DRAWS))
    seeds, positions = (fixed, moving) if along == "positions" else (moving, fixed)
    return draw(rows, sampling, seeds, positions).bincount(minlength=len(logits)).numpy()


@pytest.mark.parametrize("along", ["positions", "seeds"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(along: str, temperature: float) -> None:
    logits = [2.0, 1.0, 0.0, -1.0, -0.5]
    wanted = torch.softmax(torch.tensor(logits) / temperature, 0).double().numpy()
    made = counts(logits, Sampling(temperature), along=along)
    assert chisquare(made, wanted / wanted.sum() * DRAWS).pvalue > 1e-4


def test_noise_is_gumbel() -> None:
    noise = gumbel_noise([1], [0], torch.arange(DRAWS))[0].numpy()
    assert kstest(noise, gumbel_r.cdf).pvalue > 1e-4


@given(
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**20),
    st.lists(st.integers(0, 5000), min_size=1, max_size=9),
)
def test_noise_depends_on_seed_position_and_id_alone(seed: int, position: int, ids: list[int]) -> None:
    together = gumbel_noise([seed, 5], [position, 9], torch.tensor(ids))
    assert torch.isfinite(together).all()
    for at, each in enumerate(ids):
        assert gumbel_noise([seed], [position], torch.tensor([each]))[0, 0] == together[0, at]
    assert 0 <= uniform(seed, position) < 1


def test_top_k_and_top_p_keep_the_best() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    assert (counts(logits, Sampling(1.0, top_k=2), along="seeds") > 0).tolist() == [True, True, False, False]
    # The mass before the second is 0.5 < 0.7, before the third 0.8.
    assert (counts(logits, Sampling(1.0, top_p=0.7), along="seeds") > 0).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert (counts(logits, Sampling(1.0, top_p=0.1), along="seeds") > 0).tolist() == [
        True,
        False,
        False,
        False,
    ]
    both = counts(logits, Sampling(1.0, top_p=0.97, top_k=3), along="seeds")
    assert (both > 0).tolist() == [True, True, True, False]


def test_a_flat_nucleus_wider_than_the_shortcut() -> None:
    rows = torch.zeros(200, 4000)
    drawn = draw(rows, Sampling(1.0, top_p=0.9), list(range(200)), [0] * 200)
    assert len(set(drawn.tolist())) > 150


def test_greedy_takes_the_best() -> None:
    assert draw(torch.tensor([[0.0, 3.0, 1.0]]), Sampling(), [0], [0]).tolist() == [1]


@pytest.mark.parametrize("temperature", [1e-5, 1e-6, 1e-7, 1e-40, 1e-320])
def test_nearly_cold_is_greedy(temperature: float) -> None:
    """Whatever a division by so little would overflow to."""
    logits = torch.randn(100, 50, generator=torch.Generator().manual_seed(1)) * 30
    drawn = draw(logits, Sampling(temperature, top_p=0.9), [3] * 100, list(range(100)))
    assert torch.equal(drawn, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1e30, 1e37, 1e39, 1e300, 1.7e308])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (6, 1.0), (0, 0.8), (6, 0.8)])
def test_what_is_forbidden_is_not_drawn_however_hot(temperature: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    logits[:, ::2] = -torch.inf
    drawn = draw(logits, Sampling(temperature, top_p, top_k), [3] * 200, list(range(200)))
    assert (drawn % 2 == 1).all()
    assert len(set(drawn.tolist())) > 2


def test_one_noise_for_both_models() -> None:
    """Where base and reasoner agree they draw the same token: a takeover changes nothing there."""
    logits = torch.randn(300, 50, generator=torch.Generator().manual_seed(1))
    positions = list(range(300))
    one = draw(logits, Sampling(1.0), [3] * 300, positions)
    other = draw(logits + 1e-6, Sampling(1.0), [3] * 300, positions)
    assert torch.equal(one, other)
