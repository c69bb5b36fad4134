"""`delegate-llm playground`: a pair in the browser, to ask and to turn the knobs of."""

from __future__ import annotations

import json
import os
import webbrowser
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.text import Text

from delegate_llm.cli.loading import (
    BASE,
    REASONER,
    DeviceOption,
    DtypeOption,
    JsonOption,
    OptionsOption,
    TrustOption,
    load_options,
    prepare,
)
from delegate_llm.cli.terminal import console, friendly, remarks
from delegate_llm.errors import RequestError, require

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.playground.pairs import Offer

__all__ = ("playground",)

_API_KEY: Final = "DELEGATE_LLM_API_KEY"
_MODELS: Final = "Models"
_SERVER: Final = "Server"


@friendly
def playground(
    *,
    base: Annotated[
        str | None,
        typer.Option(
            help=f"The model that writes: a folder or a hub id; {BASE} by default.",
            rich_help_panel=_MODELS,
            show_default=False,
        ),
    ] = None,
    reasoner: Annotated[
        str | None,
        typer.Option(
            help=f"The model that is asked: a folder, a hub id, or an adapter of the base; {REASONER} "
            "by default.",
            rich_help_panel=_MODELS,
            show_default=False,
        ),
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BASE,REASONER", help="Another pair to pick; may be repeated.", rich_help_panel=_MODELS
        ),
    ] = None,
    backend: Annotated[
        Literal["transformers", "vllm", "remote"],
        typer.Option(help="Who runs the models; remote is a `delegate-llm serve`.", rich_help_panel=_MODELS),
    ] = "transformers",
    base_url: Annotated[
        str | None,
        typer.Option(help="Of that server, such as http://127.0.0.1:8000.", rich_help_panel=_MODELS),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    options: OptionsOption = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at; by default only this machine can reach it.", rich_help_panel=_SERVER
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            help="Port to listen at; 0 takes a free one.", min=0, max=65535, rich_help_panel=_SERVER
        ),
    ] = 7860,
    api_key: Annotated[
        str | None,
        typer.Option(
            help=f"A key that the page asks for. Better: {_API_KEY} in the environment, which counts "
            "where others can reach the server.",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser.", rich_help_panel=_SERVER)
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a pair in the browser: takeovers show as they come, and threshold and budget are sliders.

    Only the pairs named here can be picked; weights load when they first are. Ctrl-C ends it.
    """
    from delegate_llm.playground.guard import names_of  # noqa: PLC0415 - needed here only
    from delegate_llm.serving.addresses import is_loopback  # noqa: PLC0415 - likewise

    require("uvicorn", "playground")
    local = is_loopback(host)
    key = _key(api_key, local=local)
    said: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    given = {**load_options(options), **{name: value for name, value in said.items() if value}}
    offers = _offers(_named(base, reasoner, pair, backend), backend, base_url, given)
    _start(
        offers, host, port, names=names_of(host), key=key, local=local, open_page=open_page, as_json=as_json
    )


def _start(
    offers: list[Offer],
    host: str,
    port: int,
    *,
    names: frozenset[str] | None,
    key: str | None,
    local: bool,
    open_page: bool,
    as_json: bool,
) -> None:
    from delegate_llm.playground.app import make_app  # noqa: PLC0415 - brings starlette
    from delegate_llm.playground.serve import bound, serve, url_of  # noqa: PLC0415 - needed here only

    app = make_app(offers, names=names, api_key=key)
    listening = bound(host, port)
    url = url_of(host, listening)
    if not local:
        _warn(host, keyed=key is not None)
    if as_json:
        typer.echo(json.dumps({"url": url}))
    else:
        console().print(f"The playground is at {url}")
        remarks().print(Text("Ctrl-C ends it.", "dim"))
    if open_page:
        webbrowser.open(url)
    serve(app, listening, offers)


def _warn(host: str, *, keyed: bool) -> None:
    who = "whoever has the key and" if keyed else "without --api-key, whoever"
    remarks().print(
        Text(f"warning: {host} is open to others: {who} reaches the port can use the models", "bold")
    )


def _key(given: str | None, *, local: bool) -> str | None:
    """The server's key. On this machine alone the variable does not count: it may be for another server."""
    key = given if given is not None or local else os.environ.get(_API_KEY) or None
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        msg = "api_key: it is empty, or has characters that no header carries; give printable ASCII"
        raise RequestError(msg)
    return key


# --- The pairs on offer ---


def _named(
    base: str | None, reasoner: str | None, pairs: list[str] | None, backend: str
) -> list[tuple[str | None, str | None]]:
    """The pairs that the options name; the one that ships if they name none."""
    if backend == "remote":
        if pairs:
            msg = "pair: the server carries one pair; leave --pair out"
            raise RequestError(msg)
        return [(base, reasoner)]
    found: list[tuple[str | None, str | None]] = [_two(each) for each in pairs or ()]
    if base or reasoner or not found:
        found.insert(0, (base or BASE, reasoner or REASONER))
    return list(dict.fromkeys(found))


def _two(text: str) -> tuple[str, str]:
    base, comma, reasoner = (part.strip() for part in text.partition(","))
    if not (base and comma and reasoner):
        msg = f"pair: {text!r} does not name two models, such as 'BASE,REASONER'"
        raise RequestError(msg)
    return base, reasoner


def _offers(
    pairs: list[tuple[str | None, str | None]], backend: str, base_url: str | None, given: dict[str, Any]
) -> list[Offer]:
    from delegate_llm.playground.pairs import Offer, named  # noqa: PLC0415 - needed here only

    if (backend == "remote") != (base_url is not None):
        msg = "base_url: --backend remote needs --base-url of its server, and no other backend takes one"
        raise RequestError(msg)
    if base_url is not None:
        given = {**given, "base_url": base_url}
    return [
        Offer(
            base and named(base),
            reasoner and named(reasoner),
            partial(_load, base, reasoner, backend=backend, options=given, sole=len(pairs) == 1),
        )
        for base, reasoner in pairs
    ]


def _load(
    base: str | None, reasoner: str | None, *, backend: str, options: dict[str, Any], sole: bool
) -> Pair:
    from delegate_llm.pairs import PLAIN_CHAT  # noqa: PLC0415 - quick, but its siblings bring torch
    from delegate_llm.pairs.registry import shared_pair  # noqa: PLC0415 - likewise

    # What suits the pair that ships, a single thread above all, would not suit others beside it.
    prepare(*((base or "", reasoner or "") if sole else ("", "")))
    return shared_pair(base, reasoner, backend=backend, **{"fallback_template": PLAIN_CHAT, **options})
