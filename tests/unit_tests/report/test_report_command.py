"""`delegate-llm report`: what it writes, says and returns, and that nothing is lost on an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delegate_llm.cli import app
from delegate_llm.trace import Decision, Summary, Trace


def called(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, ["report", *arguments], input=stdin)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file with one trace."""
    decision = Decision(position=0, token="Hi", token_id=1, base_token="Ho", base_token_id=2, takeover=True)
    file = tmp_path / "trace.json"
    file.write_text(Trace(decisions=(decision,), summary=Summary(tokens=1, takeovers=1)).to_json())
    return file


def test_the_page_goes_beside_the_file(trace: Path) -> None:
    done = called(str(trace))
    page = trace.with_name("report.html")
    assert done.exit_code == 0
    assert done.stdout == f"{page}: 1 answer, {page.stat().st_size / 1e6:.2f} MB\n"
    assert "<title>Delegation: trace.json</title>" in page.read_text(encoding="utf-8")
    assert sorted(each.name for each in trace.parent.iterdir()) == ["report.html", "trace.json"]


def test_the_page_of_a_run_goes_into_its_folder(tmp_path: Path) -> None:
    sample = {"arm": "a", "task": "t", "seed": 0, "text": "x", "trace": None}
    (tmp_path / "run.json").write_text('{"version": 1}')
    (tmp_path / "tasks.jsonl").write_text("")
    (tmp_path / "samples.jsonl").write_text(f"{json.dumps(sample)}\n" * 3)
    done = called(str(tmp_path), "--limit", "2")
    assert done.exit_code == 0
    assert "2 answers" in done.stdout
    assert "not finished" in done.stderr
    assert "1 more answers are left out" in done.stderr
    assert "1 more answers are left out" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_is_read_is_not_overwritten(trace: Path) -> None:
    before = trace.read_bytes()
    done = called(str(trace), "-o", str(trace.parent / "." / trace.name))
    assert (done.exit_code, trace.read_bytes()) == (2, before)
    assert "is what is to be read; name another file" in done.stderr


def test_json_is_one_object(trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "other.html"
    done = called(str(trace), "-o", str(page), "--title", "A <title>", "--json")
    told = json.loads(done.stdout)
    assert told == {"path": str(page), "bytes": page.stat().st_size, "answers": 1, "left_out": 0}
    assert "<title>A &lt;title&gt;</title>" in page.read_text(encoding="utf-8")


def test_a_pipe_is_read(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = called("-", stdin=trace.read_text())
    assert done.exit_code == 0
    assert (tmp_path / "report.html").is_file()


def test_the_browser_is_opened_on_request(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert called(str(trace), "--open").exit_code == 0
    assert opened == [trace.with_name("report.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.json"], "cannot be read"),
        (["trace.json", "-o", "none/page.html"], "cannot write"),
        (["trace.json", "-o", "."], "cannot write"),
        (["trace.json", "--arm", "base"], "names a part of a run"),
        (["trace.json", "--limit", "0"], "--limit"),
    ],
)
def test_bad_input_exits_with_2_and_a_line(
    trace: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(trace.parent)
    done = called(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert sorted(each.name for each in trace.parent.iterdir()) == ["trace.json"]


def test_an_error_leaves_the_old_page(trace: Path) -> None:
    called(str(trace))
    page = trace.with_name("report.html")
    before = page.read_bytes()
    trace.write_text("{")
    assert called(str(trace)).exit_code == 2
    assert page.read_bytes() == before


def test_a_full_disk_is_an_error_of_ours(trace: Path) -> None:
    resource = pytest.importorskip("resource")
    script = f"from delegate_llm.cli import app; app(['report', {str(trace)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        # Files may not grow beyond this, which fails a write as a full disk does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert [each.name for each in trace.parent.iterdir()] == ["trace.json"]


def test_help_and_import_bring_nothing_heavy() -> None:
    heavy = ("torch", "jinja2", "delegate_llm.report", "playwright")
    script = f"import sys, delegate_llm.cli; print([each for each in {heavy} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
