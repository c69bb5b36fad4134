"""Tasks from files and from the generator: what is read, and what is refused by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.tasks import Task, read_tasks, shipped_tasks, with_system


def written(tmp_path: Path, *lines: Any) -> Path:
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(
        b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines) + b"\n"
    )
    return file


def test_a_file_is_read(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "7 + 1?"}]
    file = written(
        tmp_path,
        b'\xef\xbb\xbf{"question": "What is 6 times 7?", "answer": 42, "source": "ours"}',
        b"",
        {"id": 7, "messages": chat, "answer": "8", "checker": "number"},
        {"id": "gsm", "question": "How many?", "answer": "First 3 + 4.\n#### 72", "checker": "number"},
    )
    tasks = read_tasks(file)
    assert [(each.id, each.answer, each.checker) for each in tasks[:2]] == [
        ("1", "42", "math"),
        ("7", "8", "number"),
    ]
    assert tasks[0].question == "What is 6 times 7?"
    assert tasks[1].messages == tuple(chat)
    assert with_system(tasks, "Think.")[0].messages[0] == {"role": "system", "content": "Think."}
    assert with_system(tasks, "Think.")[1] == tasks[1], "its own system message stays"


GOOD = {"question": "What?", "answer": "1"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "line 2: it is no JSON"),
        (b"[" * 100_000, "line 2: it is no JSON"),
        (b'{"question": "\xff"}', "line 2: it is not UTF-8"),
        ([1], "line 2: it holds a list"),
        (3, "line 2: it holds a number"),
        (None, "line 2: it holds null"),
        ({"answer": "1"}, "line 2: give either a `question` or `messages`"),
        ({"question": "a", "messages": [], "answer": "1"}, "line 2: give either"),
        ({"question": " ", "answer": "1"}, "line 2: the question is empty"),
        ({"messages": [], "answer": "1"}, "line 2: the question is empty"),
        ({"messages": [{"role": "user"}], "answer": "1"}, "line 2: messages"),
        ({"messages": "hi", "answer": "1"}, "line 2: messages"),
        ({"question": 3, "answer": "1"}, "line 2: question: 3 is no text"),
        ({"question": "a"}, "line 2: there is no answer"),
        ({"question": "a", "answer": [1]}, "line 2: answer"),
        ({"question": "a", "answer": True}, "line 2: answer"),
        (b'{"question": "a", "answer": NaN}', "line 2: answer: nan is neither"),
        (b'{"question": "a", "answer": 1e999}', "line 2: answer: inf is neither"),
        ({"question": "a", "answer": ""}, "line 2: answer: '' cannot be read by the checker 'math'"),
        ({"question": "a", "answer": "x", "checker": "number"}, "line 2: answer: 'x' cannot be read"),
        ({"question": "a", "answer": "1/2", "checker": "number"}, "line 2: answer: '1/2' cannot be read"),
        ({"question": "a", "answer": "1", "checker": "judge"}, "line 2: checker: 'judge' is unknown"),
        ({"question": "a", "answer": "1", "checker": "os:system"}, "line 2: .*on the command line"),
        ({"question": "a", "answer": "1", "id": "1"}, "line 2: the id '1' is that of line 1"),
        ({"question": "a", "answer": "1", "id": {}}, "line 2: id"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_tasks(written(tmp_path, GOOD, line))


def test_numbers_are_written_out(tmp_path: Path) -> None:
    numbers = (0.5, 1e-7, 1e22, 0.0, 0)
    file = written(tmp_path, *({"question": "a", "answer": each} for each in numbers))
    answers = ["0.5", "0.0000001", "10000000000000000000000", "0.0", "0"]
    assert [each.answer for each in read_tasks(file, checker="number")] == answers


def test_files_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there are no tasks"):
        read_tasks(written(tmp_path, b"", b"  "))
    with pytest.raises(RequestError, match=r"cannot read .*nowhere"):
        read_tasks(tmp_path / "nowhere.jsonl")
    with pytest.raises(RequestError, match=r"cannot read"):
        read_tasks(tmp_path)


def test_answers_and_completions_where_they_are_needed(tmp_path: Path) -> None:
    file = written(tmp_path, {"question": "a"}, {"question": "b", "completion": "c"})
    assert [each.answer for each in read_tasks(file, answers=False)] == [None, None]
    with pytest.raises(RequestError, match=r"line 1: there is no completion"):
        read_tasks(file, answers=False, completions=True)


def test_the_generator_asks_no_question_twice() -> None:
    tasks = shipped_tasks(600, seed=3)
    assert len({each.question for each in tasks}) == len({each.id for each in tasks}) == 600
    assert shipped_tasks(20, seed=3) == tasks[:20]
    others = {each.question for each in shipped_tasks(600, seed=3, split="calibration")}
    assert not others & {each.question for each in tasks}
    assert isinstance(tasks[0], Task)
