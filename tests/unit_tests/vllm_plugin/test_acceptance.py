"""What the batch decides is what `Referee` decides, position by position."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy
from delegate_llm.gates import EntropyGate, GateView, TurnGate, WindowGate
from delegate_llm.policy import Referee
from delegate_llm.vllm_plugin.acceptance import NOTHING, Block, Rules, Standings, judge

maybe = st.none() | st.integers(0, 6)
budgets = st.builds(
    Budget,
    rate=st.none() | st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    burst=st.none() | st.integers(0, 3),
    limit=maybe,
    asks=maybe,
)
gates = st.lists(
    st.builds(EntropyGate, above=st.sampled_from([0.0, 0.5]))
    | st.builds(WindowGate, first=st.integers(0, 9))
    | st.builds(TurnGate, limits=st.fixed_dictionaries({"final": st.integers(0, 4)})),
    max_size=3,
).map(tuple)
policies = st.builds(
    DelegationPolicy,
    divergence=st.sampled_from(["cross_entropy", "entropy", "random"]),
    threshold=st.sampled_from([0.0, 0.3, 0.7]),
    spike=st.sampled_from([0.0, 0.5, 1.2]),
    spike_window=st.integers(1, 5),
    gates=gates,
    budget=budgets,
)
levels = st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.9, 1.0])
says = st.integers(0, 1)
position = st.tuples(says, says, says, levels, levels)  # draft, base, reasoner, score, entropy


@st.composite
def tables(draw):
    """Policies, and for each of them a few blocks of a few positions."""
    chosen = draw(st.lists(policies, min_size=1, max_size=4))
    blocks = [[draw(st.lists(position, max_size=5)) for _ in range(3)] for _ in chosen]
    return chosen, blocks


def text_limit(policy, at):
    """What turn gates allow in an answer that never opens a tool call."""
    turns = [gate for gate in policy.gates if isinstance(gate, TurnGate)]
    return min((gate.most if at == 0 else gate.limits["final"] for gate in turns), default=math.inf)


def refereed(policy, blocks):
    """The decisions of one answer by the specification."""
    referee, at, decided = Referee(policy), 0, []
    standing = referee.start()
    for block in blocks:
        told = []
        for draft, base, reasoner, score, entropy in block:
            view = GateView(
                position=at,
                base_entropy=entropy,
                budget=referee.budget(standing),
                spent=standing.spent,
            )
            opens = referee.opens(standing, view)
            takeover = opens and referee.fires(standing, score)
            asked = takeover if referee.base_only else opens
            token = reasoner if takeover else base
            told.append((token, asked, takeover, opens))
            standing = referee.after(standing, score=score if opens else None, asked=asked, takeover=takeover)
            at += 1
            if token != draft:
                break
        decided.append(told)
    return decided, (standing.level, standing.spent, standing.asked, at), standing.scores


def in_tensors(policies, blocks):
    width = max((policy.spike_window for policy in policies if policy.spike), default=0)
    rules = Rules(*torch.tensor([Rules.row(each) for each in policies], dtype=torch.float64).T)
    zeros = torch.zeros(len(policies), dtype=torch.float64)
    standings = Standings(
        rules.capacity, zeros, zeros, zeros, zeros, torch.zeros(len(policies), width, dtype=torch.float64)
    )
    decided = [[] for _ in policies]
    for turn in zip(*blocks, strict=True):
        size = max(map(len, turn), default=0)
        if not size:
            for each in decided:
                each.append([])
            continue
        filled = [[*block, *[(0, 0, 0, 0.0, 0.0)] * (size - len(block))] for block in turn]
        draft, base, reasoner, score, entropy = torch.tensor(filled, dtype=torch.float64).permute(2, 0, 1)
        starts = standings.position.int().tolist()
        limit = torch.tensor(
            [
                [text_limit(policy, start + at) for at in range(size)]
                for policy, start in zip(policies, starts, strict=True)
            ],
            dtype=torch.float64,
        )
        block = Block(
            exists=torch.arange(size) < torch.tensor([[len(block)] for block in turn]),
            draft=draft.long(),
            base=base.long(),
            reasoner=reasoner.long(),
            score=score,
            entropy=entropy,
            limit=limit,
        )
        before = [each.clone() for each in standings]
        verdicts, after = judge(rules, standings, block)
        assert all(map(torch.equal, standings, before))
        standings = after
        for row, told in enumerate(decided):
            count = int((verdicts.token[row] != NOTHING).sum())
            assert (verdicts.token[row, count:] == NOTHING).all()
            told.append(list(zip(*(each[row, :count].tolist() for each in verdicts), strict=True)))
    return decided, standings


@given(tables())
def test_it_decides_as_the_referee(table):
    policies, blocks = table
    decided, standings = in_tensors(policies, blocks)
    for row, policy in enumerate(policies):
        told, numbers, scores = refereed(policy, blocks[row])
        assert decided[row] == told
        assert [float(each[row]) for each in standings[:4]] == pytest.approx(numbers, abs=1e-12)
        if policy.spike:
            seen, width = int(standings.seen[row]), standings.scores.shape[1]
            places = [at % width for at in range(max(0, seen - len(scores)), seen)]
            assert standings.scores[row, places].tolist() == list(scores)


def test_an_answer_that_is_not_at_a_word_yet_stands_as_it_stood():
    policy = DelegationPolicy(threshold=0.0, budget={"rate": 0.5, "burst": 2})
    decided, standings = in_tensors([policy, policy], [[[]], [[(0, 0, 1, 1.0, 1.0)]]])
    assert decided[0] == [[]]
    assert decided[1] == [[(1, True, True, True)]]
    assert standings.level.tolist() == [2.0, 1.5]
    assert standings.position.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("window", [1, 3, 8, 9, 10, 40, 200])
def test_windows_narrower_and_wider_than_a_block(window):
    """The scores of long answers, infinite ones among them, that enter and leave windows of any width."""
    draws = random.Random(window)
    policies = [
        DelegationPolicy(threshold=0.5, spike=1.1, spike_window=each)
        for each in (window, 200, 1 + window // 2)
    ]
    scores = [draws.choice([draws.random(), draws.random() * 1e3, math.inf]) for _ in range(7)]
    blocks = [
        [[(0, 0, 1, draws.choice([draws.random(), *scores]), 1.0) for _ in range(9)] for _ in range(60)]
        for _ in policies
    ]
    decided, standings = in_tensors(policies, blocks)
    for row, policy in enumerate(policies):
        told, _, kept = refereed(policy, blocks[row])
        assert decided[row] == told
        seen, width = int(standings.seen[row]), standings.scores.shape[1]
        places = [at % width for at in range(max(0, seen - len(kept)), seen)]
        assert standings.scores[row, places].tolist() == list(kept)
