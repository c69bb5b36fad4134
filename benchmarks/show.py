"""Results for people: tables on a terminal or in a pipe, and a picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.methods import MIDDLE

if TYPE_CHECKING:
    from benchmarks.bench import Result
    from benchmarks.claims import Claim
    from benchmarks.timing import Row

__all__ = ("header", "plot", "result")

_COLOURS: Final = {"transformers": "#8a94a6", "lockstep": "#e08e45", "draft": "#2f7f6f"}
# A pipe has no width of its own, and must not cut the table.
_console: Final = Console(width=None if sys.stdout.isatty() else 150, highlight=False)


def header(facts: Mapping[str, str]) -> None:
    """Print what the figures are measured on."""
    for key, value in facts.items():
        _console.print(f"{key:>9}: {value}", markup=False)


def result(found: Result) -> None:
    """Print one pair's tables."""
    title = f"{found.pair}, {found.dtype}"
    _console.print()
    _console.print(_rows(f"{title}: one prompt at a time, {found.tokens} tokens each", found.single))
    first = found.batched[0]
    count, length = len(first.answers), len(first.answers[0])
    _console.print(_rows(f"{title}: {count} prompts, {length} tokens each", found.batched))
    _console.print(_equality(found), markup=False)
    limits = ", ".join(f"{share:.2f}: {limit:.3f} nats" for share, limit in found.thresholds.items())
    _console.print(f"Thresholds calibrated for the shares {limits}.", markup=False)
    if found.memory:
        _console.print(_memory(f"{title}: peak memory of a batch of drafts", found.memory))
    if found.claims:
        _console.print(_claims(f"{title}: claims", found.claims))


def _claims(title: str, found: Sequence[Claim]) -> Table:
    claims = _table(title, "claim", "measured", "target", "")
    for each in found:
        target = f"{'<=' if each.at_most else '>='} {each.target:g}"
        claims.add_row(each.text, f"{each.value:.2f}", target, "ok" if each.holds else "NOT REACHED")
    return claims


def _equality(found: Result) -> str:
    """In words, whether the fast schedule gave the reference's tokens."""
    shares = ", ".join(f"{share:.2f}: {equal:.0%}" for share, equal in found.equal.items())
    return (
        f"Prompts on which draft gives lockstep's very tokens, by share: {shares}; "
        f"on which a batch gives those of one by one: {found.equal_batched:.0%}."
    )


def _table(title: str, *columns: str) -> Table:
    shape = box.ROUNDED if _console.is_terminal else box.SIMPLE_HEAD
    table = Table(title=title, title_justify="left", title_style="bold", box=shape)
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right", no_wrap=at == 0)
    return table


def _rows(title: str, rows: Sequence[Row]) -> Table:
    table = _table(
        title,
        "method",
        "tokens/s",
        "x lockstep",
        "share",
        "takeovers",
        "asked",
        "reasoner forwards/token",
        "base forwards/token",
        "ms/token outside",
    )
    for row in rows:
        ours = row.family != "transformers"
        table.add_row(
            row.name,
            f"{row.speed:.1f}",
            f"{row.speed / _reference(row, rows).speed:.2f}",
            f"{row.takeovers / row.tokens:.3f}" if ours else "",
            str(row.takeovers) if ours else "",
            str(row.asked) if ours else "",
            f"{row.reasoner_forwards / row.tokens:.3f}",
            f"{row.base_forwards / row.tokens:.3f}",
            f"{row.outside_ms:.2f}",
        )
    return table


def _reference(row: Row, rows: Sequence[Row]) -> Row:
    """Lock-step at the row's share, or at the middle one."""
    steps = {each.share: each for each in rows if each.family == "lockstep"}
    return steps.get(row.share) or steps[MIDDLE]


def _memory(title: str, sizes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(title, "batch", "tokens", "MiB above the models", "KiB/token")
    for each in sizes:
        rate = f"{1024 * each['mib'] / each['tokens']:.0f}"
        table.add_row(str(each["batch"]), str(each["tokens"]), f"{each['mib']:.0f}", rate)
    return table


def plot(results: Sequence[Result], facts: Mapping[str, str], file: Path) -> None:
    """Draw tokens per second by method: a line of panels for each pair and dtype.

    Args:
        results: What was measured.
        facts: What it was measured on.
        file: PNG to write.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only here, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(
        len(results), 2, figsize=(12, 4.4 * len(results) + 0.8), squeeze=False, layout="constrained"
    )
    for (left, right), each in zip(axes, results, strict=True):
        count = len(each.batched[0].answers)
        _bars(left, f"{each.pair}, {each.dtype}: one prompt at a time", each.single)
        _bars(right, f"{each.pair}, {each.dtype}: {count} prompts", each.batched)
    figure.suptitle(f"Generated tokens per second\n{facts.get('gpu', facts['cpu'])} · {facts['date']}")
    figure.savefig(file, dpi=144)
    plt.close(figure)


def _bars(axes: Any, title: str, rows: Sequence[Row]) -> None:
    """One panel: a bar for each method, coloured by family."""
    names = [row.name.replace("transformers", "transformers:") for row in rows]
    colours = [_COLOURS[row.family] for row in rows]
    bars = axes.barh(names, [row.speed for row in rows], color=colours, height=0.72)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("tokens per second")
    axes.set_xlim(0, 1.14 * max(row.speed for row in rows))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
