"""Text of models in pictures: no formula, no control character, and no glyph that the font does not have."""

from __future__ import annotations

import functools
import unicodedata
from typing import Final

from delegate_llm.errors import require

__all__ = ("label", "plain")

_LONGEST: Final = 16
"""Characters of a token that are shown."""
_SIGNS: Final = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def plain(text: str, longest: int = 120) -> str:
    """Text on one line, of at most so many characters, in those that the font has."""
    return _drawn(" ".join(text.split()), longest)


def label(token: str) -> str:
    """A token in short; white space as signs."""
    return _drawn("".join(_SIGNS.get(each, each) for each in token.strip(" ")) or "␣", _LONGEST)


def _drawn(text: str, longest: int) -> str:
    shown: list[str] = []
    length = 0
    for spelled in map(_spelled, text):
        length += len(spelled)
        if length > longest:
            shown.append("…")
            break
        # A dollar sign would begin a formula.
        shown.append(spelled.replace("$", r"\$"))
    return "".join(shown)


def _spelled(character: str) -> str:
    there = ord(character) in _known() and not unicodedata.category(character).startswith("C")
    return character if there else f"⟨{ord(character):X}⟩"


@functools.cache
def _known() -> frozenset[int]:
    """The characters of the font that pictures are drawn with."""
    fonts = require("matplotlib.font_manager", "evaluate")
    return frozenset(fonts.get_font(fonts.findfont(fonts.FontProperties())).get_charmap())
