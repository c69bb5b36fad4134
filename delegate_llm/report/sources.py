"""The answers in a file or a folder: what `delegate-llm evaluate` wrote, or JSON of one of several shapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import RequestError
from delegate_llm.report.answers import Shown
from delegate_llm.report.runs import is_run, read_run
from delegate_llm.report.shapes import UNDERSTOOD, answers_in

__all__ = ("STDIN", "Found", "read_answers")

STDIN: Final = Path("-")
"""Stands for the standard input."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found."""

    answers: tuple[Shown, ...]
    left_out: int = 0
    """Answers beyond the limit."""
    notes: tuple[str, ...] = ()
    """About all of them."""


def read_answers(path: Path, *, arms: Sequence[str] = (), limit: int = 200) -> Found:
    """The answers that a page of `path` shows.

    Args:
        path: A folder of `delegate-llm evaluate`, a `.json` or `.jsonl` file, or `-` for the standard input.
        arms: Those of a run to show; by default every delegated one.
        limit: How many answers at most.

    Raises:
        RequestError: If there is nothing to show, or something is wrong with it; the message says where.
    """
    if path != STDIN and path.is_dir():
        if not is_run(path):
            msg = f"{str(path)!r} is no run: it has no samples.jsonl; give {UNDERSTOOD}"
            raise RequestError(msg)
        found, left_out, notes = read_run(path, arms, limit=limit)
        answers = tuple(found)
    elif arms:
        msg = f"arm: {arms[0]!r} names a part of a run of `delegate-llm evaluate`, and {str(path)!r} is none"
        raise RequestError(msg)
    else:
        every, notes = _numbered(_in_file(path)), []
        answers, left_out = tuple(every[:limit]), max(0, len(every) - limit)
    if not answers:
        msg = f"{str(path)!r} holds no answer; give {UNDERSTOOD}"
        raise RequestError(msg)
    return Found(answers, left_out, tuple(notes))


def _in_file(path: Path) -> Iterator[Shown]:
    name = "stdin" if path == STDIN else str(path)
    text = _text(path, name)
    try:
        yield from _told(path, text, name)
    except RecursionError:
        msg = f"{name}: it is nested too deeply to be answers; give {UNDERSTOOD}"
        raise RequestError(msg) from None


def _told(path: Path, text: str, name: str) -> Iterator[Shown]:
    """The answers of all its lines or values; one that is a state without any is passed over."""
    if path.suffix.lower() == ".jsonl" or _has_lines(text):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield from answers_in(_parsed(line, name, number), f"{name}, line {number}", among=True)
    else:
        yield from answers_in(_parsed(text, name), name)


def _text(path: Path, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{name}: byte {error.start} is not UTF-8, as JSON is"
        raise RequestError(msg) from None
    except OSError as error:
        msg = f"{name}: cannot be read: {error.strerror or error}; give {UNDERSTOOD}"
        raise RequestError(msg) from error


def _has_lines(text: str) -> bool:
    """Whether a text is JSON line by line, whatever the name of its file."""
    first, _, rest = text.strip().partition("\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(text: str, name: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}, line {line or error.lineno}, column {error.colno}"
        msg = f"{where}: no JSON: {error.msg}; was the file cut off?"
    except (ValueError, RecursionError) as error:
        where = name if line is None else f"{name}, line {line}"
        msg = f"{where}: JSON that cannot be read: {error!s:.120}"
    raise RequestError(msg) from None


def _numbered(answers: Iterable[Shown]) -> list[Shown]:
    """Answers by their place, for the path of a file belongs on no page; each call once, in all states."""
    found: dict[Any, Shown] = {}
    for at, each in enumerate(answers):
        found.setdefault(each.call or at, each)
    return [replace(each, id=str(at)) for at, each in enumerate(found.values(), 1)]
