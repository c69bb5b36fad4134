"""JSON schemas made ready for a grammar: closed objects, and no formats that a grammar cannot check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ("closed",)

# What llguidance can spell; any other format is a note to the reader, as the JSON Schema standard has it.
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
_ONE: Final = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_MANY: Final = ("anyOf", "oneOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
# With one of these beside it, `properties` need not be all that the schema allows.
_OPENING: Final = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
)


def closed(schema: Any) -> Any:
    """The schema with objects that hold what they name and nothing else.

    JSON Schema lets an object have any further properties, which is not what the writer of a tool or a
    data class means, and to a model an invitation to go on. What validates against the result validates
    against `schema`.

    Args:
        schema: A JSON schema; it is not changed.

    Returns:
        A copy in which every object that lists its properties, and all that it requires among them, has
        `additionalProperties: false`, unless the schema says otherwise or combines several schemas.
    """
    if not isinstance(schema, Mapping):
        return schema
    made = {key: _within(key, value) for key, value in schema.items()}
    if isinstance(made.get("format"), str) and made["format"] not in _FORMATS:
        del made["format"]
    named = made.get("properties")
    if (
        isinstance(named, Mapping)
        and not _OPENING & made.keys()
        and set(made.get("required") or ()) <= named.keys()
        and made.get("minProperties", 0) <= len(named)
    ):
        made["additionalProperties"] = False
    return made


def _within(key: str, value: Any) -> Any:
    """The value of one keyword; the branches of `allOf` hold together, so none of them is closed."""
    if key in _ONE or (key == "items" and isinstance(value, Mapping)):
        return closed(value)
    if key in _MANY and isinstance(value, list):
        return [closed(each) for each in value]
    if key in _NAMED and isinstance(value, Mapping):
        return {name: closed(each) for name, each in value.items()}
    return value
