"""`delegate-llm report`: answers as one page for the browser."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from delegate_llm.cli.loading import JsonOption
from delegate_llm.cli.terminal import console, friendly, inline, json_text, remarks
from delegate_llm.errors import RequestError

__all__ = ("report",)

_NAME: Final = "report.html"
_MEGABYTE: Final = 1_000_000


@friendly
def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="A folder of `delegate-llm evaluate`, or a JSON or JSONL file of generations (`run --json "
            "--trace full`), traces, messages or states of a graph; - reads it from stdin."
        ),
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Page to write; by default in or beside RUN.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="An arm of the run to show; may be repeated. By default every delegated one."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Answers at most.", min=1)] = 200,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a page that shows answers token by token: scores, takeovers, and what the base would have said.

    It is one file that needs no network, and runs no script but its own.
    """
    from delegate_llm._files import write_file  # noqa: PLC0415 - not needed for --help
    from delegate_llm.report import read_answers, render  # noqa: PLC0415 - brings pydantic

    path = output or _beside(run)
    if _is_source(path, run):
        msg = f"output: {str(path)!r} is what is to be read; name another file"
        raise RequestError(msg)
    found = read_answers(run, arms=arm or (), limit=limit)
    notes = list(found.notes)
    if found.left_out:
        notes.append(f"{found.left_out} more answers are left out; --limit shows more.")
    page = render(found.answers, title=title or _title(run), notes=notes)
    write_file(path, page)
    size = path.stat().st_size
    if as_json:
        told = {"path": str(path), "bytes": size, "answers": len(found.answers), "left_out": found.left_out}
        typer.echo(json_text(json.dumps(told)))
    else:
        count = len(found.answers)
        answers = "1 answer" if count == 1 else f"{count} answers"
        console().print(Text(inline(f"{path}: {answers}, {size / _MEGABYTE:.2f} MB")))
        for note in notes:
            remarks().print(Text(inline(note), "dim"))
    if open_it:
        webbrowser.open(path.absolute().as_uri())


def _is_source(path: Path, run: Path) -> bool:
    """Whether the page would take the place of what it is made of."""
    if run.is_dir():
        return path.suffix in {".json", ".jsonl"} and path.resolve().parent == run.resolve()
    return run != Path("-") and path.resolve() == run.resolve()


def _beside(run: Path) -> Path:
    """Where the page goes if nobody says."""
    if run.is_dir():
        return run / _NAME
    return Path(_NAME) if run == Path("-") else run.with_name(_NAME)


def _title(run: Path) -> str:
    name = "" if run == Path("-") else run.absolute().name
    return f"Delegation: {name}" if name else "Delegation"
