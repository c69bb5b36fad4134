"""Measurements on the engine are those of transformers' pair: same answers, same accuracy, same shares."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from delegate_llm import DelegationPolicy
from delegate_llm.evaluation.checking import audit, check
from delegate_llm.evaluation.evaluating import Plan, evaluate
from delegate_llm.evaluation.listening import Listening, scored
from delegate_llm.evaluation.run_folder import Lines
from delegate_llm.evaluation.run_table import rows
from delegate_llm.evaluation.tasks import shipped_tasks

PLAN = Plan(
    models={},
    tasks=shipped_tasks(6, seed=4),
    calibration=shipped_tasks(12, seed=4, split="calibration"),
    shares=[0.05],
    samples=2,
    settings={"max_tokens": 96, "temperature": 0.8},
)


def found(folder, pair):
    arms = evaluate(folder, PLAN, lambda: pair)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    answers = {
        (each["arm"], each["task"], each["sample"]): (each["text"], each["correct"], each["summary"])
        for each in samples
    }
    return arms, answers, rows(arms, samples)


def test_an_evaluation_on_the_engine(hosted, reference, tmp_path):
    arms, answers, table = found(tmp_path / "vllm", hosted)
    expected = found(tmp_path / "transformers", reference)
    assert [each.name for each in arms] == [each.name for each in expected[0]]
    for arm, other in zip(arms, expected[0], strict=True):
        if arm.policy is not None:
            assert arm.policy.threshold == pytest.approx(other.policy.threshold, rel=1e-2)
    assert answers == expected[1]
    for row, other in zip(table, expected[2], strict=True):
        assert (row.accuracy, row.share, row.recovery) == (other.accuracy, other.share, other.recovery)
    reasoner = next(row for row in table if row.kind == "reasoner")
    assert reasoner.base_forwards == 0 < reasoner.reasoner_forwards


def listened(pair, tasks, file, **how):
    how = Listening(batch=8, settings={"max_tokens": 96}, **how)
    return scored(lambda: pair, tasks, how, Lines(file))


@pytest.mark.parametrize("given", [False, True], ids=["written", "given"])
def test_an_analysis_on_the_engine(hosted, reference, tmp_path, given):
    tasks = shipped_tasks(8, seed=6)
    if given:
        tasks = [replace(task, completion=f"First add 3 and 4: 3 + 4 = 7. {task.answer}") for task in tasks]
    made, wanted = (
        listened(pair, tasks, tmp_path / f"{at}.jsonl", given=given)
        for at, pair in enumerate((hosted, reference))
    )
    for one, other in zip(made, wanted, strict=True):
        assert (one.task, one.text, one.correct) == (other.task, other.text, other.correct)
        assert one.scores == pytest.approx(other.scores, rel=1e-2, abs=1e-3)
        assert one.entropies == pytest.approx(other.entropies, rel=1e-2, abs=1e-3)


def test_a_gate_is_audited_on_the_engine(hosted, reference):
    tasks = shipped_tasks(8, seed=6)
    policy = DelegationPolicy(threshold=1.0, gates={"entropy": 0.5})
    found = []
    for pair in (hosted, reference):
        result, made = check(pair, tasks, policy, settings={"max_tokens": 96})
        found.append((result, audit(pair, made, policy, count=60)))
    (here, missed), (there, expected) = found
    assert (here.tokens, here.takeovers, here.correct) == (there.tokens, there.takeovers, there.correct)
    assert (missed.skipped, missed.audited, missed.missed) == (
        expected.skipped,
        expected.audited,
        expected.missed,
    )
    assert 0 < here.asked.value < 0.5, "the reasoner is asked only behind the gate"
