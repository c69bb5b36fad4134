"""`delegate-llm analyze`: its files, its table, its JSON, and what it says of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk
from models import save as save_model
from typer.testing import CliRunner

from delegate_llm.cli import app

pytest.importorskip("matplotlib")
parquet = pytest.importorskip("pyarrow.parquet")

FILES = {"analysis.png", "answer.png", "run.json", "samples.jsonl", "summary.json", "tasks.jsonl",
         "tokens.parquet"}  # fmt: skip
TEXT = "First add 2 and 3: 2 + 3 = 5. The answer is 5."


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["analyze", *arguments], catch_exceptions=False)


def tasks_file(folder: Path, *lines: Any) -> str:
    file = folder / "tasks.jsonl"
    file.write_text("".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in lines))
    return str(file)


def visible(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir() if not each.name.startswith(".")}


def test_on_the_shipped_pair_disagreement_is_sparse_plans_and_is_where_the_base_is_unsure(
    tmp_path: Path,
) -> None:
    out = tmp_path / "analysis"
    result = call("--problems", "40", "--out", str(out), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found == json.loads((out / "summary.json").read_text())
    assert visible(out) == FILES
    assert found["gini"]["low"] > 0.9
    assert found["carriers"][1]["tokens"]["high"] < 0.08  # of the tokens carry 80 % of the score
    assert found["words"]["planning"]["over_representation"]["low"] > 3
    assert found["words"]["execution"]["over_representation"]["high"] < 0.6
    assert found["sentence_start"]["opening_to_later"]["low"] > 5
    overlap = {each["share"]: each for each in found["overlap"]}[0.1]
    assert overlap["iou"]["low"] > 10 * overlap["chance"]
    tokens = parquet.read_table(out / "tokens.parquet")
    assert len(tokens) == found["counts"]["tokens"]
    assert sum(tokens["score"].to_pylist()) / len(tokens) == pytest.approx(found["score"]["mean"])


def test_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    result = call("--problems", "3", "--out", str(tmp_path / "a"))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert re.search(
        r"^Gini coefficient of the score +0\.\d{3} +0\.\d{3} to 0\.\d{3}$", result.stdout, re.MULTILINE
    )
    assert re.search(r"^No AUROC: all 3 answers are wrong\.$", result.stdout, re.MULTILINE)


def test_a_table_on_a_terminal_fits_80_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    result = call("--problems", "3", "--out", str(tmp_path / "a"))
    shown = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    assert re.search(r"^ planning words, over-represented in the top 10 % +[\d.]+x", shown, re.MULTILINE)
    assert "…" not in shown


def test_a_finished_analysis_is_overwritten_and_a_broken_one_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    arguments = ["--problems", "4", "--batch", "2", "--out", str(out), "--json"]
    first = json.loads(call(*arguments).stdout)
    samples = (out / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (out / "summary.json").unlink()
    (out / "samples.jsonl").write_bytes(b"".join(samples[:2]) + b'{"torn')
    assert json.loads(call(*arguments).stdout) == first
    assert (out / "samples.jsonl").read_bytes().splitlines(keepends=True)[:2] == samples[:2]
    # Others never were asked for: what is finished under other settings is not thrown away.
    (out / "summary.json").unlink()
    result = call(*arguments, "--seed", "5")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds a run with other settings: " in result.stderr
    assert json.loads(call(*arguments).stdout) == first
    other = json.loads(call(*arguments, "--divergence", "js", "--seed", "5").stdout)
    assert (other["run"]["divergence"], other["run"]["seed"]) == ("js", 5)
    assert visible(out) == FILES
    assert len((out / "samples.jsonl").read_bytes().splitlines()) == 4


def test_what_was_finished_survives_a_full_disk(tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    arguments = ["--problems", "6", "--batch", "1", "--out", str(out), "--json"]
    with full_disk(30_000):
        result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    said = result.stderr.splitlines()
    assert said[0] == f"What was finished is kept in {str(out)!r}; the same command goes on."
    assert re.match(r"error: cannot write '.*samples\.jsonl': .*; free space, or", said[1])
    samples = (out / "samples.jsonl").read_bytes()
    kept = samples[: samples.rindex(b"\n") + 1]
    assert 0 < kept.count(b"\n") < 6
    assert call(*arguments).exit_code == 0
    assert (out / "samples.jsonl").read_bytes().startswith(kept)


def test_an_analysis_without_an_answer_gives_way_to_other_settings(tmp_path: Path) -> None:
    file, out = tmp_path / "tasks.jsonl", tmp_path / "analysis"
    tasks_file(tmp_path, {"question": "pens " * 3000})
    assert call("--tasks", str(file), "--out", str(out)).exit_code == 2
    assert call("--problems", "1", "--out", str(out)).exit_code == 0


def test_findings_that_the_disk_cannot_take_are_found_again_without_the_models(tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    arguments = ["--problems", "2", "--out", str(out)]
    assert call(*arguments).exit_code == 0
    (out / "summary.json").unlink()
    (out / "tokens.parquet").unlink()
    with full_disk(1000):
        result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"error: cannot write '.*tokens\.parquet': .*; free space", result.stderr)
    assert not (out / "tokens.parquet").exists()
    assert call(*arguments).exit_code == 0
    assert visible(out) == FILES


def test_a_former_analysis_is_not_lost_to_models_that_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "analysis"
    call("--problems", "2", "--out", str(out))
    before = (out / "summary.json").read_bytes()
    result = call("--problems", "2", "--out", str(out), "--base", "./nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (out / "summary.json").read_bytes() == before


def test_given_texts_are_scored(tmp_path: Path) -> None:
    tasks = tasks_file(
        tmp_path,
        {"question": "How many?", "completion": TEXT, "answer": "5", "checker": "stated"},
        {
            "id": "hostile",
            "question": "\x1b[31m$x$",
            "completion": "$x_1$ \x1b[31m\u202e 中 <|im_end|> first",
        },
    )
    out = tmp_path / "analysis"
    result = call("--texts", "--tasks", tasks, "--out", str(out), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["counts"]["finish_reasons"] == {"given": 2}
    assert (found["counts"]["graded"], found["counts"]["correct"]) == (1, 1)
    read = parquet.read_table(out / "tokens.parquet").to_pydict()
    first = [token for task, token in zip(read["task"], read["token"], strict=True) if task == "1"]
    assert "".join(first) == TEXT


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], r"there are no tasks in it"),
        (['{"question": "x"}\n', "{broken\n"], r"line 2: it is no JSON"),
        (
            [{"id": "a", "question": "x"}, {"id": "a", "question": "y"}],
            r"line 2: the id 'a' is that",
        ),
        ([{"question": "x", "answer": "5"}, "[]\n"], r"line 2: it holds a list"),
    ],
)
def test_a_broken_file_of_tasks_is_said_by_its_line(tmp_path: Path, lines: list[Any], said: str) -> None:
    result = call(
        "--base", "./nowhere", "--tasks", tasks_file(tmp_path, *lines), "--out", str(tmp_path / "a")
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(said, result.stderr)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--top", "0"], "top: 0.0 is outside (0, 1)"),
        (["--top", "1"], "top: 1.0 is outside (0, 1)"),
        (["--divergence", "kullback"], "DelegationPolicy: divergence: unknown divergence 'kullback'"),
        (["--temperature", "-1"], "temperature: "),
        (["--lexicon", "nowhere.json"], "lexicon: cannot read 'nowhere.json'"),
        (["--tasks", "nowhere.jsonl"], "cannot read 'nowhere.jsonl'"),
        (["--texts"], "tasks: the shipped generator has no texts to score"),
        (["--checker", "nonsense"], "checker: 'nonsense' is unknown; choose one of math, "),
        (["--checker", "nowhere:check"], "checker: cannot take 'check' from 'nowhere'"),
        (["--out", "/dev/null"], "cannot write '/dev/null"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(arguments: list[str], said: str) -> None:
    result = call("--base", "./nowhere", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", "mine", "holds 'notes.txt' and no run"),
        ("run.json", '{"version": 1, "arms": []}', "holds a run of another kind, and no analysis"),
        ("run.json", "[]", "is no plan of a run that this version can read"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    result = call("--problems", "1", "--out", str(tmp_path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert (visible(tmp_path), (tmp_path / name).read_text()) == ({name}, content)


def test_a_checker_by_name_grades_the_shipped_problems_too(tmp_path: Path) -> None:
    arguments = ["--problems", "2", "--out", str(tmp_path / "a"), "--json"]
    assert json.loads(call(*arguments, "--checker", "exact").stdout)["counts"]["correct"] == 0
    kept = (tmp_path / "a" / "tasks.jsonl").read_text().splitlines()
    assert [json.loads(each)["checker"] for each in kept] == ["exact", "exact"]


def test_models_of_a_server_are_not_called_the_shipped_ones(tmp_path: Path) -> None:
    nobody = ["--backend", "remote", "--base-url", "http://127.0.0.1:9"]
    result = call("--problems", "1", *nobody, "--reasoner", "mine", "--out", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    models = json.loads((tmp_path / "run.json").read_text())["models"]
    assert (models["base"], models["reasoner"]) == ("the server's own", "mine")


def test_models_without_a_shared_vocabulary_are_an_error(tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", 1)
    result = call("--problems", "1", "--reasoner", str(other), "--out", str(tmp_path / "a"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "token" in result.stderr
