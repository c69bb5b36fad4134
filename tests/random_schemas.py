"""JSON schemas at random, of all that a grammar takes; from a seed, so that a failure comes again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

Schema = dict[str, Any] | bool
Keywords = dict[str, Callable[[], Any]]

NAMES = ("a", "name", "first name", 'say "hi"', "größe", "名前", "a/b~c", "x\ty", "$ref", "type", "😀", "")
FORMATS = (
    "date",
    "time",
    "date-time",
    "uuid",
    "email",
    "ipv4",
    "ipv6",
    "hostname",
    "duration",
    "regex",
    "json-pointer",
)
PATTERNS = (
    "^[a-c]{2,4}$",
    "ab",
    "^x|y$",
    r"^\d{3}-\d{4}$",
    r"^\w+@\w+\.(com|org)$",
    "^[^a-z]{1,3}$",
    r"^\W{1,2}$",
    "^[a[]{1,3}$",
    r"^\/[a-z]*$",
    "^.{2}$",
    "^(red|green|blue)?$",
)
VALUES = (
    0,
    7,
    -3,
    2.5,
    1e-7,
    True,
    False,
    None,
    "",
    "yes",
    'q"\\\n',
    "ünï",
    [1, "a", None],
    {"k": [True]},
    [],
    {},
)


class SchemaMaker:
    """Makes schemas; each document has its own definitions, one of which contains itself."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.defined = 0

    def document(self) -> Schema:
        """A schema with all that it refers to."""
        roll = self.random.random()
        if roll < 0.02:
            return True
        self.defined = self.random.randint(1, 3)
        schema: Any = self.object(3) if roll < 0.7 else self.schema(3)
        if schema is True:
            schema = {}
        defined = [self.node(), *(self.object(1) for _ in range(self.defined))]
        return {**schema, "$defs": {f"d/{at}": each for at, each in enumerate(defined)}}

    def schema(self, deep: int) -> Schema:
        """A schema, of at most so many levels."""
        leaves = [self.integer, self.number, self.string, self.constant, self.null, self.simple]
        nested = [
            self.array,
            self.tuple,
            self.object,
            self.any_of,
            self.one_of,
            self.nullable,
            self.all_of,
            self.ref,
        ]
        if deep <= 0 or self.random.random() < 0.4:
            return self.random.choice(leaves)()
        return self.random.choice(nested)(deep - 1)

    def some(self, **choices: Any) -> dict[str, Any]:
        """Some of these keywords."""
        return {key: value for key, value in choices.items() if self.random.random() < 0.4}

    def integer(self) -> Schema:
        low = self.random.choice([-100, -7, -1, 0, 3, 0.5, -2.5, 10**6])
        step = self.random.choice([1, 2, 3, 7, 0.5])
        width = self.random.choice([3 * step, 40, 1000])
        return {
            "type": "integer",
            **self.some(minimum=low, maximum=low + width, multipleOf=step),
            **self.some(exclusiveMinimum=low - 1.5, exclusiveMaximum=low + width + 1),
        }

    def number(self) -> Schema:
        low = self.random.choice([-100, -1.5, 0, 0.1, 3, 99.99, -1e-3])
        width = self.random.choice([1, 2.5, 100])
        return {
            "type": "number",
            **self.some(exclusiveMinimum=low, exclusiveMaximum=low + width),
            **self.some(minimum=low, maximum=low + width, multipleOf=self.random.choice([0.5, 0.25, 1])),
        }

    def string(self) -> Schema:
        roll = self.random.random()
        if roll < 0.3:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        if roll < 0.6:
            return {"type": "string", "pattern": self.random.choice(PATTERNS), **self.some(maxLength=16)}
        low = self.random.randint(0, 3)
        return {"type": "string", **self.some(minLength=low), "maxLength": low + self.random.randint(0, 8)}

    def constant(self) -> Schema:
        if self.random.random() < 0.3:
            return {"const": self.random.choice(VALUES)}
        return {"enum": self.random.sample(VALUES, self.random.randint(1, 4))}

    def null(self) -> Schema:
        return {"type": "null"}

    def simple(self) -> Schema:
        return {
            "type": self.random.choice(["boolean", ["integer", "null"], ["boolean", "string"]]),
            "maxLength": 5,
        }

    def array(self, deep: int) -> Schema:
        low = self.random.randint(0, 2)
        return {
            "type": "array",
            "items": self.schema(deep),
            **self.some(minItems=low),
            "maxItems": low + self.random.randint(0, 2),
        }

    def tuple(self, deep: int) -> Schema:
        count = self.random.randint(1, 3)
        low = self.random.randint(0, count)
        items: dict[str, Any] = {"items": self.random.choice([False, self.schema(0)])}
        return {
            "type": "array",
            "prefixItems": [self.schema(deep) for _ in range(count)],
            **self.random.choice([items, {"maxItems": count}]),
            **self.some(minItems=low),
            **({} if self.random.random() < 0.5 else {"maxItems": count}),
        }

    def object(self, deep: int) -> Schema:
        names = self.random.sample(NAMES, self.random.randint(0, 4))
        roll = self.random.random()
        more: dict[str, Any] = {}
        if roll < 0.3:
            more = {"additionalProperties": False}
        elif roll < 0.5 and names:
            more = {"additionalProperties": self.schema(0), "maxProperties": len(names) + 1}
            return {
                "type": "object",
                "properties": {name: self.schema(deep) for name in names},
                "required": names,
                **more,
            }
        elif roll < 0.55 and names:
            more = {"minProperties": len(names)}
        return {
            "type": "object",
            "properties": {name: self.property(deep) for name in names},
            **self.some(required=[name for name in names if self.random.random() < 0.6]),
            **more,
        }

    def property(self, deep: int) -> Schema:
        return True if self.random.random() < 0.02 else self.schema(deep)

    def any_of(self, deep: int) -> Schema:
        if self.random.random() < 0.3:
            return {
                "type": "object",
                "properties": {"a": self.schema(deep), "b": self.schema(0), "c": self.schema(0)},
                "anyOf": [{"required": ["a"]}, {"required": ["b", "c"]}, self.object(deep)],
            }
        return {"anyOf": [self.schema(deep) for _ in range(self.random.randint(1, 3))]}

    def one_of(self, deep: int) -> Schema:
        roll = self.random.random()
        if roll < 0.4:
            made = [self.integer(), self.string(), {"type": "null"}, self.array(deep), self.object(deep)]
            return {"oneOf": self.random.sample(made, self.random.randint(1, 4))}
        if roll < 0.7:
            return {"oneOf": [self.kind(each, deep) for each in ("cat", "dog", "é")]}
        return {
            "type": "object",
            "properties": {"a": self.schema(deep), "b": self.schema(0)},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        }

    def kind(self, name: str, deep: int) -> Schema:
        return {
            "type": "object",
            "properties": {"kind": {"const": name}, "of": self.schema(deep)},
            "required": ["kind"],
        }

    def nullable(self, deep: int) -> Schema:
        return {"anyOf": [self.schema(deep), {"type": "null"}]}

    def all_of(self, deep: int) -> Schema:
        other = {"type": "object", "properties": {"z": self.schema(deep)}, "required": ["z"]}
        return {"allOf": [self.ref(0), other]}

    def ref(self, deep: int) -> Schema:
        # Beside a reference there may be more of the same object.
        more = self.some(properties={"y": self.schema(0)}) if deep else {}
        return {"$ref": f"#/$defs/d~1{self.random.randint(0, self.defined)}", **more}

    def node(self) -> Schema:
        below = self.random.choice(
            [
                {"type": "array", "items": {"$ref": "#/$defs/d~10"}, "maxItems": 2},
                {"anyOf": [{"$ref": "#/$defs/d~10"}, {"type": "null"}]},
            ]
        )
        return {"type": "object", "properties": {"v": self.schema(0), "below": below}, "required": ["v"]}


class KeywordMaker:
    """Makes schemas of keywords that nobody would put side by side; most of them cannot be followed."""

    NAMES = ("a", "b", "ab", "é", "x\n", "k1", "٣")
    PATTERNS = (
        "^a",
        "b$",
        "^[a-c]+$",
        "^é",
        r"^\w$",
        r"^\W",
        r"\d",
        "^x$",
        "^.$",
        "c|d",
        "^[^a]*$",
        "(?i)^a$",
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def document(self) -> dict[str, Any]:
        """A schema with the definitions `p` and `q`."""
        return {**self.keywords(3), "$defs": {name: self.keywords(1) for name in "pq"}}

    def schema(self, deep: int) -> Schema:
        """A schema, of at most so many levels."""
        roll = self.random.random()
        if roll < 0.1:
            return True
        if roll < 0.2:
            return {"$ref": f"#/$defs/{self.random.choice('pq')}"}
        if deep <= 0 or roll < 0.4:
            return {"type": self.random.choice(["integer", "number", "string", "boolean", "null"])}
        return self.keywords(deep)

    def keywords(self, deep: int) -> dict[str, Any]:
        """Some keywords of one kind, or of two."""
        kinds = [self._of_objects, self._of_objects, self._of_values, self._of_arrays, self._of_schemas]
        made = self.random.choice(kinds)(deep - 1)
        if self.random.random() < 0.4:
            made |= self.random.choice(kinds)(deep - 1)
        return {name: value() for name, value in made.items() if self.random.random() < 0.45}

    def _some(self, choices: Sequence[Any], most: int, least: int = 0) -> list[Any]:
        return self.random.sample(choices, self.random.randint(least, most))

    def _of_objects(self, deep: int) -> Keywords:
        choice = self.random.choice
        return {
            "type": lambda: choice(["object", "object", ["object", "null"]]),
            "properties": lambda: {name: self.schema(deep) for name in self._some(self.NAMES, 3)},
            "required": lambda: self._some(self.NAMES, 2),
            "additionalProperties": lambda: choice([True, False, self.schema(0)]),
            "patternProperties": lambda: {each: self.schema(0) for each in self._some(self.PATTERNS, 2)},
            "propertyNames": lambda: choice([{"enum": ["a", "é"]}, {"pattern": choice(self.PATTERNS)}]),
            "minProperties": lambda: self.random.randint(0, 3),
            "maxProperties": lambda: self.random.randint(0, 3),
        }

    def _of_values(self, deep: int) -> Keywords:
        del deep
        choice = self.random.choice
        return {
            "type": lambda: choice(["integer", "number", "string", ["string", "integer"]]),
            "minimum": lambda: choice([-1, 0, 0.5, 2]),
            "exclusiveMaximum": lambda: choice([1, 2.5, 30]),
            "multipleOf": lambda: choice([1, 2, 0.5, 3]),
            "maxLength": lambda: self.random.randint(0, 3),
            "pattern": lambda: choice(self.PATTERNS),
            "enum": lambda: self._some([*VALUES, "a", "ab", 1.0, {"a": 1}], 6, 2),
        }

    def _of_arrays(self, deep: int) -> Keywords:
        return {
            "type": lambda: self.random.choice(["array", ["array", "object"]]),
            "items": lambda: self.random.choice([False, self.schema(deep)]),
            "prefixItems": lambda: [self.schema(0) for _ in range(self.random.randint(1, 2))],
            "minItems": lambda: self.random.randint(0, 2),
            "maxItems": lambda: self.random.randint(0, 3),
        }

    def _of_schemas(self, deep: int) -> Keywords:
        return {
            "allOf": lambda: [self.schema(deep) for _ in range(self.random.randint(1, 2))],
            "anyOf": lambda: [self.schema(deep) for _ in range(self.random.randint(1, 3))],
            "oneOf": lambda: [self.schema(deep) for _ in range(self.random.randint(1, 3))],
            "$ref": lambda: f"#/$defs/{self.random.choice('pq')}",
        }
