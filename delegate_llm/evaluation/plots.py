"""What a comparison of agents found, as a picture; and how pictures are kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from delegate_llm._files import write_file
from delegate_llm.errors import RequestError, require
from delegate_llm.evaluation.places import PLACES, Place

if TYPE_CHECKING:
    from delegate_llm.evaluation.agents import AgentResult

__all__ = ("check_plot", "plot_agents", "save")

_COLOURS: Final[dict[Place, str]] = {"name": "#2f7f6f", "arguments": "#e08e45", "prose": "#8a94a6"}
_BASE, _REASONER, _DELEGATED = "#8a94a6", "#4b5bab", "#2f7f6f"
_KINDS: Final = (".png", ".svg", ".pdf")


def check_plot(file: Path) -> None:
    """Say now what would keep a plot from being written, and not after the measuring.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file has another ending than a picture's, or no folder to lie in.
    """
    require("matplotlib", "bench")
    if file.suffix.lower() not in _KINDS:
        msg = f"plot: {str(file)!r} does not end in {', '.join(_KINDS)}; name a picture"
        raise RequestError(msg)
    if not file.parent.is_dir():
        msg = f"plot: there is no folder {str(file.parent)!r}; make it first"
        raise RequestError(msg)


def plot_agents(results: Sequence[AgentResult], title: str, file: Path) -> None:
    """Draw success over budget, and where takeovers fell.

    Args:
        results: As `agent_results` gives them.
        title: Above both.
        file: Picture to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    base, reasoner, *budgets = results
    # A figure of its own touches neither a display nor pyplot's state.
    figure = require("matplotlib.figure", "bench").Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _success(left, base, reasoner, budgets)
    _places(right, budgets)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    """Write a picture, in the format that its name ends in.

    Raises:
        RequestError: If the file cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=144, format=file.suffix.removeprefix("."))
    write_file(file, drawn.getvalue())


def _success(axes: Any, base: AgentResult, reasoner: AgentResult, budgets: Sequence[AgentResult]) -> None:
    """Success over budget, between two lines for the models alone; bands and bars are 95 % intervals."""
    for alone, colour, style in ((base, _BASE, "--"), (reasoner, _REASONER, "-.")):
        axes.axhline(100 * (alone.success or 0), color=colour, linestyle=style, label=alone.name)
        axes.axhspan(*(100 * each for each in alone.interval), color=colour, alpha=0.12, linewidth=0)
    at = range(len(budgets))
    success = [100 * (each.success or 0) for each in budgets]
    below = [high - 100 * each.interval[0] for high, each in zip(success, budgets, strict=True)]
    above = [100 * each.interval[1] - low for low, each in zip(success, budgets, strict=True)]
    axes.errorbar(
        at, success, yerr=(below, above), color=_DELEGATED, marker="o", capsize=3, label="delegated"
    )
    axes.set_xticks(at, [f"{each.budget}\n({100 * (each.share or 0):.1f} %)" for each in budgets])
    axes.set_xlabel("takeovers that a task may spend (share of tokens taken over)")
    axes.set_ylabel("tasks solved, %")
    axes.set_ylim(-3, 103)
    axes.set_title("Success", loc="left", fontsize=11)
    axes.legend(loc="center right", frameon=False)


def _places(axes: Any, budgets: Sequence[AgentResult]) -> None:
    """Takeovers a task by where they fell, one bar a budget."""
    at, low = range(len(budgets)), [0.0] * len(budgets)
    for place, name in PLACES.items():
        counts = [(each.places or {}).get(place, 0) / max(1, each.tasks) for each in budgets]
        axes.bar(at, counts, 0.6, bottom=low, color=_COLOURS[place], label=name)
        low = [under + count for under, count in zip(low, counts, strict=True)]
    axes.set_xticks(at, [str(each.budget) for each in budgets])
    axes.set_xlabel("takeovers that a task may spend")
    axes.set_ylabel("takeovers a task")
    axes.set_title("Where they fell", loc="left", fontsize=11)
    axes.legend(loc="upper left", frameon=False)
