"""The folder of an analysis: `run.json`, `tasks.jsonl`, `samples.jsonl` as an evaluation's, and its findings.

An analysis that was broken off is gone on with, and answers of one with other settings are not thrown away. A
finished one is overwritten by the next, since the models behind a name may have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.run_folder import PLAN, SAMPLES, Lines, clear, read_plan, start
from delegate_llm.evaluation.tasks import Task

__all__ = ("ANSWER", "KIND", "PICTURE", "SUMMARY", "TOKENS", "take_up")

TOKENS: Final = "tokens.parquet"
SUMMARY: Final = "summary.json"
"""Written last: where it is, the analysis is finished."""
PICTURE: Final = "analysis.png"
ANSWER: Final = "answer.png"
KIND: Final = "analysis"


def take_up(
    folder: Path, plan: Mapping[str, Any], tasks: Sequence[Task], ready: Callable[[], object]
) -> Lines:
    """Go on with the analysis in a folder, or begin it.

    Args:
        folder: It must exist.
        plan: All that decides what the models are asked, as JSON.
        tasks: What they are asked.
        ready: Called before a former analysis is removed; what it raises keeps that.

    Returns:
        Where answers are kept.

    Raises:
        RequestError: If the folder holds anything else, such as answers under other settings, or cannot be
            written.
    """
    if (folder / PLAN).exists():
        old = read_plan(folder)
        if old.get("kind") != KIND:
            msg = f"{str(folder)!r} holds a run of another kind, and no analysis; choose another folder"
            raise RequestError(msg)
        if (folder / SUMMARY).exists():
            ready()
            clear(folder, (SUMMARY, TOKENS, PICTURE, ANSWER))
    start(folder, plan, map(asdict, tasks))
    return Lines(folder / SAMPLES)
