"""The folder of a run: what is kept, what is mended, and who may write."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm._files import write_file
from delegate_llm.errors import RequestError
from delegate_llm.evaluation.run_folder import (
    CALIBRATION,
    PLAN,
    SAMPLES,
    TASKS,
    Lines,
    discard,
    held,
    read_plan,
    start,
)

RECORDS = st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text()), max_size=5)


@given(before=RECORDS, after=RECORDS, cut=st.integers(0, 2000))
def test_a_torn_line_is_cut_off_and_the_rest_stays(
    tmp_path_factory: pytest.TempPathFactory, before: list[Any], after: list[Any], cut: int
) -> None:
    file = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    Lines(file).add(before)
    whole = file.read_bytes() if before else b""
    kept = whole[: cut % (len(whole) + 1)]
    file.write_bytes(kept)
    lines = Lines(file)
    assert lines.records == before[: kept.count(b"\n")]
    lines.add(after)
    assert Lines(file).records == lines.records == before[: kept.count(b"\n")] + after


@pytest.mark.parametrize("torn", [b'{"b"', b"\0" * 4096, b'{"b"\0\0\0}\n{"c": 1}\n', b"\0\n"])
def test_what_a_crash_left_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"a": 1}\r\n{"a": 2}\n' + torn)
    lines = Lines(file)
    lines.add([{"a": 3}])
    assert lines.records == Lines(file).records == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_large_files_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    Lines(file).add({"a": at, "trace": "." * 100_000} for at in range(100))
    tracemalloc.start()
    assert len(Lines(file, without="trace").records) == 100
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_field_may_stay_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    lines = Lines(file, without="trace")
    lines.add([{"a": 1, "trace": [1]}])
    assert lines.records == Lines(file, without="trace").records == [{"a": 1}]
    assert json.loads(file.read_text()) == {"a": 1, "trace": [1]}


@pytest.mark.parametrize("line", ["{", "[1]", "\xff"])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line.encode("latin1") + b"\n")
    with pytest.raises(RequestError, match=r"line 2: "):
        Lines(file)


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    plan = {"version": 1, "shares": [0.1], "settings": {"temperature": 0.0}}
    start(tmp_path, plan, [{"id": "1"}])
    Lines(tmp_path / SAMPLES).add([{"task": "1"}])
    start(tmp_path, {**plan, "shares": (0.1,)}, [{"id": "1"}])
    write_file(tmp_path / PLAN, json.dumps({**plan, "arms": ["..."]}))
    start(tmp_path, plan, [])
    assert read_plan(tmp_path)["arms"] == ["..."]
    with pytest.raises(RequestError, match=r"shares was \[0.1\] and is \[0.2\]"):
        start(tmp_path, {**plan, "shares": [0.2]}, [])


def test_a_run_without_answers_is_begun_anew(tmp_path: Path) -> None:
    start(tmp_path, {"version": 1, "models": "misspelt"}, [{"id": "1"}])
    (tmp_path / SAMPLES).touch()
    start(tmp_path, {"version": 1, "models": "spelt"}, [{"id": "2"}])
    assert read_plan(tmp_path)["models"] == "spelt"
    assert json.loads((tmp_path / TASKS).read_bytes()) == {"id": "2"}


def test_answers_to_calibration_tasks_serve_other_shares(tmp_path: Path) -> None:
    plan = {"version": 1, "models": "m", "shares": [0.01], "calibration": "c"}
    start(tmp_path, plan, [{"id": "1"}])
    Lines(tmp_path / CALIBRATION).add([{"task": "1"}])
    start(tmp_path, {**plan, "shares": [0.2]}, [{"id": "2"}])
    assert read_plan(tmp_path)["shares"] == [0.2]
    assert json.loads((tmp_path / TASKS).read_bytes()) == {"id": "2"}
    for name in ("models", "calibration"):
        with pytest.raises(RequestError, match=rf"other settings: {name} was"):
            start(tmp_path, {**plan, name: "other"}, [])


def test_tasks_that_were_lost_are_written_again(tmp_path: Path) -> None:
    start(tmp_path, {"version": 1}, [{"id": "1"}])
    Lines(tmp_path / SAMPLES).add([{"task": "1"}])
    (tmp_path / TASKS).write_text("{")
    start(tmp_path, {"version": 1}, [{"id": "1"}])
    assert json.loads((tmp_path / TASKS).read_bytes()) == {"id": "1"}


def test_what_a_link_leads_to_is_written_and_a_pipe_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_text()), daemon=True)
    heard: list[str] = []
    reader.start()
    write_file(tmp_path / "pipe", "told")
    reader.join(10)
    assert heard == ["told"]
    assert (tmp_path / "pipe").is_fifo()


def test_what_is_discarded_leaves_nothing_but_others_files(tmp_path: Path) -> None:
    for name, others in (("run", []), ("shared", ["thesis.tex"])):
        folder = tmp_path / name
        with held(folder):
            start(folder, {"version": 1}, [])
            Lines(folder / SAMPLES).add([{"task": "1"}])
            for each in others:
                (folder / each).touch()
            discard(folder)
    assert [each.name for each in tmp_path.rglob("*")] == ["shared", "thesis.tex"]


def test_a_run_that_was_killed_while_it_began_goes_on(tmp_path: Path) -> None:
    start(tmp_path, {"version": 1}, [{"id": "1"}])
    (tmp_path / TASKS).unlink()
    start(tmp_path, {"version": 1}, [{"id": "1"}])
    assert json.loads((tmp_path / TASKS).read_bytes()) == {"id": "1"}


@pytest.mark.parametrize("limit", [0, 30, 60])
def test_a_disk_that_is_full_at_the_beginning(tmp_path: Path, limit: int) -> None:
    plan, tasks = {"version": 1}, [{"id": "1", "question": "." * 60}]
    with full_disk(limit), pytest.raises(RequestError, match=r"cannot write"):
        start(tmp_path, plan, tasks)
    start(tmp_path, plan, tasks)
    assert read_plan(tmp_path) == plan


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RequestError, match=r"holds 'thesis.tex' and no run"):
        start(tmp_path, {"version": 1}, [])
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RequestError, match=r"there is no run in"):
        read_plan(tmp_path)
    for text in ("{", "[]", '{"version": 2}'):
        (tmp_path / PLAN).write_text(text)
        with pytest.raises(RequestError, match=r"run.json"):
            read_plan(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with held(folder), pytest.raises(RequestError, match=r"another process"), held(folder):
        pass
    with held(folder):
        assert folder.is_dir()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    for place in (file / "below", tmp_path / "nowhere" / "file"):
        with pytest.raises(RequestError, match=r"cannot write"):
            write_file(place, "new")
    with pytest.raises(RequestError, match=r"cannot write"), held(file):
        pass
    with pytest.raises(RequestError, match=r"cannot write"):
        Lines(tmp_path / "nowhere" / "lines").add([{}])
    write_file(file, "new \ud800")
    assert file.read_text() == "new \\ud800", "what UTF-8 does not have is spelled out"
    assert [each.name for each in tmp_path.iterdir()] == ["file"], "nothing is left lying about"
