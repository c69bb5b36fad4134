"""A folder of `delegate-llm evaluate`: which answers are shown, with what beside them, and torn files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delegate_llm import DelegationPolicy
from delegate_llm.errors import RequestError
from delegate_llm.report import columns, read_answers

POLICY = json.loads(DelegationPolicy(threshold=1.0, budget=2).to_json())
ARMS = [
    {"name": "base", "kind": "base", "policy": None},
    {"name": "reasoner", "kind": "reasoner", "policy": None},
    {"name": "delegated 0.1", "kind": "delegated", "policy": POLICY},
    {"name": "random for delegated 0.1", "kind": "random", "policy": POLICY},
]
TASKS = [
    {"id": "one", "question": "How many pens?", "answer": "7"},
    {
        "id": "two",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    },
]

Run = Callable[..., Path]


def sample(arm: str, task: str, seed: int | None = 0, **fields: Any) -> dict[str, Any]:
    decision = {"position": 0, "token_id": 1, "token": "7", "base_token_id": 2, "base_token": "8"}
    decision |= {"takeover": True, "changed": True, "asked": True, "score": 2.0, "reasoner_token": "7"}
    summary = {"tokens": 1, "takeovers": 1, "changed": 1, "asked": 1, "share": 1.0}
    alone = arm in {"base", "reasoner"}
    trace = None if alone else {"level": "full", "decisions": [decision], "summary": summary}
    plain = {
        "arm": arm,
        "task": task,
        "sample": 0,
        "seed": seed,
        "text": f"{arm} {seed}",
        "correct": not alone,
    }
    return {**plain, "trace": trace, "usage": {}, "finish_reason": "stop", **fields}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes a run of some samples; its last line may be torn, its plan may have no arms yet."""

    def write(*samples: dict[str, Any], torn: str = "", arms: Any = ARMS) -> Path:
        plan = {"version": 1, **({} if arms is None else {"arms": arms})}
        (tmp_path / "run.json").write_text(json.dumps(plan))
        (tmp_path / "tasks.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in TASKS))
        (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in samples) + torn)
        return tmp_path

    return write


def every(task: str, seed: int | None = 0) -> list[dict[str, Any]]:
    return [sample(each["name"], task, seed) for each in ARMS]


def test_delegated_answers_are_shown_task_by_task_with_the_bases_own(run: Run) -> None:
    one, two = read_answers(run(*every("two"), *every("one"))).answers
    assert [one.arm, two.arm] == ["delegated 0.1"] * 2
    assert (one.title, one.prompt) == ("How many pens?", "How many pens?")
    assert two.prompt == "system: Be brief.\n\nuser: Why?"
    assert one.correct is True
    assert one.own is not None
    assert (one.own.text, one.own.correct) == ("base 0", False)
    assert one.policy == DelegationPolicy(threshold=1.0, budget=2)
    assert columns(one)["why"] == [0]


@pytest.mark.parametrize(("seeds", "expected"), [((3, 4), "base 4"), ((3,), "base 3"), ((), None)])
def test_the_bases_answer_is_that_of_the_same_seed_if_there_is_one(
    run: Run, seeds: tuple[int, ...], expected: str | None
) -> None:
    own = [sample("base", "one", seed) for seed in seeds]
    (shown,) = read_answers(run(sample("delegated 0.1", "one", 4), *own)).answers
    assert (shown.own and shown.own.text) == expected


def test_arms_can_be_chosen(run: Run) -> None:
    folder = run(*every("one"), *every("two"))
    found = read_answers(folder, arms=["reasoner", "random for delegated 0.1"], limit=3)
    assert [each.arm for each in found.answers] == ["reasoner", "random for delegated 0.1", "reasoner"]
    assert found.left_out == 1
    with pytest.raises(RequestError, match=r"arm: 'other' has no answers in this run; choose from 'base', "):
        read_answers(folder, arms=["other"])


def test_a_run_of_the_base_alone_is_shown(run: Run) -> None:
    (shown,) = read_answers(run(sample("base", "one"))).answers
    assert shown.text == "base 0"
    assert shown.own is None


@pytest.mark.parametrize("torn", ['{"arm": "delegated 0.1", "ta', '{"arm": "x"}'])
def test_a_line_that_a_kill_tore_is_left_out(run: Run, torn: str) -> None:
    assert len(read_answers(run(*every("one"), torn=torn)).answers) == 1


def test_a_run_that_goes_on_is_shown_without_policies(run: Run) -> None:
    found = read_answers(run(*every("one"), arms=None))
    assert "not finished" in found.notes[0]
    assert [each.arm for each in found.answers] == ["delegated 0.1", "random for delegated 0.1"]
    assert found.answers[0].policy is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("samples.jsonl", b"{}\nno\n", r"samples\.jsonl', line 2: no JSON"),
        ("samples.jsonl", b"[]\n", r"samples\.jsonl', line 1: \[\] is no object"),
        ("samples.jsonl", b"", "holds no answer"),
        ("tasks.jsonl", b"\xff\n", r"tasks\.jsonl', line 1: no JSON"),
        ("run.json", b"{", r"run\.json' is no JSON"),
        ("run.json", b'{"version": 9}', r"run\.json' is no plan of a run that this version can read"),
    ],
)
def test_broken_files_are_named(run: Run, name: str, content: bytes, said: str) -> None:
    folder = run(*every("one"))
    (folder / name).write_bytes(content)
    with pytest.raises(RequestError, match=said):
        read_answers(folder)


def test_files_that_are_missing_are_named(run: Run) -> None:
    folder = run(*every("one"))
    (folder / "tasks.jsonl").unlink()
    with pytest.raises(RequestError, match=r"cannot read .*tasks\.jsonl': No such file"):
        read_answers(folder)


def test_a_trace_that_is_none_is_named_by_its_arm_and_task(run: Run) -> None:
    broken = sample("delegated 0.1", "one", trace={"decisions": "x"})
    with pytest.raises(RequestError, match=r"samples\.jsonl, delegated 0\.1, task one: not a trace"):
        read_answers(run(broken))
