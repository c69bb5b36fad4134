"""The policy that scores make: the paper's rule, and the gate that asks where the base is unsure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listened import answer

from delegate_llm.errors import PolicyError
from delegate_llm.evaluation.calibrating import Rule, entropy_bound, gate_keeps
from delegate_llm.gates import EntropyGate
from delegate_llm.policy import DelegationPolicy

RNG = np.random.default_rng(0)
ANSWERS = [
    answer(str(at), [("w", float(score), float(score / 2)) for score in RNG.exponential(1, 50)])
    for at in range(20)
]
SCORES = [score for each in ANSWERS for score in each.scores]


def test_the_threshold_is_the_quantile_and_the_spike_the_ratio_of_means() -> None:
    policy = Rule(share=0.1, spike_window=16).policy(ANSWERS)
    above = [score for score in SCORES if score > policy.threshold]
    assert policy.threshold == pytest.approx(np.quantile(SCORES, 0.9), abs=1e-4)
    assert policy.spike == pytest.approx(np.mean(above) / np.mean(SCORES), abs=1e-3)
    assert (policy.spike_window, policy.divergence, policy.gates) == (16, "cross_entropy", ())
    assert Rule(share=0.1, spike=False, divergence="js").policy(ANSWERS) == DelegationPolicy(
        threshold=policy.threshold, divergence="js"
    )


def test_the_threshold_of_tiny_scores_is_not_rounded_away() -> None:
    tiny = [answer("t", [("w", score * 1e-7, 1.0) for score in SCORES])]
    policy = Rule(share=0.1, spike=False, divergence="js").policy(tiny)
    assert policy.threshold == pytest.approx(np.quantile(SCORES, 0.9) * 1e-7, rel=1e-4)


def test_a_share_that_takes_in_negative_scores_is_too_large() -> None:
    below = [answer("t", [("w", score - 1, 1.0) for score in SCORES])]
    with pytest.raises(PolicyError, match=r"share: a share of 0\.9 takes in scores down to -0\.\d+"):
        Rule(share=0.9, divergence="nll_gap").policy(below)


def test_the_gate_keeps_what_it_is_to_keep_and_leaves_the_threshold() -> None:
    rule = Rule(share=0.1, entropy_only=True, keep=0.9)
    policy = rule.policy(ANSWERS)
    assert (policy.threshold, policy.spike) == (Rule(share=0.1).policy(ANSWERS).threshold, 0.0)
    (gate,) = policy.gates
    assert isinstance(gate, EntropyGate)
    assert gate_keeps(ANSWERS, policy) == pytest.approx(0.9)
    assert DelegationPolicy.from_json(policy.to_json()) == policy
    # Here entropy is half the score, so the gate shuts out the lowest tenth of those above.
    above = sorted(score for score in SCORES if score > policy.threshold)
    assert above[9] / 2 <= gate.above < above[10] / 2


def test_without_a_gate_or_without_high_scores_everything_or_nothing_is_kept() -> None:
    assert gate_keeps(ANSWERS, DelegationPolicy(threshold=1.0)) == 1.0
    assert gate_keeps(ANSWERS, DelegationPolicy(threshold=1e9)) is None


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5)), max_size=60),
    st.floats(0.01, 1),
)
def test_the_bound_is_the_highest_that_keeps_enough(pairs: list[tuple[float, float]], keep: float) -> None:
    scores, entropies = [score for score, _ in pairs], [unsure for _, unsure in pairs]
    bound = entropy_bound(scores, entropies, threshold=1.0, keep=keep)
    salient = [unsure for score, unsure in pairs if score > 1.0]
    needed = math.ceil(keep * len(salient) - 1e-9)

    def kept(above: float) -> int:
        return sum(unsure > above for unsure in salient)

    if not salient or sorted(salient, reverse=True)[needed - 1] == 0:
        assert bound == 0  # a base that is quite sure there is seen by no gate
    else:
        assert kept(bound) >= needed
        assert kept(bound + 3e-6) < needed or salient.count(0) == len(salient)


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.1, math.nan])
def test_keep_is_a_fraction(keep: float) -> None:
    for made in (lambda: Rule(keep=keep), lambda: entropy_bound([], [], threshold=1.0, keep=keep)):
        with pytest.raises(PolicyError, match=r"keep: .* is outside \(0, 1\]"):
            made()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_the_share_is_a_fraction(share: float) -> None:
    with pytest.raises(PolicyError, match=r"share: .* is outside \(0, 1\)"):
        Rule(share=share)


def test_an_unknown_divergence_is_named() -> None:
    with pytest.raises(PolicyError, match="unknown divergence 'kullback'"):
        Rule(divergence="kullback")


def test_too_few_scores_for_the_share_are_said() -> None:
    with pytest.raises(PolicyError, match=r"50 scores are too few for a share of 0\.01, which takes 1000"):
        Rule(share=0.01).policy(ANSWERS[:1])
