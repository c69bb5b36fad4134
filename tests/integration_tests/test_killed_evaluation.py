"""An evaluation that is killed, or whose disk runs full, loses nothing that it had finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import killed_evaluation
import pytest

pytest.importorskip("matplotlib")

TESTS = Path(killed_evaluation.__file__).parent
KILLS = 20


def run(folder: Path, *arguments: str, limit: str = "unlimited") -> subprocess.CompletedProcess[str]:
    """The driver in a process of its own, in which no file may grow beyond `limit` blocks."""
    program = " ".join([sys.executable, str(TESTS / "killed_evaluation.py"), str(folder), *arguments])
    shell = f"trap '' XFSZ; ulimit -f {limit}; exec {program}"
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, cwd=TESTS)


def found(folder: Path) -> Any:
    """All that a run found, but for how long it took."""
    summary = json.loads((folder / "summary.json").read_bytes())
    for row in summary["results"]:
        assert row.pop("seconds") > 0
    return summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went through."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, "0", "0")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    return folder


def test_killed_at_random_moments_it_finds_the_same(whole: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "killed", str(KILLS), "7")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS // 2, "most runs were killed before they were done"
    assert found(tmp_path / "killed") == found(whole)
    samples = (tmp_path / "killed" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == len((whole / "samples.jsonl").read_text().splitlines())


def test_what_was_finished_outlives_a_full_disk(whole: Path, tmp_path: Path) -> None:
    folder, kept = tmp_path / "full", ("calibration.jsonl", "samples.jsonl")
    small, large = ((whole / name).stat().st_size for name in kept)
    before = b""
    # It is full while calibrating, and then twice among the answers.
    for size in (small // 2, small + (large - small) // 3, small + (large - small) * 2 // 3):
        done = run(folder, "0", "0", limit=str(size // 1024))
        assert done.returncode == 1
        assert "RequestError: cannot write" in done.stderr
        assert "free space" in done.stderr
        after = b"".join((folder / name).read_bytes() for name in kept if (folder / name).exists())
        assert len(after) > len(before)
        assert after.startswith(before[: before.rfind(b"\n") + 1])
        before = after
    assert run(folder, "0", "0").returncode == 0
    assert found(folder) == found(whole)
