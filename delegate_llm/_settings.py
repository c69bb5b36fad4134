"""The pydantic base of everything a user writes down: frozen, strict about names, with our errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from delegate_llm.errors import PolicyError

__all__ = ("MOST", "Settings", "explain")

MOST: Final = 1 << 53
"""The largest count that may be asked for: larger ones are no longer exact as floats."""


def explain(error: ValidationError) -> str:
    """One line for a pydantic error: every field, what is wrong with it, and the value given."""
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        said = item["msg"].removeprefix("Value error, ")
        nested = isinstance(item.get("ctx", {}).get("error"), PolicyError)
        value = "" if nested or not where else f" (got {_shown(item['input'])})"
        named = not where or said.startswith(f"{where}: ")
        parts.append(said if named else f"{where}: {said}{value}")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # a number of more digits than Python writes
        return f"a huge {type(value).__name__}"


class Settings(BaseModel):
    """A frozen record that rejects unknown names and raises `PolicyError` instead of pydantic's error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def __init__(self, **values: Any) -> None:
        """Validate `values`; raises `PolicyError` naming every field that is wrong."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            msg = f"{type(self).__name__}: {explain(error)}"
            raise PolicyError(msg) from None

    @classmethod
    def of_fields(cls, fields: Mapping[Any, Any]) -> Self:
        """From fields by name; raises `PolicyError` also where a key is no name."""
        for name in fields:
            if not isinstance(name, str):
                msg = f"{cls.__name__}: {name!r:.80} is no field's name"
                raise PolicyError(msg)
        return cls(**fields)

    @classmethod
    def model_validate(cls, obj: Any, **kwargs: Any) -> Self:
        """As pydantic's, with a `PolicyError` for bad data."""
        try:
            return super().model_validate(obj, **kwargs)
        except ValidationError as error:
            raise PolicyError(explain(error)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **kwargs: Any) -> Self:
        """As pydantic's, with a `PolicyError` for bad JSON."""
        try:
            return super().model_validate_json(json_data, **kwargs)
        except ValidationError as error:
            raise PolicyError(explain(error)) from None

    def to_json(self, *, indent: int | None = None) -> str:
        """This record as JSON text."""
        return self.model_dump_json(indent=indent)

    def to_fields(self) -> dict[str, Any]:
        """This record as plain data that JSON takes; `of_fields` reads it."""
        fields: dict[str, Any] = json.loads(self.model_dump_json())
        return fields

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The record that `to_json` wrote; raises `PolicyError` if it is not one."""
        return cls.model_validate_json(text)
