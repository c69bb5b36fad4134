"""Measurements on the engine are those of transformers' pair: same answers, same accuracy, same shares."""

import json

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from delegate_llm.evaluation.evaluating import Plan, evaluate
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
