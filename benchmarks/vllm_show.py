"""Served answers for people: tables on a terminal or in a pipe, and a picture."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.claims import Claim
from benchmarks.vllm_figures import CLEARLY_FASTER, FEWER, NEVER_SLOWER, Ratio, Row

if TYPE_CHECKING:
    from benchmarks.bench_vllm import Result

__all__ = ("plot", "result")

_COLOURS: Final = {"reasoner": "#8a94a6", "base": "#c3c9d4", "lossless": "#e08e45", "transformers": "#7a5195"}
_GREENS: Final = ("#10493f", "#2f7f6f", "#57a897", "#8fcbbd", "#b7c98f", "#94a35a")
# A pipe has no width of its own, and must not cut the table.
_console: Final = Console(width=None if sys.stdout.isatty() else 170, highlight=False)


def result(found: Result) -> None:
    """Print one pair's tables."""
    title = f"{found.pair}, {found.dtype}"
    _console.print()
    _console.print(_rows(f"{title}: {found.length} an answer, drafts of {found.ahead}", found.rows))
    limits = ", ".join(f"{share}: {limit:.3f} nats" for share, limit in found.thresholds.items())
    _console.print(f"Thresholds calibrated for the shares {limits}.", markup=False)
    for pair, levels in found.same.items():
        by = ", ".join(f"{level} at once {part:.0%}" for level, part in levels.items())
        _console.print(
            f"Prompts with the same tokens, and takeovers where they are told, from {pair}: {by}.",
            markup=False,
        )
    _console.print(_idle(found.rows), markup=False)
    if found.ratios:
        _console.print(_ratios(f"{title}: delegation over lossless speculative decoding", found.ratios))
    if found.claims:
        _console.print(_claims(f"{title}: claims", found.claims))


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
        "at once",
        "tokens/s",
        "ms to first, p50",
        "ms/token, p50",
        "p99",
        "ms/step",
        "reasoner forwards/token",
        "share",
        "changed",
        "rejected",
        "vLLM's acceptance",
    )
    for level in dict.fromkeys(row.level for row in rows):
        for row in (each for each in rows if each.level == level):
            table.add_row(
                row.method,
                str(row.level),
                f"{row.speed:.1f}",
                _ms(row.first),
                _ms(row.each),
                _ms(row.slowest),
                f"{row.step_ms:.1f}" if row.steps else "",
                f"{row.forwards:.3f}",
                _rate(row.share),
                _rate(row.changed),
                _rate(row.rejected),
                _rate(row.accepted),
            )
        table.add_section()
    return table


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _idle(rows: Sequence[Row]) -> str:
    """In words, what an answer costs that the reasoner is not to be heard in."""
    speed = {(row.method, row.level): row.speed for row in rows}
    found = [
        f"{level} at once {value / speed['base', level]:.2f}"
        for (method, level), value in speed.items()
        if method == "delegation budget 0" and ("base", level) in speed
    ]
    return f"Budget 0 over the base alone, in tokens per second: {', '.join(found)}."


def _ratios(title: str, ratios: Sequence[Ratio]) -> Table:
    table = _table(
        title,
        "method",
        "at once",
        "delegation/lossless",
        "= fuller steps",
        "/ dearer steps",
        "at most",
        "share",
        "rejected",
        "rejected/share",
    )
    for level in dict.fromkeys(each.level for each in ratios):
        for each in (one for one in ratios if one.level == level):
            table.add_row(
                each.method,
                str(each.level),
                f"{each.ratio:.2f}",
                f"{each.fuller_steps:.2f}",
                f"{each.dearer_steps:.2f}",
                f"{each.most:.2f}",
                _rate(each.share),
                _rate(each.rejected),
                f"{each.rejected / each.share:.1f}",
            )
        table.add_section()
    return table


def _claims(title: str, found: Sequence[Claim]) -> Table:
    table = _table(title, "claim", "measured", "target", "")
    for each in found:
        state = "ok" if each.holds else "NOT REACHED"
        table.add_row(each.text, f"{each.value:.2f}", f">= {each.target:g}", state)
    return table


def plot(results: Sequence[Result], facts: Mapping[str, str], file: Path) -> None:
    """Draw, for each pair and dtype, speed over concurrency, and the ratio over the rejection rate's excess.

    Args:
        results: What was measured.
        facts: What it was measured on.
        file: PNG to write.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only here, and slow to import

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, axes = plt.subplots(
        len(results), 2, figsize=(12, 4.6 * len(results) + 0.8), squeeze=False, layout="constrained"
    )
    for (left, right), each in zip(axes, results, strict=True):
        _speeds(left, f"{each.pair}, {each.dtype}: tokens per second", each.rows)
        _excess(right, f"{each.pair}, {each.dtype}: delegation over lossless", each.ratios)
    figure.suptitle(f"vLLM, drafts of {results[0].ahead}\n{facts.get('gpu', facts['cpu'])} · {facts['date']}")
    figure.savefig(file, dpi=144)
    plt.close(figure)


def _speeds(axes: Any, title: str, rows: Sequence[Row]) -> None:
    """One panel: a line for each method."""
    greens = iter(_GREENS * 9)
    for method in dict.fromkeys(row.method for row in rows):
        line = [row for row in rows if row.method == method]
        ours = method.startswith("delegation")
        axes.plot(
            [row.level for row in line],
            [row.speed for row in line],
            marker="o" if ours else "s",
            color=next(greens) if ours else _COLOURS[method.split()[0]],
            linestyle="--" if "budget" in method or "trace" in method else "-",
            label=method,
        )
    _levels(axes, sorted({row.level for row in rows}))
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("requests at once")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _excess(axes: Any, title: str, ratios: Sequence[Ratio]) -> None:
    """One panel: the ratio over how many times rarer takeovers are than rejections."""
    for colour, level in zip(_GREENS * 9, dict.fromkeys(each.level for each in ratios), strict=False):
        line = sorted(
            (each.rejected / each.share, each.ratio)
            for each in ratios
            if each.level == level and "trace" not in each.method
        )
        axes.plot(*zip(*line, strict=True), marker="o", color=colour, label=f"{level} at once")
    axes.axhline(NEVER_SLOWER, color="#8a94a6", linewidth=1)
    axes.axhline(CLEARLY_FASTER, xmin=0, color="#8a94a6", linewidth=1, linestyle=":")
    axes.axvline(FEWER, color="#8a94a6", linewidth=1, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("lossless rejection rate / share of takeovers")
    axes.set_ylabel("ratio of tokens per second")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _levels(axes: Any, levels: Sequence[int]) -> None:
    """Concurrency on a scale of doublings."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [str(each) for each in levels])
    axes.minorticks_off()
