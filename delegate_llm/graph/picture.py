"""A picture of one run: each call of a model along its tokens, who was heard where, and what was left.

It shows model text, which is data: it is drawn as it stands, never read as markup, and what cannot be seen
is spelled out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import RequestError, require
from delegate_llm.graph.allocation import DelegationContext, total_of
from delegate_llm.graph.state import CallTrace, Takeover, add_traces, as_total, ledger

__all__ = ("draw_run",)

_SUFFIXES: Final = (".png", ".svg")
_MOST_ROWS: Final = 60
_WIDTH: Final = 9.0
"""Of the picture, in inches."""
_ROW: Final = 0.5
"""Height of a row, in inches."""
_LETTERS: Final = 85
"""How many letters of a label fit along the longest call."""
_LONGEST: Final = 18
"""Letters of a label; what is longer is cut."""
# A ground of its own makes the picture readable on pages of any colour.
_GROUND, _INK, _FAINT = "#ffffff", "#24292f", "#6b7280"
_BASE, _CHANGED, _SAME, _LEFT = "#d8dee6", "#c2410c", "#e0a582", "#2f7f6f"
_STYLE: Final[Mapping[str, Any]] = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _FAINT,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small, and searched by whoever looks at it
    "svg.hashsalt": "delegate-llm",  # the same run gives the same file
    "text.color": _INK,
    "text.usetex": False,  # of a user's own settings, and it would run what a model wrote
    "xtick.color": _FAINT,
}


def draw_run(
    state: Mapping[str, Any],
    path: str | Path,
    *,
    context: DelegationContext | Mapping[str, Any] | None = None,
) -> Path:
    """Draw a run: a row for each call of a model, along its tokens, with every takeover marked.

    Strong marks are takeovers that changed the token, and are labelled with it; faint ones said what the
    base would have said. Beside the rows stands what was left of the budget after each call, if the total is
    known; grants count from the start. Needs matplotlib, but no screen.

    Args:
        state: What the graph returned, or `graph.get_state(config).values`.
        path: Where to; `.svg` or `.png` says what to make.
        context: Of the run, if the total was given there.

    Returns:
        The path.

    Raises:
        RequestError: If there is nothing to draw, or the suffix is another.
        MissingExtraError: If matplotlib is not installed.

    ```python
    draw_run(graph.invoke({"messages": [...]}, context=context), "run.svg", context=context)
    ```
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        msg = f"path: {str(path)!r} ends in neither {' nor '.join(_SUFFIXES)}, which says what to draw"
        raise RequestError(msg)
    traces = _traces(state)
    total = _total(state, traces, DelegationContext.of(context))
    mpl = require("matplotlib", "bench")
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # scripts that matplotlib's font lacks
        figure = _figure(traces[:_MOST_ROWS], total, len(traces))
        # A date would make each file another one.
        figure.savefig(path, dpi=144, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    return path


# --- What there is to draw ---


def _traces(state: Any) -> list[CallTrace]:
    traces = add_traces(None, state.get("delegation_traces")) if isinstance(state, Mapping) else []
    if traces:
        return traces
    what = f"keys {', '.join(map(repr, state))}" if isinstance(state, Mapping) else f"{state!r:.80}"
    msg = (
        f"state: it has no delegation_traces ({what}); give what a graph with delegated nodes "
        "returned, or `graph.get_state(config).values`"
    )
    raise RequestError(msg)


def _total(state: Mapping[str, Any], traces: Sequence[CallTrace], context: DelegationContext) -> int | None:
    """What these calls could spend together, if any total is known."""
    if as_total(state.get("delegation_budget")) is None and context.total is None:
        return None
    drawn = {each["id"] for each in traces}
    charges = ledger(state.get("delegation_spent")).items()
    others = sum(charge["takeovers"] for name, charge in charges if name not in drawn)
    return max(0, total_of(state, context)["takeovers"] - others)


def _plain(text: str) -> str:
    """Text with what cannot be seen spelled out, and no longer than a label may be."""
    seen = "".join(each if each.isprintable() else _spelled(each) for each in text.strip(" ")) or "␣"
    return seen if len(seen) <= _LONGEST else f"{seen[: _LONGEST - 1]}…"


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _labels(takeovers: Sequence[Takeover], tokens_a_letter: float) -> Iterator[tuple[Takeover, str, int]]:
    """The takeovers that get a label: its text, and its lane, above (-1) or below (1).

    Those that changed a token come first; where both lanes are taken, a mark has to do.
    """
    taken: dict[int, list[tuple[float, float]]] = {-1: [], 1: []}
    for each in sorted(takeovers, key=lambda one: not one["changed"]):
        text = _plain(each["token"])
        half = tokens_a_letter * (len(text) + 1) / 2
        start, end = each["position"] - half, each["position"] + half
        for lane, others in taken.items():
            if all(end <= other[0] or start >= other[1] for other in others):
                others.append((start, end))
                yield each, text, lane
                break


# --- Drawing ---


def _figure(traces: Sequence[CallTrace], total: int | None, calls: int) -> Any:
    rows = len(traces)
    size = (_WIDTH, 1.1 + _ROW * rows)
    figure = require("matplotlib.figure", "bench").Figure(size, layout="constrained", facecolor=_GROUND)
    widths = (6, 1)[: 1 if total is None else 2]
    axes, *strip = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    _calls(axes, traces, calls)
    for each in strip:
        spent = accumulate(len(trace["takeovers"]) for trace in traces)
        _strip(each, [max(0, (total or 0) - taken) for taken in spent], total or 0)
    for each in (axes, *strip):
        each.set_facecolor(_GROUND)
        each.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _calls(axes: Any, traces: Sequence[CallTrace], calls: int) -> None:
    rows, longest = len(traces), max(1, *(each["tokens"] for each in traces))
    for row, trace in enumerate(traces):
        _call(axes, row, trace, longest)
    axes.set_xlim(-0.01 * longest, 1.4 * longest)  # the cost stands behind the bar
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("tokens of the answer" + (f"; {rows} of {calls} calls" if calls > rows else ""))
    _legend(axes, traces)


def _call(axes: Any, row: int, trace: CallTrace, longest: int) -> None:
    """A bar as long as the answer, its takeovers on it, who called before it, what it cost behind it."""
    name = f"{_plain(trace['node'] or 'call')} {trace['call'] + 1}"
    beside = axes.get_yaxis_transform()  # x of the axes, y of the data
    axes.text(-0.01, row, name, transform=beside, ha="right", va="center", parse_math=False)
    axes.barh(row, trace["tokens"], height=0.2, color=_BASE)
    for changed, colour, size in ((False, _SAME, 14), (True, _CHANGED, 34)):
        places = [each["position"] + 0.5 for each in trace["takeovers"] if each["changed"] is changed]
        axes.scatter(places, [row] * len(places), s=size, color=colour, zorder=3)
    for each, text, lane in _labels(trace["takeovers"], longest / _LETTERS):
        axes.text(
            each["position"] + 0.5,
            row + 0.3 * lane,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color=_CHANGED if each["changed"] else _FAINT,
            parse_math=False,
        )
    heard, forwards = len(trace["takeovers"]), trace["reasoner_forwards"]
    read = f"{forwards} reasoner forward{'s' * (forwards != 1)}"
    cost = f"{heard} of {trace['tokens']} tokens, {read}" if forwards else "the base alone"
    axes.text(trace["tokens"] + 0.015 * longest, row, cost, va="center", fontsize=8, color=_FAINT)


def _strip(axes: Any, left: Sequence[int], total: int) -> None:
    """What is left after each call, beside its row."""
    axes.barh(range(len(left)), [total] * len(left), height=0.2, color=_BASE)
    axes.barh(range(len(left)), left, height=0.2, color=_LEFT)
    for row, count in enumerate(left):
        axes.text(1.08 * max(1, total), row, str(count), va="center", fontsize=8, color=_LEFT)
    axes.set_xlim(0, 1.4 * max(1, total))
    axes.set_xticks([])
    axes.set_xlabel(f"left of {total}")


def _legend(axes: Any, traces: Sequence[CallTrace]) -> None:
    marks = [(34, _CHANGED, "takeover")]
    if any(not each["changed"] for trace in traces for each in trace["takeovers"]):
        marks.append((14, _SAME, "takeover that changed nothing"))
    for size, colour, label in marks:
        axes.scatter([], [], s=size, color=colour, label=label)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
