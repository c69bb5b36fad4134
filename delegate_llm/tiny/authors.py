"""Answers as authors of mixed quality write them: the text that the base learns from.

At each step the author follows the shallow habit with probability `HABIT` and thinks otherwise.
What is written after the choice is always carried out correctly, so that only plans are ever wrong.
Both formats make the same choices: text names the operation in words, the agent in the name of a
tool. A transcript is a row of segments; the model is taught only those that the assistant spoke.
"""

import json
import random
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from delegate_llm.tiny.problems import Problem, Step, by_habit, by_thought

__all__ = [
    "CAREFUL",
    "FORMATS",
    "HABIT",
    "Format",
    "Segment",
    "opening",
    "tool_reply",
    "transcript",
    "write_steps",
]

Format: TypeAlias = Literal["text", "tools"]
FORMATS: Final[tuple[Format, ...]] = ("text", "tools")

HABIT: Final = 0.6
"""How often an author does not think. Above one half, so that the greedy base is wrong; well
below one, so that the right answer is still found by sampling."""

CAREFUL: Final = 0.2
"""The same for the authors of textbooks."""

_SIGNS: Final = {"add": "+", "subtract": "-", "multiply": "*"}
_FIRST: Final = {
    "add": "add {a} and {b}",
    "subtract": "subtract {b} from {a}",
    "multiply": "multiply {a} by {b}",
}
_NEXT: Final = {"add": "add {b}", "subtract": "subtract {b}", "multiply": "multiply by {b}"}


class Segment(NamedTuple):
    """A stretch of a rendered chat."""

    text: str
    spoken: bool
    """Whether the assistant wrote it."""


def write_steps(problem: Problem, rng: random.Random, habit: float = HABIT) -> list[Step]:
    """The steps of one author; with a `habit` of 0 they are the right ones."""
    total, facts = problem.start, problem.facts
    steps: list[Step] = []
    while move := (by_habit if rng.random() < habit else by_thought)(total, facts):
        step, facts = move
        total = step.result
        steps.append(step)
    return steps


def transcript(problem: Problem, steps: Sequence[Step], form: Format) -> list[Segment]:
    """The chat in which the assistant answers with `steps`, without the system prompt of the tools.

    The rendering is that of the chat template, character for character.
    """
    turns = [_answer(steps)] if form == "text" else [*map(_call, steps), _conclusion(steps)]
    segments = [Segment(opening(problem), spoken=False)]
    for turn, step in zip(turns, [*steps, None], strict=False):
        segments.append(Segment(turn + "<|im_end|>", spoken=True))
        if form == "tools" and step is not None:
            segments.append(Segment(tool_reply([step.result]), spoken=False))
    return segments


def opening(problem: Problem) -> str:
    """The user's turn, and the head of the assistant's."""
    return f"<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n"


def tool_reply(results: Iterable[int]) -> str:
    """What stands between an assistant turn that called tools and the next one."""
    responses = "".join(f"\n<tool_response>\n{result}\n</tool_response>" for result in results)
    return f"\n<|im_start|>user{responses}<|im_end|>\n<|im_start|>assistant\n"


def _answer(steps: Sequence[Step]) -> str:
    """The answer in text: "First multiply 3 by 4: 3 * 4 = 12. Next subtract 5: ..."."""
    lines = [
        f"{'Next' if index else 'First'} "
        f"{(_NEXT if index else _FIRST)[step.operation].format(a=step.a, b=step.b)}: "
        f"{step.a} {_SIGNS[step.operation]} {step.b} = {step.result}."
        for index, step in enumerate(steps)
    ]
    return " ".join([*lines, _conclusion(steps)])


def _call(step: Step) -> str:
    call = {"name": step.operation, "arguments": {"a": step.a, "b": step.b}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def _conclusion(steps: Sequence[Step]) -> str:
    return f"The answer is {steps[-1].result}."
