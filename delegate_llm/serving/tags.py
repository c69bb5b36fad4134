"""What a tool call must look like: vLLM says it in xgrammar's structural tags, llguidance reads Lark.

vLLM's llguidance backend knows an older form of these tags only, and refuses what its own tool parsers ask
for. All that they ask for is translated; of the rest, what has a counterpart.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from delegate_llm.errors import RequestError

__all__ = ("one_spelling", "specials", "to_lark")

# As `json.dumps` writes it: that is what models have read, and free whitespace can be padded for ever.
_JSON: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def specials(tokenizer: Any) -> dict[str, int]:
    """The tokens that are no text to llguidance, with their ids.

    Args:
        tokenizer: A fast one, of transformers.
    """
    lexicon = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer)
    added = tokenizer.added_tokens_decoder.items()
    return {str(each.content): at for at, each in added if lexicon.is_special_token(at)}


def one_spelling(schema: Any) -> Any:
    """A schema of which each value is written in one way.

    Args:
        schema: Parsed JSON; what it says of its spelling itself stays.
    """
    schema = {} if schema is True else schema
    return {"x-guidance": _JSON, **schema} if isinstance(schema, Mapping) else schema


def to_lark(tag: str, special: Mapping[str, int]) -> str | None:
    """A structural tag in llguidance's dialect of Lark; None for the older form, which needs none.

    Args:
        tag: JSON.
        special: As `specials`.

    Raises:
        RequestError: If it has no counterpart.
    """
    document = json.loads(tag)
    if "format" not in document:
        return None
    writer = _Writer(special)
    start = writer.form(document["format"])
    return "\n".join([f"start: {start}", *writer.rules, ""])


_FORMATS: Final[Mapping[str, frozenset[str]]] = {
    "any_text": frozenset({"excludes"}),
    "const_string": frozenset({"value"}),
    "json_schema": frozenset({"json_schema", "style", "any_order"}),  # one order is any
    "or": frozenset({"elements"}),
    "regex": frozenset({"pattern"}),
    "sequence": frozenset({"elements"}),
    "tag": frozenset({"begin", "content", "end"}),
    "tags_with_separator": frozenset({"tags", "separator", "at_least_one", "stop_after_first"}),
    "triggered_tags": frozenset({"triggers", "tags", "at_least_one", "stop_after_first"}),
}
"""The fields of each that are followed."""


class _Writer:
    """Collects the rules that the first one needs."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self.rules: list[str] = []
        self._special = special
        longest = sorted(map(re.escape, special), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest)})" if longest else "(?!)()")

    def form(self, form: Mapping[str, Any]) -> str:
        """An expression for a format."""
        kind = form.get("type")
        if kind not in _FORMATS:
            _refuse(f"a {kind!r} format")
        self._check(form)
        return str(getattr(self, f"_{kind}")(form))

    @staticmethod
    def _check(form: Mapping[str, Any]) -> None:
        """Refuse what would be left out, unless it says nothing."""
        kind = form.get("type", "tag")
        for name, value in form.items():
            off = value is None or value is False or value in ([], {})
            if not off and name not in ("type", *_FORMATS[kind]):
                _refuse(f"{name!r} of a {kind!r} format")

    def _rule(self, body: str, options: str = "", *, terminal: bool = False) -> str:
        name = f"{'T' if terminal else 't'}{len(self.rules)}"
        self.rules.append(f"{name}{options}: {body}")
        return name

    def _const_string(self, form: Mapping[str, Any]) -> str:
        return self._literal(form["value"])

    def _literal(self, text: str) -> str:
        """Text, with tokens that are none to llguidance by their ids; nothing for no text."""
        parts = (each for each in self._split.split(text) if each)
        return " ".join(
            f"<[{self._special[each]}]>" if each in self._special else json.dumps(each) for each in parts
        )

    def _json_schema(self, form: Mapping[str, Any]) -> str:
        if form.get("style", "json") != "json":
            _refuse(f"arguments in the style {form['style']!r}")
        return self._rule(f"%json {json.dumps(one_spelling(form['json_schema']))}")

    def _any_text(self, form: Mapping[str, Any]) -> str:
        return self._rule(f"/(?s:.*)/{_without(form.get('excludes') or ())}", terminal=True)

    def _regex(self, form: Mapping[str, Any]) -> str:
        return self._rule(f"/{form['pattern'].replace('/', chr(92) + '/')}/", terminal=True)

    def _sequence(self, form: Mapping[str, Any]) -> str:
        return " ".join(map(self.form, form["elements"]))

    def _or(self, form: Mapping[str, Any]) -> str:
        return _any_of(map(self.form, form["elements"]))

    def _tag(self, form: Mapping[str, Any]) -> str:
        return self._tagged(form, _text(form["begin"]))

    def _tags_with_separator(self, form: Mapping[str, Any]) -> str:
        tags = self._rule(_any_of(self.form(each) for each in form["tags"]))
        more = "" if form.get("stop_after_first") else f" ({self._literal(form['separator'])} {tags})*"
        return f"{tags}{more}" if form.get("at_least_one") else f"({tags}{more})?"

    def _triggered_tags(self, form: Mapping[str, Any]) -> str:
        triggers: Sequence[str] = form["triggers"]
        parts = []
        for trigger in triggers:
            begun = [each for each in form["tags"] if _text(each["begin"]).startswith(trigger)]
            text = self._until(trigger)
            tags = (self._tagged(each, _text(each["begin"]).removeprefix(trigger)) for each in begun)
            parts.append(f"{text} ({_any_of(tags)})")
        part = self._rule(_any_of(parts))
        rest = self._rule(f"/(?s:.*)/{_without(triggers)}", terminal=True)
        if form.get("stop_after_first"):
            return part if form.get("at_least_one") else f"({part} | {rest})"
        return f"{part}{'+' if form.get('at_least_one') else '*'} {rest}?"

    def _until(self, trigger: str) -> str:
        """Any text up to a trigger, and the trigger."""
        if self._split.match(trigger):  # no text contains such a token
            return f"{self._any_text({})} {self._literal(trigger)}"
        return self._rule("/(?s:.*)/", f"[suffix={json.dumps(trigger)}]")

    def _tagged(self, form: Mapping[str, Any], begin: str) -> str:
        """A tag whose beginning may have been said already."""
        self._check(form)
        end = form["end"]
        ends = [end] if isinstance(end, str | Mapping) else end
        closing = _any_of(self._literal(_text(each)) for each in ends if _text(each))
        body = self.form(form["content"])
        return self._rule(
            " ".join(filter(None, (self._literal(begin), body, f"({closing})" if closing else "")))
        )


def _text(said: Any) -> str:
    if not isinstance(said, str):
        _refuse("special tokens")
    return str(said)


def _without(strings: Iterable[str]) -> str:
    """What is behind the regular expression of a text that contains none of these."""
    return "".join(f" & ~/(?s:.*){_quoted(each)}(?s:.*)/" for each in strings)


def _quoted(text: str) -> str:
    """Text as a part of a regular expression between slashes."""
    return "".join(each if each.isalnum() or each in "_ <>" else f"\\x{{{ord(each):x}}}" for each in text)


def _any_of(parts: Iterable[str]) -> str:
    return " | ".join(parts)


def _refuse(what: str) -> None:
    msg = (
        f"structural tag: {what} cannot be followed by this server's grammar engine; start the server with "
        '--structured-outputs-config \'{"backend": "xgrammar"}\', or leave the constraint out'
    )
    raise RequestError(msg)
