"""The options that name a pair, and loading it without noise."""

from __future__ import annotations

import atexit
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer

from delegate_llm.cli.terminal import remarks
from delegate_llm.errors import LoadError, PolicyError, RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from delegate_llm.pairs.pair import Pair
    from delegate_llm.policy import DelegationPolicy

__all__ = (
    "BASE",
    "REASONER",
    "Backend",
    "BackendOption",
    "BaseOption",
    "BaseUrlOption",
    "DeviceOption",
    "DtypeOption",
    "JsonOption",
    "OptionsOption",
    "ReasonerOption",
    "TrustOption",
    "carried",
    "connect",
    "load",
    "load_options",
    "prepare",
    "saved_policy",
)

BASE: Final = "delegate-llm/tiny-base"
REASONER: Final = "delegate-llm/tiny-reasoner"

_MODELS: Final = "Models"
_NAMED: Final = frozenset({"base", "reasoner", "backend", "base_url"})
"""What is not said by `--options`."""
_SERVERS: Final = "the server's own"

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
Backend = Literal["transformers", "vllm", "remote"]
BackendOption = Annotated[
    Backend,
    typer.Option(help="Who runs them: this process, vLLM in it, or a server.", rich_help_panel=_MODELS),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(help="Where `delegate-llm serve` listens, for --backend remote.", rich_help_panel=_MODELS),
]
OptionsOption = Annotated[
    str | None,
    typer.Option(
        "--options",
        help="Others of load_pair, as a JSON object, such as "
        '\'{"reasoner_template_kwargs": {"enable_thinking": true}}\'.',
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
        try:
            import torch  # noqa: PLC0415 - slow
            from transformers.utils import logging  # noqa: PLC0415 - slow

            import delegate_llm.pairs.loading  # noqa: F401, PLC0415 - slow
        except OSError as error:  # such as a temporary folder on a full disk
            msg = f"torch and transformers cannot be loaded: {error}"
            raise LoadError(msg) from error
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


def connect(
    base: str,
    reasoner: str,
    *,
    backend: Backend = "transformers",
    base_url: str | None = None,
    options: str | None = None,
    **given: Any,
) -> Pair:
    """As `load`, on any backend, and with a chat template in plain words where neither model has one.

    Args:
        base: As for `load_pair`; the shipped name, which is the default, is left to a server to say.
        reasoner: Likewise.
        backend: Likewise.
        base_url: Of the server.
        options: More options of `load_pair`, as JSON.
        **given: Options of `load_pair`; those that are None or False are left to `options`, and to their
            defaults.

    Raises:
        RequestError: If the options are no JSON object, or one is unknown or not to be given there.
        LoadError: As from `load_pair`.
    """
    from delegate_llm.pairs import PLAIN_CHAT  # noqa: PLC0415 - quick, but its siblings bring torch

    said = {name: value for name, value in given.items() if value not in (None, False)}
    more = {"fallback_template": PLAIN_CHAT, **load_options(options), **said}
    if backend == "transformers":
        return load(base, reasoner, **more)
    from delegate_llm import load_pair  # noqa: PLC0415 - quick, but its siblings bring torch

    named = {"base": base, "reasoner": reasoner}
    if backend == "remote":
        shipped = {"base": BASE, "reasoner": REASONER}
        named = {who: name for who, name in named.items() if name != shipped[who]}
        more["base_url"] = base_url
    pair: Any = load_pair(**named, backend=backend, **more)
    atexit.register(pair.close)  # engines and connections end before the interpreter does
    return cast("Pair", pair)


def carried(base: str, reasoner: str, backend: Backend) -> tuple[str, str]:
    """What to call the two models in a document: a server says itself what it carries, unless it is asked.

    Args:
        base: As for `connect`.
        reasoner: Likewise.
        backend: Likewise.
    """
    if backend != "remote":
        return base, reasoner
    named = [_SERVERS if name in (BASE, REASONER) else name for name in (base, reasoner)]
    return named[0], named[1]


def load_options(text: str | None) -> dict[str, Any]:
    """What `--options` gives.

    Raises:
        RequestError: If it is no JSON object, or names what has an option of its own.
    """
    try:
        options = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        msg = f"options: {text!r:.80} is no JSON: {error}"
        raise RequestError(msg) from None
    if not isinstance(options, dict):
        msg = f"options: {text!r:.80} is no JSON object"
        raise RequestError(msg)
    for name in _NAMED & options.keys():
        msg = f"options: {name!r} has an option of its own; give --{name.replace('_', '-')}"
        raise RequestError(msg)
    return options


def saved_policy(file: Path) -> DelegationPolicy:
    """The policy in a file.

    Raises:
        PolicyError: If it is none, or cannot be read: bad input, like any other.
    """
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic

    try:
        return DelegationPolicy.read(file)
    except LoadError as error:
        raise PolicyError(str(error)) from error
