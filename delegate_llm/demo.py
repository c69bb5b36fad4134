"""How well a pair does on the shipped problems: measured here, printed elsewhere.

`evaluate` lets anything that answers chats in batches work on problems, in text or as an agent with
tools. `compare` sets a pair beside its base alone, its reasoner alone, and takeovers by lot.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from delegate_llm.policy import DelegationPolicy
from delegate_llm.tiny.agent import TOOLS, solve_with_tools
from delegate_llm.tiny.authors import Format
from delegate_llm.tiny.problems import Problem, grade, messages

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.trace import Generation

__all__ = (
    "MAX_TOKENS",
    "AnswerBatch",
    "Arm",
    "Outcome",
    "Result",
    "answers",
    "compare",
    "evaluate",
    "results",
)

MAX_TOKENS: Final = 160
"""Tokens an assistant turn may have: twice what the longest good answer to a problem needs."""

Message = dict[str, Any]
Chat = list[Message]


class AnswerBatch(Protocol):
    """Answers many chats at once."""

    def __call__(self, chats: Sequence[Chat], tools: Chat | None, /) -> Sequence[Generation]:
        """One answer to each chat, given tools or none."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some problems, and what it cost, added up. Outcomes can be added, too."""

    problems: int = 0
    correct: int = 0
    tokens: int = 0
    """Tokens generated."""
    takeovers: int = 0
    asked: int = 0
    """Positions at which the reasoner was consulted."""
    base_forwards: int = 0
    """Forward passes of the base, each counted for every answer that took part in it."""
    reasoner_forwards: int = 0
    seconds: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        """Both together."""
        names = (field.name for field in fields(self))
        return Outcome(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def accuracy(self) -> float | None:
        """Share of the problems solved, in [0, 1]; None of none."""
        return self.correct / self.problems if self.problems else None

    @property
    def share(self) -> float:
        """Takeovers per token."""
        return self.per_token(self.takeovers)

    def per_token(self, count: float) -> float:
        """A count divided by the tokens."""
        return count / self.tokens if self.tokens else 0.0


def evaluate(
    answer: AnswerBatch,
    problems: Sequence[Problem],
    form: Format,
    *,
    batch: int = 32,
    solved: Callable[[], object] = lambda: None,
) -> Outcome:
    """Let a model work on problems, many at once.

    Args:
        answer: The model.
        problems: What to solve.
        form: In text, or by calling tools, turn by turn.
        batch: Chats that are answered together.
        solved: Called whenever a problem is done with, rightly or not.

    Returns:
        Accuracy and cost.
    """
    started = time.perf_counter()
    total = Outcome(problems=len(problems))
    waiting = [_Attempt(problem, form) for problem in problems]
    while waiting:
        # Those that are at it stay in front, so that few chats are open at a time.
        now, waiting = waiting[:batch], waiting[batch:]
        chats = [attempt.chat for attempt in now]
        said = answer(chats, TOOLS if form == "tools" else None)
        for attempt, generation in zip(now, said, strict=True):
            attempt.hear(generation.text)
            total += _cost(generation)
            if attempt.correct is not None:
                total = replace(total, correct=total.correct + attempt.correct)
                solved()
        waiting = [attempt for attempt in now if attempt.correct is None] + waiting
    return replace(total, seconds=time.perf_counter() - started)


def _cost(generation: Generation) -> Outcome:
    said, spent = generation.trace.summary, generation.usage
    return Outcome(
        tokens=said.tokens,
        takeovers=said.takeovers,
        asked=said.asked,
        base_forwards=spent.base_forwards,
        reasoner_forwards=spent.reasoner_forwards,
    )


class _Unanswered(Exception):  # noqa: N818 - it only leaves the agent's loop
    """The loop wants an answer that was not given yet."""

    def __init__(self, chat: Chat) -> None:
        super().__init__()
        self.chat = chat


class _Attempt:
    """One problem on its way, one assistant turn at a time."""

    def __init__(self, problem: Problem, form: Format) -> None:
        self.chat: Chat = messages(problem)
        """What is to be answered next."""
        self.correct: bool | None = None
        """Whether it was solved; None while it is not over."""
        self._problem, self._form = problem, form
        self._turns: list[str] = []

    def hear(self, text: str) -> None:
        """Take the assistant's next turn."""
        self._turns.append(text)
        if self._form == "text":
            self.correct = grade(self._problem, text)
            return
        # The agent's loop answers one chat to its end. To advance many together, it is run again
        # from the start with the turns that are known; all but the models is cheap.
        known = iter(self._turns)
        try:
            self.correct = solve_with_tools(lambda chat, _: _next(known, chat), self._problem).correct
        except _Unanswered as turn:
            self.chat = turn.chat


def _next(known: Iterator[str], chat: Chat) -> str:
    for text in known:
        return text
    raise _Unanswered(chat)


def answers(pair: Pair, policy: DelegationPolicy | None = None, *, seed: int = 0) -> AnswerBatch:
    """A pair as what answers chats, greedily.

    Args:
        pair: The pair.
        policy: When the reasoner takes over; the pair's own by default.
        seed: Where the seeds of the `random` divergence begin.
    """
    # That control fires by seed and position: one seed would have it fire at one place in them all.
    seeds = itertools.count(seed)

    def answer(chats: Sequence[Chat], tools: Chat | None, /) -> Sequence[Generation]:
        return pair.generate_batch(
            chats,
            policy=policy,
            tools=tools,
            max_tokens=MAX_TOKENS,
            seed=list(itertools.islice(seeds, len(chats))),
            trace="off",
        )

    return answer


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer, measured in both formats."""

    name: str
    text: Outcome
    tools: Outcome

    @property
    def total(self) -> Outcome:
        """Both formats together."""
        return self.text + self.tools


def compare(
    pair: Pair,
    text: Sequence[Problem],
    tools: Sequence[Problem],
    *,
    seed: int = 0,
    batch: int = 32,
    solved: Callable[[], object] = lambda: None,
) -> Iterator[Arm]:
    """Measure four ways to answer the same problems.

    Args:
        pair: The pair, with the policy to judge.
        text: Problems to answer in text.
        tools: Problems to solve with tools.
        seed: For the random control.
        batch: As for `evaluate`.
        solved: As for `evaluate`.

    Yields:
        `base alone`, `reasoner alone`, `delegated`, and `random`: as many takeovers in each format
        as the pair's policy made there, at positions drawn by lot.
    """

    def arm(name: str, text_answer: AnswerBatch, tools_answer: AnswerBatch | None = None) -> Arm:
        in_text = evaluate(text_answer, text, "text", batch=batch, solved=solved)
        with_tools = evaluate(tools_answer or text_answer, tools, "tools", batch=batch, solved=solved)
        return Arm(name, in_text, with_tools)

    silent = DelegationPolicy(budget=0)
    yield arm("base alone", answers(pair, silent))
    reasoner = arm("reasoner alone", answers(pair.alone("reasoner"), silent))
    yield Arm(reasoner.name, _by_reasoner(reasoner.text), _by_reasoner(reasoner.tools))
    delegated = arm("delegated", answers(pair))
    yield delegated
    lots = (_by_lot(delegated.text.share), _by_lot(delegated.tools.share))
    yield arm("random", *(answers(pair, lot, seed=seed) for lot in lots))


def _by_lot(share: float) -> DelegationPolicy:
    """Takeovers at a share of the positions, whatever the models say."""
    return DelegationPolicy(divergence="random", threshold=1 - share)


def _by_reasoner(outcome: Outcome) -> Outcome:
    """The outcome of a reasoner that stood in for the base: every token and forward was its own."""
    return replace(
        outcome,
        takeovers=outcome.tokens,
        asked=outcome.tokens,
        base_forwards=0,
        reasoner_forwards=outcome.base_forwards,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """An arm in the numbers that one compares."""

    name: str
    accuracy: float | None
    """Share of all problems solved; shares are in [0, 1]."""
    accuracy_text: float | None
    accuracy_tools: float | None
    share: float
    """Takeovers per token."""
    recovery: float | None
    """(accuracy - base's) / (reasoner's - base's); None where the reasoner is no better."""
    base_forwards_per_token: float
    reasoner_forwards_per_token: float
    asked_per_token: float
    """Positions at which the reasoner was consulted, per token."""
    tokens: int
    seconds: float


def results(arms: Sequence[Arm]) -> list[Result]:
    """The numbers of arms; the first is the base alone, the second the reasoner alone."""
    low, high = (arm.total.accuracy or 0.0 for arm in arms[:2])
    return [_result(arm, low, high) for arm in arms]


def _result(arm: Arm, low: float, high: float) -> Result:
    total = arm.total
    accuracy = total.accuracy
    return Result(
        name=arm.name,
        accuracy=accuracy,
        accuracy_text=arm.text.accuracy,
        accuracy_tools=arm.tools.accuracy,
        share=total.share,
        recovery=None if accuracy is None or high <= low else (accuracy - low) / (high - low),
        base_forwards_per_token=total.per_token(total.base_forwards),
        reasoner_forwards_per_token=total.per_token(total.reasoner_forwards),
        asked_per_token=total.per_token(total.asked),
        tokens=total.tokens,
        seconds=total.seconds,
    )
