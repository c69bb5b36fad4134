"""A run as a whole: what its controls spend, and that nothing of it hangs on how it went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegate_llm import Pair, load_pair
from delegate_llm.cli.loading import BASE, REASONER
from delegate_llm.evaluation.evaluating import Plan, evaluate
from delegate_llm.evaluation.run_folder import SAMPLES, Lines
from delegate_llm.evaluation.run_table import comparisons, rows
from delegate_llm.evaluation.tasks import shipped_tasks

SHARES = (0.04, 0.08)


@pytest.fixture(scope="module")
def tiny() -> Pair:
    return load_pair(BASE, REASONER)


def plan(seed: int = 1) -> Plan:
    return Plan(
        models={"base": BASE, "reasoner": REASONER},
        tasks=shipped_tasks(60, seed=seed),
        calibration=shipped_tasks(60, seed=seed, split="calibration"),
        shares=SHARES,
        seed=seed,
        batch=30,
        settings={"max_tokens": 96},
    )


@pytest.fixture(scope="module")
def whole(tiny: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went through."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    evaluate(folder, plan(), lambda: tiny)
    return folder


def finished() -> Pair:
    raise AssertionError


def test_controls_spend_what_delegation_did(whole: Path) -> None:
    arms = evaluate(whole, plan(), finished)
    found = {row.name: row for row in rows(arms, Lines(whole / SAMPLES).records)}
    for row in found.values():
        if row.of is not None:
            share, wanted = row.share, found[row.of].share
            assert share is not None
            assert wanted is not None
            # By lot, the count of takeovers is off by chance: its standard deviation is about its root.
            chance = 3 / (wanted.value * 60 * row.tokens) ** 0.5 if row.kind in {"random", "early"} else 0.0
            assert share.value == pytest.approx(wanted.value, rel=max(0.1, chance)), row.name


def test_lines_in_another_order_are_the_same_run(whole: Path, tmp_path: Path, tiny: Pair) -> None:
    folder = tmp_path / "mended"
    folder.mkdir()
    for file in whole.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    # As the message about a broken line says: remove it, and it is made again, behind the others.
    (folder / SAMPLES).write_bytes(b"".join(line for at, line in enumerate(lines) if at not in {3, 130}))
    arms = evaluate(folder, plan(), lambda: tiny)
    before, after = (Lines(each / SAMPLES, without="trace").records for each in (whole, folder))
    for each in (*before, *after):
        each["seconds"] = 0.0
    assert [json.dumps(each) for each in before] != [json.dumps(each) for each in after]
    assert rows(arms, before) == rows(arms, after)
    assert comparisons(arms, before) == comparisons(arms, after)


def test_shares_that_are_nearly_one_are_two_arms(tiny: Pair, tmp_path: Path) -> None:
    few = Plan(
        models={},
        tasks=shipped_tasks(2),
        calibration=shipped_tasks(10, split="calibration"),
        shares=(0.08, 0.0800000001),
        controls=False,
        settings={"max_tokens": 64},
    )
    arms = evaluate(tmp_path / "run", few, lambda: tiny)
    assert len({arm.name for arm in arms}) == 4
