"""Grammars over vocabularies on paper: for the tests' own tokenizer, and for texts letter by letter."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from jsonschema import Draft202012Validator, validators
from models import EOS, SIZE, WORDS

from delegate_llm import Pair
from delegate_llm.grammar import Grammar, Grammars, Guide
from delegate_llm.pairs.scripted import Script, _lexicon, scripted_pair

LETTERS = [*map(chr, range(32, 127)), *"\n\téßıſ٣µüïö名前😀\u00a0\u2028"]
"""Text a letter a token, as far as the tests go."""


def grammars_of(pieces: Sequence[str], eos: int) -> Grammars:
    return Grammars(lambda: _lexicon(pieces, eos), len(pieces))


def spelling(pair: Pair) -> Pair:
    """A pair of `models.random_model`, whose tokenizer llguidance cannot read, that follows grammars."""
    pair.vocabulary = replace(pair.vocabulary, grammars=grammars_of([*WORDS, EOS], SIZE - 1))
    return pair


@functools.cache
def letters() -> Grammars:
    return grammars_of([*LETTERS, EOS], len(LETTERS))


def accepts(grammar: Grammar, text: str, *, thinking: bool = False) -> bool:
    """Whether an answer may be this text, letter by letter."""
    guide = letters().guide(grammar, thinking=thinking)
    return follows(guide, map(LETTERS.index, text), end=len(LETTERS))


def takes(schema: Any, text: str) -> bool:
    """Whether an answer in the form of a schema may be this text."""
    return accepts(Grammar.json(schema), text)


def is_valid(schema: Any, value: Any) -> bool:
    """Whether a value validates against a schema, its formats included."""
    kind = validators.validator_for(schema, default=Draft202012Validator)
    return bool(kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid(value))


def follows(guide: Guide, ids: Iterable[int], *, end: int) -> bool:
    """Whether an answer may be these tokens and then end."""
    read: list[int] = []
    for each in [*ids, end]:
        if not guide.allowed(read)[each]:
            return False
        read.append(each)
    return True


def alphabet(*more: str) -> tuple[list[str], int]:
    """Pieces that overlap in many ways, and the id that ends an answer."""
    pieces = ["a", "b", "ab", "", "ba", "a", *' "{}[]:,x01', '": ', ', "', *more]
    return [*pieces, EOS], len(pieces)


def insists(piece: int, count: int, sure: float = 20.0) -> Script:
    """A script that wants one token whatever came before."""
    return lambda seen: [
        sure if each == piece else 0.1 * ((each * 7 + len(seen)) % 5) for each in range(count)
    ]


def stubborn(base: str, reasoner: str, pieces: Sequence[str], end: int) -> Pair:
    size = len(pieces)
    scripts = [insists(pieces.index(each), size) for each in (base, reasoner)]
    return scripted_pair(*scripts, pieces, eos=end)
