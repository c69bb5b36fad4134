"""An answer on the screen while it is decided: takeovers in place, with the base's own word."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.text import Text

from delegate_llm.cli.terminal import inline, visible
from delegate_llm.text import AnswerText
from delegate_llm.trace import Decision, Generation

if TYPE_CHECKING:
    from rich.console import Console

    from delegate_llm.pairs.pair import Piece

__all__ = ("Highlighter", "show")

_TAKEOVER: Final = "bold green"
_NOTE: Final = "dim"
_BASE: Final = "dim strike"


@dataclass(frozen=True, slots=True)
class _Mark:
    """A takeover that changed the token, and the characters of the answer it stands for."""

    start: int
    end: int
    base_token: str


class Highlighter:
    """Finds the takeovers in the text of an answer that comes in pieces.

    A piece does not say which of its characters a decision made: tokens may tear characters apart,
    and text that could begin a stop string comes later than its decisions. So the tokens are
    decoded again.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str] | None) -> None:
        """Start an empty answer; `decode` is the pair's, token ids to text.

        Without it, as of a pair that a server carries, each token is taken for the text it is told with.
        """
        self._told: dict[int, str] = {}
        self._text = AnswerText(decode or (lambda ids: "".join(self._told[each] for each in ids)))
        self._marks: deque[_Mark] = deque()
        self._shown = 0

    def feed(self, piece: Piece) -> Text:
        """The next piece as styled text that holds no control characters."""
        for decision in piece.decisions:
            self._read(decision)
        styled, low = Text(), self._shown
        self._shown = high = low + len(piece.text)
        at = low
        while self._marks and self._marks[0].start < high:
            mark = self._marks[0]
            start, end = max(at, mark.start), max(at, min(mark.end, high))
            styled.append(visible(piece.text[at - low : start - low]))
            styled.append(visible(piece.text[start - low : end - low]), _TAKEOVER)
            at = end
            if mark.end > high:
                break
            styled.append_text(_note("base: ", mark))
            self._marks.popleft()
        return styled.append(visible(piece.text[at - low :]))

    def finish(self) -> Text:
        """What stands behind the answer: takeovers that ended it and left no text of their own."""
        return Text().join(_note("end; base: ", mark) for mark in self._marks)

    def _read(self, decision: Decision) -> None:
        start = len(self._text.text)
        self._told[decision.token_id] = decision.token
        self._text.push(decision.token_id)
        if decision.changed:
            # A torn character has no text yet: it will be the next one.
            end = max(len(self._text.text), start + 1)
            self._marks.append(_Mark(start, end, decision.base_token))


def show(
    console: Console,
    answer: Iterable[Piece | Generation],
    decode: Callable[[Sequence[int]], str] | None,
    *,
    marked: bool,
) -> Generation:
    """Write a streamed answer as it comes, with a line end behind it.

    Args:
        console: Where to.
        answer: What `Pair.stream` gives.
        decode: The pair's, token ids to text; None if it has none here.
        marked: Whether takeovers are shown; without, the text is written exactly as it is.

    Returns:
        The finished generation.
    """
    highlighter = Highlighter(decode)
    for item in answer:
        if isinstance(item, Generation):
            break
        if marked:
            console.print(highlighter.feed(item), end="")
        else:
            console.file.write(item.text)
            console.file.flush()
    else:
        msg = "a stream ended without its generation"
        raise AssertionError(msg)
    if marked:
        console.print(highlighter.finish(), end="")
    if not item.text.endswith("\n"):
        console.file.write("\n")
        console.file.flush()
    return item


def _note(lead: str, mark: _Mark) -> Text:
    """The base's own token, in brackets: colours may be off."""
    base = inline(mark.base_token)
    return Text.assemble((f"⟨{lead}", _NOTE), (base.strip() or repr(base), _BASE), ("⟩", _NOTE))
