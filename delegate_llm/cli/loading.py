"""The options that name a pair, and loading it without noise."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from delegate_llm.cli.terminal import remarks

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = (
    "BASE",
    "REASONER",
    "BaseOption",
    "DeviceOption",
    "DtypeOption",
    "JsonOption",
    "ReasonerOption",
    "TrustOption",
    "load",
    "prepare",
)

BASE: Final = "delegate-llm/tiny-base"
REASONER: Final = "delegate-llm/tiny-reasoner"

_MODELS: Final = "Models"

BaseOption = Annotated[
    str,
    typer.Option(help="The model that writes: a folder or a hub id.", rich_help_panel=_MODELS),
]
ReasonerOption = Annotated[
    str,
    typer.Option(
        help="The model that is asked: a folder, a hub id, or an adapter of the base.",
        rich_help_panel=_MODELS,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="Such as cuda or cpu; the best there is by default.", rich_help_panel=_MODELS),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=_MODELS),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run code that comes with a checkpoint. Read it first.",
        rich_help_panel=_MODELS,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]


def prepare(base: str, reasoner: str) -> None:
    """Import what is slow to import, and keep its logs and bars off the screen.

    On a terminal something moves meanwhile. Checkpoints that are large, or that come over the
    network, keep transformers' own bars there.
    """
    screen = remarks()
    there = "delegate_llm.pairs.loading" in sys.modules
    with nullcontext() if there else screen.status("Loading torch and transformers …"):
        import torch  # noqa: PLC0415 - slow
        from transformers.utils import logging  # noqa: PLC0415 - slow

        import delegate_llm.pairs.loading  # noqa: F401, PLC0415 - slow
    logging.set_verbosity_error()
    shipped = {base, reasoner} <= {BASE, REASONER}
    if shipped:
        torch.set_num_threads(1)  # models this small lose time to more
    if shipped or not screen.is_terminal:
        logging.disable_progress_bar()


def load(base: str, reasoner: str, **options: Any) -> Pair:
    """As `load_pair`, after `prepare`.

    Args:
        base: As for `load_pair`.
        reasoner: Likewise.
        **options: Likewise; those that are None are left to their defaults.

    Raises:
        LoadError: As from `load_pair`.
        RequestError: Likewise.
    """
    from delegate_llm import load_pair  # noqa: PLC0415 - quick, but its siblings bring torch

    prepare(base, reasoner)
    given = {name: value for name, value in options.items() if value is not None}
    return load_pair(base, reasoner, **given)
