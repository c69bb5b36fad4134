"""How well a pair does on the shipped problems: measured here, printed elsewhere.

`evaluate` lets a chat model, or whatever answers chats in batches, work on problems, in text or as an agent
with tools. `compare` sets a pair beside its base alone, its reasoner alone, and takeovers by lot.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Protocol

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from delegate_llm.chat_model import DelegatedChatModel
from delegate_llm.policy import DelegationPolicy
from delegate_llm.tiny.agent import MAX_TOKENS, TOOLS, TURNS, execute
from delegate_llm.tiny.authors import Format
from delegate_llm.tiny.problems import Problem, grade

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = (
    "AnswerBatch",
    "Arm",
    "Outcome",
    "Result",
    "answers",
    "compare",
    "cost",
    "evaluate",
    "recovery",
    "results",
)

_PROMPT: Final = ChatPromptTemplate([MessagesPlaceholder("chat")])

Chat = list[BaseMessage]


class AnswerBatch(Protocol):
    """Answers many chats at once."""

    def __call__(self, chats: Sequence[Chat], form: Format, /) -> Sequence[AIMessage]:
        """One answer to each chat, with the problems' tools at hand or without."""
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
    reasoner_tokens: int = 0
    """Tokens that the reasoner processed, prompts included."""
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


def cost(message: AIMessage) -> Outcome:
    """What an answer of a `DelegatedChatModel` took, by its record."""
    said = message.response_metadata["delegation"]["summary"]
    spent = message.response_metadata["delegation_cost"]
    return Outcome(
        **{name: said[name] for name in ("tokens", "takeovers", "asked")},
        **{name: spent[name] for name in ("base_forwards", "reasoner_forwards", "reasoner_tokens")},
    )


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
        said = answer([attempt.chat for attempt in now], form)
        for attempt, message in zip(now, said, strict=True):
            attempt.hear(message)
            total += cost(message)
            if attempt.correct is not None:
                total = replace(total, correct=total.correct + attempt.correct)
                solved()
        waiting = [attempt for attempt in now if attempt.correct is None] + waiting
    return replace(total, seconds=time.perf_counter() - started)


class _Attempt:
    """One problem on its way, one assistant turn at a time."""

    def __init__(self, problem: Problem, form: Format) -> None:
        self.chat: Chat = [HumanMessage(problem.question)]
        """What is to be answered next."""
        self.correct: bool | None = None
        """Whether it was solved; None while it is not over."""
        self._problem, self._form = problem, form
        self._left = TURNS

    def hear(self, message: AIMessage) -> None:
        """Take the assistant's next turn; a broken call ends the attempt and is a failure."""
        self._left -= 1
        called = bool(message.tool_calls or message.invalid_tool_calls)
        if self._form == "text" or not called:
            self.correct = grade(self._problem, message.text)
        elif message.invalid_tool_calls or not self._left:
            self.correct = False
        else:
            self._call(message)

    def _call(self, message: AIMessage) -> None:
        try:
            results = [
                ToolMessage(str(execute(call["name"], call["args"])), tool_call_id=call["id"])
                for call in message.tool_calls
            ]
        except ValueError:
            self.correct = False
        else:
            self.chat = [*self.chat, message, *results]


def answers(model: DelegatedChatModel, *, seed: int = 0) -> AnswerBatch:
    """A chat model as what answers chats, in a chain behind a prompt.

    Args:
        model: The chat model.
        seed: Where the seeds of the `random` divergence begin.
    """
    # That control fires by seed and position: one seed would have it fire at one place in them all.
    seeds = itertools.count(seed)

    def answer(chats: Sequence[Chat], form: Format, /) -> Sequence[AIMessage]:
        own = list(itertools.islice(seeds, len(chats)))
        chain = _PROMPT | model.bind_tools(TOOLS if form == "tools" else (), seed=own)
        return chain.batch([{"chat": chat} for chat in chats], {"max_concurrency": len(chats)})

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
    model = DelegatedChatModel(pair=pair, max_tokens=MAX_TOKENS, trace="off")

    def arm(name: str, for_text: DelegatedChatModel, for_tools: DelegatedChatModel | None = None) -> Arm:
        in_text = evaluate(answers(for_text, seed=seed), text, "text", batch=batch, solved=solved)
        asked = answers(for_tools or for_text, seed=seed)
        return Arm(name, in_text, evaluate(asked, tools, "tools", batch=batch, solved=solved))

    yield arm("base alone", model.model_copy(update={"arm": "base"}))
    reasoner = arm("reasoner alone", model.model_copy(update={"arm": "reasoner"}))
    yield Arm(reasoner.name, _by_reasoner(reasoner.text), _by_reasoner(reasoner.tools))
    delegated = arm("delegated", model)
    yield delegated
    lots = (_by_lot(delegated.text.share), _by_lot(delegated.tools.share))
    yield arm("random", *(model.model_copy(update={"policy": lot}) for lot in lots))


def _by_lot(share: float) -> DelegationPolicy:
    """Takeovers at a share of the positions, whatever the models say."""
    return DelegationPolicy(divergence="random", threshold=1 - share)


def _by_reasoner(outcome: Outcome) -> Outcome:
    """The outcome of a reasoner that wrote alone: every token was its own."""
    return replace(outcome, takeovers=outcome.tokens, asked=outcome.tokens)


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
    """As `recovery` says."""
    base_forwards_per_token: float
    reasoner_forwards_per_token: float
    asked_per_token: float
    """Positions at which the reasoner was consulted, per token."""
    tokens: int
    seconds: float


def recovery(accuracy: float | None, low: float | None, high: float | None) -> float | None:
    """How much of a gap is closed: (accuracy - low) / (high - low).

    Args:
        accuracy: What was reached.
        low: What the base reaches alone.
        high: What the reasoner reaches alone.

    Returns:
        1 for all of it; None where there is no gap, or nothing was measured.
    """
    if accuracy is None or low is None or high is None or high <= low:
        return None
    return (accuracy - low) / (high - low)


def results(arms: Sequence[Arm]) -> list[Result]:
    """The numbers of arms; the first is the base alone, the second the reasoner alone."""
    low, high = (arm.total.accuracy for arm in arms[:2])
    return [_result(arm, low, high) for arm in arms]


def _result(arm: Arm, low: float | None, high: float | None) -> Result:
    total = arm.total
    return Result(
        name=arm.name,
        accuracy=total.accuracy,
        accuracy_text=arm.text.accuracy,
        accuracy_tools=arm.tools.accuracy,
        share=total.share,
        recovery=recovery(total.accuracy, low, high),
        base_forwards_per_token=total.per_token(total.base_forwards),
        reasoner_forwards_per_token=total.per_token(total.reasoner_forwards),
        asked_per_token=total.per_token(total.asked),
        tokens=total.tokens,
        seconds=total.seconds,
    )
