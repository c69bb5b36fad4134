"""What a grammar lets through validates: schemas are closed, and what reads differently is narrowed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from random_schemas import SchemaMaker
from spelled import is_valid, letters, takes

from delegate_llm.errors import GrammarError
from delegate_llm.grammar import Grammar
from delegate_llm.schemas import closed

INT, STR, NUM, NULL = ({"type": each} for each in ("integer", "string", "number", "null"))
DRAFT7 = "http://json-schema.org/draft-07/schema#"


def obj(required: str = "", /, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties}
    return {**made, "required": required.split()} if required else made


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
        ({"type": "object", "patternProperties": {"^[a[]": STR}}, ['{"[": "x"}'], ['{"a": 1}', '{"b": 1}']),
        (
            {"type": "object", "patternProperties": {"^[a[]": STR}, "additionalProperties": True},
            ['{"[": "x", "b": 1}'],
            ['{"a": 1}'],
        ),
        # A name that is not of ASCII may fit to a validator only, and one with a line break at its end.
        ({"patternProperties": {r"^\w$": INT}}, ['{"a": 1}', "3"], ['{"é": "x"}', '{"é": 1}']),
        ({"patternProperties": {"^a$": INT}}, ['{"a": 1}'], ['{"a\\n": "x"}', '{"b": 1}']),
        ({"patternProperties": {"^a": INT}, "required": ["b"]}, ['{"b": 1, "ab": 2}'], ['{"b": 1, "a": []}']),
        # A name that is free may come twice, and is one property.
        ({"type": "object", "minProperties": 1}, ['{"a": 1}', '{"a": 1, "b": 2}'], ["{}"]),
        (
            {"type": "object", "required": ["a"], "minProperties": 2},
            ['{"a": 1, "b": 2}'],
            ['{"a": 1}', '{"a": 1, "a": 2}'],
        ),
        ({**obj(a=INT, b=INT), "minProperties": 1}, ['{"b": 1}'], ["{}"]),
        ({**obj(a=INT, b=INT), "maxProperties": 1}, ['{"b": 1}', "{}"], ['{"a": 1, "b": 1}']),
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
        ({"enum": ["\x01", "a"]}, r"the constant '\\x01' has a control character"),
        ({"type": "object", "minProperties": 2}, "minProperties: 2 .* may come twice"),
        ({**obj("a", a=INT), "additionalProperties": INT, "minProperties": 3}, "minProperties: 3"),
        ({"patternProperties": {r"^\W$": INT}}, r"patternProperties: validators do not agree .* \[a-z0-9\]"),
        ({"patternProperties": {r"^\d": INT, "^a": STR}}, "validators do not agree"),
        ({"patternProperties": {"(?i)^k": INT}, "additionalProperties": True}, "validators do not agree"),
        ({"patternProperties": {"^a$": INT}, "additionalProperties": STR}, "additionalProperties: false"),
        ({**obj(é=STR), "patternProperties": {r"^\w$": INT}}, "validators do not agree"),
        ({**obj(**{"a\n": STR}), "patternProperties": {"^a$": INT}}, "validators do not agree"),
        ({"propertyNames": {"pattern": r"^\W$"}}, "validators do not agree"),
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


def test_schemas_that_share_parts_are_read_in_no_time() -> None:
    shared: dict[str, Any] = {"d0": X}
    for at in range(1, 40):
        shared[f"d{at}"] = {"allOf": [{"$ref": f"#/$defs/d{at - 1}"}, {"$ref": f"#/$defs/d{at - 1}"}]}
    made = closed({"$ref": "#/$defs/d39", "$defs": shared})  # 2**39 steps would not end
    assert made["$ref"] == "#/$defs/d39"


def test_an_open_twin_does_not_take_a_name_that_is_taken() -> None:
    schema = {"allOf": [{"$ref": "#/$defs/open0"}, X], "$defs": {"open0": obj("y", y=INT)}}
    assert takes(schema, '{"y": 1, "x": 2}')
    assert not takes(schema, '{"y": 1, "z": 2}')
