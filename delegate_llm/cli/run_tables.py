"""A run for people: accuracy, cost and differences, in three tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from delegate_llm.cli.tables import Column, percent, print_table

if TYPE_CHECKING:
    from delegate_llm.evaluation.run_summary import Summary
    from delegate_llm.evaluation.run_table import Comparison, Row
    from delegate_llm.evaluation.statistics import Estimate

__all__ = ("print_run",)


def print_run(out: Console, folder: Path, found: Summary) -> None:
    """Print what a run found.

    Args:
        out: Where to.
        folder: Of the run.
        found: The run in numbers.
    """
    first = found.rows[0]
    asked = f"{first.tasks} tasks" + (f", {first.samples} answers each" if first.samples > 1 else "")
    print_table(out, f"Accuracy on {asked}", _columns(first.samples), found.rows, bold=_stands_out)
    out.print()
    print_table(out, "What an answer cost", _COSTS, found.rows, bold=_stands_out)
    if found.comparisons:
        out.print()
        print_table(out, "Differences in accuracy, task by task", _DIFFERENCES, found.comparisons)
    if found.document["plan"]["controls"]:
        _tell_missing(out, found.rows)
    _explain(out, folder, found.rows)


def _stands_out(row: Row) -> bool:
    return row.kind == "delegated"


def _columns(samples: int) -> tuple[Column[Row], ...]:
    best: tuple[Column[Row], ...] = ()
    if samples > 1:
        best = ((f"pass\n@{samples}", lambda row: percent(row.pass_at[samples].value)),)
    return (
        ("", lambda row: row.name),
        ("accuracy", lambda row: percent(row.accuracy.value)),
        ("95% CI", lambda row: _interval(row.accuracy)),
        *best,
        ("share", lambda row: percent(row.share and row.share.value)),
        ("95% CI", lambda row: _interval(row.share, 1)),
        ("recovery", lambda row: percent(row.recovery and row.recovery.value)),
        ("to\nright", lambda row: str(row.to_right)),
        ("to\nwrong", lambda row: str(row.to_wrong)),
        ("unread", lambda row: str(row.unread)),
    )


_COSTS: Final[tuple[Column[Row], ...]] = (
    ("", lambda row: row.name),
    ("tokens", lambda row: f"{row.tokens:.1f}"),
    ("asked\n/tok", lambda row: f"{row.asked:.2f}"),
    ("base\nfwd", lambda row: f"{row.base_forwards:.1f}"),
    ("reasoner\nfwd", lambda row: f"{row.reasoner_forwards:.1f}"),
    ("base\ntok", lambda row: f"{row.base_tokens:.0f}"),
    ("reasoner\ntok", lambda row: f"{row.reasoner_tokens:.0f}"),
    ("GFLOPs", lambda row: f"{(row.base_flops + row.reasoner_flops) / 1e9:.3g}"),
    ("seconds", lambda row: f"{row.seconds:.3f}"),
)
_DIFFERENCES: Final[tuple[Column[Comparison], ...]] = (
    ("", lambda each: each.arm),
    ("less", lambda each: each.other),
    ("points", lambda each: f"{100 * each.difference.value:+.1f}"),
    ("95% CI", lambda each: _interval(each.difference, 1)),
    ("p", lambda each: f"{each.p:.2g}"),
    ("p (Holm)", lambda each: f"{each.p_holm:.2g}"),
)
_LEGEND: Final = (
    "share: tokens that the reasoner supplied; recovery: how much of the gap between base and reasoner is "
    "closed; to right, to wrong: answers that the base alone got wrong, or right; unread: no conclusion was "
    "found in them; asked/tok: positions, per token, at which the reasoner was consulted; fwd: forward "
    "passes; tok: tokens processed, prompts included. Intervals are of the bootstrap over tasks; p is of a "
    "paired permutation test. Controls spend what the arm they are named after did: random, at positions "
    "drawn by lot; early, at the first ones; entropy, where the base is unsure, without comparing the two."
)


def _interval(estimate: Estimate | None, digits: int = 0) -> str:
    if estimate is None or math.isnan(estimate.low):
        return "-"
    return f"{100 * estimate.low:.{digits}f} to {100 * estimate.high:.{digits}f}"


def _tell_missing(out: Console, rows: Sequence[Row]) -> None:
    """Say where there was nothing that a control could match."""
    for row in rows:
        if row.kind == "delegated" and not any(each.of == row.name for each in rows):
            what = "nothing" if row.share is None or row.share.value <= 0 else "everything"
            out.print(Text(f"{row.name}: no controls, for the reasoner took {what} over"))


def _explain(out: Console, folder: Path, rows: Sequence[Row]) -> None:
    """What the tables do not say."""
    from delegate_llm.evaluation.run_folder import SAMPLES  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation.run_summary import ANSWER, FILES  # noqa: PLC0415 - brings numpy

    for row in rows:
        odd = {how: count for how, count in row.ended.items() if how != "stop"}
        if odd:
            told = ", ".join(f"{count} by {how}" for how, count in odd.items())
            out.print(Text(f"{row.name}: answers that did not end by themselves: {told}"))
    out.print(Text(f"\n{_LEGEND}", "dim"))
    drawn = [ANSWER] if (folder / ANSWER).exists() else []
    out.print(Text(f"\nIn {str(folder)!r}: {', '.join((SAMPLES, *FILES, *drawn))}"))
    out.print(Text(f"To read the answers: delegate-llm report {folder}"))
