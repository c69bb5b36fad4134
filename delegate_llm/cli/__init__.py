"""The command line, `delegate-llm`: a module a command, and what the commands share.

Commands import torch and transformers only when they run, so `--help` and `--version` are quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from delegate_llm._version import __version__
from delegate_llm.cli.analyze import analyze
from delegate_llm.cli.calibrate import calibrate
from delegate_llm.cli.compare_agents import compare_agents
from delegate_llm.cli.demo import demo
from delegate_llm.cli.evaluate import evaluate
from delegate_llm.cli.playground import playground
from delegate_llm.cli.report import report
from delegate_llm.cli.run import run
from delegate_llm.cli.serve import PASSES_ON, serve

__all__ = ("app",)

app = typer.Typer(
    name="delegate-llm",
    help="Reasoning at base-model cost: a base writes, a reasoner is heard at the few tokens that decide.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals hold prompts
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"delegate-llm {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options that stand before a command."""


app.command()(run)
app.command()(demo)
app.command()(compare_agents)
app.command()(analyze)
app.command()(calibrate)
app.command()(evaluate)
app.command()(report)
app.command()(playground)
app.command(context_settings=PASSES_ON)(serve)
