"""The folder of a run: what was asked for, and every answer as soon as it is there.

`run.json` holds the plan, `tasks.jsonl` the tasks, `samples.jsonl` one line for each finished answer, which
is appended and forced to the disk a batch at a time. So whatever kills a run, what was finished stays, and
the same command goes on from there; a line that was torn is dropped and written anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from delegate_llm._files import cannot_write, write_file
from delegate_llm.errors import RequestError

__all__ = (
    "CALIBRATION",
    "PLAN",
    "SAMPLES",
    "TASKS",
    "Lines",
    "answered",
    "clear",
    "discard",
    "held",
    "read_plan",
    "start",
)

PLAN: Final = "run.json"
TASKS: Final = "tasks.jsonl"
SAMPLES: Final = "samples.jsonl"
CALIBRATION: Final = "calibration.jsonl"
_LOCK: Final = ".lock"
_LATER: Final = (
    *("tasks", "shares", "policies", "controls", "spike", "spike_window"),
    *("samples", "trace", "choices", "checker"),
)
"""What answers to calibration tasks do not depend on."""

Record: TypeAlias = dict[str, Any]


class Lines:
    """A file of JSON objects, one a line, to which finished work is added."""

    def __init__(self, file: Path, *, without: str | None = None) -> None:
        """Take up the file, or an empty one; it is cut off where a crash tore a line.

        Args:
            file: The file.
            without: A field that is left on the disk, as traces are large.

        Raises:
            RequestError: If it cannot be read or holds what is no JSON object.
        """
        self._file, self._without = file, without
        self.records: list[Record] = []
        """All of it, in order."""
        try:
            self._read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise cannot_write(file, error) from error

    def add(self, records: Iterable[Record]) -> None:
        """Add lines, and return once the disk has them.

        Raises:
            RequestError: If they cannot be written; whole lines that were written stay.
        """
        new = list(records)
        data = "".join(f"{json.dumps(each)}\n" for each in new).encode()
        try:
            with self._file.open("ab", buffering=0) as out:
                view = memoryview(data)
                while view:
                    view = view[out.write(view) or 0 :]
                os.fsync(out.fileno())
        except OSError as error:
            raise cannot_write(self._file, error) from error
        for record in new:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        self.records.append({name: value for name, value in record.items() if name != self._without})

    def _read(self) -> None:
        """Line by line, as traces are large; what a crash tore is cut off."""
        end = 0
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                # Where a machine went down, a file may hold zero bytes in place of what was not on the disk.
                if not line.endswith(b"\n") or b"\0" in line:
                    break
                self._keep(self._record(line, number))
                end += len(line)
            else:
                return
        os.truncate(self._file, end)

    def _record(self, line: bytes, number: int) -> Record:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            msg = (
                f"{str(self._file)!r}, line {number}: it is no JSON: {error}; remove the line to run it again"
            )
            raise RequestError(msg) from None
        if not isinstance(record, dict):
            msg = f"{str(self._file)!r}, line {number}: it is no object; remove the line to run it again"
            raise RequestError(msg)
        return record


def start(folder: Path, plan: Mapping[str, Any], tasks: Iterable[Mapping[str, Any]]) -> None:
    """Begin a run, or make sure that the one in the folder is the same.

    One that holds no answer yet, as after a model's name that was misspelt, is begun anew; one that holds
    only those to calibration tasks goes on, whatever else has changed that they do not depend on.

    Args:
        folder: It must exist.
        plan: All that decides what the run finds, as JSON.
        tasks: Kept beside it, so that the folder can be read without the files it was made from.

    Raises:
        RequestError: If another run, or anything else, lies there.
    """
    try:
        there = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise cannot_write(folder, error) from error
    listed = "".join(f"{json.dumps(each)}\n" for each in tasks)
    if PLAN in there and answered(folder):
        begun = _holds(folder / SAMPLES)
        _same(folder, read_plan(folder), plan, but=() if begun else _LATER)
        if begun:
            if TASKS not in there or (folder / TASKS).read_bytes() != listed.encode():
                write_file(folder / TASKS, listed)
            return
    if PLAN not in there and there:
        msg = f"{str(folder)!r} holds {there[0]!r} and no run; choose an empty folder, or a new one"
        raise RequestError(msg)
    # First of all, so that whatever ends this process leaves a folder that is known for a run.
    write_file(folder / PLAN, json.dumps(plan, indent=2) + "\n")
    write_file(folder / TASKS, listed)


def read_plan(folder: Path) -> Record:
    """What `start` wrote down.

    Raises:
        RequestError: If there is no run in the folder.
    """
    file = folder / PLAN
    try:
        plan = json.loads(file.read_bytes())
    except OSError as error:
        msg = f"there is no run in {str(folder)!r}: cannot read {PLAN}: {error.strerror or error}"
        raise RequestError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{str(file)!r} is no JSON: {error}; the folder is no run of ours"
        raise RequestError(msg) from None
    if not isinstance(plan, dict) or plan.get("version") != 1:
        msg = f"{str(file)!r} is no plan of a run that this version can read"
        raise RequestError(msg)
    return plan


def clear(folder: Path, names: Iterable[str] = ()) -> None:
    """Remove what there is of a run.

    The answers go first, so that none of them is taken up again if this breaks off; the plan goes last, so
    that what is left is still known as a run.

    Args:
        folder: Of the run.
        names: Of other files that go with it.

    Raises:
        RequestError: If one cannot be removed.
    """
    for name in (SAMPLES, CALIBRATION, *names, TASKS, PLAN):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(folder / name, error) from error


def discard(folder: Path) -> None:
    """Remove a run, and its folder if there is nothing else in it; as `clear`."""
    clear(folder)
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


def answered(folder: Path) -> bool:
    """Whether anything is there that would be missed."""
    return _holds(folder / SAMPLES) or _holds(folder / CALIBRATION)


def _holds(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], but: Iterable[str] = ()) -> None:
    plain = json.loads(json.dumps(new))
    for name in dict.fromkeys((*plain, *old)):
        was, now = (json.dumps(each.get(name)) for each in (old, plain))
        if was != now and name not in {"arms", *but}:
            msg = (
                f"{str(folder)!r} holds a run with other settings: {name} was {was:.80} and is {now:.80}; "
                "give the same settings to go on, choose another folder, or remove this one"
            )
            raise RequestError(msg)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a run's folder meanwhile; it is made if it is not there.

    Raises:
        RequestError: If one does so already.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where two writers are left to the user
    except ImportError:  # pragma: no cover
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise cannot_write(folder / _LOCK, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"another process writes into {str(folder)!r}; let it finish, or stop it"
            raise RequestError(msg) from None
        yield
