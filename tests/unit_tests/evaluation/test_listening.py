"""The base's answers with both models' opinions: finished ones are kept, and not made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk

from delegate_llm import Pair, load_pair
from delegate_llm.errors import DelegateError, PromptError, RequestError
from delegate_llm.evaluation.listening import Listening, digest, listening_policy, scored
from delegate_llm.evaluation.run_folder import Lines
from delegate_llm.evaluation.tasks import Task, shipped_tasks

TASKS = shipped_tasks(6, seed=3)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


def never() -> Any:
    raise AssertionError


def test_both_models_are_asked_everywhere_and_the_base_writes(pair: Pair, tmp_path: Path) -> None:
    done: list[int] = []
    answers = scored(
        lambda: pair, TASKS, Listening(batch=4), Lines(tmp_path / "samples.jsonl"), done=done.append
    )
    assert (done, [each.task for each in answers]) == ([0, 4, 2], [task.id for task in TASKS])
    for task, each in zip(TASKS, answers, strict=True):
        alone = pair.generate(list(task.messages), policy={"budget": 0})
        assert each.text == alone.text
        given = pair.score(list(task.messages), alone.token_ids, policy=listening_policy())
        assert each.scores == pytest.approx([one.score for one in given.decisions], abs=1e-3)
        assert len(each.scores) == len(each.entropies) == len(each.decisions) == len(alone.token_ids)
        assert not any(one.takeover for one in each.decisions)
        assert each.correct == (f"The answer is {task.answer}." in each.text)


def test_given_texts_are_scored_as_they_stand(pair: Pair, tmp_path: Path) -> None:
    texts = ["First add 2 and 3: 2 + 3 = 5. The answer is 5.", "The answer is 7."]
    tasks = [
        Task(str(at), ({"role": "user", "content": "How many pens?"},), "5", "stated", text)
        for at, text in enumerate(texts)
    ]
    file = tmp_path / "samples.jsonl"
    answers = scored(lambda: pair, tasks, Listening(given=True), Lines(file))
    assert [(each.text, each.correct, each.finish_reason) for each in answers] == [
        (texts[0], True, None), (texts[1], False, None)
    ]  # fmt: skip
    assert ["".join(one.token for one in each.decisions) for each in answers] == texts


def test_a_text_that_cannot_be_read_is_named_by_its_task(pair: Pair, tmp_path: Path) -> None:
    question = ({"role": "user", "content": "How many pens?"},)
    tasks = [Task("torn", question, completion="\ud800"), Task("whole", question, completion="5")]
    with pytest.raises(PromptError, match=r"the text of one of the tasks 'torn' to 'whole': .*Unicode"):
        scored(lambda: pair, tasks, Listening(given=True), Lines(tmp_path / "samples.jsonl"))


def test_finished_answers_are_taken_up(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    whole = scored(lambda: pair, TASKS, Listening(batch=2), Lines(file))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:100])  # torn by a kill, and within a batch
    again = scored(lambda: pair, TASKS, Listening(batch=2), Lines(file))
    assert again == whole
    assert [json.loads(each)["task"] for each in file.read_bytes().splitlines()] == [t.id for t in TASKS]
    assert file.read_bytes().splitlines(keepends=True)[:3] == lines[:3]
    assert scored(never, TASKS, Listening(batch=2), Lines(file)) == whole  # nothing is left to do


def test_a_full_disk_is_said_and_loses_one_batch(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    with full_disk(30_000), pytest.raises(RequestError, match=r"cannot write .*samples\.jsonl.*free space"):
        scored(lambda: pair, TASKS, Listening(batch=1), Lines(file))
    kept = len(Lines(file).records)
    assert 0 < kept < len(TASKS)
    seen: list[int] = []
    scored(lambda: pair, TASKS, Listening(batch=1), Lines(file), done=seen.append)
    assert seen == [kept, *[1] * (len(TASKS) - kept)]


def test_a_task_that_cannot_be_answered_is_named_before_any_is(pair: Pair, tmp_path: Path) -> None:
    long = Task("too long", ({"role": "user", "content": "pens " * 3000},))
    file = tmp_path / "samples.jsonl"
    with pytest.raises(PromptError, match=r"task 'too long': .*context"):
        scored(lambda: pair, [*TASKS[:2], long], Listening(batch=1), Lines(file))
    assert not file.exists()


def record(**changes: Any) -> dict[str, Any]:
    decision = {"position": 0, "token_id": 1, "token": "a", "base_token_id": 1, "base_token": "a"}
    trace = {"decisions": [{**decision, "score": 1.0, "base_entropy": 1.0, **changes}]}
    return {"task": TASKS[0].id, "text": "a", "correct": None, "finish_reason": "stop", "trace": trace}


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (record(score=None), r"the score at position 0 is None, .* choose another divergence"),
        (record(score="Infinity"), r"the score at position 0 is inf, .* such as js"),
        (record(score=1.3e29), r"the score at position 0 is 1.3e\+29, .* such as js"),
        (record(base_entropy=None), r"choose another divergence"),
        ({**record(), "trace": {"decisions": []}}, r"the 1 answers have no token among them; raise max_tok"),
        ({**record(), "trace": {"decision": []}}, r"a kept answer is none that this version wrote"),
        ({"task": TASKS[0].id}, r"a kept answer is none that this version wrote"),
        ({"other": "line"}, r"a kept answer is none that this version wrote"),
    ],
)
def test_what_no_statistic_can_take_is_said(tmp_path: Path, kept: dict[str, Any], said: str) -> None:
    lines = Lines(tmp_path / "samples.jsonl")
    lines.add([kept])
    with pytest.raises(DelegateError, match=said):
        scored(never, TASKS[:1], Listening(), lines)


def test_a_digest_names_just_these_tasks() -> None:
    assert digest(TASKS) == digest(shipped_tasks(6, seed=3)) != digest(TASKS[:5])
    assert digest(TASKS).startswith("6 tasks, sha256 ")
