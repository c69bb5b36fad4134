"""Gates that look at what was spent: a draft is made before that is known, and must not show it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy, Pair, PolicyError, TurnGate
from delegate_llm.gates import GateView
from delegate_llm.pairs.scripted import scripted_pair
from delegate_llm.policy import Referee

PIECES = ["a", "b", "<tool_call>", "<end>"]
LENGTH = 20


def says(tokens: Sequence[int], sure: Sequence[bool]) -> Callable[[Sequence[int]], list[float]]:
    """A script that says these tokens behind a prompt of one, surely or not."""

    def script(seen: Sequence[int]) -> list[float]:
        at = len(seen) - 1
        return [(9.0 if sure[at] else 0.5) if each == tokens[at] else 0.0 for each in range(len(PIECES))]

    return script


def plain(
    base: Sequence[int],
    reasoner: Sequence[int],
    sure: Sequence[bool],
    budget: Budget,
    gate: Callable[[int, int, str], bool],
) -> tuple[list[int], list[int], int]:
    """The method, word for word: tokens, where the reasoner took over, and how often it was asked."""
    tokens: list[int] = []
    taken: list[int] = []
    asked = 0
    for at in range(LENGTH):
        left = (budget.limit is None or len(taken) < budget.limit) and (
            budget.asks is None or asked < budget.asks
        )
        opens = left and gate(len(taken), at, "".join(PIECES[each] for each in tokens))
        takeover = opens and (base[at] != reasoner[at] or not sure[at])
        asked += opens
        taken += [at] * takeover
        tokens.append(reasoner[at] if takeover else base[at])
    return tokens, taken, asked


def turn(limits: Mapping[str, int], spent: int, position: int, text: str) -> bool:
    kinds = ["tool_call" if "<tool_call>" in text else "final"] if position else ["tool_call", "final"]
    return any(kind not in limits or spent < limits[kind] for kind in kinds)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_draft_does_not_show_it(seed: int) -> None:
    chance = random.Random(seed)
    base = chance.choices([0, 1, 2], [5, 2, 1], k=LENGTH)
    reasoner = [chance.choice([each, each, each, 1]) for each in base]
    sure = [chance.random() < 0.6 for _ in base]
    budget = Budget(limit=chance.choice([None, 1, 3, 6]), asks=chance.choice([None, 1, 2, 4, 7]))
    limits = {kind: chance.randint(0, 4) for kind in ("tool_call", "final") if chance.random() < 0.6}
    # By what was spent, and by position: whether a gate opens.
    table = [[chance.random() < 0.6 for _ in base] for _ in range(LENGTH)]

    def gate(spent: int, at: int, text: str) -> bool:
        return table[spent][at] and turn(limits, spent, at, text)

    wanted = plain(base, reasoner, sure, budget, gate)
    named = [TurnGate(limits=limits)] if limits else []
    gates = [lambda view: table[view.spent][view.position], *named]
    two = scripted_pair(says(base, [True] * LENGTH), says(reasoner, sure), PIECES, eos=3)
    for schedule, trace in itertools.product(("lockstep", "draft"), ("takeovers", "full")):
        made = two.generate(
            [0],
            policy=DelegationPolicy(threshold=1.0, gates=gates, budget=budget),
            max_tokens=LENGTH,
            ignore_eos=True,
            schedule=schedule,
            draft=chance.randint(0, LENGTH),
            trace=trace,
        )
        assert list(made.token_ids) == wanted[0]
        assert [each.position for each in made.trace.takeovers] == wanted[1]
        assert made.trace.summary.asked == wanted[2]


def unsure(base: str) -> Pair:
    """The base says this, letter by letter or a tag; the reasoner agrees, but has to be asked to say so."""
    tokens = [PIECES.index(each) for each in base.split()]
    return scripted_pair(
        says(tokens, [True] * len(tokens)), says(tokens, [False] * len(tokens)), PIECES, eos=3
    )


@pytest.mark.parametrize("schedule", ["lockstep", "draft"])
@pytest.mark.parametrize(
    ("limits", "asks", "taken"),
    [
        ({"final": 2}, None, [0, 1, 4, 5, 6, 7]),
        ({"tool_call": 3}, None, [0, 1, 2, 3]),
        ({"final": 1, "tool_call": 4}, None, [0, 4, 5, 6]),
        ({"final": 0, "tool_call": 2}, None, [0, 4]),
        ({"final": 3, "tool_call": 0}, None, [0, 1, 2]),
        ({"final": 0, "tool_call": 0}, None, []),
        # The second takeover is where three asks were thought to be spent.
        ({"final": 1, "tool_call": 4}, 3, [0, 4, 5]),
    ],
)
def test_takeovers_by_the_kind_of_answer(
    schedule: str, limits: Any, asks: int | None, taken: list[int]
) -> None:
    two = unsure("a a a <tool_call> a a a a")
    policy = DelegationPolicy(threshold=1.0, gates={"turn": limits}, budget=Budget(asks=asks))
    made = two.generate([0], policy=policy, max_tokens=8, ignore_eos=True, schedule=schedule)
    assert [each.position for each in made.trace.takeovers] == taken


def test_the_reasoner_is_out_once_no_kind_of_answer_may_spend_more() -> None:
    referee = Referee(DelegationPolicy(gates=TurnGate(limits={"final": 0, "tool_call": 1})))
    standing = referee.start()
    assert not referee.is_over(standing, 0)
    assert referee.is_over(referee.after(standing, score=None, asked=True, takeover=True), 1)
    endless = Referee(DelegationPolicy(gates=TurnGate(limits={"final": 0})))
    assert not endless.is_over(endless.start(), 10**6)
    made = unsure("a a a a").generate(
        [0], policy={"gates": {"turn": {"final": 0, "tool_call": 0}}}, max_tokens=4, ignore_eos=True
    )
    assert made.usage.reasoner_forwards == 0


@pytest.mark.parametrize(
    ("position", "text", "spent", "opens"),
    [
        (0, "", 1, True),
        (0, "", 2, False),
        (1, "So", 0, True),
        (1, "So", 1, False),
        (9, "So <tool_call>{", 1, True),
        (9, "So <tool_call>{", 2, False),
        (9, "So <tool_call", 1, False),
    ],
)
def test_an_answer_is_final_until_it_opens_a_call(
    *, position: int, text: str, spent: int, opens: bool
) -> None:
    gate = TurnGate(limits={"final": 1, "tool_call": 2})
    assert gate(GateView(position, 1.0, 9.0, lambda: text, spent)) is opens


def test_it_is_saved_and_compared_as_other_gates_are() -> None:
    policy = DelegationPolicy(gates={"turn": {"final": 2}, "window": 9})
    assert DelegationPolicy.from_json(policy.to_json()) == policy
    assert hash(policy) == hash(DelegationPolicy.from_json(policy.to_json()))
    assert policy != DelegationPolicy(gates={"turn": {"final": 3}, "window": 9})
    assert policy.gates[0] == TurnGate(limits={"final": 2})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"turn": {"final": -1}}, r"limits.final: .*-1"),
        ({"turn": {"draft": 1}}, r"'tool_call' or 'final'.*'draft'"),
        ({"turn": {"final": "few"}}, r"limits.final: .*'few'"),
        ({"turn": {}}, r"limits: .*at least 1 item"),
        ({"turn": 3}, r"limits: .*\(got 3\)"),
        ("turn", "limits"),
    ],
)
def test_one_that_cannot_be_is_refused(written: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        DelegationPolicy(gates=written)
