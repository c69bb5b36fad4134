"""The scores against float64 and their known bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax
from scipy.stats import entropy as scipy_entropy

from delegate_llm.divergence import BASE_SIGNALS, DIVERGENCES, WEIGHED, entropy, log_probs, top1


@st.composite
def logit_pairs(draw: st.DrawFn, bound: float = 20) -> tuple[list[float], list[float]]:
    size, logits = draw(st.integers(2, 40)), st.floats(-bound, bound, width=32)
    one, other = (draw(st.lists(logits, min_size=size, max_size=size)) for _ in range(2))
    return one, other


def _reference(name: str, p: np.ndarray, q: np.ndarray) -> float:
    """By scipy where scipy has it, in float64."""
    match name:
        case "cross_entropy":
            return float(scipy_entropy(p, q) + scipy_entropy(p))
        case "reverse_kl":
            return float(scipy_entropy(p, q))
        case "kl":
            return float(scipy_entropy(q, p))
        case "js":
            return float(jensenshannon(p, q) ** 2)
        case "tv":
            return float(np.abs(p - q).sum() / 2)
        case _:
            return float(np.log(q.max()) - np.log(p[q.argmax()]))


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@given(pair=logit_pairs())
def test_agrees_with_float64(name: str, pair: tuple[list[float], list[float]]) -> None:
    one, other = (np.array(each, dtype=np.float64) for each in pair)
    p, q = np.exp(log_softmax(one)), np.exp(log_softmax(other))
    base, reasoner = (log_probs(torch.tensor(each)) for each in pair)
    made = [DIVERGENCES[name](base, reasoner)]
    if name in WEIGHED:
        made.append(WEIGHED[name](base.exp(), reasoner))
    if name == "nll_gap" and (np.sort(q)[-1] - np.sort(q)[-2]) < 1e-6 * q.max():
        return  # two choices are equally good
    for each in made:
        assert float(each) == pytest.approx(_reference(name, p, q), rel=2e-4, abs=2e-5)


def _in_logs(name: str, p: np.ndarray, q: np.ndarray) -> float:
    """By their definitions, of log-probabilities in float64: no exponential of them may vanish."""
    middle = np.logaddexp(p, q) - math.log(2)
    definitions = {
        "cross_entropy": -(np.exp(p) * q).sum(),
        "reverse_kl": (np.exp(p) * (p - q)).sum(),
        "kl": (np.exp(q) * (q - p)).sum(),
        "js": (np.exp(p) * (p - middle) + np.exp(q) * (q - middle)).sum() / 2,
        "tv": np.abs(np.exp(p) - np.exp(q)).sum() / 2,
        "nll_gap": q.max() - p[q.argmax()],
        "entropy": -(np.exp(p) * p).sum(),
        "top1": 1 - np.exp(p.max()),
    }
    return float(definitions[name])


@pytest.mark.parametrize("name", [*sorted(DIVERGENCES), *sorted(BASE_SIGNALS)])
@pytest.mark.parametrize("bound", [20.0, 1e6])
@given(data=st.data())
def test_agrees_with_float64_however_sure_the_models_are(
    name: str, bound: float, data: st.DataObject
) -> None:
    pair = data.draw(logit_pairs(bound))
    p, q = (log_softmax(np.array(each, dtype=np.float64)) for each in pair)
    lower, highest = np.sort(q)[-2:]
    # Of two choices that are equally good, either may be compared.
    assume(name != "nll_gap" or highest - lower > 1e-5)
    base, reasoner = (log_probs(torch.tensor(each)) for each in pair)
    made = [BASE_SIGNALS[name](base) if name in BASE_SIGNALS else DIVERGENCES[name](base, reasoner)]
    if name in WEIGHED:
        made.append(WEIGHED[name](base.exp(), reasoner.clone()))
    for each in made:
        assert float(each) == pytest.approx(_in_logs(name, p, q), rel=2e-4, abs=2e-5)


@given(pair=logit_pairs())
def test_bounds(pair: tuple[list[float], list[float]]) -> None:
    p, q = (log_probs(torch.tensor(each)) for each in pair)
    assert 0 <= DIVERGENCES["js"](p, q) <= math.log(2) + 1e-6
    assert DIVERGENCES["js"](p, q) == pytest.approx(float(DIVERGENCES["js"](q, p)), abs=1e-5)
    assert 0 <= DIVERGENCES["tv"](p, q) <= 1
    assert DIVERGENCES["kl"](p, q) >= 0
    assert DIVERGENCES["reverse_kl"](p, q) >= 0
    assert DIVERGENCES["cross_entropy"](p, q) >= entropy(p) - 1e-4
    assert 0 <= top1(p) < 1


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_equal_distributions_are_not_apart(name: str) -> None:
    p = log_probs(torch.randn(5, 30, generator=torch.Generator().manual_seed(0)))
    wanted = entropy(p) if name == "cross_entropy" else torch.zeros(5)
    assert torch.allclose(DIVERGENCES[name](p, p), wanted, atol=1e-5)


def test_js_of_opposites_is_ln_2() -> None:
    """Where a public peer's version, with its arguments swapped, grows without bound."""
    p, q = log_probs(torch.tensor([50.0, -50.0])), log_probs(torch.tensor([-50.0, 50.0]))
    assert float(DIVERGENCES["js"](p, q)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_forbidden_tokens_never_make_nan(name: str) -> None:
    p = log_probs(torch.tensor([0.0, 1.0, -torch.inf, -torch.inf]))
    q = log_probs(torch.tensor([0.0, -torch.inf, 1.0, -torch.inf]))
    for one, other in ((p, q), (q, p), (p, p)):
        assert torch.isfinite(DIVERGENCES[name](one, other))


@pytest.mark.parametrize("name", [*sorted(DIVERGENCES), *sorted(BASE_SIGNALS)])
def test_leading_shape_is_kept_and_nan_shows(name: str) -> None:
    p = log_probs(torch.randn(2, 3, 7, dtype=torch.bfloat16))
    q = log_probs(torch.full((2, 3, 7), torch.nan))
    score = DIVERGENCES[name](p, q) if name in DIVERGENCES else BASE_SIGNALS[name](q)
    assert score.shape == (2, 3)
    assert score.dtype == torch.float32
    assert torch.isnan(score).all()
