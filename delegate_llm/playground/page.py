"""What the browser gets: the page, its scripts and styles. The view of an answer is the report's own."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final, get_args

from delegate_llm._version import __version__
from delegate_llm.policy import DivergenceName
from delegate_llm.report.page import SCRIPTS, STYLES
from delegate_llm.report.page import asset as view_asset

__all__ = ("ASSETS", "asset", "page")

_STYLE: Final = "playground.css"
_SCRIPTS: Final = ("client.js", "preview.js", "knobs.js", "playground.js")
_ICON: Final = "icon.svg"
_OURS: Final = frozenset({_STYLE, *_SCRIPTS, _ICON})
ASSETS: Final = frozenset({*STYLES, *SCRIPTS, *_OURS})
"""Names of the files that are served."""
_KINDS: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@functools.cache
def page() -> str:
    """The page as HTML; there is nothing in it that a model or a user wrote."""
    import jinja2  # noqa: PLC0415 - only the server needs it

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_own("page.html.jinja")).render(
        version=__version__,
        styles=[*STYLES, _STYLE],
        scripts=[*SCRIPTS, *_SCRIPTS],
        divergences=get_args(DivergenceName),
    )


def asset(name: str) -> tuple[str, str]:
    """One of `ASSETS`, and its media type."""
    text = _own(name) if name in _OURS else view_asset(name)
    return text, _KINDS[name.rpartition(".")[2]]


def _own(name: str) -> str:
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
