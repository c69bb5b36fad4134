"""A page of answers: one HTML file with everything in it, that runs no script but its own.

What models and users wrote is embedded as JSON in which nothing can end or begin a tag; the scripts make text
nodes of it. A content security policy names the page's scripts and styles by their hashes and allows
nothing else, no network included.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from delegate_llm._version import __version__
from delegate_llm.policy import DelegationPolicy
from delegate_llm.report.answers import Shown, columns, short
from delegate_llm.report.packing import packed, size_of
from delegate_llm.trace import Trace

__all__ = ("SCRIPTS", "STYLES", "asset", "embedded", "frame", "page_of", "render")

SCRIPTS: Final = ("text.js", "columns.js", "strip.js", "detail.js", "view.js")
"""What a view of an answer needs, in this order."""
STYLES: Final = ("view.css",)

_ROOM: Final = 9_500_000
"""Bytes of data that a page holds as they are; more are packed."""

_UNSAFE: Final = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
"""What could end a script element, and what neither an older script nor UTF-8 can hold."""
_STRANGE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def asset(name: str) -> str:
    """The text of a file of the view, such as `view.js`."""
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


def render(answers: Sequence[Shown], *, title: str, notes: Sequence[str] = ()) -> str:
    """The page of some answers.

    Args:
        answers: The first one is shown when it opens.
        title: Of the page.
        notes: What a reader has to know about all of them.

    Returns:
        HTML that UTF-8 can hold and that needs nothing else.
    """
    scripts = [asset(name) for name in (*SCRIPTS, "report.js")]
    styles = [asset(name) for name in (*STYLES, "report.css")]
    data, more = _data(answers)
    return _template().render(
        title=_printable(title),
        notes=[_printable(note) for note in (*notes, *more)],
        version=__version__,
        policy=_security(scripts, styles),
        # The package's own files, and JSON in which every `<` is escaped.
        styles=[Markup(each) for each in styles],  # noqa: S704 - see above
        scripts=[Markup(each) for each in scripts],  # noqa: S704 - see above
        data=Markup(embedded({"title": title, **data})),  # noqa: S704 - see above
    )


def page_of(
    trace: Trace,
    *,
    policy: DelegationPolicy | None = None,
    title: str | None = None,
    text: str | None = None,
    prompt: str | None = None,
    seed: int | None = None,
) -> str:
    """The page of one answer; arguments as for `Trace.to_html` and `Generation.to_html`."""
    said = text if text is not None else "".join(each.token for each in trace.decisions)
    name = short(prompt or said) or "An answer"
    shown = Shown(id="1", title=name, trace=trace, text=text, policy=policy, prompt=prompt, seed=seed)
    return render([shown], title=title or "Delegated answer")


def _data(answers: Sequence[Shown]) -> tuple[dict[str, Any], list[str]]:
    """What the scripts read, and what is to be said about it."""
    told = [columns(each) for each in answers]
    if size_of(told) <= _ROOM:
        return {"answers": told}, []
    return packed(told, _ROOM)


def embedded(data: Any) -> str:
    """JSON that may stand within a `<script type="application/json">`, whatever texts are in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def frame(page: str, *, height: int = 640) -> str:
    """A page within another, such as a notebook, so that neither's styles and scripts reach the other.

    Args:
        page: As `render` makes it.
        height: In CSS pixels.
    """
    return (
        '<iframe sandbox="allow-scripts" title="Delegated answer" loading="lazy" '
        f'style="width:100%;height:{height}px;border:0;color-scheme:normal" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
    )


@functools.cache
def _template() -> jinja2.Template:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        asset("page.html.jinja")
    )


def _security(scripts: Sequence[str], styles: Sequence[str]) -> str:
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _printable(text: str) -> str:
    """Text without what HTML cannot hold."""
    return _STRANGE.sub("\N{REPLACEMENT CHARACTER}", text)
