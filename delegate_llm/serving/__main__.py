"""`vllm serve`, in the CPU build as well: vLLM's own command asks for the metadata of a package `vllm`."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ("main",)


def main(arguments: list[str]) -> None:
    """Serve until told to stop.

    Args:
        arguments: As behind `vllm serve`.
    """
    # Processes that vLLM spawns import this module again, and need none of it.
    load: Any = importlib.import_module
    load("vllm.entrypoints.serve.utils.api_utils").cli_env_setup()
    command = load("vllm.entrypoints.cli.serve").ServeSubcommand()
    parser = load("vllm.utils.argparse_utils").FlexibleArgumentParser(prog="delegate-llm")
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    given = parser.parse_args([command.name, *arguments])
    load("vllm.logger").configure_logging_from_args(given)
    command.validate(given)
    command.cmd(given)


if __name__ == "__main__":
    main(sys.argv[1:])
