"""Schemas at random: whatever a grammar lets through of one that it takes validates against it."""

from __future__ import annotations

import json
import random
from typing import Any

from jsonschema import Draft202012Validator
from random_schemas import NAMES, VALUES, KeywordMaker, SchemaMaker
from spelled import LETTERS, accepts, is_valid, letters

from delegate_llm.errors import GrammarError
from delegate_llm.grammar import Grammar


def test_what_is_let_through_validates() -> None:
    """Answers at random, and the same changed at random, letter by letter."""
    passed = kept = 0
    for seed in range(200):
        schema = SchemaMaker(seed).document()
        assert schema is True or Draft202012Validator.check_schema(schema) is None
        grammar, chance = Grammar.json(schema), random.Random(seed)
        try:
            letters().guide(grammar)
        except GrammarError:
            continue
        kept += 1
        text = walk(grammar, chance)
        if text is None:
            continue
        value = json.loads(text)
        assert is_valid(schema, value), (seed, text)
        for _ in range(6):
            changed = change(value, chance)
            text = json.dumps(changed, ensure_ascii=False)
            if set(text) <= set(LETTERS) and accepts(grammar, text):
                passed += 1
                assert is_valid(schema, changed), (seed, text)
    assert kept > 180
    assert passed > 150


def test_any_keywords_side_by_side_hold_or_are_refused() -> None:
    kept = refused = 0
    for seed in range(500):
        schema = KeywordMaker(seed).document()
        grammar, chance = Grammar.json(schema), random.Random(seed)
        try:
            letters().guide(grammar)
        except GrammarError:
            refused += 1
            continue
        kept += 1
        for text in filter(None, (walk(grammar, chance) for _ in range(3))):
            value = json.loads(text)
            assert is_valid(schema, value), (seed, text)
            for _ in range(4):
                changed = change(value, chance)
                text = json.dumps(changed, ensure_ascii=False)  # noqa: PLW2901 - nearly the same
                if set(text) <= set(LETTERS) and accepts(grammar, text):
                    assert is_valid(schema, changed), (seed, text)
    assert kept > 100
    assert refused > 100


def walk(grammar: Grammar, chance: random.Random) -> str | None:
    """An answer at random; None if it does not come to an end, or cannot."""
    guide, read, end = letters().guide(grammar), [], len(LETTERS)
    for _ in range(300):
        try:
            may = guide.allowed(read).nonzero()[0].tolist()
        except GrammarError:  # a schema that has to contain itself
            return None
        if may[-1] == end and (len(may) == 1 or chance.random() < 0.5):
            return "".join(LETTERS[each] for each in read)
        near = [each for each in may if each < end and LETTERS[each] in '"}],']
        read.append(
            chance.choice(near if near and chance.random() < 0.4 else may[: len(may) - (may[-1] == end)])
        )
    return None


def change(value: Any, chance: random.Random) -> Any:  # noqa: PLR0911 - one a kind
    """A value that is nearly the same."""
    roll = chance.random()
    if isinstance(value, dict) and value and roll < 0.6:
        at = chance.choice([*value])
        return {**value, at: change(value[at], chance)}
    if isinstance(value, list) and value and roll < 0.6:
        at = chance.randrange(len(value))
        return [*value[:at], change(value[at], chance), *value[at + 1 :]]
    if isinstance(value, dict) and roll < 0.9:
        if value and roll < 0.75:
            return {name: value[name] for name in [*value][1:]}
        return {**value, chance.choice((*NAMES, "b", "c", "y", "z")): chance.choice(VALUES)}
    if isinstance(value, list) and roll < 0.9:
        return value[1:] if roll < 0.7 else [*value, chance.choice([*value, *VALUES])]
    if isinstance(value, str) and roll < 0.6:
        return value + chance.choice("aé-")
    if isinstance(value, int | float) and not isinstance(value, bool) and roll < 0.6:
        return value + chance.choice([1, -1, 0.5, 100])
    return chance.choice(VALUES)


def test_the_random_schemas_have_everything_in_them() -> None:
    """The property above would hold for empty schemas."""
    found = {key for seed in range(200) for key in keywords(SchemaMaker(seed).document())}
    wanted = (
        "type enum const properties required additionalProperties minProperties items prefixItems "
        "minItems maxItems minLength maxLength pattern format minimum maximum exclusiveMinimum "
        "exclusiveMaximum multipleOf anyOf oneOf allOf $ref $defs"
    )
    assert found >= set(wanted.split())


def keywords(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        return {*schema, *(key for each in schema.values() for key in keywords(each))}
    return {key for each in schema for key in keywords(each)} if isinstance(schema, list) else set()
