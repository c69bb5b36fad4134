"""What every command shares: consoles, text that cannot steer a terminal, errors and exit codes.

Answers go to stdout, everything about them to stderr. Colours, progress and remarks appear only
where a person is looking: on a terminal, by rich's rules (so `NO_COLOR` and `FORCE_COLOR` count).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import re
import sys
from collections.abc import Callable
from typing import Final, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from delegate_llm.errors import DelegateError, PolicyError, PromptError, RequestError

__all__ = ("console", "friendly", "inline", "json_text", "remarks", "visible")

# All that moves a cursor, recolours, or reorders what is shown: C0 and C1 controls but newline and
# tab, bidirectional marks, line separators; and lone surrogates, which no terminal can be sent.
_STEERING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_PICTURES: Final = 0x2400
"""Where Unicode's pictures of the C0 controls begin."""
_DELETE: Final = 0x7F

_BAD_INPUT: Final = (RequestError, PolicyError, PromptError)

_Arguments = ParamSpec("_Arguments")


def console() -> Console:
    """Stdout, for answers and tables; made anew for each command, as streams may have changed."""
    return _console(stderr=False)


def remarks() -> Console:
    """Stderr, for errors, progress and summaries."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # an answer must not die of a narrow encoding
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def visible(text: str) -> str:
    """Text with everything that could steer a terminal spelled out; newlines and tabs stay."""
    return _STEERING.sub(_spelled, text)


def inline(text: str) -> str:
    """As `visible`, on one line."""
    return visible(text).replace("\n", "⏎").replace("\t", "⇥")


def json_text(document: str) -> str:
    """The same JSON document, with what could steer a terminal escaped."""
    # JSON allows these characters in strings only, where their escapes mean the same.
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < ord(" "):
        return chr(_PICTURES + code)
    return "\N{SYMBOL FOR DELETE}" if code == _DELETE else f"\\u{code:04x}"


def friendly(command: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A command whose errors are one line on stderr and an exit code.

    Bad input exits with 2, any other `DelegateError` with 1, Ctrl-C with 130. A reader that goes
    away, as `head` does, ends the command quietly with 1; typer sees to that.
    """

    @functools.wraps(command)
    def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except DelegateError as error:
            line = visible(" ".join(str(error).split()))
            remarks().print(Text.assemble(("error: ", "bold red"), line))
            raise typer.Exit(2 if isinstance(error, _BAD_INPUT) else 1) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            with contextlib.suppress(OSError):
                remarks().print(Text.assemble(("error: ", "bold red"), visible(str(error))))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if (screen := remarks()).is_terminal:
                screen.print()  # the prompt of the shell begins on its own line
            raise typer.Exit(130) from None

    return guarded
