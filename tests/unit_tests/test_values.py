"""What a schema says of strings and numbers, as Python, ECMAScript and llguidance all take it."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spelled import accepts, is_valid, takes

from delegate_llm.grammar import Grammar

INT, STR, NUM = ({"type": each} for each in ("integer", "string", "number"))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
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
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict | bool) else "",
)
def test_what_a_schema_lets_through(schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert takes(schema, text), text
        assert is_valid(schema, json.loads(text)), text
    assert [text for text in bad if takes(schema, text)] == []


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
