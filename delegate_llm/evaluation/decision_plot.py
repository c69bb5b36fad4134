"""The divergence along one delegated answer, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import require
from delegate_llm.evaluation._labels import label, plain
from delegate_llm.evaluation.plots import save
from delegate_llm.evaluation.run_plots import COLOURS
from delegate_llm.policy import DelegationPolicy, Referee, unit_of
from delegate_llm.trace import Decision, Trace

__all__ = ("plot_decisions",)

_LABELLED: Final = 90
"""Tokens; more labels than these cannot be read."""
_SHOWN: Final = 400
"""Tokens of one answer that are drawn."""
_PER_INCH: Final = 8
"""Characters of a title, so that it fits above the picture."""


def plot_decisions(trace: Trace, policy: DelegationPolicy, title: str, file: Path) -> None:
    """Draw the divergence along one delegated answer, with the bar that it had to exceed.

    Args:
        trace: With every decision; of a long one, the beginning is drawn.
        policy: Under which it came about.
        title: Above the picture.
        file: Picture to write.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    decisions = trace.decisions[:_SHOWN]
    width = max(7.0, min(20.0, 0.24 * len(decisions) + 1.5))
    figure = require("matplotlib.figure", "evaluate").Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    _lines(axes, decisions, policy)
    if len(decisions) <= _LABELLED:
        _words(axes, decisions)
    axes.set_xlabel("the answer; above a takeover, what the base would have said")
    axes.set_ylabel(unit_of(policy.divergence) or "score; entropy in nats")
    axes.set_xlim(-1, len(decisions))
    axes.margins(y=0.2)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    axes.set_title(plain(title, int(_PER_INCH * width)), loc="left", fontsize=11)
    save(figure, file)


def _lines(axes: Any, decisions: Sequence[Decision], policy: DelegationPolicy) -> None:
    """Scores as bars, and what they had to exceed."""
    at = range(len(decisions))
    for heard, colour, name in (
        (True, COLOURS["delegated"], "takeover"),
        (False, COLOURS["base"], "base heard"),
    ):
        scores = [each.score or 0.0 if each.takeover is heard else 0.0 for each in decisions]
        axes.bar(at, scores, 0.8, color=colour, label=f"score, {name}")
    entropies = [each.base_entropy or 0.0 for each in decisions]
    axes.plot(
        at, entropies, color=COLOURS["entropy"], marker=".", markersize=3, linewidth=1, label="base entropy"
    )
    # A spike's bar may be far above all that was scored.
    highest = max([policy.threshold, *(each.score or 0.0 for each in decisions)])
    bars = [min(bar, 1.15 * highest) for bar in _bars(decisions, policy)]
    axes.step(
        at,
        bars,
        where="mid",
        color=COLOURS["early"],
        linestyle="--",
        linewidth=1,
        label="what it has to exceed",
    )


def _words(axes: Any, decisions: Sequence[Decision]) -> None:
    """What was said, under the axis; over the takeovers that changed it, what the base would have said."""
    axes.set_xticks(range(len(decisions)), [label(each.token) for each in decisions], rotation=90, fontsize=7)
    for each in decisions:
        if each.changed:
            axes.annotate(
                label(each.base_token),
                (each.position, each.score or 0.0),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90,
                fontsize=7,
                color=COLOURS["random"],
            )


def _bars(decisions: Sequence[Decision], policy: DelegationPolicy) -> list[float]:
    referee = Referee(policy)
    standing, found = referee.start(), []
    for each in decisions:
        found.append(referee.bar(standing))
        standing = referee.after(
            standing, score=each.score if each.asked else None, asked=each.asked, takeover=each.takeover
        )
    return found
