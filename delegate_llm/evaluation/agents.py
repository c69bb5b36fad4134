"""An agent at several budgets, beside the same agent with the base alone and with the reasoner alone.

All of them are one graph, `tool_agent`, on the same problems, one problem after the other. What a run costs,
and where takeovers fell, is read from the records of its messages.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from delegate_llm.chat_model import DelegatedChatModel
from delegate_llm.evaluation.places import PLACES, Place, takeover_places
from delegate_llm.evaluation.problems import Outcome, cost, recovery
from delegate_llm.evaluation.statistics import wilson
from delegate_llm.graph.agent import tool_agent
from delegate_llm.graph.allocation import DelegationContext
from delegate_llm.tiny.agent import FUNCTIONS, MAX_TOKENS, TURNS
from delegate_llm.tiny.problems import Problem, grade, messages

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("LIMITED", "AgentArm", "AgentResult", "Task", "agent_results", "compare_agents")

LIMITED: Final = RunnableConfig(recursion_limit=2 * TURNS)
"""Config of a run that may take `TURNS` turns, with the tools in between."""


@dataclass(frozen=True, slots=True)
class Task:
    """One problem that an agent worked on."""

    outcome: Outcome
    places: tuple[Place, ...] = ()
    """Of the takeovers."""
    error: str | None = None
    """What the run broke off with, if it did; the task has failed then."""


@dataclass(frozen=True, slots=True)
class AgentArm:
    """An agent, measured."""

    name: str
    budget: int | None
    """Takeovers that each task might spend; None for a model alone."""
    tasks: tuple[Task, ...]

    @property
    def outcome(self) -> Outcome:
        """All tasks together."""
        return sum((each.outcome for each in self.tasks), Outcome())


def compare_agents(
    pair: Pair,
    problems: Sequence[Problem],
    contexts: Sequence[DelegationContext],
    *,
    done: Callable[[], object] = lambda: None,
) -> Iterator[AgentArm]:
    """Let agents solve the same problems.

    Args:
        pair: The models, and the policy to judge.
        problems: The tasks.
        contexts: Settings of the delegated arms; the total is what each task may spend.
        done: Called after each task.

    Yields:
        `base alone`, `reasoner alone`, and `budget N` for each context.
    """
    model = DelegatedChatModel(pair=pair, max_tokens=MAX_TOKENS, trace="full")
    nothing = DelegationContext(total=0)
    arms = [
        ("base alone", None, model.model_copy(update={"arm": "base"}), nothing),
        ("reasoner alone", None, model.model_copy(update={"arm": "reasoner"}), nothing),
        *((f"budget {each.total}", each.total, model, each) for each in contexts),
    ]
    for name, budget, own, context in arms:
        agent, tasks = tool_agent(own, FUNCTIONS), []
        if problems:
            _solve(agent, problems[0], context)  # what is slow only once does not count
        for problem in problems:
            tasks.append(_solve(agent, problem, context))
            done()
        yield AgentArm(name, budget, tuple(tasks))


def _solve(agent: Any, problem: Problem, context: DelegationContext) -> Task:
    """One run of an agent; whatever it raises is its failure, and what it had done by then is counted."""
    started, error = time.perf_counter(), None
    state: Mapping[str, Any] = {}
    try:
        for state in agent.stream(  # noqa: B007 - the last one is wanted
            {"messages": messages(problem)}, LIMITED, context=context, stream_mode="values"
        ):
            pass
    except Exception as raised:  # noqa: BLE001 - the other tasks go on, whatever it was
        error = type(raised).__name__
    seconds = time.perf_counter() - started
    said = [each for each in state.get("messages", ()) if isinstance(each, AIMessage)]
    if said and said[-1].invalid_tool_calls:
        error = error or "a broken call"
    solved = error is None and bool(said) and grade(problem, said[-1].text)
    outcome = sum(map(cost, said), Outcome(problems=1, correct=int(solved), seconds=seconds))
    decisions = (each.response_metadata["delegation"]["decisions"] for each in said)
    return Task(outcome, tuple(place for each in decisions for place in takeover_places(each)), error)


@dataclass(frozen=True, slots=True)
class AgentResult:
    """An arm in the numbers that one compares. What means nothing for a model alone is None there."""

    name: str
    budget: int | None
    """Takeovers that each task might spend."""
    tasks: int
    solved: int
    success: float | None
    """Share of the tasks solved; shares are in [0, 1]."""
    interval: tuple[float, float]
    """Within which the success lies, with 95 % confidence."""
    gap_kept: float | None
    """(success - base's) / (reasoner's - base's); None where the reasoner is no better."""
    tokens_per_task: float
    takeovers: int | None
    takeovers_per_task: float | None
    share: float | None
    """Takeovers per generated token."""
    places: dict[Place, int] | None
    """Takeovers by where they fell."""
    reasoner_tokens_per_task: float
    """Tokens that the reasoner processed, prompts included."""
    reasoner_forwards_per_task: float
    base_forwards_per_task: float
    seconds_per_task: float
    errors: dict[str, int]
    """Tasks whose run broke off, by what it was."""


def agent_results(arms: Sequence[AgentArm]) -> list[AgentResult]:
    """The numbers of arms; the first is the base alone, the second the reasoner alone."""
    low, high = (arm.outcome.accuracy for arm in arms[:2])
    return [_result(arm, low, high) for arm in arms]


def _result(arm: AgentArm, low: float | None, high: float | None) -> AgentResult:
    total, tasks = arm.outcome, max(1, len(arm.tasks))
    alone = arm.budget is None
    places = Counter(place for task in arm.tasks for place in task.places)
    return AgentResult(
        name=arm.name,
        budget=arm.budget,
        tasks=total.problems,
        solved=total.correct,
        success=total.accuracy,
        interval=wilson(total.correct, total.problems),
        gap_kept=recovery(total.accuracy, low, high),
        tokens_per_task=total.tokens / tasks,
        takeovers=None if alone else total.takeovers,
        takeovers_per_task=None if alone else total.takeovers / tasks,
        share=None if alone else total.share,
        places=None if alone else {place: places[place] for place in PLACES},
        reasoner_tokens_per_task=total.reasoner_tokens / tasks,
        reasoner_forwards_per_task=total.reasoner_forwards / tasks,
        base_forwards_per_task=total.base_forwards / tasks,
        seconds_per_task=total.seconds / tasks,
        errors=dict(Counter(task.error for task in arm.tasks if task.error is not None)),
    )
