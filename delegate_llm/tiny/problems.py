"""The little domain that the shipped pair knows: word problems of two to four steps.

A problem is a start and a row of facts, each with one number, told in the order in which they are
used. Reading it takes a plan: which facts count, and what to do with each. Whoever just adds every
number gets every problem wrong, by construction: at least one fact asks for another operation, or
for being left out. Numbers stay so small that arithmetic is never the difficulty. Everything here
is pure Python and the same for the same seed.
"""

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, Final, Literal, TypeAlias

from delegate_llm.tiny import wording

__all__ = [
    "Fact",
    "Operation",
    "Problem",
    "Split",
    "Step",
    "grade",
    "messages",
    "problems",
    "stream",
]

Operation: TypeAlias = Literal["add", "subtract", "multiply"]
Split: TypeAlias = Literal["train", "calibration", "test"]

LARGEST: Final = 99
_ANSWER: Final = re.compile(r"The answer is (-?\d+)\b")
_DECISION_WEIGHTS: Final = {1: 8, 2: 8, 3: 4}
_STEP_WEIGHTS: Final = {2: 8, 3: 8, 4: 4}


@dataclass(frozen=True)
class Fact:
    """One number of the story, and what it means for the count."""

    number: int
    operation: Operation | None
    """None where the number has nothing to do with the question."""


@dataclass(frozen=True)
class Step:
    """One line of arithmetic."""

    operation: Operation
    a: int
    b: int

    @property
    def result(self) -> int:
        """What the step comes to."""
        if self.operation == "add":
            return self.a + self.b
        return self.a - self.b if self.operation == "subtract" else self.a * self.b


@dataclass(frozen=True)
class Problem:
    """A question in words, with the plan that solves it."""

    question: str
    start: int
    facts: tuple[Fact, ...]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The plan: one step for each fact that counts, in the order of the story."""
        steps: list[Step] = []
        total = self.start
        for fact in self.facts:
            if fact.operation is not None:
                steps.append(Step(fact.operation, total, fact.number))
                total = steps[-1].result
        return tuple(steps)

    @property
    def answer(self) -> int:
        """The right answer."""
        return self.steps[-1].result

    @cached_property
    def decisions(self) -> int:
        """At how many steps of the plan `by_habit` and `by_thought` part."""
        total, facts, parted = self.start, self.facts, 0
        while facts:
            thought = by_thought(total, facts)
            parted += thought != by_habit(total, facts)
            if thought is None:
                break
            step, facts = thought
            total = step.result
        return parted


Move: TypeAlias = tuple[Step, tuple[Fact, ...]] | None
"""A step with the facts still to be read after it; None concludes."""


def by_habit(total: int, facts: tuple[Fact, ...]) -> Move:
    """The shallow next move: add whatever number comes next."""
    return (Step("add", total, facts[0].number), facts[1:]) if facts else None


def by_thought(total: int, facts: tuple[Fact, ...]) -> Move:
    """The right next move: skip what does not count, then do what the fact says."""
    for index, fact in enumerate(facts):
        if fact.operation is not None:
            return Step(fact.operation, total, fact.number), facts[index + 1 :]
    return None


def problems(n: int, *, seed: int, split: Split = "train") -> list[Problem]:
    """The first `n` problems of a seed.

    Args:
        n: How many.
        seed: Names the sequence: a larger `n` continues a smaller one.
        split: No question is in two splits, whatever the seeds.

    Returns:
        Problems; a repeated one is possible and rare.
    """
    return list(islice(stream(seed=seed, split=split), n))


def stream(*, seed: int, split: Split = "train") -> Iterator[Problem]:
    """The endless sequence that `problems` begins."""
    rng = random.Random(f"{split} {seed}")
    while True:
        problem = _draw(rng)
        if _split_of(problem.question) == split:
            yield problem


def messages(problem: Problem) -> list[dict[str, Any]]:
    """The chat that asks for the answer, with or without tools."""
    return [{"role": "user", "content": problem.question}]


def grade(problem: Problem, text: str) -> bool:
    """Whether the last "The answer is N" of `text` names the right number."""
    found = _ANSWER.findall(text)
    return bool(found) and int(found[-1]) == problem.answer


def _split_of(question: str) -> Split:
    """Which split a question is in: a property of its text, so that splits cannot overlap."""
    bucket = zlib.crc32(question.encode()) % 10
    return "test" if bucket == 0 else "calibration" if bucket == 1 else "train"


def _draw(rng: random.Random) -> Problem:
    """A random problem whose decisions are as many as drawn first, by rejection."""
    decisions = _weighted(rng, _DECISION_WEIGHTS)
    steps = _weighted(rng, _STEP_WEIGHTS)
    while True:
        start, facts = _story(rng, steps)
        draft = Problem("", start, facts)
        if draft.decisions == decisions and _is_sound(draft):
            return Problem(_tell(rng, start, facts), start, facts)


def _weighted(rng: random.Random, weights: dict[int, int]) -> int:
    return rng.choices(list(weights), list(weights.values()))[0]


def _story(rng: random.Random, steps: int) -> tuple[int, tuple[Fact, ...]]:
    """Numbers and their meaning; all numbers differ, so that each names its fact."""
    start, *numbers = rng.sample(range(2, 10), steps + 1 + (rng.random() < 0.4))
    operations: list[Operation | None] = [rng.choice(("add", "subtract", "multiply")) for _ in range(steps)]
    if len(numbers) > steps:
        operations.insert(rng.randrange(1, steps + 1), None)
    return start, tuple(Fact(b, op) for b, op in zip(numbers, operations, strict=True))


def _is_sound(problem: Problem) -> bool:
    """Whether every plan stays within small numbers, and only the right one finds the answer.

    A distraction never precedes an addition: then habit and thought already differ in the name of
    the operation, and not merely in the number.
    """
    operations = [fact.operation for fact in problem.facts]
    if (None, "add") in pairwise(operations):
        return False
    if any(fact.operation == "multiply" and fact.number > 3 for fact in problem.facts[1:]):
        return False
    endings = list(_endings(problem.start, problem.facts))
    return None not in endings and endings.count(problem.answer) == 1


def _endings(total: int, facts: tuple[Fact, ...]) -> Iterator[int | None]:
    """What each mixture of habit and thought comes to; None for one that leaves the range."""
    if not 1 <= total <= LARGEST:
        yield None
        return
    for move in {by_habit(total, facts), by_thought(total, facts)}:
        if move is None:
            yield total
        else:
            yield from _endings(move[0].result, move[1])


def _tell(rng: random.Random, start: int, facts: tuple[Fact, ...]) -> str:
    """The story in words."""
    name = rng.choice(list(wording.NAMES))
    words = {
        "name": name,
        "things": rng.choice(wording.THINGS),
        "containers": rng.choice(wording.CONTAINERS),
    }
    if facts[0].operation == "multiply":
        sentences = [rng.choice(wording.START_TIMES).format(a=start, b=facts[0].number, **words)]
        facts = facts[1:]
    else:
        sentences = [rng.choice(wording.START).format(a=start, **words)]
    sentences += [_sentence(rng, fact, words) for fact in facts]
    sentences.append(rng.choice(wording.QUESTION).format(**words))
    return " ".join(sentences)


def _sentence(rng: random.Random, fact: Fact, words: dict[str, str]) -> str:
    """One fact in words."""
    table = {
        "add": wording.MORE,
        "subtract": wording.LESS,
        "multiply": wording.TIMES,
        None: wording.DISTRACTION,
    }[fact.operation]
    template = rng.choice(table)
    who = rng.choice((words["name"], wording.NAMES[words["name"]]))
    if who in ("He", "She") and not template.startswith("{who}"):
        who = who.lower()
    return template.format(who=who, b=fact.number, others=rng.choice(wording.OTHERS), **words)
