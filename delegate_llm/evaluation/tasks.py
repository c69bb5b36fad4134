"""What is asked of the models: tasks from a JSONL file, or from the generator that ships.

A task is a chat, and mostly an answer to grade by. In a file it is one JSON object a line:
`{"id": "1", "question": "What is 6 times 7?", "answer": "42"}`, with `messages` in place of `question` for a
chat of several turns, `checker` for an answer that is graded in a way of its own, and `completion` for a
text that is given. Other fields are let be, so that public data sets can be read as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.grading import check_answer, named_checker
from delegate_llm.tiny.problems import Split, problems

__all__ = ("SHIPPED", "Message", "Task", "read_tasks", "shipped_tasks", "with_system")

SHIPPED: Final = "tiny"
"""Names the generator that ships wherever a file of tasks may stand."""

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """One chat to answer."""

    id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    """What to grade by; None for a task that nobody grades."""
    checker: str = "math"
    """How, by name."""
    completion: str | None = None
    """A text that is given, for an analysis that rolls nothing out."""

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((each["content"] for each in reversed(self.messages) if each["role"] == "user"), "")


def shipped_tasks(count: int, *, seed: int = 0, split: Split = "test") -> list[Task]:
    """Word problems that the shipped pair can work on, each once.

    Args:
        count: How many.
        seed: Names the sequence: a larger count continues a smaller one.
        split: No question is in two splits.
    """
    drawn: dict[str, Task] = {}
    wanted = count
    while len(drawn) < count:
        for number, problem in enumerate(problems(wanted, seed=seed, split=split)):
            task = Task(
                f"{split}-{seed}-{number}",
                ({"role": "user", "content": problem.question},),
                str(problem.answer),
                "stated",
            )
            drawn.setdefault(problem.question, task)
        wanted += count - len(drawn)
    return list(drawn.values())[:count]


def read_tasks(
    file: str | Path,
    *,
    answers: bool = True,
    completions: bool = False,
    checker: str | None = None,
) -> list[Task]:
    """The tasks in a JSONL file.

    Args:
        file: UTF-8, one object a line; empty lines are skipped.
        answers: Whether every task needs an answer that its checker can read.
        completions: Whether every task needs a completion.
        checker: How to grade tasks that do not say; `math` by default.

    Raises:
        RequestError: Naming the file and the line, for whatever is wrong with it.
    """
    tasks: list[Task] = []
    seen: dict[str, int] = {}
    for number, where, given in _objects(Path(file)):
        task = _task(given, where, str(number), checker or "math")
        if task.id in seen:
            msg = f"{where}: the id {task.id!r} is that of line {seen[task.id]}, too; give each task its own"
            raise RequestError(msg)
        if answers or task.answer is not None:
            _check_answer(task, where)
        if completions and not task.completion:
            msg = f"{where}: there is no completion; give the text to score as `completion`"
            raise RequestError(msg)
        seen[task.id] = number
        tasks.append(task)
    if not tasks:
        msg = f"{str(file)!r}: there are no tasks in it; write one JSON object a line, with a `question`"
        raise RequestError(msg)
    return tasks


def with_system(tasks: Iterable[Task], system: str | None) -> list[Task]:
    """The same tasks behind a system message, if there is one and they have none of their own."""
    if system is None:
        return list(tasks)
    head: Message = {"role": "system", "content": system}
    return [
        task
        if task.messages[0]["role"] == "system"
        else Task(task.id, (head, *task.messages), task.answer, task.checker, task.completion)
        for task in tasks
    ]


def _objects(file: Path) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Every object with the number of its line, and where that is in words."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        msg = f"cannot read {str(file)!r}: {error.strerror or error}"
        raise RequestError(msg) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{str(file)!r}, line {number}"
        try:
            given = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            msg = f"{where}: it is not UTF-8 (byte {error.start + 1})"
            raise RequestError(msg) from None
        except (ValueError, RecursionError) as error:
            msg = f"{where}: it is no JSON: {error}"
            raise RequestError(msg) from None
        if not isinstance(given, Mapping):
            msg = (
                f'{where}: it holds {_kind(given)}, not an object such as {{"question": ..., "answer": ...}}'
            )
            raise RequestError(msg)
        yield number, where, given


def _task(given: Mapping[str, Any], where: str, number: str, checker: str) -> Task:
    """One task from its fields."""
    name = given.get("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int):
        msg = f"{where}: id: {name!r:.80} is neither a string nor a whole number"
        raise RequestError(msg)
    return Task(
        id=str(name),
        messages=_messages(given, where),
        answer=_answer(given, where),
        checker=_text(given, "checker", where) or checker,
        completion=_text(given, "completion", where),
    )


def _answer(given: Mapping[str, Any], where: str) -> str | None:
    """The right answer as text, a number written out: 1e-07 would be read as 1."""
    answer = given.get("answer")
    odd = isinstance(answer, bool) or (isinstance(answer, float) and not math.isfinite(answer))
    if odd or not isinstance(answer, str | int | float | None):
        msg = f"{where}: answer: {answer!r:.80} is neither a string nor a number"
        raise RequestError(msg)
    if isinstance(answer, float):
        return f"{Decimal(str(answer)):f}"
    return None if answer is None else str(answer)


def _messages(given: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    """The chat: of one question, or of `messages` as they stand."""
    question, listed = _text(given, "question", where), given.get("messages")
    if (question is None) == (listed is None):
        msg = f"{where}: give either a `question` or `messages`"
        raise RequestError(msg)
    if question is not None:
        listed = [{"role": "user", "content": question}]
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not all(map(_is_message, listed)):
        msg = f"{where}: messages: {listed!r:.80} is no list of objects with `role` and `content`, both text"
        raise RequestError(msg)
    messages = tuple({"role": each["role"], "content": each["content"]} for each in listed)
    for each in messages:
        try:
            each["content"].encode()
        except UnicodeEncodeError:
            msg = f"{where}: the question holds half a character, which no model can read; take it out"
            raise RequestError(msg) from None
    if not any(each["content"].strip() for each in messages):
        msg = f"{where}: the question is empty"
        raise RequestError(msg)
    return messages


def _is_message(given: Any) -> bool:
    return isinstance(given, Mapping) and all(isinstance(given.get(key), str) for key in ("role", "content"))


def _text(given: Mapping[str, Any], name: str, where: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        msg = f"{where}: {name}: {value!r:.80} is no text"
        raise RequestError(msg)
    return value


def _check_answer(task: Task, where: str) -> None:
    """Say now what no grading could make good later."""
    if task.answer is None:
        msg = f"{where}: there is no answer to grade by; give one as `answer`"
        raise RequestError(msg)
    try:
        checker: Callable[..., Any] = named_checker(task.checker)
        check_answer(task.answer, task.checker, checker)
    except RequestError as error:
        msg = f"{where}: {error}"
        raise RequestError(msg) from None


def _kind(given: Any) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(given), "null")
