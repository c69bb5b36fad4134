"""`delegate-llm serve`: an OpenAI-compatible server, vLLM's own, whose answers are delegated."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from delegate_llm.cli.loading import BASE, REASONER, BaseOption, ReasonerOption
from delegate_llm.cli.terminal import friendly, remarks
from delegate_llm.errors import RequestError
from delegate_llm.serving.addresses import check_host
from delegate_llm.vllm_plugin.defaults import AHEAD, MOST_AHEAD

__all__ = ("PASSES_ON", "serve")

PASSES_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For the command: options that are not ours are vLLM's."""
_DELEGATION: Final = "Delegation"
_SERVER: Final = "Server"
_WHERE: Final[dict[str, str | int]] = {"host": "127.0.0.1", "port": 8000}
"""Where a server listens that is not told."""


@friendly
def serve(
    context: typer.Context,
    *,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A saved policy (JSON) for requests that bring none; by default the calibrated one beside "
            "the reasoner.",
            rich_help_panel=_DELEGATION,
        ),
    ] = None,
    draft: Annotated[
        int,
        typer.Option(help="Tokens the base runs ahead.", min=1, max=MOST_AHEAD, rich_help_panel=_DELEGATION),
    ] = AHEAD,
    traces: Annotated[
        int, typer.Option(help="Traces kept for reading later.", min=0, rich_help_panel=_DELEGATION)
    ] = 1024,
    traces_age: Annotated[
        float, typer.Option(help="Seconds that each is kept.", min=0, rich_help_panel=_DELEGATION)
    ] = 600.0,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen at, 127.0.0.1 by default; another than this machine's own needs a key.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen at, 8000 by default.", rich_help_panel=_SERVER)
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="A key that requests must bring; may be repeated. Better: VLLM_API_KEY in the environment.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
) -> None:
    """Serve a pair by OpenAI's API, with vLLM; any option of `vllm serve` may follow.

    Requests bring a policy and ask for traces in vllm_xargs: {"delegation": JSON, "delegation_trace": 1}.
    """
    from delegate_llm.vllm_plugin.versions import check_version  # noqa: PLC0415 - needed here only

    keys = _keys(api_key)
    check_version()
    from delegate_llm.serving.launch import (  # noqa: PLC0415 - brings pydantic
        Options,
        environment,
        server_arguments,
    )

    filed = Options(context.args)  # what stands in a file for --config is vLLM's to read, and checked there
    where: dict[str, str | int | None] = {"host": host, "port": port}
    where |= {name: value for name, value in _WHERE.items() if where[name] is None and not filed.has(name)}
    if not keys and where["host"] is not None and not filed.has("uds"):
        check_host(str(where["host"]))
    with remarks().status("Reading the tokenizers …"):
        arguments = server_arguments(
            base,
            reasoner,
            context.args,
            draft=draft,
            policy=policy,
            traces=traces,
            traces_age_s=traces_age,
        )
    variables = environment()
    for name, value in where.items():
        arguments += [] if value is None else [f"--{name}", str(value)]
    if len(keys) == 1:
        variables["VLLM_API_KEY"] = keys[0]  # arguments can be read by everyone on this machine
    elif keys:
        arguments += ["--api-key", *keys]
    program = [sys.executable, "-m", "delegate_llm.serving", *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    # In place of this process: signals and the exit code are vLLM's own.
    os.execve(sys.executable, program, variables)  # noqa: S606


def _keys(given: list[str] | None) -> list[str]:
    keys = given or [key for key in (os.environ.get("VLLM_API_KEY"),) if key]
    if not all(keys):
        msg = "api_key: it is empty; give one, or leave --api-key out"
        raise RequestError(msg)
    return keys
