"""Policies, budgets and gates: what they say, what they refuse, and how they are saved."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy, GateError, GateView, LoadError, PolicyError
from delegate_llm.gates import boundary, entropy, window
from delegate_llm.policy import DEFAULT_BURST, Referee


def view(position: int = 0, *, entropy: float = 1.0, text: str = "") -> GateView:
    return GateView(position, entropy, math.inf, lambda: text)


def spend(policy: DelegationPolicy, scores: list[float]) -> list[bool]:
    """Which of a run of scores are takeovers."""
    referee, taken = Referee(policy), []
    standing = referee.start()
    for position, score in enumerate(scores):
        asked = referee.opens(standing, view(position))
        fires = asked and referee.fires(standing, score)
        standing = referee.after(standing, score=score if asked else None, asked=asked, takeover=fires)
        taken.append(fires)
    return taken


def test_threshold_is_exclusive() -> None:
    assert spend(DelegationPolicy(threshold=1.0), [1.0, 1.0001, 0.5]) == [False, True, False]


def test_spike_compares_with_the_recent_mean() -> None:
    policy = DelegationPolicy(threshold=0.1, spike=2.0, spike_window=2)
    # No scores: passes. 1.9 < 2 * 1. 3.1 > 2 * 1.45. Fired scores stay: 4 < 2 * 2.5. Window of two: ok.
    assert spend(policy, [1.0, 1.9, 3.1, 4.0, 0.2, 0.2, 0.5]) == [
        True,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_no_spike_without_a_factor() -> None:
    assert spend(DelegationPolicy(threshold=0.1), [5.0, 1.0, 0.2]) == [True, True, True]


def test_limit_only() -> None:
    assert sum(spend(DelegationPolicy(threshold=0, budget=3), [1.0] * 50)) == 3


def test_burst_then_rate() -> None:
    """Three at once, then one every ten tokens: a refilled takeover comes on time, not a rounding late."""
    policy = DelegationPolicy(threshold=0, budget=Budget(rate=0.1, burst=3))
    taken = [at for at, each in enumerate(spend(policy, [1.0] * 45)) if each]
    # Positions 0 and 1 refill 0.2 on the way, so the fourth comes at 8 tokens after the third.
    assert taken[:3] == [0, 1, 2]
    assert taken[3:] == [10, 20, 30, 40]


def test_burst_without_rate_is_a_limit() -> None:
    assert sum(spend(DelegationPolicy(threshold=0, budget=Budget(burst=2)), [1.0] * 30)) == 2


def test_rate_has_a_default_burst() -> None:
    taken = spend(DelegationPolicy(threshold=0, budget=0.01), [1.0] * 20)
    assert taken == [True] * DEFAULT_BURST + [False] * (20 - DEFAULT_BURST)


def test_asks_are_capped() -> None:
    assert spend(DelegationPolicy(threshold=0, budget=Budget(asks=4)), [1.0] * 9) == [True] * 4 + [False] * 5


@given(
    rate=st.none() | st.floats(0, 1),
    burst=st.none() | st.integers(0, 9),
    limit=st.none() | st.integers(0, 30),
    scores=st.lists(st.floats(0, 5), max_size=80),
)
def test_never_beyond_the_budget(
    rate: float | None, burst: int | None, limit: int | None, scores: list[float]
) -> None:
    budget = Budget(rate=rate, burst=burst, limit=limit)
    taken = spend(DelegationPolicy(threshold=1.0, budget=budget), scores)
    assert sum(taken) <= (math.inf if limit is None else limit)
    for stop in range(len(taken) + 1):
        earned = (rate or 0) * stop
        assert sum(taken[:stop]) <= budget.capacity + earned + 1e-6


@pytest.mark.parametrize(
    ("policy", "position", "over"),
    [
        (DelegationPolicy(budget=0), 0, True),
        (DelegationPolicy(budget=0.0), 0, True),
        (DelegationPolicy(budget=Budget(burst=0, rate=0.5)), 0, True),
        (DelegationPolicy(budget=Budget(asks=0)), 0, True),
        (DelegationPolicy(gates=window(3)), 2, False),
        (DelegationPolicy(gates=window(3)), 3, True),
        (DelegationPolicy(), 10**6, False),
    ],
)
def test_the_reasoner_is_out_for_good(policy: DelegationPolicy, position: int, over: bool) -> None:
    referee = Referee(policy)
    assert referee.is_over(referee.start(), position) is over


@pytest.mark.parametrize(
    ("gate", "text", "opens"),
    [
        (boundary(), "", True),
        (boundary("sentence"), "It is 12.", True),
        (boundary("sentence"), 'He said "no." ', True),
        (boundary("sentence"), "It is", False),
        (boundary("sentence"), "x" * 200, False),
        (boundary("line"), "a\n", True),
        (boundary("line"), "a\n  ", True),
        (boundary("line"), "a", False),
        (boundary("line"), "y" * 64, False),
        (boundary("tool_call"), "so <tool_call>", True),
        (boundary("tool_call"), '<tool_call>\n{"name": "', True),
        (boundary("tool_call"), '<tool_call>\n{"name": "add', False),
        (boundary("tool_call"), "", False),
        (entropy(0.9), "", True),
        (entropy(1.0), "", False),
    ],
)
def test_named_gates(gate: Any, text: str, opens: bool) -> None:
    assert gate(view(entropy=1.0, text=text)) is opens


def test_gates_compose() -> None:
    referee = Referee(DelegationPolicy(gates=[window(5), lambda each: each.position > 1]))
    opened = [referee.opens(referee.start(), view(position)) for position in range(7)]
    assert opened == [False, False, True, True, True, False, False]


def test_a_gate_that_raises_is_named() -> None:
    referee = Referee(DelegationPolicy(gates=lambda _: 1 / 0))
    with pytest.raises(GateError, match=r"ZeroDivisionError.*position 4") as caught:
        referee.opens(referee.start(), view(4))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"threshold": -0.1}, "threshold.*-0.1"),
        ({"threshold": math.nan}, "threshold.*nan"),
        ({"threshold": "high"}, "threshold.*high"),
        ({"divergence": "hellinger"}, "hellinger.*cross_entropy"),
        ({"spike": -1}, "spike"),
        ({"spike_window": 0}, "spike_window"),
        ({"budget": 1.5}, "budget.*1.5"),
        ({"budget": -1}, "limit.*-1"),
        ({"budget": True}, "budget.*True"),
        ({"budget": "lots"}, "budget.*lots"),
        ({"gates": 3}, "gates"),
        ({"gates": {"phase": 1}}, "unknown gate 'phase'"),
        ({"gates": "phase"}, "unknown gate 'phase'"),
        ({"gates": ["entropy"]}, "above"),
        ({"gates": [{"kind": "phase"}]}, "phase.*window"),
        ({"gates": [{}]}, "no gate"),
        ({"gates": {"entropy": -2}}, "-2"),
        ({"version": 9}, "version"),
        ({"treshold": 1}, "treshold"),
    ],
)
def test_bad_policies_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=f"(?s){said}"):
        DelegationPolicy(**values)
    with pytest.raises(PolicyError, match=f"(?s){said}"):
        DelegationPolicy.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [{"rate": 1.01}, {"rate": -0.1}, {"rate": math.nan}, {"burst": -1}, {"limit": 1.5}, {"asks": -3}],
)
def test_bad_budgets_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=next(iter(values))):
        Budget(**values)


@pytest.mark.parametrize(
    "policy",
    [
        DelegationPolicy(),
        DelegationPolicy(threshold=math.inf),
        DelegationPolicy(divergence="js", threshold=0.3, spike=1.5, spike_window=8, budget=0.05),
        DelegationPolicy(gates={"entropy": 0.5, "window": 64, "boundary": ["line"]}, budget=12),
        DelegationPolicy(gates=boundary("tool_call"), budget=Budget(rate=0.1, burst=2, limit=9, asks=40)),
    ],
)
def test_json_round_trip(policy: DelegationPolicy) -> None:
    assert DelegationPolicy.from_json(policy.to_json()) == policy
    assert json.loads(policy.to_json())["version"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"gates": [{"kind": "x"}]}'])
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        DelegationPolicy.from_json(text)


@pytest.mark.parametrize("path", [5, b"x", ("a",), "a\0b", "~nosuchuser/x", "x" * 5000, "nowhere", "\ud800"])
def test_what_is_no_policys_file(path: Any) -> None:
    with pytest.raises(LoadError, match=r"cannot read .*; give the file of a saved policy"):
        DelegationPolicy.read(path)


def test_gates_by_name_by_setting_and_by_field() -> None:
    wanted = (boundary(), window(3))
    for written in (
        ["boundary", {"window": 3}],
        {"boundary": True, "window": 3},
        [{"kind": "boundary"}, {"kind": "window", "first": 3}],
        wanted,
    ):
        assert DelegationPolicy(gates=written).gates == wanted
    assert DelegationPolicy(gates="boundary").gates == wanted[:1]


def test_a_policy_may_be_given_by_its_fields() -> None:
    assert DelegationPolicy.of({"threshold": 2.0, "budget": 3}) == DelegationPolicy(threshold=2.0, budget=3)
    with pytest.raises(PolicyError, match="5 is neither"):
        DelegationPolicy.of(5)


def test_callables_cannot_be_saved() -> None:
    with pytest.raises(PolicyError, match="cannot be saved"):
        DelegationPolicy(gates=lambda _: True).to_json()


def test_policies_are_frozen_and_compare() -> None:
    assert Budget() == Budget(rate=None)
    assert Budget.of(4) == Budget(limit=4)
    assert Budget.of(0.25) == Budget(rate=0.25)
    assert Budget.of({"asks": 3}) == Budget(asks=3)
    assert hash(DelegationPolicy()) == hash(DelegationPolicy())


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": 10**400},
        {"budget": {"burst": 1 << 54}},
        {"budget": {"asks": 10**400}},
        {"spike_window": 10**30},
        {"gates": {"window": 10**400}},
        {"gates": {"turn": {"final": 10**400}}},
        {"threshold": 10**400},
        {"budget": 10**5000},
        {1: 2},
        {"budget": {1: 2}},
        {"gates": {"kind": "entropy", "above": 1, 1: 2}},
    ],
    ids=lambda fields: str(next(iter(fields))),
)
def test_numbers_that_no_float_holds_and_keys_that_name_nothing(fields: dict[Any, Any]) -> None:
    with pytest.raises(PolicyError):
        DelegationPolicy.of(fields)
