"""JSON schemas made ready for a grammar: what validates against the result validates against the schema.

llguidance takes most of JSON Schema. Here stands what it would take in another sense than a validator, or
more loosely than the writer of a tool or a data class means it: objects are closed, also where several
schemas make up one; formats and bounds are those that Python's own types hold; branches of a `oneOf` are
shown to have nothing in common.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from delegate_llm.errors import GrammarError
from delegate_llm.values import bound, check_constants, check_names, is_number, spell

__all__ = ("closed",)

_ONE: Final = ("items", "additionalProperties", "additionalItems")
_MANY: Final = ("prefixItems", "items")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
_BRANCHES: Final = ("anyOf", "oneOf")
# These say by themselves which further properties there may be.
_OPEN: Final = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames"}
)
# A `$ref` or branches with one of these beside them make up an object together with it.
_JOINED: Final = frozenset({"properties", "required", "allOf", "minProperties", "maxProperties"})
# All that is said of a property's name where the names are listed.
_LISTING: Final = frozenset({"enum", "const", "type", "title", "description", "$ref"})
_TYPES: Final = frozenset({"object", "array", "string", "number", "boolean", "null"})


def closed(schema: Any) -> Any:
    """The schema with objects that hold what they name and nothing else.

    JSON Schema lets an object have any further properties, which is not what the writer of a tool or a
    data class means, and to a model an invitation to go on. What validates against the result validates
    against `schema`; `multipleOf` is taken as the standard has it, in decimals: 0.07 is a multiple of 0.01,
    though a validator that divides floats does not find it so.

    Args:
        schema: A JSON schema; it is not changed.

    Returns:
        A copy in which every object that lists its properties or gives patterns of their names, and lists
        all that it requires, has `additionalProperties: false`, unless the schema says otherwise. Where
        `allOf`, `$ref` or branches add to what is listed beside them, the object is what they list together.

    Raises:
        GrammarError: If branches of a `oneOf` may overlap, a constant cannot be written, or names of
            properties cannot be told apart as validators do.
    """
    return _Closer(schema).schema() if isinstance(schema, Mapping) else schema


class _Schemas:
    """Looks at the schemas of one document."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self._types: dict[int, frozenset[str]] = {}

    def target(self, ref: Any) -> Any:
        """What a `$ref` within the document points to; None if that is nothing, or elsewhere."""
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            return None
        at = self.root
        for step in ref.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(at, list) and name.isdecimal() and int(name) < len(at):
                at = at[int(name)]
            elif isinstance(at, Mapping) and name in at:
                at = at[name]
            else:
                return None
        return at

    def parts(self, schema: Any) -> list[Any]:
        """The schemas that hold together: those referred to and those of `allOf` first, then itself.

        An unknown one is None.
        """
        return list(self._parts(schema, set()))

    def _parts(self, schema: Any, seen: set[str]) -> Iterator[Any]:
        if isinstance(schema, Mapping):
            ref = schema.get("$ref")
            if ref is not None and str(ref) not in seen:
                seen.add(str(ref))
                yield from self._parts(self.target(ref), seen)
            for each in _listed(schema.get("allOf")):
                yield from self._parts(each, seen)
        yield schema

    def lists(self, schema: Any) -> dict[str, list[Any]]:
        """The properties that a schema names, with all that it says of each."""
        named: dict[str, list[Any]] = {}
        for part in self._mappings(schema):
            for name, value in _mapping(part.get("properties")).items():
                named.setdefault(name, []).append(value)
        return named

    def required(self, schema: Any) -> list[str]:
        """The properties that a schema requires."""
        return [name for part in self._mappings(schema) for name in _listed(part.get("required"))]

    def types(self, schema: Any) -> frozenset[str]:
        """The types that a value may have; an integer is a number."""
        if id(schema) not in self._types:
            self._types[id(schema)] = _TYPES  # where it refers to itself
            self._types[id(schema)] = self._types_of(schema)
        return self._types[id(schema)]

    def _types_of(self, schema: Any) -> frozenset[str]:
        allowed = _TYPES
        for part in self.parts(schema):
            if part is False:
                return frozenset()
            if not isinstance(part, Mapping):
                continue
            if "type" in part:
                given = part["type"]
                names = [given] if isinstance(given, str) else _listed(given)
                allowed &= {"number" if each == "integer" else each for each in names}
            if (values := _values(part)) is not None:
                allowed &= {_type_of(each) for each in values}
            for key in _BRANCHES:
                if key in part:
                    allowed &= frozenset().union(*map(self.types, _listed(part[key])))
        return allowed

    def only(self, schema: Any) -> set[str] | None:
        """The names that an object may have; None if it may have any."""
        names: set[str] | None = None
        for part in self._mappings(schema):
            if part.get("additionalProperties") is False and not part.get("patternProperties"):
                mine = set(_mapping(part.get("properties")))
                names = mine if names is None else names & mine
        return names

    def branches(self, schema: Any) -> list[list[Any]]:
        """What a value has to be one of, by each `anyOf` and `oneOf`."""
        return [_listed(part[key]) for part in self._mappings(schema) for key in _BRANCHES if key in part]

    def _mappings(self, schema: Any) -> Iterator[Mapping[str, Any]]:
        return (part for part in self.parts(schema) if isinstance(part, Mapping))


class _Closer:
    """Closes the objects of one document."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._old = _Schemas(root)
        self._twins: dict[str, str] = {}
        self._todo: list[str] = []
        self._choices: list[tuple[list[Any], list[Any]]] = []

    def schema(self) -> Any:
        """The document, closed."""
        made = self._close(self._old.root)
        kept = _mapping(made.get("$defs"))
        for ref in self._todo:  # grows while it is gone through
            kept[self._twins[ref]] = self._close(self._old.target(ref), shut=False)
        if self._todo:
            made["$defs"] = kept
        new = _Schemas(made)
        for mine, asked in self._choices:
            self._part(mine, asked, new)
        return made

    def _close(self, schema: Any, beside: Iterable[str] = (), *, shut: bool = True) -> Any:
        """Close a schema and what is in it.

        Args:
            schema: A schema.
            beside: The properties that are named beside the branches of which this is one.
            shut: Whether this is all that is said of the value.
        """
        if not isinstance(schema, Mapping):
            return schema
        schema = self._spelled_out(schema)
        names = [*dict.fromkeys([*self._old.lists(schema), *beside])]
        branched = [key for key in _BRANCHES if key in schema]
        # Whether more than a `$ref`, or branches, make up the value.
        joined = not shut or bool(schema.keys() & _JOINED) or ("$ref" in schema and bool(branched))
        joined = joined or bool([*beside])
        made = {key: self._within(key, value) for key, value in schema.items()}
        if isinstance(made.get("allOf"), list):
            made["allOf"] = [self._close(each, shut=False) for each in made["allOf"]]
        alone = shut and len(branched) == 1 and self._is_plain(schema, but=branched[0])
        for key in branched:
            if isinstance(made[key], list):
                made[key] = [self._close(each, names if joined else (), shut=alone) for each in schema[key]]
        if isinstance(made.get("oneOf"), list):
            self._choices.append((made["oneOf"], schema["oneOf"]))
        spell(made)
        bound(made)
        check_constants(_values(made) or ())
        if joined and "$ref" in made:
            made["$ref"] = self._twin(made["$ref"])
        if shut:
            self._shut(made, schema, names, joined=joined)
        check_names(made, least=len(set(self._old.required(schema))))
        return made

    def _spelled_out(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """A schema whose `propertyNames`, which llguidance does not know, are properties if they can be."""
        names = schema.get("propertyNames")
        if names is None or schema.keys() & {"properties", "patternProperties"}:
            return schema
        rest = {key: value for key, value in schema.items() if key != "propertyNames"}
        value = rest.get("additionalProperties", True)
        parts = self._old.parts(names)
        plain = all(isinstance(part, Mapping) and part.keys() <= _LISTING for part in parts)
        listed = [values for values in map(_values, parts) if values is not None]
        if plain and len(listed) == 1 and all(isinstance(each, str) for each in listed[0]):
            return {**rest, "properties": dict.fromkeys(listed[0], value), "additionalProperties": False}
        if isinstance(names, Mapping) and names.keys() - {"type", "title"} == {"pattern"}:
            return {**rest, "patternProperties": {names["pattern"]: value}, "additionalProperties": False}
        return schema

    def _within(self, key: str, value: Any) -> Any:
        """The value of one keyword that holds schemas of other values."""
        if key in _NAMED and isinstance(value, Mapping):
            return {name: self._close(each) for name, each in value.items()}
        if key in _MANY and isinstance(value, list):
            return [self._close(each) for each in value]
        return self._close(value) if key in _ONE else value

    def _twin(self, ref: Any) -> Any:
        """A `$ref` to the same schema, left open: it is not all that is said of the value."""
        if not isinstance(self._old.target(ref), Mapping):
            return ref
        if ref not in self._twins:
            taken = _mapping(self._old.root.get("$defs"))
            at = len(self._twins)
            while f"open{at}" in taken or f"open{at}" in self._twins.values():
                at += 1
            self._twins[ref] = f"open{at}"
            self._todo.append(ref)
        return f"#/$defs/{self._twins[ref]}"

    def _shut(
        self, made: dict[str, Any], schema: Mapping[str, Any], names: list[str], *, joined: bool
    ) -> None:
        """Forbid properties that are not named, where the schema leaves that to us."""
        parts, required = self._old.parts(schema), set(self._old.required(schema))
        if schema.get("patternProperties") and len(parts) == 1 and required <= set(names):
            made.setdefault("additionalProperties", False)
        if (
            not (joined and (names or isinstance(schema.get("properties"), Mapping)))
            or not self._is_plain(schema)
            or "object" not in self._old.types(schema)
            or not required <= set(names)
            or any(_number(part.get("minProperties")) > len(names) for part in parts)
        ):
            return
        own = _mapping(made.get("properties"))
        made["properties"] = {name: own.get(name, True) for name in names}
        made["additionalProperties"] = False
        made.pop("unevaluatedProperties", None)

    def _is_plain(self, schema: Mapping[str, Any], but: str = "") -> bool:
        """Whether all properties that a schema lists are known, and it leaves others to us."""
        keys = [part.keys() if isinstance(part, Mapping) else _OPEN for part in self._old.parts(schema)]
        own = keys.pop() - {but}
        if schema.get("unevaluatedProperties") is False:
            own -= {"unevaluatedProperties"}
        return not any(each & (_OPEN | {*_BRANCHES}) for each in (*keys, own))

    def _part(self, mine: list[Any], asked: list[Any], new: _Schemas) -> None:
        """See to it that what one branch writes is valid by no other branch."""
        for at, one in enumerate(mine):
            for other, rest in enumerate(asked):
                if at == other or _apart(one, new, rest, self._old):
                    continue
                lacking = [each for each in self._old.required(rest) if each not in new.required(one)]
                if not lacking or not isinstance(one, Mapping):
                    msg = (
                        f"grammar: branches {at} and {other} of a oneOf may both hold: {asked!r:.200}; say "
                        "anyOf, or give them a required property with another `const` in each"
                    )
                    raise GrammarError(msg)
                never = {"type": "object", "properties": {lacking[0]: False}}
                one = mine[at] = {"allOf": [one, never]}  # noqa: PLW2901 - narrower for the next ones


def _apart(one: Any, ones: _Schemas, other: Any, others: _Schemas, deep: int = 4) -> bool:
    """Whether it is plain that no value is valid by both of two schemas of two documents."""
    if not deep:
        return False
    common = ones.types(one) & others.types(other)
    if not common:
        return True
    return (
        _no_value(ones.parts(one), others.parts(other))
        or any(all(_apart(each, ones, other, others, deep - 1) for each in of) for of in ones.branches(one))
        or any(all(_apart(one, ones, each, others, deep - 1) for each in of) for of in others.branches(other))
        or (common == {"object"} and _no_object(one, ones, other, others, deep))
    )


def _no_value(parts: list[Any], others: list[Any]) -> bool:
    """Whether both list the values that they allow, and none is in both lists."""
    return any(
        not {_canonical(each) for each in mine} & {_canonical(each) for each in its}
        for mine in filter(None, map(_values, parts))
        for its in filter(None, map(_values, others))
    )


def _no_object(one: Any, ones: _Schemas, other: Any, others: _Schemas, deep: int) -> bool:
    """Whether a property that an object must have tells the two apart."""
    needed, only = others.required(other), ones.only(one)
    if only is not None and not only.issuperset(needed):
        return True
    mine, its = ones.lists(one), others.lists(other)
    return any(
        _apart(each, ones, it, others, deep - 1)
        for name in {*needed, *ones.required(one)}
        for each in mine.get(name, ())
        for it in its.get(name, [True])
    )


def _values(schema: Any) -> list[Any] | None:
    """The values that a schema lists, if it does."""
    if not isinstance(schema, Mapping):
        return None
    return [schema["const"]] if "const" in schema else _listed(schema["enum"]) if "enum" in schema else None


def _type_of(value: Any) -> str:
    kinds = (
        ("boolean", bool),
        ("number", int | float),
        ("string", str),
        ("object", Mapping),
        ("array", list),
    )
    return next((name for name, kind in kinds if isinstance(value, kind)), "null")


def _canonical(value: Any) -> str:
    """Equal for values that JSON Schema takes for equal."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> float:
    return value if is_number(value) else 0


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
