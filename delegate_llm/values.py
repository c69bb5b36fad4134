"""What a JSON schema says of single values, as Python, ECMAScript and llguidance all understand it.

llguidance reads patterns as Rust does, bounds as decimals and large integers as floats; a validator in
Python does not. These functions narrow a schema to what both agree on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, Final

from delegate_llm.errors import GrammarError

__all__ = ("bound", "check_constants", "check_names", "is_number", "spell")

_DAY: Final = (
    r"(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8])"
)
_YEAR: Final = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_FOURTH: Final = "(?:0[48]|[2468][048]|[13579][26])"
_DATE: Final = f"(?:{_YEAR}-(?:{_DAY})|(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)-02-29)"
_TIME: Final = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# Parts of four digits, so that Python's `timedelta` holds them.
_Y, _M, _D, _H, _S = (f"[0-9]{{1,4}}{each}" for each in "YMDHS")
_DAYS: Final = f"(?:{_Y}(?:{_M}(?:{_D})?)?|{_M}(?:{_D})?|{_D})"
_HOURS: Final = f"T(?:{_H}(?:{_M}(?:{_S})?)?|{_M}(?:{_S})?|{_S})"
_POINTER: Final = "(?:/(?:[^~/]|~[01])*)*"
_ATOM: Final = (
    r"(?:[^\\\[\](){}*+?|^$]|\\[dDwWsS.\\/()\[\]{}*+?|^$-]|\[\^?(?:a-z|A-Z|0-9|[A-Za-z0-9_])+\])[*+?]?"
)
_FORMATS: Final = {
    # llguidance lets every year have a 29 February, and a minute 60 seconds: Python's types do not.
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P(?:{_DAYS}(?:{_HOURS})?|{_HOURS}|[0-9]{{1,4}}W)",
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,5}})(?:#|{_POINTER})",
    # Part of the language, but all of it valid everywhere: groups are not nested.
    "regex": rf"(?:[|^$]|{_ATOM}|\((?:{_ATOM}|\|)*\)[*+?]?)*",
    "idn-hostname": r"[a-z0-9]{1,63}(?:\.[a-z0-9]{1,63}){0,2}",
}
# What llguidance spells, by the names of formats that include it. Any other format is a note to the
# reader, as the JSON Schema standard has it.
_SPELLED: Final = {
    **{name: name for name in ("email", "hostname", "ipv4", "ipv6", "uuid", "uri")},
    "idn-email": "email",
    "iri": "uri",
    "uri-reference": "uri",
    "iri-reference": "uri",
}

_ESCAPE_OR_CLASS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_VAGUE: Final = re.compile(r"\\[wd]|\(\?[aiLmsux-]")
"""Letters, digits and cases, of which Python knows more than llguidance does."""
_UNSPELLED: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")
"""Characters that JSON writes with `\\u` only, which keeps a property from being spelled in two ways."""
_EXACT: Final = 1 << 53
"""Integers up to it are exact as the float that llguidance reads."""
_LARGEST: Final = 1 << 62
"""A bound that llguidance can count to."""
_DIGITS: Final = 15
"""Digits of a bound that llguidance spells exactly, and that a float tells apart."""
_STEP, _STEPPED = 1e-9, 10**6
"""Beside an exclusive bound a number has nine decimals at most: floats up to a million tell those apart."""
_SMALLEST: Final = Decimal("1e-15")
"""The least number above 0 that is asked for; a smaller one takes too many zeros."""


def spell(made: dict[str, Any]) -> None:
    """Have patterns in Rust's syntax; formats as a pattern, as llguidance names them, or not at all."""
    patterns: list[Any] = []
    if isinstance(made.get("pattern"), str):
        patterns = _translated(made.pop("pattern"))
    name = made.get("format")
    if isinstance(name, str):
        del made["format"]
        if name in _SPELLED:
            made["format"] = _SPELLED[name]
        elif name in _FORMATS:
            patterns += _translated(f"^(?:{_FORMATS[name]})$")
    if patterns:
        made["pattern"] = patterns.pop(0)
    if patterns:
        more = [{"pattern": each} for each in patterns]
        made["allOf"] = made.get("allOf", []) + more if isinstance(made.get("allOf", []), list) else more
    if isinstance(made.get("patternProperties"), Mapping):
        made["patternProperties"] = {
            _translated(pattern)[0]: each for pattern, each in made["patternProperties"].items()
        }


def _translated(pattern: str) -> list[str]:
    """A pattern that means to llguidance, in Rust's syntax, what it means to Python and ECMAScript.

    Where those two differ, on what is a letter or digit beyond ASCII, another pattern leaves ASCII alone.
    """
    found = _ESCAPE_OR_CLASS.findall(pattern)
    if re.search(r"[*+?}]\+", _ESCAPE_OR_CLASS.sub("x", pattern)):
        msg = f"grammar: the pattern {pattern!r:.80} has a possessive quantifier; leave its last `+` out"
        raise GrammarError(msg)
    beyond = any(re.search(r"\\[WD]" if each[:2] != "[^" else r"\\[wdWD]", each) for each in found)
    made = _ESCAPE_OR_CLASS.sub(lambda it: _class(it[0]) if it[0][0] == "[" else it[0], pattern)
    return [made, r"^[\x01-\x7f]*$"] if beyond else [made]


def _class(text: str) -> str:
    """A class of characters in Rust's syntax.

    There `[`, `&&` and `~~` make sets of sets. And without a NUL, which JSON cannot spell here anyway:
    llguidance lets quotes and backslashes into a class that has all control characters in it.
    """
    inner = re.sub(r"\\x00|\\u0000", r"\\x01", text[1:])
    inner = re.sub(
        r"\\.|[\[&~]", lambda it: it[0] if it[0][0] == "\\" else f"\\{it[0]}", inner, flags=re.DOTALL
    )
    return f"[{inner[:-1]}\\x00]" if inner[0] == "^" else f"[{inner}"


def bound(made: dict[str, Any]) -> None:
    """Have bounds that llguidance spells exactly, and that hold for the float that is read from the text.

    A validator does not see 0.99999999999999999999, which is below 1, but the 1.0 that Python reads.
    """
    kind = made.get("type")
    step = made.get("multipleOf", _STEP)
    stepped = (kind == "number" or (isinstance(kind, list) and "number" in kind)) and _is_stepped(step)
    for name, toward in (("minimum", 1), ("maximum", -1)):
        strict = f"exclusive{name.capitalize()}"
        if made.get(strict) is True and name in made:  # as draft 4 has it
            made[strict] = made.pop(name)
        given = {key: made.pop(key) for key in (strict, name) if is_number(made.get(key))}
        if not given:
            continue
        key = max(given, key=lambda each: given[each] * toward)
        if key == strict and stepped and abs(given[key]) <= _STEPPED and _is_stepped(given[key]):
            made.update({strict: given[key], "multipleOf": step})
        else:
            made[name] = _inner(given[key], toward, beyond=key == strict, whole=kind == "integer")


def _is_stepped(value: Any) -> bool:
    """Whether a number has no more decimals than numbers below a bound may have."""
    return is_number(value) and Decimal(repr(value)) % Decimal(repr(_STEP)) == 0


def _inner(bound: float, toward: int, *, beyond: bool, whole: bool) -> float:
    """The nearest bound, up if `toward` is 1, else down, that can be spelled; `beyond` leaves it out."""
    rounding = ROUND_CEILING if toward > 0 else ROUND_FLOOR
    if whole:
        exact = Decimal(bound) if isinstance(bound, int) else Decimal(repr(bound))
        near = int(exact.to_integral_value(rounding))
        if beyond and near == exact:
            near += toward
        near = max(near, -_LARGEST) if toward > 0 else min(near, _LARGEST)
        if abs(near) > _LARGEST or (near - int(float(near))) * toward <= 0:
            return near  # out of reach, or a float on the right side of it
        return int(math.nextafter(near, math.inf * toward))
    context = Context(prec=_DIGITS, rounding=rounding)
    exact = Decimal(repr(bound))
    made = context.create_decimal(exact)
    if beyond and made == exact:
        if not exact:
            made = _SMALLEST * toward
        else:
            made = context.next_plus(made) if toward > 0 else context.next_minus(made)
    return int(made) if made == made.to_integral_value() else float(made)


def check_names(made: Mapping[str, Any], *, least: int) -> None:
    """Refuse names of properties that llguidance does not tell apart as validators do.

    It says that two patterns have nothing in common, or that a name fits none, by its own reading of them.

    Args:
        made: A schema, its patterns spelled and closed as far as it can be.
        least: How many names it requires.
    """
    patterns, names = made.get("patternProperties"), made.get("properties")
    patterns = patterns if isinstance(patterns, Mapping) else {}
    is_open = made.get("additionalProperties") is not False
    names = names if isinstance(names, Mapping) else {}
    alone = len(patterns) == 1 and all(each.isascii() for each in names)
    for pattern in patterns:
        ends = "$" in _ESCAPE_OR_CLASS.sub("", pattern)  # for Python also before a last line break
        if (
            len(_translated(pattern)) > 1
            or (_VAGUE.search(pattern) and not (alone and not is_open))
            or (ends and (is_open or any(each.endswith("\n") for each in names)))
        ):
            msg = (
                f"grammar: patternProperties: validators do not agree on which names {pattern!r:.80} means; "
                "spell its letters and digits out, as in [a-z0-9], and say additionalProperties: false"
            )
            raise GrammarError(msg)
    count: Any = made.get("minProperties")
    if is_number(count) and count > least + 1 and (patterns or is_open):
        msg = (
            f"grammar: minProperties: {count} properties cannot be promised where names are free, for one "
            "may come twice; list the names as properties, or under required"
        )
        raise GrammarError(msg)


def check_constants(values: Iterable[Any]) -> None:
    """Refuse constants that llguidance would round, or that cannot be spelled."""
    for value in values:
        for each in _leaves(value):
            if isinstance(each, str) and _UNSPELLED.search(each):
                msg = f"grammar: the constant {each!r:.80} has a control character in it; leave that out"
                raise GrammarError(msg)
            if isinstance(each, int) and abs(each) > _EXACT:
                msg = (
                    f"grammar: the constant {each} is beyond 2**53, where not every integer can be told "
                    "apart; make it a string"
                )
                raise GrammarError(msg)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(each)
    else:
        yield value


def is_number(value: Any) -> bool:
    """Whether a value of a schema is a finite number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)
