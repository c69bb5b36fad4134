"""The options that say what is asked of a pair and how it answers, for the commands that try many prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.text import Text

from delegate_llm.cli.terminal import remarks
from delegate_llm.errors import DelegateError, RequestError

if TYPE_CHECKING:
    from delegate_llm.evaluation.grading import Checker
    from delegate_llm.evaluation.tasks import Task
    from delegate_llm.tiny.problems import Split

__all__ = (
    "BatchOption",
    "CheckerOption",
    "MaxTokensOption",
    "ProblemsOption",
    "Prompts",
    "SeedOption",
    "SystemOption",
    "TasksOption",
    "TemperatureOption",
    "answer_settings",
    "chosen_tasks",
    "held_out",
    "models_named",
    "own_checker",
    "prompts",
    "repeated",
    "said_if_broken",
)

_TASKS: Final = "Tasks"
_ANSWERS: Final = "Answers"

TasksOption = Annotated[
    str,
    typer.Option(
        help="A JSONL file: question, and optionally id, answer, checker. `tiny`: the shipped generator.",
        rich_help_panel=_TASKS,
    ),
]
ProblemsOption = Annotated[
    int | None,
    typer.Option(
        help="How many of them; 200 of the generator, all of a file.", min=1, rich_help_panel=_TASKS
    ),
]
CheckerOption = Annotated[
    str | None,
    typer.Option(
        help="How answers are graded: math, number, stated, choice, exact, contains, or module:function.",
        rich_help_panel=_TASKS,
    ),
]
SystemOption = Annotated[
    str | None, typer.Option(help="A system message before each task.", rich_help_panel=_TASKS)
]
SeedOption = Annotated[
    int, typer.Option(help="Names the shipped problems, and every draw.", min=0, rich_help_panel=_ANSWERS)
]
TemperatureOption = Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_ANSWERS)]
MaxTokensOption = Annotated[
    int, typer.Option(help="Tokens generated at most.", min=1, rich_help_panel=_ANSWERS)
]
BatchOption = Annotated[int, typer.Option(help="Answers written together.", min=1, rich_help_panel=_ANSWERS)]

_COUNT: Final = 200


def chosen_tasks(
    source: str,
    count: int | None,
    *,
    split: Split,
    seed: int,
    checker: str | None,
    system: str | None,
    answers: bool = False,
    completions: bool = False,
) -> list[Task]:
    """The tasks that the options name.

    Args:
        source: A file, or the shipped generator.
        count: How many; None is 200 of the generator, all of a file.
        split: Of the generator.
        seed: Likewise.
        checker: For those of the generator, and of a file those that do not say how they are graded.
        system: A system message before each.
        answers: Whether each needs an answer to grade by.
        completions: Whether each needs a text that is given.

    Raises:
        RequestError: As `read_tasks`, or if the checker is unknown.
    """
    from delegate_llm.evaluation.grading import named_checker  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation.tasks import SHIPPED, read_tasks, shipped_tasks, with_system  # noqa: PLC0415

    if source == SHIPPED and completions:
        msg = "tasks: the shipped generator has no texts to score; give a JSONL file with a `completion` each"
        raise RequestError(msg)
    if checker is not None and ":" not in checker:
        named_checker(checker)
    if source == SHIPPED:
        tasks = shipped_tasks(_COUNT if count is None else count, seed=seed, split=split)
        if checker is not None and ":" not in checker:
            tasks = [replace(each, checker=checker) for each in tasks]
    else:
        # A function of the user's may take any answer, and so does this one.
        named = "exact" if checker is not None and ":" in checker else checker
        tasks = read_tasks(source, answers=answers, completions=completions, checker=named)[:count]
    return with_system(tasks, system)


class Prompts(NamedTuple):
    """What a policy is made from, and what it is checked on."""

    calibration: list[Task]
    fresh: list[Task]
    source: str
    """Where the fresh ones are from, in words."""


def prompts(source: str, count: int | None, check: str | None, **how: Any) -> Prompts:
    """The prompts for a policy, and others.

    Args:
        source: As for `chosen_tasks`.
        count: Likewise.
        check: A file, the shipped generator, or how many; None is as many of the generator's test split, or
            the last third of the file.
        **how: As for `chosen_tasks`, but for the split.

    Raises:
        RequestError: As `read_tasks`, or if there are no others, or a file is too small to hold some out.
    """
    from delegate_llm.evaluation.tasks import SHIPPED  # noqa: PLC0415 - brings the generator

    given = chosen_tasks(source, count, split="calibration", **how)
    asked = int(check) if check is not None and check.isdecimal() else None
    if check is not None and asked is None:
        named = "the generator's test split" if check == SHIPPED else f"{check!r}"
        return Prompts(given, chosen_tasks(check, None, split="test", **how), named)
    if asked == 0:
        msg = "check: 0 prompts bear nothing out; give at least 1"
        raise RequestError(msg)
    if source == SHIPPED:
        others = chosen_tasks(SHIPPED, len(given) if asked is None else asked, split="test", **how)
        return Prompts(given, others, "the generator's test split")
    first, last = held_out(given, asked, source, "check", "--check")
    return Prompts(first, last, f"the last {len(last)} tasks of {source!r}, held out")


def held_out(
    tasks: list[Task], count: int | None, source: str, counted: str, named: str
) -> tuple[list[Task], list[Task]]:
    """The tasks of a file, and the last ones of them, which are put to another use.

    Args:
        tasks: All of them.
        count: How many; None is a third.
        source: The file, for errors.
        counted: The option that says how many, for errors.
        named: The option that names a file of others instead, for errors.

    Raises:
        RequestError: If none would be left on one side.
    """
    held = len(tasks) // 3 if count is None else count
    if not 0 < held < len(tasks):
        msg = (
            f"{counted}: {held} of the {len(tasks)} tasks in {source!r} cannot be held out; give more tasks, "
            f"or a file of others as {named}"
        )
        raise RequestError(msg)
    return tasks[:-held], tasks[-held:]


def repeated(tasks: Sequence[Task], others: Sequence[Task]) -> int:
    """How many of the tasks ask what one of the others does."""
    seen = {json.dumps(each.messages) for each in others}
    return sum(json.dumps(each.messages) in seen for each in tasks)


def own_checker(name: str | None) -> Checker | None:
    """A function of the user's that grades, if one is named.

    Raises:
        RequestError: If there is no such function.
    """
    if name is None or ":" not in name:
        return None
    from delegate_llm.evaluation.grading import checker_from  # noqa: PLC0415 - needed here only

    return checker_from(name)


def answer_settings(*, temperature: float, max_tokens: int) -> dict[str, Any]:
    """Settings of `Pair.generate`, checked before anything is loaded.

    Raises:
        RequestError: If one is out of range.
    """
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic
    from delegate_llm.request import Request  # noqa: PLC0415 - brings pydantic

    settings: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
    Request.check(policy=DelegationPolicy(), **settings)
    return settings


def models_named(base: str, reasoner: str, **how: Any) -> dict[str, Any]:
    """The models as a document names them; other options may hold a secret, so there is a digest of them."""
    options = how.pop("options", None)
    digest = None if options is None else hashlib.sha256(options.encode()).hexdigest()[:16]
    return {"base": base, "reasoner": reasoner, **how, "options_sha256": digest}


@contextmanager
def said_if_broken(remark: str) -> Iterator[None]:
    """Say what is kept, if it comes to that."""
    try:
        yield
    except (DelegateError, KeyboardInterrupt):
        remarks().print(Text(remark))
        raise
