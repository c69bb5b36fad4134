"""Numbers for people: a bar while they are measured, and a table on a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from rich.console import Console
from rich.text import Text

from delegate_llm.cli.terminal import remarks

__all__ = ("Column", "percent", "print_table", "progress")

Row = TypeVar("Row")
Column: TypeAlias = tuple[str, Callable[[Row], str]]
"""A name, which may stand on two lines, and what a row has there."""


def percent(value: float | None) -> str:
    """A share in words; a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}%"


@contextmanager
def progress(steps: int, arms: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """A bar on a terminal, nothing elsewhere.

    Args:
        steps: To be taken in all.
        arms: In which they are taken.

    Yields:
        What takes a step, and what is told how many arms are done.
    """
    from rich.progress import Progress  # noqa: PLC0415 - slow

    screen = remarks()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(f"Measuring, 1 of {arms}", total=steps)
        yield (
            lambda: bar.advance(task),
            lambda done: bar.update(task, description=f"Measuring, {min(done + 1, arms)} of {arms}"),
        )


def print_table(
    out: Console,
    title: str,
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    *,
    bold: Callable[[Row], bool] = lambda _: False,
) -> None:
    """Print a drawn table on a terminal, aligned columns in a pipe.

    Args:
        out: Where to.
        title: Above it.
        columns: The first one names the rows.
        rows: What the columns read.
        bold: Whether a row stands out on a terminal.
    """
    cells = [[read(row) for _, read in columns] for row in rows]
    names = [name for name, _ in columns]
    if out.is_terminal:
        _draw(out, title, names, cells, [bold(row) for row in rows])
    else:
        _align(out, title, [[name.replace("\n", " ") for name in names], *cells])


def _align(out: Console, title: str, table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    out.print(Text(f"{title}\n"))
    for first, *rest in table:
        cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
        out.print(Text("  ".join(cells)))


def _draw(
    out: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[bool]
) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - slow
    from rich.table import Table  # noqa: PLC0415 - slow

    # Without sides and with names on two lines, it fits 80 columns.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for at, name in enumerate(names):
        table.add_column(name, justify="right" if at else "left")
    for row, stands_out in zip(rows, bold, strict=True):
        table.add_row(*map(Text, row), style="bold" if stands_out else None)
    out.print(table, soft_wrap=False)
