"""An analysis as pictures: one figure of six panels, and one answer token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from delegate_llm.errors import require
from delegate_llm.evaluation._labels import label, plain
from delegate_llm.evaluation.analysis import Record, predicted, roc
from delegate_llm.evaluation.listening import Scored
from delegate_llm.evaluation.plots import save
from delegate_llm.evaluation.tokens import Floats, TokenTable
from delegate_llm.trace import Decision

__all__ = ("plot_analysis", "plot_answer", "typical")

_SCORE, _ENTROPY, _GREY, _OTHER = "#2f7f6f", "#e08e45", "#8a94a6", "#4b5bab"
_PALE: Final = "#a9cfc6"
_BINS: Final = 60
_LABELLED: Final = 90
"""Tokens; more labels than these cannot be read."""
_SHOWN: Final = 400
"""Tokens of one answer that are drawn."""
_PER_INCH: Final = 8
"""Characters of a title, so that it fits above its panel."""
_LEAST: Final = 1e-5
"""Nats; on a logarithmic axis, what is less is drawn there."""


def plot_analysis(table: TokenTable, summary: Record, title: str, file: Path, *, unit: str = "nats") -> None:
    """Draw the distribution, the Lorenz curve, where the score falls, on which words, and what it goes with.

    Args:
        table: The tokens.
        summary: As `summarize` gives it.
        title: Above all.
        file: Picture to write.
        unit: Of the score.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    figure = _figure((13.5, 7.6))
    panels = figure.subplots(2, 3).flat
    _distribution(next(panels), table, summary, unit)
    _lorenz(next(panels), summary)
    _positions(next(panels), summary)
    _words(next(panels), summary)
    _overlap(next(panels), summary)
    _roc(next(panels), table, summary)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(plain(title))
    save(figure, file)


def plot_answer(answer: Scored, title: str, threshold: float, file: Path, *, unit: str = "nats") -> None:
    """Draw score and base entropy along one answer.

    Args:
        answer: One with tokens; of a long one, the beginning is drawn.
        title: Above it.
        threshold: The least of the top scores, in nats mostly.
        file: Picture to write.
        unit: Of the score.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        RequestError: If the file cannot be written.
    """
    decisions = answer.decisions[:_SHOWN]
    at = np.arange(len(decisions))
    scores, entropies = np.array(answer.scores[:_SHOWN]), np.array(answer.entropies[:_SHOWN])
    width = max(7.0, min(20.0, 0.24 * len(at) + 1.5))
    figure = _figure((width, 4.6))
    axes = figure.subplots()
    above = scores >= threshold
    axes.bar(at[above], scores[above], 0.8, color=_SCORE, label="score, among the top")
    axes.bar(at[~above], scores[~above], 0.8, color=_PALE, label="score, else")
    axes.plot(at, entropies, color=_ENTROPY, marker=".", markersize=3, linewidth=1, label="base entropy")
    axes.axhline(threshold, color=_GREY, linestyle="--", linewidth=1, label="least of the top")
    axes.set_xlabel("token")
    if len(at) <= _LABELLED:
        _words_of(axes, decisions, at[above])
    axes.set_xlim(-1, len(at))
    axes.margins(y=0.2)
    axes.set_ylabel(unit or "score; entropy in nats")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right", fontsize=8)
    cut = f" (its first {_SHOWN} tokens)" if len(answer.decisions) > _SHOWN else ""
    axes.set_title(plain(title, int(_PER_INCH * width)) + cut, loc="left", fontsize=11)
    save(figure, file)


def _words_of(axes: Any, decisions: Sequence[Decision], above: NDArray[np.int64]) -> None:
    """What the base wrote, under the axis, and what the reasoner would have said, over the bars."""
    axes.set_xticks(range(len(decisions)), [label(each.token) for each in decisions], rotation=90, fontsize=7)
    axes.set_xlabel("what the base wrote; above a bar, what the reasoner would have said instead")
    for at in above:
        one = decisions[at]
        if one.reasoner_token in (None, one.token) or one.score is None:
            continue
        axes.annotate(
            label(one.reasoner_token),
            (at, one.score),
            (0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=7,
            color=_OTHER,
        )


def typical(table: TokenTable) -> Scored:
    """The answer whose mean score is in the middle of all, of those whose tokens can be labelled if any."""
    small = [each for each in table.answers if len(each.decisions) <= _LABELLED]
    ordered = sorted(small or table.answers, key=lambda each: sum(each.scores) / len(each.decisions))
    return ordered[len(ordered) // 2]


# --- The panels ---


def _distribution(axes: Any, table: TokenTable, summary: Record, unit: str) -> None:
    values = np.maximum(table.score, _LEAST)
    bins = np.geomspace(_LEAST, max(1.0, float(values.max())), _BINS)
    axes.hist(values, bins, color=_GREY, alpha=0.75, label="all tokens")
    axes.hist(values[table.planning], bins, color=_SCORE, alpha=0.75, label="planning words")
    axes.axvline(max(summary["top"]["least"], _LEAST), color=_OTHER, linestyle="--", linewidth=1,
                 label=f"top {100 * summary['top']['share']:g} %")  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("symlog")
    axes.set_xlabel(f"score, {unit}" if unit else "score")
    axes.set_ylabel("tokens")
    _headed(axes, "How the score is distributed")


def _lorenz(axes: Any, summary: Record) -> None:
    axes.plot((0, 100), (0, 100), color=_GREY, linestyle=":", linewidth=1, label="all tokens alike")
    x, y = (100 * np.array(summary["lorenz"][name]) for name in ("tokens", "score"))
    axes.plot(x, y, color=_SCORE, label=f"Gini {summary['gini']['value']:.2f}")
    axes.fill_between(x, y, x, color=_SCORE, alpha=0.12, linewidth=0)
    most = summary["carriers"][1]
    axes.axvline(100 * (1 - most["tokens"]["value"]), color=_OTHER, linestyle="--", linewidth=1,
                 label=f"{most['tokens']['value']:.1%} of tokens carry {most['fraction']:.0%}")  # fmt: skip
    axes.set_xlabel("tokens in order of their score, %")
    axes.set_ylabel("share of the score, %")
    _headed(axes, "How much few tokens carry", loc="upper left")


def _positions(axes: Any, summary: Record) -> None:
    for offset, (name, colour, said) in enumerate(
        (("answer", _SCORE, "within the answer"), ("sentence", _ENTROPY, "within its sentence"))
    ):
        tenths = summary["position"][name]
        at = np.array([each["from"] for each in tenths]) * 100 + 3 + 4 * offset
        axes.bar(at, [100 * each["sum"] for each in tenths], 3.8, color=colour, label=said)
    axes.axhline(10, color=_GREY, linestyle=":", linewidth=1, label="everywhere alike")
    axes.set_xlabel("relative position, %")
    axes.set_ylabel("share of the score, %")
    _headed(axes, "Where it falls")


def _words(axes: Any, summary: Record) -> None:
    rows = [("words", "planning"), ("words", "execution"), ("sentence_start", "opening"),
            ("sentence_start", "later")]  # fmt: skip
    found = [summary[group][name]["over_representation"] for group, name in rows]
    for at, each in enumerate(found):
        if each["value"] is not None:
            axes.barh(at, each["value"], 0.6, color=_SCORE if at % 2 == 0 else _GREY)
            axes.errorbar(each["value"], at, xerr=_bars([each]), color="black", capsize=3, linewidth=1)
    axes.axvline(1, color=_GREY, linestyle=":", linewidth=1)
    names = ["planning\nwords", "numbers,\nsigns", "opening a\nsentence", "later in it"]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"over-representation among the top {100 * summary['top']['share']:g} % by score")
    axes.set_title("On which words", loc="left", fontsize=11)


def _overlap(axes: Any, summary: Record) -> None:
    rows = summary["overlap"]
    shares = [100 * each["share"] for each in rows]
    found = [each["iou"] for each in rows]
    axes.errorbar(shares, [each["value"] for each in found], yerr=_bars(found), color=_SCORE, marker="o",
                  capsize=3, label="observed")  # fmt: skip
    axes.plot(shares, [each["chance"] for each in rows], color=_GREY, linestyle=":", label="by chance")
    axes.set_ylim(0, 1.02)
    axes.set_xticks(shares, [f"{each:g}" for each in shares])
    axes.set_xlabel("top p % by score and by base entropy")
    axes.set_ylabel("intersection over union")
    _headed(axes, "Overlap with the base's entropy", loc="best")


def _roc(axes: Any, table: TokenTable, summary: Record) -> None:
    said = summary["wrong_answers"]
    axes.plot((0, 1), (0, 1), color=_GREY, linestyle=":", linewidth=1)
    if said["reason"] is not None:
        axes.text(0.5, 0.5, plain(said["reason"]), ha="center", va="center", wrap=True, fontsize=9)
    else:
        scores, entropies, wrong = predicted(table)
        for name, values, colour in (("score", scores, _SCORE), ("entropy", entropies, _ENTROPY)):
            axes.plot(*roc(values, wrong), color=colour, label=f"{name}: AUROC {said[name]['value']:.2f}")
        few = (said["caveat"] or "").partition(":")[0] or None
        axes.legend(frameon=False, loc="lower right", fontsize=8, title=few, title_fontsize=8)
    axes.set_xlabel("right answers flagged")
    axes.set_ylabel("wrong answers flagged")
    axes.set_title("Wrong answers, told by their top tenth", loc="left", fontsize=11)


# --- Drawing ---


def _figure(size: tuple[float, float]) -> Any:
    # A figure of its own touches neither a display nor pyplot's state.
    return require("matplotlib.figure", "evaluate").Figure(figsize=size, layout="constrained")


def _headed(axes: Any, title: str, *, loc: str = "upper right") -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, loc=loc, fontsize=8)


def _bars(found: list[Record]) -> Floats:
    """How far intervals reach below and above: `[2, n]`; 0 where there is none."""
    return np.array(
        [
            [abs((each[side] if each[side] is not None else each["value"]) - each["value"]) for each in found]
            for side in ("low", "high")
        ]
    )
