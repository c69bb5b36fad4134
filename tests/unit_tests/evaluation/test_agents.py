"""Agents compared: the shipped pair on a few problems, and scripts that never come to an end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_chat import END, IDS, PIECES, START, TEMPLATE

from delegate_llm import DelegationPolicy, NumericsError, Pair, RequestError, load_pair
from delegate_llm.errors import MissingExtraError
from delegate_llm.evaluation.agents import AgentArm, AgentResult, Task, agent_results, compare_agents
from delegate_llm.evaluation.plots import check_plot, plot_agents
from delegate_llm.evaluation.problems import Outcome
from delegate_llm.graph import DelegationContext
from delegate_llm.pairs.scripted import Script, scripted_pair
from delegate_llm.tiny.agent import TURNS
from delegate_llm.tiny.problems import problems

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 1}}\n</tool_call>'


@pytest.fixture(scope="module")
def shipped() -> list[AgentResult]:
    pair = load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    contexts = [DelegationContext(total=each) for each in (0, 1, 8)]
    return agent_results(list(compare_agents(pair, problems(4, seed=21, split="test"), contexts)))


def test_the_shipped_agent_keeps_the_gap_with_few_takeovers_on_names_and_plans(
    shipped: list[AgentResult],
) -> None:
    base, reasoner, *_, most = shipped
    assert [each.name for each in shipped] == [
        "base alone", "reasoner alone", "budget 0", "budget 1", "budget 8",
    ]  # fmt: skip
    assert base.success is not None
    assert reasoner.success is not None
    assert base.success < reasoner.success
    assert most.gap_kept is not None
    assert most.gap_kept >= 0.9
    assert most.share is not None
    assert 0 < most.share <= 0.1
    assert most.places is not None
    assert most.places["name"] + most.places["prose"] > most.places["arguments"]
    assert sum(most.places.values()) == most.takeovers


def test_no_task_spends_more_than_its_budget(shipped: list[AgentResult]) -> None:
    assert [each.takeovers for each in shipped] == [None, None, 0, 4, shipped[-1].takeovers]
    assert all(each.takeovers is None or each.takeovers <= (each.budget or 0) * 4 for each in shipped)


def test_a_model_alone_runs_alone_and_no_budget_is_the_base_alone(shipped: list[AgentResult]) -> None:
    base, reasoner, nothing, *_ = shipped
    assert (base.reasoner_forwards_per_task, base.reasoner_tokens_per_task) == (0, 0)
    assert reasoner.base_forwards_per_task == 0
    assert 0 < reasoner.reasoner_forwards_per_task <= reasoner.tokens_per_task
    assert (base.places, base.share, reasoner.places, reasoner.share) == (None, None, None, None)
    assert (nothing.solved, nothing.tokens_per_task) == (base.solved, base.tokens_per_task)
    assert nothing.reasoner_forwards_per_task == 0
    assert all(each.seconds_per_task > 0 and not each.errors for each in shipped)


# --- Runs that go wrong ---


def says(*words: str) -> Script:
    """What is said turn by turn; the last one is said again and again."""

    def say(ids: Sequence[int]) -> list[float]:
        start = len(ids) - ids[::-1].index(IDS[START]) + len("assistant\n")
        turn = sum(piece == IDS[START] for piece in ids) // 2 - 1
        own = words[min(turn, len(words) - 1)]
        written = "".join(PIECES[each] for each in ids[start:])
        rest = own.removeprefix(written)
        piece = next((each for each in IDS if len(each) > 1 and rest.startswith(each)), rest[:1]) or END
        return [9.0 if each == IDS[piece] else 0.0 for each in range(len(PIECES))]

    return say


def scripted(base: Script, reasoner: Script) -> Pair:
    policy = DelegationPolicy(threshold=3.0)
    return scripted_pair(base, reasoner, PIECES, eos=IDS[END], policy=policy, chat_template=TEMPLATE)


def compared(pair: Pair, count: int = 2) -> list[AgentResult]:
    done: list[int] = []
    contexts = [DelegationContext(total=3)]
    asked = problems(count, seed=0, split="test")
    found = agent_results(list(compare_agents(pair, asked, contexts, done=lambda: done.append(1))))
    assert len(done) == 3 * count
    return found


def test_an_agent_without_end_has_failed_and_what_it_did_counts() -> None:
    for each in compared(scripted(says(CALL), says(CALL))):
        assert (each.success, each.errors) == (0.0, {"GraphRecursionError": 2})
        assert each.tokens_per_task == TURNS * (len(CALL) - len("<tool_call></tool_call>") + 3)


def test_as_many_turns_as_are_allowed_are_enough() -> None:
    (asked,) = problems(1, seed=0, split="test")
    words = [*[CALL] * (TURNS - 1), f"The answer is {asked.answer}."]
    assert [each.solved for each in compared(scripted(says(*words), says(*words)), 1)] == [1, 1, 1]


def test_a_broken_call_is_a_failure_whatever_else_is_said() -> None:
    (asked,) = problems(1, seed=0, split="test")
    script = says(f"The answer is {asked.answer}. <tool_call>{{")
    for each in compared(scripted(script, script), 1):
        assert (each.solved, each.errors) == (0, {"a broken call": 1})


def test_a_tool_that_is_none_is_told_to_the_model_which_may_go_on() -> None:
    (asked,) = problems(1, seed=0, split="test")
    script = says(CALL.replace("add", "divide"), f"The answer is {asked.answer}.")
    assert [each.solved for each in compared(scripted(script, script), 1)] == [1, 1, 1]


def test_a_run_that_raises_is_a_failed_task_of_its_arm_alone() -> None:
    def breaks(ids: Sequence[int]) -> list[float]:
        return [math.nan] * len(PIECES)

    base, reasoner, delegated = compared(scripted(says("No."), breaks))
    assert (base.errors, reasoner.errors, delegated.errors) == (
        {},
        {NumericsError.__name__: 2},
        {NumericsError.__name__: 2},
    )
    assert [each.gap_kept for each in (base, reasoner, delegated)] == [None] * 3


# --- Numbers ---


def test_of_no_tasks_nothing_is_known() -> None:
    arms = [AgentArm(name, None, ()) for name in ("base alone", "reasoner alone")]
    found = [(each.success, each.gap_kept, each.interval) for each in agent_results(arms)]
    assert found == [(None, None, (0.0, 1.0))] * 2


# --- The picture ---


def drawn(file: Path) -> None:
    def arm(name: str, budget: int | None, solved: int) -> AgentArm:
        tasks = [Task(Outcome(1, at < solved, 50, 2), ("name", "prose")) for at in range(4)]
        return AgentArm(name, budget, tuple(tasks))

    arms = [arm("base alone", None, 0), arm("reasoner alone", None, 4), arm("budget 1", 1, 2), arm("b", 2, 4)]
    plot_agents(agent_results(arms), "An agent", file)


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn(tmp_path / "agents.png")
    assert (tmp_path / "agents.png").read_bytes().startswith(b"\x89PNG")
    drawn(tmp_path / "agents.svg")
    assert "<svg" in (tmp_path / "agents.svg").read_text()


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    check_plot(tmp_path / "agents.png")
    with pytest.raises(RequestError, match=r"agents\.txt.*\.png"):
        check_plot(tmp_path / "agents.txt")
    with pytest.raises(RequestError, match="there is no folder"):
        check_plot(tmp_path / "nowhere" / "agents.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(RequestError, match="cannot write"):
        drawn(tmp_path / "folder.png")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"delegate-llm\[bench\]"):
        check_plot(tmp_path / "agents.png")
