"""A folder of `delegate-llm evaluate`: its delegated answers, each with the base's own to the same task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from delegate_llm.errors import RequestError
from delegate_llm.policy import DelegationPolicy
from delegate_llm.report.answers import Shown, short
from delegate_llm.report.shapes import chat_text, policy_in, trace_in
from delegate_llm.trace import Trace

__all__ = ("is_run", "read_run")

_PLAN, _TASKS, _SAMPLES = "run.json", "tasks.jsonl", "samples.jsonl"
_BASE: Final = "base"
_PLACE: Final = "at byte"
"""Of a sample whose trace is left in the file: where its line begins."""
_UNFINISHED: Final = "The run is not finished, so the policies of its arms are not known yet."
_Record = dict[str, Any]
_Policies = dict[str, tuple[DelegationPolicy | None, tuple[str, ...]]]


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run."""
    return (folder / _SAMPLES).is_file()


def read_run(folder: Path, arms: Sequence[str] = (), *, limit: int) -> tuple[list[Shown], int, list[str]]:
    """The answers of a run, task by task.

    Args:
        folder: It may be of a run that is going on, or was killed.
        arms: Those to show; by default every delegated one, or all if there is none.
        limit: How many answers at most.

    Returns:
        The answers, how many more there are, and what is to be said about all of them.

    Raises:
        RequestError: If a file cannot be read, or there is no such arm.
    """
    plan = _plan(folder / _PLAN)
    samples = [each for each in _lines(folder / _SAMPLES) if _is_sample(each)]
    tasks = {str(each.get("id")): each for each in _lines(folder / _TASKS)}
    notes = [] if plan.get("arms") else [_UNFINISHED]
    chosen = _chosen(plan, samples, arms)
    order = {name: at for at, name in enumerate(tasks)}
    listed = [each for each in samples if each["arm"] in chosen]
    listed.sort(key=lambda each: order.get(str(each["task"]), len(order)))
    policies: _Policies = {each["name"]: policy_in(each.get("policy")) for each in _arms(plan)}
    own = _own_answers(samples)
    with _opened(folder / _SAMPLES) as file:
        shown = [
            _shown(each, tasks.get(str(each["task"]), {}), policies, own, file) for each in listed[:limit]
        ]
    return shown, max(0, len(listed) - limit), notes


def _shown(
    sample: _Record, task: _Record, policies: _Policies, own: Mapping[Any, _Record], file: BinaryIO
) -> Shown:
    prompt = (
        task.get("question") if isinstance(task.get("question"), str) else chat_text(task.get("messages"))
    )
    policy, notes = policies.get(sample["arm"], (None, ()))
    name, seed = str(sample["task"]), _seed(sample)
    beside = own.get((name, seed)) or own.get(name)
    correct = sample.get("correct")
    return Shown(
        id=f"{sample['arm']}/{name}/{sample.get('sample', seed)}",
        title=short(prompt or name),
        prompt=prompt,
        text=sample["text"],
        trace=_trace(sample, file),
        policy=policy,
        arm=sample["arm"],
        correct=correct if isinstance(correct, bool) else None,
        seed=seed,
        own=None if beside is None or beside is sample else _shown(beside, task, policies, {}, file),
        notes=notes,
    )


def _trace(sample: _Record, file: BinaryIO) -> Trace:
    where = f"{_SAMPLES}, {sample['arm']}, task {sample['task']}"
    if sample.get("trace") is None:
        return trace_in({"level": "off", "summary": sample.get("summary") or {}}, where)
    file.seek(sample[_PLACE])
    return trace_in(json.loads(file.readline())["trace"], where)


def _own_answers(samples: Iterable[_Record]) -> dict[Any, _Record]:
    """What the base wrote alone, by task and seed, and by task for any seed."""
    found: dict[Any, _Record] = {}
    for each in samples:
        if each["arm"] == _BASE:
            name = str(each["task"])
            found.setdefault((name, _seed(each)), each)
            found.setdefault(name, each)
    return found


def _seed(sample: _Record) -> int | None:
    seed = sample.get("seed")
    return seed if isinstance(seed, int) else None


def _chosen(plan: _Record, samples: Sequence[_Record], wanted: Sequence[str]) -> frozenset[str]:
    there = dict.fromkeys(each["arm"] for each in samples)
    for name in wanted:
        if name not in there:
            msg = f"arm: {name!r} has no answers in this run; choose from {', '.join(map(repr, there))}"
            raise RequestError(msg)
    if wanted:
        return frozenset(wanted)
    delegated = {each["name"] for each in _arms(plan) if _is_delegated(each)}
    found = [name for name in there if name in delegated]
    if not found:
        found = [each["arm"] for each in samples if each.get("trace") is not None]
    return frozenset(found or there)


def _is_delegated(arm: _Record) -> bool:
    return arm.get("kind", "delegated") == "delegated" and arm.get("policy") is not None


def _arms(plan: _Record) -> Iterator[_Record]:
    arms = plan.get("arms")
    for each in arms if isinstance(arms, list) else ():
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            yield each


def _is_sample(record: _Record) -> bool:
    return {"arm", "task", "text"} <= record.keys() and all(
        isinstance(record[name], str) for name in ("arm", "text")
    )


def _plan(file: Path) -> _Record:
    try:
        with _opened(file) as stream:
            plan = json.load(stream)
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:
        msg = f"{str(file)!r} is no JSON: {error!s:.120}; the folder is no run of `delegate-llm evaluate`"
        raise RequestError(msg) from None
    if not isinstance(plan, dict) or plan.get("version") != 1:
        msg = f"{str(file)!r} is no plan of a run that this version can read"
        raise RequestError(msg)
    return plan


def _lines(file: Path) -> list[_Record]:
    """The objects of a file, one a line; a last line without its end was torn, and is left out.

    Traces are many times larger than all the rest, so only where they stand is kept.
    """
    found, place = [], 0
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip() and line.endswith(b"\n"):
                record = _record(line, file, number)
                if record.get("trace") is not None:
                    record |= {"trace": ..., _PLACE: place}
                found.append(record)
            place += len(line)
    return found


def _record(line: bytes, file: Path, number: int) -> _Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        msg = f"{str(file)!r}, line {number}: no JSON: {error!s:.120}; remove the line, or run it again"
        raise RequestError(msg) from None
    if not isinstance(record, dict):
        msg = f"{str(file)!r}, line {number}: {record!r:.60} is no object; remove the line, or run it again"
        raise RequestError(msg)
    return record


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        msg = f"cannot read {str(file)!r}: {error.strerror or error}; is the folder a run?"
        raise RequestError(msg) from error
