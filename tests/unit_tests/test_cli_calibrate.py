"""`delegate-llm calibrate`: the policy it writes, what the check finds, and what it says of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk
from typer.testing import CliRunner

from delegate_llm import DelegatedChatModel, DelegationPolicy, load_pair
from delegate_llm.cli import app
from delegate_llm.evaluation.run_folder import SAMPLES, held
from delegate_llm.evaluation.tasks import shipped_tasks
from delegate_llm.gates import EntropyGate

NAMES = ("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["calibrate", *arguments], catch_exceptions=False)


def tasks_file(file: Path, count: int, *, seed: int = 0, answers: bool = True) -> str:
    lines = [
        {"id": each.id, "question": each.question, "checker": "stated"}
        | ({"answer": each.answer} if answers else {})
        for each in shipped_tasks(count, seed=seed)
    ]
    file.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return str(file)


def test_on_the_shipped_pair_the_realised_share_is_near_the_nominal_one(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    result = call("--share", "0.08", "--problems", "100", "--out", str(out), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert 0.05 <= found["check"]["share"]["value"] <= 0.11
    assert found["check"]["correct"] > 90
    assert found["check"]["base_correct"] < 10
    assert (found["check"]["answers"], found["calibration"]["answers"]) == (100, 100)
    policy = DelegationPolicy.read(out)
    assert policy == DelegationPolicy.model_validate(found["policy"])
    assert policy.spike > 1
    # What parts from the nominal share is said, on stderr and in the report.
    warned = [f"warning: {each}" for each in found["warnings"]]
    assert result.stderr.splitlines() == warned
    assert [each.name for each in tmp_path.iterdir()] == ["policy.json"]
    # Whoever takes policies takes this one.
    pair = load_pair(*NAMES, policy=policy)
    question = shipped_tasks(1, seed=5)[0].question
    by_pair = pair.generate([{"role": "user", "content": question}])
    message = DelegatedChatModel(pair=pair, policy=policy).invoke(question)
    assert by_pair.text == message.content


def test_without_a_spike_the_threshold_alone_spends_the_share(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    found = json.loads(call("--problems", "60", "--no-spike", "--out", str(out), "--json").stdout)
    assert found["policy"]["spike"] == 0
    assert found["calibration"]["fires"] == pytest.approx(0.08, abs=0.002)
    assert found["check"]["share"]["low"] < 0.085
    assert found["audit"] is None


def test_a_gate_by_entropy_asks_less_and_is_audited(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    arguments = ["--entropy-only", "--problems", "60", "--audit", "500", "--out", str(out)]
    found = json.loads(call(*arguments, "--json").stdout)
    (gate,) = DelegationPolicy.read(out).gates
    assert isinstance(gate, EntropyGate)
    assert found["calibration"]["gate_keeps"] >= 0.95
    assert found["check"]["asked"]["high"] < 0.5
    audited = found["audit"]
    assert (audited["audited"], audited["skipped"] > 500) == (500, True)
    assert audited["missed"] <= 10
    assert (
        audited["missed_share"]["low"] <= audited["missed_share"]["value"] <= audited["missed_share"]["high"]
    )
    shown = call(*arguments).stdout
    assert re.search(r"^of them audited, and missed +500, \d+ *$", shown, re.MULTILINE)
    assert re.search(r"^missed in 1,000 tokens +\d+\.\d +\d+\.\d to \d+\.\d$", shown, re.MULTILINE)


def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    result = call("--problems", "20", "--out", str(tmp_path / "policy.json"))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert re.search(r"^nominal share +8\.0% *$", result.stdout, re.MULTILINE)
    assert re.search(r"^realised share +[\d.]+% +[\d.]+% to [\d.]+%$", result.stdout, re.MULTILINE)
    assert re.search(r"^right, delegated +\d+ of 20 *$", result.stdout, re.MULTILINE)


def test_the_last_third_of_a_file_is_held_out(tmp_path: Path) -> None:
    tasks, out = tasks_file(tmp_path / "tasks.jsonl", 30), tmp_path / "policy.json"
    found = json.loads(call("--tasks", tasks, "--out", str(out), "--json").stdout)
    assert (found["calibration"]["answers"], found["check"]["answers"]) == (20, 10)
    assert found["run"]["checked_on"] == f"the last 10 tasks of {tasks!r}, held out"
    found = json.loads(call("--tasks", tasks, "--check", "7", "--out", str(out), "--json").stdout)
    assert (found["calibration"]["answers"], found["check"]["answers"]) == (23, 7)


def test_other_prompts_come_from_a_file_and_the_same_ones_are_said(tmp_path: Path) -> None:
    tasks, out = tasks_file(tmp_path / "tasks.jsonl", 12), tmp_path / "policy.json"
    others = tasks_file(tmp_path / "others.jsonl", 6, seed=4, answers=False)
    found = json.loads(call("--tasks", tasks, "--check", others, "--out", str(out), "--json").stdout)
    assert (found["calibration"]["answers"], found["check"]["answers"]) == (12, 6)
    assert (found["check"]["graded"], found["check"]["correct"]) == (0, None)
    result = call("--tasks", tasks, "--check", tasks, "--out", str(out), "--json")
    assert result.exit_code == 0
    assert "warning: 12 of the prompts to check on were calibrated on, too" in result.stderr


def test_chats_that_end_alike_are_not_the_same_prompts(tmp_path: Path) -> None:
    turns = [
        [{"role": "user", "content": each.question}, {"role": "assistant", "content": "?"},
         {"role": "user", "content": "Go on."}]
        for each in shipped_tasks(12)
    ]  # fmt: skip
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns))
    result = call("--tasks", str(tasks), "--share", "0.1", "--out", str(tmp_path / "policy.json"))
    assert result.exit_code == 0
    assert "calibrated on, too" not in result.stderr


def test_a_function_of_ones_own_grades_answers_of_any_form(tmp_path: Path) -> None:
    lines = [{"question": each.question, "answer": "all } $ of it"} for each in shipped_tasks(12)]
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(each) + "\n" for each in lines))
    arguments = ["--tasks", str(tasks), "--share", "0.1", "--checker", "operator:ne", "--json"]
    result = call(*arguments, "--out", str(tmp_path / "policy.json"))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["check"]["correct"] == 4


def test_finished_answers_survive_a_full_disk(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    arguments = ["--problems", "6", "--batch", "1", "--out", str(out)]
    with full_disk(30_000):
        result = call(*arguments)
    assert (result.exit_code, result.stdout, out.exists()) == (2, "", False)
    assert "What was finished is kept in" in result.stderr
    part = tmp_path / "policy.json.part"
    assert 0 < (part / SAMPLES).read_bytes().count(b"\n") < 6
    assert call(*arguments).exit_code == 0
    assert [each.name for each in tmp_path.iterdir()] == ["policy.json"]


def test_answers_under_other_settings_are_not_thrown_away(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    with full_disk(30_000):
        assert call("--problems", "6", "--batch", "1", "--out", str(out)).exit_code == 2
    result = call("--problems", "7", "--batch", "1", "--out", str(out))
    assert (result.exit_code, result.stdout, out.exists()) == (2, "", False)
    assert re.search(r"json\.part' holds a run with other settings: tasks was .* or remove", result.stderr)


def test_a_model_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    result = call("--base", str(tmp_path / "nowhere"), "--out", str(tmp_path / "policy.json"))
    assert result.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_two_calibrations_do_not_share_a_file(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    with held(tmp_path / "policy.json.part"):
        result = call("--problems", "6", "--out", str(out))
    assert (result.exit_code, out.exists()) == (2, False)
    assert "another process writes into" in result.stderr


def test_too_few_prompts_for_the_share_are_said_and_their_answers_kept(tmp_path: Path) -> None:
    out = tmp_path / "policy.json"
    result = call("--problems", "4", "--share", "0.01", "--out", str(out))
    assert (result.exit_code, result.stdout, out.exists()) == (2, "", False)
    assert re.search(
        r"error: share: \d+ scores are too few for a share of 0\.01, which takes 1000", result.stderr
    )
    part = tmp_path / "policy.json.part"
    assert f"The answers are kept in {str(part)!r}, for another share" in result.stderr
    before = (part / SAMPLES).read_bytes()
    assert call("--problems", "4", "--share", "0.2", "--out", str(out)).exit_code == 0
    assert before.count(b"\n") == 4
    assert not part.exists()


def test_a_check_that_breaks_off_leaves_the_policy(tmp_path: Path) -> None:
    others, out = tmp_path / "others.jsonl", tmp_path / "policy.json"
    others.write_text(json.dumps({"id": "long", "question": "pens " * 3000}))
    result = call("--problems", "20", "--check", str(others), "--out", str(out))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(rf"The policy is in '{out}', unchecked\.\nerror: task 'long': ", result.stderr)
    assert DelegationPolicy.read(out).threshold > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "0"], "share: 0.0 is outside (0, 1)"),
        (["--share", "1.5"], "share: 1.5 is outside (0, 1)"),
        (["--keep", "0", "--entropy-only"], "keep: 0.0 is outside (0, 1]"),
        (["--divergence", "kullback"], "DelegationPolicy: divergence: unknown divergence 'kullback'"),
        (["--temperature", "nan"], "temperature: "),
        (["--tasks", "nowhere.jsonl"], "cannot read 'nowhere.jsonl'"),
        (["--check", "nowhere.jsonl"], "cannot read 'nowhere.jsonl'"),
        (
            ["--out", "nowhere/policy.json"],
            "out: 'nowhere/policy.json' has no folder 'nowhere'",
        ),
        (["--out", "."], "out: '.' is a folder"),
        (["--check", "0"], "check: 0 prompts bear nothing out; give at least 1"),
        (["--keep", "0.5"], "keep: it is about the gate of --entropy-only"),
        (["--audit", "5"], "audit: it is about the gate of --entropy-only"),
        (["--no-spike", "--spike-window", "8"], "spike_window: 8 is of no use without a spike"),
        (["--entropy-only", "--spike-window", "8"], "spike_window: 8 is of no use without a spike"),
        (["--entropy-only", "--divergence", "random"], "divergence: 'random' asks the reasoner at takeovers"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(arguments: list[str], said: str) -> None:
    result = call("--base", "./nowhere", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("count", "check"), [(2, []), (1, []), (5, ["--check", "5"])])
def test_too_few_tasks_to_hold_some_out_are_said(tmp_path: Path, count: int, check: list[str]) -> None:
    tasks = tasks_file(tmp_path / "tasks.jsonl", count)
    result = call("--base", "./nowhere", "--tasks", tasks, *check, "--out", str(tmp_path / "policy.json"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(rf"check: \d of the {count} tasks in .* cannot be held out", result.stderr)
