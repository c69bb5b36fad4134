"""What a grammar lets through validates: schemas are closed, and what reads differently is narrowed."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators
from random_schemas import NAMES, VALUES, SchemaMaker
from spelled import LETTERS, accepts, letters

from delegate_llm.errors import GrammarError
from delegate_llm.grammar import Grammar
from delegate_llm.schemas import closed

INT, STR, NUM, NULL = ({"type": each} for each in ("integer", "string", "number", "null"))
DRAFT7 = "http://json-schema.org/draft-07/schema#"


def obj(required: str = "", /, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties}
    return {**made, "required": required.split()} if required else made


def takes(schema: Any, text: str) -> bool:
    return accepts(Grammar.json(schema), text)


def is_valid(schema: Any, value: Any) -> bool:
    kind = validators.validator_for(schema, default=Draft202012Validator)
    return bool(kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid(value))


CAT, DOG = obj("kind", kind={"const": "cat"}, lives=INT), obj("kind", kind={"const": "dog"})
X, TREE = obj(x=INT), obj("v", v=INT, below={"type": "array", "items": {"$ref": "#/$defs/tree"}})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        # Objects hold what they name.
        (obj(a=INT), ["{}", '{"a": 1}'], ['{"b": 1}', '{"a": "x"}', '{"a":1}', '{ "a": 1}', '{"a": 1} ']),
        (obj("a", a=INT, b=STR), ['{"a": 1}', '{"a": 1, "b": "x"}'], ["{}", '{"b": "x"}']),
        ({**obj(a=INT), "required": ["b"]}, ['{"a": 1, "b": [2]}'], ['{"a": 1}']),
        ({**obj(a=INT), "additionalProperties": True}, ['{"a": 1, "b": 2}'], ['{"a": "x"}']),
        ({**obj(a=INT), "additionalProperties": STR}, ['{"b": "x"}'], ['{"b": 1}', '{"a": "x"}']),
        ({"type": "object"}, ["{}", '{"a": {"b": null}}'], ["[]"]),
        ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
        ({**obj(a=INT), "patternProperties": {"^b": STR}}, ['{"a": 1, "bc": "x"}'], ['{"bc": 1}']),
        ({"type": "object", "patternProperties": {"^[a[]": STR}}, ['{"[": "x"}', '{"b": 1}'], ['{"a": 1}']),
        ({**obj("a", a=INT, b=INT), "minProperties": 1, "maxProperties": 2}, ['{"a": 1}'], ["{}"]),
        ({**obj("a", a=INT), "unevaluatedProperties": False}, ['{"a": 1}'], ['{"a": 1, "b": 1}']),
        ({**obj(a=INT), "minProperties": 2, "required": ["a"]}, ['{"a": 1, "b": 1}'], ['{"a": 1}']),
        (
            {"type": "object", "properties": {'a"b': INT, "größe": INT, "a b": INT, "\n": INT, "a/b": INT}},
            ['{"a\\"b": 1, "größe": 2, "a b": 3, "\\n": 4, "a/b": 5}'],
            ['{"größe": "x"}'],
        ),
        (
            {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INT},
            ["{}", '{"a": 1, "b": 2}'],
            ['{"c": 1}', '{"a": "x"}'],
        ),
        (
            {"propertyNames": {"$ref": "#/$defs/k"}, "required": ["a"], "$defs": {"k": {"enum": ["a", "b"]}}},
            ['{"a": 1, "b": []}'],
            ['{"b": 1}', '{"a": 1, "c": 1}'],
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^a"}, "additionalProperties": INT},
            ["{}", '{"a": 1, "ab": 2}'],
            ['{"b": 1}', '{"a": "x"}'],
        ),
        # A name is spelled in one way only.
        (
            {**obj(a=INT), "additionalProperties": STR},
            ['{"A": "x"}'],
            [r'{"\u0061": "x"}', r'{"a": 1, "\u0061": "x"}'],
        ),
        # Objects made up of several schemas.
        ({"allOf": [X, obj("y", y=INT)]}, ['{"x": 1, "y": 2}', '{"y": 2}'], ['{"x": 1}', '{"y": 2, "z": 3}']),
        (
            {"allOf": [{"$ref": "#/$defs/x"}, obj("y", y=INT)], "$defs": {"x": X}},
            ['{"x": 1, "y": 2}'],
            ['{"y": 2, "z": 3}', '{"x": "", "y": 1}'],
        ),
        (
            {"$ref": "#/$defs/x", "required": ["x"], "$defs": {"x": X}},
            ['{"x": 1}'],
            ["{}", '{"x": 1, "z": 3}'],
        ),
        (
            {"$ref": "#/$defs/x", **obj("y", y=STR), "$defs": {"x": X}},
            ['{"y": "a"}', '{"x": 1, "y": "a"}'],
            ['{"x": 1}', '{"y": 1}', '{"y": "a", "z": 3}'],
        ),
        ({"$ref": "#/$defs/x", "description": "the x", "$defs": {"x": X}}, ['{"x": 1}', "{}"], ['{"z": 3}']),
        (
            {**obj(a=INT, b=INT), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 1}'],
            ["{}", '{"c": 1}', '{"a": 1, "c": 1}'],
        ),
        (
            {**obj("a", a=INT), "anyOf": [obj("b", b=STR), obj("c", c=STR)]},
            ['{"a": 1, "b": "x"}', '{"a": 1, "c": "x"}'],
            ['{"a": 1}', '{"b": "x"}', '{"a": 1, "d": 1}'],
        ),
        (
            {**obj("a", a=INT), "anyOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": X}},
            ['{"a": 1}', '{"a": 1, "x": 2}'],
            ['{"a": 1, "z": 2}', '{"x": 2}'],
        ),
        (
            {**obj(a=INT), "anyOf": [obj(b=INT)], "oneOf": [obj("c", c=INT)]},
            ['{"a": 1, "b": 1, "c": 1}'],
            ['{"a": 1, "b": 1}'],
        ),
        (
            {**obj(a=INT), "additionalProperties": STR, "anyOf": [obj("b", b=STR)]},
            ['{"a": 1, "b": "x", "z": "y"}'],
            ['{"b": "x", "z": 1}'],
        ),
        (
            {"$ref": "#/$defs/x", "anyOf": [obj("y", y=INT), {"required": ["x"]}], "$defs": {"x": X}},
            ['{"x": 1}', '{"y": 1}', '{"x": 1, "y": 2}'],
            ["{}", '{"x": 1, "z": 2}'],
        ),
        # Recursion, and references of all spellings.
        (
            {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
            ['{"v": 1, "below": [{"v": 2}]}'],
            ['{"v": 1, "below": [{}]}'],
        ),
        (
            obj(c={"type": "array", "items": {"$ref": "#"}}),
            ['{"c": [{"c": []}, {}]}'],
            ['{"c": [{"d": []}]}', '{"c": [1]}'],
        ),
        (
            {
                "anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/c~0d"}, {"$ref": "#/$defs/e%20f"}],
                "$defs": {"a/b": INT, "c~d": STR, "e f": NULL},
            },
            ["1", '"x"', "null"],
            ["1.5", "[]"],
        ),
        (
            {"allOf": [{"$ref": "#/definitions/a/anyOf/0"}], "definitions": {"a": {"anyOf": [X]}}},
            ['{"x": 1}'],
            ['{"x": ""}', '{"y": 1}'],
        ),
        (
            {"$schema": DRAFT7, "type": "array", "items": [INT, STR], "additionalItems": False},
            ['[1, "a"]', "[1]"],
            ['["a"]', '[1, "a", 1]'],
        ),
        # One of several that have nothing in common.
        (
            {"oneOf": [CAT, DOG]},
            ['{"kind": "cat", "lives": 9}', '{"kind": "dog"}'],
            ['{"kind": "dog", "lives": 9}'],
        ),
        (
            {"oneOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/d"}], "$defs": {"c": CAT, "d": DOG}},
            ['{"kind": "cat"}'],
            ['{"kind": "cow"}'],
        ),
        (
            {"oneOf": [INT, STR, NULL, {"type": "array", "items": STR}, X]},
            ["1", '"x"', "null", "[]", "{}"],
            ["1.5", "[1]"],
        ),
        (
            {"oneOf": [{"enum": ["a", 1]}, {"enum": ["b", 2.5]}, {"const": True}]},
            ['"a"', "1", "2.5", "true"],
            ['"c"', "2"],
        ),
        (
            {"oneOf": [{"anyOf": [INT, STR]}, {"anyOf": [NULL, X]}]},
            ["1", '"a"', "null", '{"x": 1}'],
            ['{"y": 1}'],
        ),
        (
            {**obj(a=INT, b=INT), "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            ['{"a": 1}', '{"b": 1}'],
            ["{}", '{"a": 1, "b": 1}'],
        ),
        ({"oneOf": [obj("x", x=INT), obj("y", y=INT)]}, ['{"x": 1}', '{"y": 1}'], ['{"x": 1, "y": 1}']),
        ({"oneOf": [True, False]}, ["1"], []),
        # Numbers.
        ({**INT, "minimum": 1.5, "maximum": 3.5}, ["2", "3"], ["1", "4"]),
        ({**INT, "exclusiveMinimum": 1, "exclusiveMaximum": 3}, ["2"], ["1", "3"]),
        ({"type": ["integer", "null"], "exclusiveMinimum": 0}, ["1", "null"], ["0", "-1"]),
        (
            {**NUM, "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            ["0.5", "0.001"],
            ["0", "1", "0.0", "1.0", f"0.{'9' * 25}"],
        ),
        ({**NUM, "maximum": 0.9999999999999999}, ["0.8", "0.90", "-3"], ["1", "1.0"]),
        ({**NUM, "multipleOf": 0.5, "minimum": -1, "maximum": 1}, ["0.5", "-1", "1"], ["0.25", "1.5"]),
        ({**INT, "minimum": 2**53 + 1}, [str(2**53 + 2)], [str(2**53)]),
        ({**INT, "exclusiveMaximum": -(2**53)}, [str(-(2**53) - 2)], [str(-(2**53))]),
        ({**INT, "minimum": -(2**63), "maximum": 2**63 - 1}, ["0", "-1", str(2**61)], [str(2**63)]),
        (
            {
                "$schema": "http://json-schema.org/draft-04/schema#",
                **INT,
                "minimum": 3,
                "exclusiveMinimum": True,
            },
            ["4"],
            ["3"],
        ),
        (
            {"enum": [1, 2.5, True, None, "é\n", [1, {"a": "b"}], {}]},
            ["1", "2.5", "true", "null", '"é\\n"', '[1, {"a": "b"}]', "{}"],
            ["false", "0", '"é"'],
        ),
        # Strings.
        (
            {**STR, "minLength": 1, "maxLength": 2},
            ['"a"', '"éß"', '"\\n\\""', '"😀😀"'],
            ['""', '"abc"', '"ééé"'],
        ),
        ({**STR, "pattern": "ab", "maxLength": 4}, ['"ab"', '"xaby"'], ['"ax"', '"xxaby"']),
        ({**STR, "format": "date", "pattern": "-31$"}, ['"2024-01-31"'], ['"2024-01-30"', '"2024-02-31"']),
        ({**STR, "format": "binary"}, ['"x"', '""'], ["1"]),
        (
            {**STR, "format": "regex"},
            ['"^a+[a-z](b|c)*$"', r'"\\d"', '""'],
            ['"("', '"["', '"*"', '"a**"', r'"\\"'],
        ),
        ({**STR, "format": "json-pointer"}, ['""', '"/a~1b/0"'], ['"a"', '"/~"']),
        (
            {**STR, "format": "duration"},
            ['"P1Y2M3DT4H5M6S"', '"PT36H"', '"P2W"'],
            ['"P"', '"PT"', '"P1Y1D"', '"P12345D"'],
        ),
        ({**STR, "format": "iri"}, ['"http://a.b/c"'], ['"a b"']),
        # Anything, and next to nothing.
        (True, ["1", '{"a": [null]}'], ["", '{"a":1}']),
        ({}, ["1", '"x"', "[]"], ["x"]),
        ({"minItems": 2}, ["[1, 2]", "3", "{}"], ["[1]"]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict | bool) else "",
)
def test_what_a_schema_lets_through(schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert takes(schema, text), text
        assert is_valid(schema, json.loads(text)), text
    assert [text for text in bad if takes(schema, text)] == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"not": INT}, "not"),
        ({"if": INT, "then": {"minimum": 3}}, "Unimplemented"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": INT}, "contains"),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, "propertyNames"),
        ({"type": "object", "propertyNames": {"enum": ["a", "bb"], "maxLength": 1}}, "propertyNames"),
        ({**obj(a=INT, b=INT), "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({**obj(a=INT, b=INT), "unevaluatedProperties": False, "anyOf": [X]}, "unevaluatedProperties"),
        ({**obj(a=INT), "required": ["b"], "additionalProperties": False}, "'b' is unsatisfiable"),
        ({**INT, "minimum": 5, "maximum": 4}, "greater than maximum"),
        ({**INT, "multipleOf": 3, "minimum": 4, "maximum": 5}, "multiple of 3"),
        ({**STR, "pattern": "^a$", "minLength": 2}, "empty"),
        ({**STR, "pattern": "["}, "unclosed character class"),
        ({**STR, "pattern": r"\bfoo"}, "lookarounds"),
        ({**STR, "pattern": "(?=a)b"}, "look-around"),
        ({**STR, "pattern": "^a++b$"}, "possessive"),
        ({"type": "integral"}, "integral"),
        ({"type": "object", "properties": [1]}, "properties must be an object"),
        ({**INT, "minimum": "3"}, "minimum"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"$ref": "https://example.com/other.json"}, "example.com"),
        ({"enum": []}, "empty"),
        (False, "false"),
        ({"const": 2**53 + 1}, "9007199254740993 is beyond 2\\*\\*53"),
        ({"enum": [{"id": [10**20]}]}, "make it a string"),
        ({**NUM, "minimum": 1e300}, "range"),
        ({**INT, "minimum": 10**400}, "out of range"),
        ({"oneOf": [INT, NUM]}, "branches 0 and 1 of a oneOf may both hold"),
        ({"oneOf": [NULL, {"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, "branches 1 and 2"),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, "say anyOf"),
        ({"oneOf": [{"type": "array", "items": INT}, {"type": "array", "items": STR}]}, "may both hold"),
        ({"oneOf": [X, obj(y=INT)]}, "may both hold"),
        ({"oneOf": [X, obj("x y", x=INT, y=INT)]}, "may both hold"),
        (obj(a={"oneOf": [{**STR, "format": "date"}, STR]}), "may both hold"),
        (
            {"oneOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"oneOf": [{"$ref": "#/$defs/a"}, INT]}}},
            "may both",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict | bool) else "",
)
def test_what_cannot_be_followed_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(GrammarError, match=said):
        letters().guide(Grammar.json(schema))


def test_a_document_is_left_as_it_was() -> None:
    for seed in range(40):
        schema = SchemaMaker(seed).document()
        before = copy.deepcopy(schema)
        try:
            made = closed(schema)
        except GrammarError:
            continue
        assert schema == before
        json.dumps(made)


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (3, 3),
        (INT, INT),
        (X, {**X, "additionalProperties": False}),
        ({"type": "object"}, {"type": "object"}),
        ({**X, "additionalProperties": True}, {**X, "additionalProperties": True}),
        ({"anyOf": [X, NULL]}, {"anyOf": [{**X, "additionalProperties": False}, NULL]}),
        ({"const": {"properties": {}}, "default": X}, {"const": {"properties": {}}, "default": X}),
        ({"$ref": "https://example.com", **X}, {"$ref": "https://example.com", **X}),
        (obj("z", x=INT), obj("z", x=INT)),
        ({"allOf": [X, {"patternProperties": {}}]}, {"allOf": [X, {"patternProperties": {}}]}),
    ],
)
def test_closed(schema: Any, wanted: Any) -> None:
    assert closed(schema) == wanted


def test_an_open_twin_does_not_take_a_name_that_is_taken() -> None:
    schema = {"allOf": [{"$ref": "#/$defs/open0"}, X], "$defs": {"open0": obj("y", y=INT)}}
    assert takes(schema, '{"y": 1, "x": 2}')
    assert not takes(schema, '{"y": 1, "z": 2}')


def test_days_are_those_of_the_calendar() -> None:
    grammar = Grammar.json({"type": "string", "format": "date"})
    chance = random.Random(0)
    years = [0, 1, 4, 100, 400, 1900, 2000, 2023, 2024, 9999, *(chance.randrange(10000) for _ in range(20))]
    for year in years:
        for month, day in (
            (2, 28),
            (2, 29),
            (2, 30),
            (4, 30),
            (4, 31),
            (12, 31),
            (12, 32),
            (0, 1),
            (13, 1),
            (1, 0),
        ):
            text = f"{year:04}-{month:02}-{day:02}"
            try:
                dt.date.fromisoformat(text)
                wanted = True
            except ValueError:
                wanted = False
            assert accepts(grammar, f'"{text}"') is wanted, text


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2024-02-29T23:59:59Z", True),
        ("2024-02-29T00:00:00.123456+23:59", True),
        ("2023-02-29T00:00:00Z", False),
        ("2024-02-29T24:00:00Z", False),
        ("2024-02-29T23:59:60Z", False),
        ("2024-02-29T23:59:59", False),
        ("2024-02-29T23:59:59+24:00", False),
    ],
)
def test_moments_are_those_that_python_reads(text: str, *, good: bool) -> None:
    assert takes({"type": "string", "format": "date-time"}, f'"{text}"') is good
    if good:
        dt.datetime.fromisoformat(text)


PATTERNS = r"""
^\W$ ^\D$ ^\S$ ^\s$ ^[^\w]$ ^[^\d]$ ^[^\s]$ ^[\W_]$ ^[\w-]+$ ^[\d\-]$ ^\/$ ^\-$ ^\+$ ^a\++$ ^\u00e9$ ^\x61$
^.$ ^[^a]$ ^[[:alpha:]]$ ^[a&&b]$ ^[a~~b]$ ^[]a]$ ^[^]a]$ ^[a[b]]$ ^[+]+$ ^[^\\]$ ^[^"]$ ^[^"\\]*$
^[\x00-\x5b]$ ^\\$ (?i)^k$ (?i)^s$ ^(?:a|)$ ^a|b$ ^(a|b)$ ^$ a b$ ^[\u0000-!]$ ^[\\/]$
"""
TEXTS = [
    "",
    *"ab_-+ k:l/&[]~éßſı٣µ\u00a0\u2028\nKA",
    "a]",
    "ab",
    "xa",
    "bx",
    "b]",
    "++",
    "a+",
    "a++",
    "ll",
    "&&",
]


@pytest.mark.parametrize("pattern", PATTERNS.split())
@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
def test_a_pattern_lets_nothing_through_that_python_would_not(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    passed = [text for text in TEXTS if takes(schema, json.dumps(text, ensure_ascii=False))]
    assert [text for text in passed if not re.search(pattern, text)] == []
    plain = [text for text in TEXTS if text.isascii() and re.search(pattern, text) and "\n" not in text]
    assert [text for text in plain if text not in passed] == []


@given(
    st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, -1.0, 0.1, 99.99, 0.9999999999999999, 1e-5]),
    st.integers(-3, 3),
    st.integers(0, 25),
)
def test_a_bound_holds_for_the_float_that_is_read(key: str, bound: float, steps: int, digits: int) -> None:
    bound = 0.0 if abs(bound) < 1e-9 else bound
    near = bound
    for _ in range(abs(steps)):
        near = math.nextafter(near, math.copysign(math.inf, steps))
    text = f"{near:.{digits}f}"
    if takes({"type": "number", key: bound}, text):
        assert is_valid({"type": "number", key: bound}, json.loads(text))


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
