"""`delegate-llm evaluate`: its tables, its JSON, going on, and what it says of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delegate_llm import DelegationPolicy
from delegate_llm.cli import app
from delegate_llm.cli.loading import BASE, carried
from delegate_llm.evaluation.tasks import shipped_tasks

pytest.importorskip("matplotlib")

FEW = ("--problems", "4", "--calibrate-on", "12", "--shares", "0.05", "--max-tokens", "96")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_json_has_every_number_and_the_folder_every_answer(tmp_path: Path, loads: list[str]) -> None:
    first = call(tmp_path / "run", *FEW, "--samples", 2, "--json")
    assert (first.exit_code, first.stderr) == (0, "")
    found = json.loads(first.stdout)
    kinds = ["base", "reasoner", "delegated", "random", "early", "entropy"]
    assert [each["kind"] for each in found["results"]] == kinds
    assert found == json.loads((tmp_path / "run" / "summary.json").read_bytes())
    delegated = found["results"][2]
    assert (delegated["tasks"], delegated["samples"], delegated["name"]) == (4, 2, "delegated 0.05")
    assert set(delegated["pass_at"]) == {"1", "2"}
    assert delegated["accuracy"]["low"] <= delegated["accuracy"]["value"] <= delegated["accuracy"]["high"]
    assert delegated["reasoner_forwards"] > 0
    assert {each["other"] for each in found["comparisons"]} == {
        "base",
        "reasoner",
        *(f"{kind} for delegated 0.05" for kind in kinds[3:]),
    }
    DelegationPolicy.model_validate(found["policies"]["delegated 0.05"])
    for picture in ("accuracy.png", "cost.png", "answer.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 6 * 4 * 2
    assert all(each["trace"]["decisions"] for each in samples if each["arm"] == "delegated 0.05")

    before = len(loads)
    again = call(tmp_path / "run", *FEW, "--samples", 2, "--json")
    assert json.loads(again.stdout) == found
    assert len(loads) == before, "a run that is finished loads no model"


def test_tasks_of_ones_own(tmp_path: Path) -> None:
    tasks = shipped_tasks(6, seed=5)
    lines = [{"id": task.id, "question": task.question, "answer": task.answer} for task in tasks]
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    policy = tmp_path / "mine.json"
    policy.write_text(DelegationPolicy(threshold=1.0).to_json())
    result = call(
        tmp_path / "run",
        *("--tasks", file, "--checker", "stated", "--shares", "", "--policy", policy, "--no-controls"),
        *("--max-tokens", "96"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "Accuracy on 6 tasks" in result.stdout, "there is no threshold to set, so none is held out"
    assert re.search(r"^policy mine +\d+\.\d% ", result.stdout, re.MULTILINE)
    graded = call(
        tmp_path / "other",
        *("--tasks", file, "--checker", "operator:contains", "--shares", "", "--no-controls"),
        *("--max-tokens", "32"),
    )
    assert (graded.exit_code, graded.stderr) == (0, "")


def test_tables_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (tmp_path / "run", *FEW, "--no-controls")
    call(*arguments)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    shown = re.sub(r"\x1b\[[\d;]*m", "", call(*arguments).stdout)
    assert re.search(r"^ delegated 0\.05 +\d", shown, re.MULTILINE), "on one line"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--checker", "nosuch"), "checker: 'nosuch' is unknown"),
        (("--no-spike", "--spike-window", "3"), "spike_window: 3 is of no use without a spike"),
        (("--shares", "0.1,x"), "shares: 'x'"),
        (("--shares", "1"), "shares: '1'"),
        (("--shares", "0.0001"), "share: .* scores are too few"),
        (("--samples", "2", "--temperature", "0"), "samples: 2 greedy answers"),
        (("--temperature", "-1"), "temperature"),
        (("--divergence", "chi2"), "unknown divergence"),
        (("--tasks", "nowhere.jsonl"), "cannot read 'nowhere.jsonl'"),
        (("--calibration", "nowhere.jsonl"), "cannot read 'nowhere.jsonl'"),
        (("--checker", "os:nothing"), "checker: cannot take 'nothing' from 'os'"),
        (("--options", "["), "options: .* is no JSON"),
        (("--options", '{"frobnicate": 1}'), "unknown option"),
        (("--options", '{"base": "x"}'), "options: 'base' has an option of its own; give --base"),
        (("--options", '{"device": "nowhere"}'), "nowhere"),
        (("--options", "[" * 100_000), "options: .* is no JSON"),
        (("--checker", "judge"), "checker: 'judge' is unknown"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = call(tmp_path / "run", *FEW, *arguments)
    assert result.exit_code == 2, result.stderr
    assert re.search(said, result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(("count", "held"), [(1, ()), (2, ()), (4, ("--calibrate-on", "4"))])
def test_too_few_tasks_to_hold_some_out(tmp_path: Path, count: int, held: tuple[str, ...]) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(
        "".join(f'{{"question": "{each} + 1?", "answer": {each + 1}}}\n' for each in range(count))
    )
    result = call(tmp_path / "run", "--tasks", file, *held)
    assert result.exit_code == 2
    assert re.search(r"calibrate-on: \d of the \d tasks .* cannot be held out", result.stderr)
    assert not (tmp_path / "run").exists()


def test_the_checker_is_for_the_tasks_that_ship_and_for_calibration_too(tmp_path: Path) -> None:
    file = tmp_path / "calibration.jsonl"
    file.write_text('{"question": "What?", "answer": "no number"}\n')
    few = ("--problems", 2, "--calibration", file, "--shares", "", "--max-tokens", "64")
    result = call(tmp_path / "run", *few, "--checker", "exact", "--json")
    assert result.exit_code == 0, result.stderr
    assert [each["unread"] for each in json.loads(result.stdout)["results"]] == [0, 0], "any text is one"
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(each["parsed"] == " ".join(each["text"].split()) for each in samples)


def test_a_server_says_itself_what_it_carries() -> None:
    assert carried(BASE, "mine", "transformers") == (BASE, "mine")
    assert carried(BASE, "mine", "remote") == ("the server's own", "mine")


@pytest.mark.parametrize(("threshold", "what"), [(1e300, "nothing"), (0.0, "everything")])
def test_arms_that_no_control_can_match_are_named(tmp_path: Path, threshold: float, what: str) -> None:
    (tmp_path / "mine.json").write_text(DelegationPolicy(threshold=threshold).to_json())
    result = call(
        *(tmp_path / "run", "--problems", 2, "--calibrate-on", 4, "--shares", "", "--max-tokens", 40),
        *("--policy", tmp_path / "mine.json"),
    )
    assert result.exit_code == 0
    assert f"policy mine: no controls, for the reasoner took {what} over" in result.stdout


def test_two_policies_of_one_name(tmp_path: Path) -> None:
    files = [tmp_path / each / "mine.json" for each in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(DelegationPolicy().to_json())
    result = call(tmp_path / "run", *FEW, "--policy", files[0], "--policy", files[1])
    assert (result.exit_code, "two files are called 'mine'" in result.stderr) == (2, True)


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    assert call(tmp_path / "run", *FEW, "--no-controls").exit_code == 0
    result = call(tmp_path / "run", *FEW, "--no-controls", "--seed", "4")
    assert result.exit_code == 2
    assert "holds a run with other settings" in result.stderr
    assert "What was finished is kept in" in result.stderr


def test_a_file_that_was_mended_by_hand(tmp_path: Path) -> None:
    given = (tmp_path / "run", *FEW, "--no-controls", "--json")
    first = call(*given)
    samples = tmp_path / "run" / "samples.jsonl"
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join([*lines, lines[0]]))
    assert call(*given).stdout == first.stdout, "a line that is there twice counts once"
    one = json.loads(lines[0])
    for broken, named in (
        ({}, "arm and task"),
        ({**one, "task": 7}, "task"),
        ({**one, "sample": 9}, "task and sample"),
        ({**one, "correct": "yes"}, "correct"),
        ({**one, "usage": None}, "usage"),
    ):
        samples.write_text("".join([*lines[:2], json.dumps(broken) + "\n", *lines[2:]]))
        result = call(*given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.search(
            rf"samples.jsonl', line 3: it is no answer of this run, by its {named}", result.stderr
        )


def test_calibration_answers_serve_another_share(tmp_path: Path) -> None:
    few = ("--problems", "4", "--calibrate-on", "6", "--max-tokens", "96", "--no-controls")
    result = call(tmp_path / "run", *few, "--shares", "0.01")
    assert (result.exit_code, "too few for a share" in result.stderr) == (2, True)
    kept = (tmp_path / "run" / "calibration.jsonl").read_bytes()
    assert call(tmp_path / "run", *few, "--shares", "0.2").exit_code == 0
    assert (tmp_path / "run" / "calibration.jsonl").read_bytes() == kept


def test_thresholds_of_the_tasks_themselves_are_warned_of(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(
        "".join(
            f"{json.dumps({'question': each.question, 'answer': each.answer, 'checker': 'stated'})}\n"
            for each in shipped_tasks(4)
        )
    )
    result = call(
        tmp_path / "run", "--tasks", tasks, "--calibration", tasks, "--shares", "0.2", "--no-controls"
    )
    assert result.exit_code == 0
    assert "4 of the tasks are among those that set the thresholds" in result.stderr


def test_models_without_a_shared_vocabulary(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    result = call(tmp_path / "run", *FEW, "--base", folders[0])
    assert result.exit_code == 1
    assert "vocabular" in result.stderr or "token" in result.stderr
