"""What kind of word a token belongs to, and whether it opens a sentence.

Tokens are pieces of words, and byte-level ones may be torn within a character. So words are found in the
text that the tokens' own strings make together, and a token is of the word in which its first visible
character lies. What counts as which word is data: `data/lexicon.json`, or a file of one's own.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from pydantic import Field, field_validator

from delegate_llm._settings import Settings
from delegate_llm.errors import PolicyError, RequestError

__all__ = ("KINDS", "Kind", "Lexicon", "Place", "WordList", "read_lexicon", "token_places")

Kind = Literal["planning", "execution", "other"]
"""`planning`: a word that chooses what to do. `execution`: a number or a sign that carries it out."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_MARKUP: Final = re.compile(r"<[^<>\s]{1,64}>")
"""Control tokens and tags: no words, whatever stands in them."""
_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")


class WordList(Settings):
    """Words of one kind."""

    words: tuple[str, ...] = ()
    """Words and phrases, matched whole and whatever the case."""
    patterns: tuple[str, ...] = ()
    """Regular expressions, whatever the case; the first group counts, or all where there is none."""

    @field_validator("words")
    @classmethod
    def _some_text(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(each.strip() for each in words):
            msg = "one is empty"
            raise ValueError(msg)
        return words

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for each in patterns:
            _check_pattern(each)
        return patterns


class Lexicon(Settings):
    """What makes a token plan, carry out, or open a sentence. JSON in and out."""

    version: Literal[1] = 1
    """Format of the file."""
    description: str = ""
    planning: WordList
    execution: WordList
    """Where both match, it plans."""
    sentence_end: str = Field(min_length=1)
    """A regular expression: what ends a sentence, white space behind it included."""
    opening: int = Field(default=2, ge=0)
    """How many words at the start of a sentence open it."""

    def digest(self) -> str:
        """A name for just these words and rules."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @field_validator("sentence_end")
    @classmethod
    def _compile(cls, pattern: str) -> str:
        _check_pattern(pattern)
        return pattern


class Place(NamedTuple):
    """Where a token stands."""

    kind: Kind
    opening: bool
    """Whether it belongs to one of the words that open a sentence."""
    sentence: int
    """Which sentence of the answer, from 0 on."""


def read_lexicon(file: str | Path | None = None) -> Lexicon:
    """A lexicon from a file, or the one that ships.

    Raises:
        RequestError: If the file cannot be read, or is no lexicon.
    """
    path = files("delegate_llm.evaluation") / "data" / "lexicon.json" if file is None else Path(file)
    try:
        return Lexicon.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"lexicon: cannot read {str(file)!r}: {error.strerror or error}"
        raise RequestError(msg) from error
    except (PolicyError, UnicodeDecodeError) as error:
        msg = f"lexicon: {str(file)!r} is none: {error}; take the shipped lexicon.json as a model"
        raise RequestError(msg) from None


def token_places(tokens: Sequence[str], lexicon: Lexicon) -> list[Place]:
    """Where each token of an answer stands.

    Args:
        tokens: Their strings, in order, as a trace has them.
        lexicon: What counts as what.

    Returns:
        One place a token. White space alone is `other`, and belongs to the sentence before it.
    """
    text, rules = "".join(tokens), _rules(lexicon)
    kinds: list[Kind] = ["other"] * len(text)
    for kind, patterns in rules.kinds.items():
        for start, end in _spans(patterns, text):
            kinds[start:end] = [kind] * (end - start)
    for found in _MARKUP.finditer(text):
        kinds[found.start() : found.end()] = ["other"] * len(found[0])
    ends = [each.end() for each in rules.end.finditer(text)]
    opening = _opening(text, ends, lexicon.opening)
    starts = itertools.accumulate((len(each) for each in tokens), initial=0)
    places = []
    for token, start in zip(tokens, starts, strict=False):
        at = start + len(token) - len(token.lstrip())
        seen = at < start + len(token)
        places.append(
            Place(kinds[at], opening[at], bisect_right(ends, at))
            if seen
            else Place("other", opening=False, sentence=bisect_right(ends, max(0, start - 1)))
        )
    return places


class _Rules(NamedTuple):
    """A lexicon, compiled."""

    kinds: dict[Kind, tuple[re.Pattern[str], ...]]
    """Later ones prevail."""
    end: re.Pattern[str]


@functools.lru_cache(maxsize=8)
def _rules(lexicon: Lexicon) -> _Rules:
    kinds: dict[Kind, tuple[re.Pattern[str], ...]] = {}
    listed: WordList
    kind: Kind
    for kind, listed in (("execution", lexicon.execution), ("planning", lexicon.planning)):
        patterns = [re.compile(each, re.IGNORECASE) for each in listed.patterns]
        if listed.words:
            patterns.append(_phrases(listed.words))
        kinds[kind] = tuple(patterns)
    return _Rules(kinds, re.compile(lexicon.sentence_end))


def _phrases(words: Iterable[str]) -> re.Pattern[str]:
    """Whole words and phrases, the longest first."""
    longest = sorted(words, key=len, reverse=True)
    spelled = (r"\s+".join(map(re.escape, each.split())) for each in longest)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spelled)})(?!\w)", re.IGNORECASE)


def _spans(patterns: Iterable[re.Pattern[str]], text: str) -> Iterable[tuple[int, int]]:
    for pattern in patterns:
        for found in pattern.finditer(text):
            span = found.span(1 if pattern.groups else 0)
            if span[0] >= 0:  # a group may have taken no part
                yield span


def _opening(text: str, ends: Sequence[int], count: int) -> list[bool]:
    """For each character, whether it lies in one of the first words of its sentence."""
    marked = [False] * len(text)
    seen: dict[int, int] = {}
    # Blanked out, markup keeps its length and has no words.
    for word in _WORD.finditer(_MARKUP.sub(lambda found: " " * len(found[0]), text)):
        sentence = bisect_right(ends, word.start())
        seen[sentence] = seen.get(sentence, 0) + 1
        if seen[sentence] <= count:
            marked[word.start() : word.end()] = [True] * len(word[0])
    return marked


def _check_pattern(pattern: Any) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        msg = f"{pattern!r:.80} is no regular expression: {error}"
        raise ValueError(msg) from None
