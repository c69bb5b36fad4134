"""A run as pictures: accuracy over share and over cost, controls beside, the two models as lines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import require
from delegate_llm.evaluation._labels import plain
from delegate_llm.evaluation.arms import Kind
from delegate_llm.evaluation.plots import save
from delegate_llm.evaluation.run_table import Row
from delegate_llm.evaluation.statistics import Estimate

__all__ = ("COLOURS", "plot_accuracy", "plot_cost")

COLOURS: Final[dict[Kind, str]] = {
    "base": "#8a94a6",
    "reasoner": "#4b5bab",
    "delegated": "#2f7f6f",
    "random": "#c05a5a",
    "early": "#e08e45",
    "entropy": "#8d6cab",
}
_MARKS: Final[dict[Kind, str]] = {"delegated": "o", "random": "x", "early": "s", "entropy": "^"}
_NAMES: Final[dict[Kind, str]] = {
    "base": "base alone",
    "reasoner": "reasoner alone",
    "delegated": "delegated",
    "random": "random positions",
    "early": "first positions",
    "entropy": "base entropy alone",
}

_Read = Callable[[Row], Estimate]


def plot_accuracy(rows: Sequence[Row], title: str, file: Path) -> None:
    """Accuracy over the realised share; beside it pass@k, where there are several answers to a task.

    Args:
        rows: Of a run, base and reasoner first.
        title: Above the picture.
        file: Picture to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    most = max(rows[0].pass_at)
    readings: list[tuple[str, _Read]] = [
        ("accuracy" if most == 1 else f"accuracy (mean of {most} answers)", lambda row: row.accuracy)
    ]
    if most > 1:
        readings.append((f"pass@{most}", lambda row: row.pass_at[most]))
    figure = require("matplotlib.figure", "evaluate").Figure(
        figsize=(5.8 * len(readings), 4.4), layout="constrained"
    )
    for axes, (name, read) in zip(figure.subplots(1, len(readings), squeeze=False)[0], readings, strict=True):
        _lines(axes, rows[:2], read)
        _points(axes, rows, read, lambda row: _percent(row.share))
        _finish(axes, "tokens taken over, %", f"{name}, %")
    figure.suptitle(plain(title))
    save(figure, file)


def plot_cost(rows: Sequence[Row], title: str, file: Path) -> None:
    """Accuracy over what an answer costs: forwards of the reasoner, and FLOPs of both models.

    Args:
        rows: As for `plot_accuracy`.
        title: Likewise.
        file: Likewise.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    costs: list[tuple[str, Callable[[Row], float]]] = [
        ("reasoner's forward passes an answer", lambda row: row.reasoner_forwards),
        ("GFLOPs an answer, both models", lambda row: (row.base_flops + row.reasoner_flops) / 1e9),
    ]
    figure = require("matplotlib.figure", "evaluate").Figure(figsize=(11.6, 4.4), layout="constrained")
    for axes, (name, cost) in zip(figure.subplots(1, 2), costs, strict=True):
        _points(axes, rows, lambda row: row.accuracy, functools.partial(_surely, cost))
        for row in rows[:2]:
            axes.plot(
                cost(row), 100 * row.accuracy.value, "D", color=COLOURS[row.kind], label=_NAMES[row.kind]
            )
        _finish(axes, name, "accuracy, %")
    figure.suptitle(plain(title))
    save(figure, file)


def _lines(axes: Any, alone: Sequence[Row], read: _Read) -> None:
    for row, style in zip(alone, ("--", "-."), strict=True):
        value, low, high = _percent(read(row))
        axes.axhline(value, color=COLOURS[row.kind], linestyle=style, label=_NAMES[row.kind])
        axes.axhspan(low, high, color=COLOURS[row.kind], alpha=0.12, linewidth=0)


def _points(axes: Any, rows: Sequence[Row], read: _Read, place: _Read) -> None:
    """One line a kind of arm, with 95 % intervals both ways."""
    for kind, mark in _MARKS.items():
        own = sorted((row for row in rows if row.kind == kind), key=lambda row: place(row).value)
        if not own:
            continue
        across, up = [place(row) for row in own], [_percent(read(row)) for row in own]
        axes.errorbar(
            [each.value for each in across],
            [each.value for each in up],
            xerr=_reach(across),
            yerr=_reach(up),
            color=COLOURS[kind],
            marker=mark,
            linestyle="-" if kind == "delegated" else ":",
            capsize=2,
            label=_NAMES[kind],
        )


def _reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far intervals go to either side."""
    return [
        [max(0.0, each.value - each.low) for each in estimates],
        [max(0.0, each.high - each.value) for each in estimates],
    ]


def _percent(estimate: Estimate | None) -> Estimate:
    return Estimate(*(100 * each for each in estimate or (0.0, 0.0, 0.0)))


def _surely(cost: Callable[[Row], float], row: Row) -> Estimate:
    return Estimate(*[cost(row)] * 3)


def _finish(axes: Any, across: str, up: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(-3, 103)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=9)
