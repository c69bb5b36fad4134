"""What a finished run leaves behind for people and programs: a summary, a table, and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from delegate_llm._files import write_file
from delegate_llm.errors import require
from delegate_llm.evaluation.arms import Arm
from delegate_llm.evaluation.decision_plot import plot_decisions
from delegate_llm.evaluation.evaluating import Plan, of_plan
from delegate_llm.evaluation.run_folder import SAMPLES, Lines, Record
from delegate_llm.evaluation.run_plots import plot_accuracy, plot_cost
from delegate_llm.evaluation.run_table import Comparison, Row, comparisons, rows
from delegate_llm.evaluation.statistics import Estimate
from delegate_llm.trace import Trace

__all__ = ("ANSWER", "FILES", "Summary", "check_pictures", "markdown", "summarise")

FILES: Final = ("summary.json", "table.md", "accuracy.png", "cost.png")
"""What is written into the folder of a run."""
ANSWER: Final = "answer.png"
"""Likewise, where traces were kept whole."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in numbers."""

    rows: list[Row]
    comparisons: list[Comparison]
    document: Record
    """All of it as JSON, with what was run."""


def summarise(folder: Path, plan: Plan, arms: Sequence[Arm]) -> Summary:
    """Work out what a run found, and write it into its folder.

    Args:
        folder: Of the run.
        plan: What was run.
        arms: As `evaluate` returned them.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If a file cannot be written.
    """
    file = folder / SAMPLES
    records = of_plan(Lines(file, without="trace").records, plan, file)
    found, differences = rows(arms, records), comparisons(arms, records)
    document = {
        "version": 1,
        "plan": plan.document(),
        "policies": {arm.name: arm.policy and arm.policy.to_fields() for arm in arms},
        "results": [_plain(asdict(row)) for row in found],
        "comparisons": [_plain(asdict(each)) for each in differences],
    }
    write_file(folder / "summary.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_file(folder / "table.md", markdown(found))
    title = f"{len(plan.tasks)} tasks: {plan.models.get('base')}, {plan.models.get('reasoner')}"
    plot_accuracy(found, title, folder / "accuracy.png")
    plot_cost(found, title, folder / "cost.png")
    _plot_answer(folder, arms)
    return Summary(found, differences, document)


def _plot_answer(folder: Path, arms: Sequence[Arm]) -> None:
    """Draw an answer of the last delegated arm: one that the base got wrong and it right, or the first."""
    policies = {arm.name: arm.policy for arm in arms if arm.kind == "delegated" and arm.policy is not None}
    if not policies:
        return
    name, policy = list(policies.items())[-1]
    wrong: set[tuple[str, int]] = set()
    chosen: Record | None = None
    with (folder / SAMPLES).open("rb") as lines:
        for record in map(json.loads, lines):
            key = record["task"], record["sample"]
            if record["arm"] == "base" and not record["correct"]:
                wrong.add(key)
            elif record["arm"] == name and (record["trace"] or {}).get("level") == "full":
                gained = record["correct"] and key in wrong and record["summary"]["changed"] > 1
                chosen = record if gained or chosen is None else chosen
                if gained:
                    break
    if chosen is not None:
        trace = Trace.model_validate(chosen["trace"])
        plot_decisions(trace, policy, f"{name}: task {chosen['task']}", folder / ANSWER)


def markdown(found: Sequence[Row]) -> str:
    """The main table, to paste into a report."""
    most = max(found[0].pass_at)
    names = ["", "accuracy (95 % CI)", *([f"pass@{most}"] if most > 1 else []), "share (95 % CI)", "recovery"]
    names += ["reasoner forwards", "GFLOPs", "seconds"]
    lines = [names, ["---"] * len(names)]
    for row in found:
        best = [_percent(row.pass_at[most])] if most > 1 else []
        share = "-" if row.share is None else _percent(row.share, 1)
        cells = [row.name, _percent(row.accuracy), *best, share]
        cells += [
            "-" if row.recovery is None else f"{100 * row.recovery.value:.1f} %",
            f"{row.reasoner_forwards:.1f}",
        ]
        cells += [f"{(row.base_flops + row.reasoner_flops) / 1e9:.3g}", f"{row.seconds:.3f}"]
        lines.append(cells)
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _percent(estimate: Estimate, digits: int = 0) -> str:
    value = f"{100 * estimate.value:.1f} %"
    if math.isnan(estimate.low):
        return value
    return f"{value} ({100 * estimate.low:.{digits}f}-{100 * estimate.high:.{digits}f})"


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN, and estimates by name."""
    if isinstance(value, Estimate):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_pictures() -> None:
    """Say now if there is nothing to draw with, and not after the measuring.

    Raises:
        MissingExtraError: If so.
    """
    require("matplotlib", "evaluate")
