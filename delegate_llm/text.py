"""Token ids to text while they come: no half characters, and never a part of a stop string.

Joining byte-level tokens one by one tears characters apart, so a few trailing tokens are decoded together
and text is released only once it is whole. What might be the start of a stop string is held back until the
next tokens settle it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ("AnswerText",)

_TORN = "\N{REPLACEMENT CHARACTER}"
# A character is at most four bytes, hence four tokens; text that stays torn longer is really broken.
_LONGEST = 8
_HALF = 3
"""Tokens of a character that is not whole, at most."""


class AnswerText:
    """The text of one growing answer."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), *, start: str = ""
    ) -> None:
        """Start an empty answer.

        Args:
            decode: Token ids to text.
            stop: Strings that end the answer; they are cut off it.
            start: Text already there, for a `fork`.
        """
        self.text = start
        """The whole characters so far, cut before a stop string."""
        self.stopped = False
        """Whether a stop string was found."""
        self._decode = decode
        self._stop = tuple(stop)
        self._context: list[int] = []  # tokens already in `text` that give the next ones their spacing
        self._torn: list[int] = []  # tokens that do not make whole characters yet
        self._prefix = ""  # what the context decodes to

    def fork(self) -> AnswerText:
        """An independent copy, to look ahead along a draft."""
        twin = AnswerText(self._decode, self._stop, start=self.text)
        twin.stopped, twin._prefix = self.stopped, self._prefix
        twin._context, twin._torn = self._context, list(self._torn)
        return twin

    def push(self, token_id: int) -> None:
        """Add one token."""
        self._torn.append(token_id)
        whole = self._decode([*self._context, *self._torn])
        if whole.endswith(_TORN) and len(self._torn) < _LONGEST:
            return
        piece = whole[len(self._prefix) :]
        self._release(piece)
        # Fresh lists: a fork may still hold the old ones.
        read, self._torn = self._torn, []
        prefix = self._decode(read)
        if prefix:  # else a token without text of its own; what stands before it spaces the next one
            self._context, self._prefix = read, prefix
        elif not piece:  # which may be half a character, where a tokenizer leaves those out
            self._torn = read[-_HALF:]

    def finish(self) -> None:
        """Release what was torn; nothing more will come."""
        if self._torn:
            self._release(self._decode([*self._context, *self._torn])[len(self._prefix) :])
            self._torn = []

    def safe(self) -> int:
        """How many characters of `text` can be shown: no stop string can begin before that."""
        if self.stopped or not self._stop:
            return len(self.text)
        return len(self.text) - max(_overlap(self.text, stop) for stop in self._stop)

    def _release(self, piece: str) -> None:
        if self.stopped:
            return
        start = len(self.text)
        self.text += piece
        found = [
            at for stop in self._stop if (at := self.text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
