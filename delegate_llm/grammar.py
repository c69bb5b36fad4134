"""What an answer may look like: a JSON schema, a regular expression, choices, tool calls.

A `Grammar` is what a user asks for. `Grammars` compiles it for one vocabulary with llguidance, and a
`Guide` follows one answer along it: after any tokens it tells which may come next. The mask is laid on both
models' logits before anything is drawn or compared, so a takeover can no more break the form than the base
can, and the two are compared over what the grammar allows.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from delegate_llm.errors import GrammarError
from delegate_llm.schemas import closed

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ("Grammar", "Grammars", "Guide")

Kind = Literal["json", "regex", "choice", "lark", "calls"]

_KEPT: Final = 64
"""Compiled grammars kept per vocabulary."""

_NOTHING: Final = {"type": "object", "properties": {}}
# One way to write a value, that of `json.dumps`: with free whitespace a small model can pad for ever.
_JSON: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Without `u`, one spelling a text: a property that is spelled in two ways would pass for two.
    "json_allowed_escapes": 'nrbtf"\\',
    "coerce_one_of": True,  # `closed` has seen to it that the branches are apart
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """The form that an answer must have. Make one with `json`, `regex`, `choice`, `lark` or `calls`."""

    kind: Kind
    source: str
    """The schema as JSON, the pattern, the choices as JSON, the grammar, or the tools as JSON."""

    @classmethod
    def of(cls, value: Grammar | Mapping[str, Any] | None) -> Grammar | None:
        """The grammar that `value` means: a grammar, or `{"json": schema}` and the like.

        Raises:
            GrammarError: If it is neither.
        """
        if value is None or isinstance(value, cls):
            return value
        makers: dict[str, Callable[[Any], Grammar]] = {
            "json": cls.json,
            "regex": cls.regex,
            "choice": cls.choice,
            "lark": cls.lark,
        }
        if isinstance(value, Mapping) and len(value) == 1 and (kind := next(iter(value))) in makers:
            return makers[kind](value[kind])
        msg = (
            f"grammar: {value!r:.80} is neither a Grammar nor one of {{'json': schema}}, {{'regex': ...}}, "
            "{'choice': [...]}, {'lark': ...}"
        )
        raise GrammarError(msg)

    @classmethod
    def json(cls, schema: Mapping[str, Any] | str) -> Grammar:
        """JSON text that validates against a JSON schema, written on one line as `json.dumps` does.

        Objects that name their properties get no others, unless the schema says `additionalProperties`.

        Raises:
            GrammarError: If it is not a schema.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                msg = f"grammar: the JSON schema is not JSON: {error}"
                raise GrammarError(msg) from error
        if not isinstance(schema, Mapping | bool):
            msg = f"grammar: {schema!r:.80} is not a JSON schema (a mapping)"
            raise GrammarError(msg)
        return cls("json", _dump(schema))

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that matches a regular expression as a whole; Rust syntax, without look-around."""
        return cls("regex", _text("regex", pattern))

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Grammar:
        """One of several texts."""
        listed = list(choices) if isinstance(choices, Iterable) and not isinstance(choices, str) else []
        if not listed or not all(isinstance(each, str) and each for each in listed):
            msg = f"grammar: {choices!r:.80} is not a list of texts to choose from"
            raise GrammarError(msg)
        return cls("choice", _dump(listed))

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """A context-free grammar in the Lark dialect of llguidance, from its rule `start`."""
        return cls("lark", _text("lark", grammar))

    @classmethod
    def calls(
        cls, tools: Sequence[Mapping[str, Any]], *, many: bool = True, otherwise: Grammar | None = None
    ) -> Grammar:
        """Tool calls in the style of Hermes and Qwen, and nothing around them.

        Args:
            tools: OpenAI's form: `{"type": "function", "function": {"name": ..., "parameters": ...}}`.
            many: Whether there may be more than one call.
            otherwise: The form of an answer that calls nothing; a JSON grammar. None: a call is demanded.

        Raises:
            GrammarError: If there is no tool, one has another form, or `otherwise` is no JSON grammar.
        """
        if not isinstance(tools, Iterable):
            msg = f"grammar: {tools!r:.80} is not a list of tools"
            raise GrammarError(msg)
        if not tools:
            msg = "grammar: a tool call is asked for, and there is no tool"
            raise GrammarError(msg)
        if otherwise is not None and getattr(otherwise, "kind", None) != "json":
            msg = f"grammar: otherwise: {otherwise!r:.80} will not do here; give Grammar.json(...)"
            raise GrammarError(msg)
        said = [_signature(each) for each in tools]
        return cls("calls", _dump({"tools": said, "many": many, "otherwise": otherwise and otherwise.source}))


class Guide:
    """What a grammar allows along one answer. Not shared between threads."""

    def __init__(self, matcher: Any, size: int) -> None:
        """Follow a fresh matcher of llguidance over ids below `size`."""
        self._matcher = matcher
        self._size = size
        self._read: list[int] = []

    def allowed(self, tokens: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which ids may follow.

        Args:
            tokens: The answer so far, as far back or forth from the last ones asked about as is liked;
                every one of them was allowed where it stands, and none ends a sequence.

        Returns:
            A bool a token id. An end of sequence is allowed where the answer may end.

        Raises:
            GrammarError: If the grammar is too complex to be followed.
        """
        self._go_to(tokens)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        # A matcher that has given up allows the end of the answer, whatever is missing.
        if self._matcher.is_error() or not mask.any():
            self._fail()
        return mask

    def forced(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that spell the only text that may follow, if there is only one."""
        self._go_to(tokens)
        return list(self._matcher.compute_ff_tokens())

    def _go_to(self, tokens: Sequence[int]) -> None:
        common = len(self._read)
        if list(tokens[:common]) != self._read:
            pairs = zip(self._read, tokens, strict=False)
            common = next((at for at, (old, new) in enumerate(pairs) if old != new), min(common, len(tokens)))
        back, ahead = len(self._read) - common, list(tokens[common:])
        if (back and not self._matcher.rollback(back)) or (ahead and not self._matcher.consume_tokens(ahead)):
            self._fail()
        self._read = list(tokens)

    def _fail(self) -> None:
        said = (self._matcher.get_error() or self._matcher.stop_reason()).splitlines()[0]
        msg = f"grammar: it cannot be followed any further: {said}; simplify the schema or grammar"
        raise GrammarError(msg)


class Grammars:
    """Compiles grammars for one vocabulary, once each. Threads may share it."""

    def __init__(self, lexicon: Callable[[], Any], size: int) -> None:
        """Put off what is slow.

        Args:
            lexicon: Makes llguidance's view of the vocabulary, an `LLTokenizer`; called once, if at all.
            size: Ids below it may be drawn.
        """
        self._make = lexicon
        self._size = size
        self._lexicon: Any = None
        self._compiled: OrderedDict[tuple[Grammar, bool], Any] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, grammar: Grammar, *, thinking: bool = False) -> Guide:
        """A guide at the start of an answer.

        Args:
            grammar: The form of the answer.
            thinking: Whether the prompt has opened `<think>`: then thoughts come first, in any form.

        Raises:
            GrammarError: If llguidance does not take it.
        """
        with self._lock:
            key = (grammar, thinking)
            if key not in self._compiled:
                self._compiled[key] = self._compile(grammar, thinking=thinking)
                if len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return Guide(self._compiled[key].deep_copy(), self._size)

    def text(self, grammar: Grammar, *, thinking: bool = False) -> str:
        """The grammar as llguidance reads it, for whoever follows it elsewhere; checked as for `guide`."""
        self.guide(grammar, thinking=thinking)
        with self._lock:
            return self._written(grammar, thinking=thinking)

    def _compile(self, grammar: Grammar, *, thinking: bool) -> Any:
        llguidance = importlib.import_module("llguidance")
        text = self._written(grammar, thinking=thinking)
        failed, notes = llguidance.LLMatcher.validate_grammar_with_warnings(text, self._lexicon)
        if not failed:
            return llguidance.LLMatcher(self._lexicon, text, log_level=0)
        msg = f"grammar: the {grammar.kind} {grammar.source!r:.200} is not taken: {_reason(notes[0])}"
        raise GrammarError(msg)

    def _written(self, grammar: Grammar, *, thinking: bool) -> str:
        self._lexicon = self._lexicon or self._read()
        try:
            return _Writer(self._lexicon).lark(grammar, thinking=thinking)
        except RecursionError as error:
            msg = f"grammar: the {grammar.kind} {grammar.source!r:.80} is nested too deeply; make it flatter"
            raise GrammarError(msg) from error

    def _read(self) -> Any:
        """The vocabulary as llguidance sees it."""
        try:
            return self._make()
        except ValueError as error:
            msg = f"grammar: llguidance cannot read the tokenizer of this pair: {error!s:.200}"
            raise GrammarError(msg) from error


class _Writer:
    """Writes grammars in llguidance's dialect of Lark."""

    def __init__(self, lexicon: Any) -> None:
        self._lexicon = lexicon

    def lark(self, grammar: Grammar, *, thinking: bool) -> str:
        """The whole grammar; with thoughts in front if `thinking`."""
        body: str = getattr(self, f"_{grammar.kind}")(grammar.source)
        if not thinking:
            return body
        end = self._tag("</think>")
        # Where the tag is text, `.*` would run over it.
        thoughts = f"/(?s:.*)/ {end}" if end.startswith("<") else "thoughts"
        rule = "" if end.startswith("<") else f"thoughts[suffix={end}]: /(?s:.*)/\n"
        return f"start: {thoughts} /[ \\n]{{0,2}}/ answer\n{rule}answer: %lark {{\n{body}\n}}\n"

    def _json(self, source: str) -> str:
        return f"start: {_json_rule(json.loads(source))}\n"

    def _regex(self, source: str) -> str:
        return f"start: /{importlib.import_module('llguidance').regex_to_lark(source, '')}/\n"

    def _choice(self, source: str) -> str:
        return f"start: {_any_of(json.dumps(each) for each in json.loads(source))}\n"

    def _lark(self, source: str) -> str:
        return source

    def _calls(self, source: str) -> str:
        asked = json.loads(source)
        start, end = self._tag("<tool_call>"), self._tag("</tool_call>")
        heads = [
            json.dumps(f'{{"name": {json.dumps(each["name"])}, "arguments": ') for each in asked["tools"]
        ]
        rules = [
            f'body{at}: {head} {_json_rule(each["parameters"])} "}}"\n'
            for at, (head, each) in enumerate(zip(heads, asked["tools"], strict=True))
        ]
        more = r' ("\n" call)*' if asked["many"] else ""
        otherwise = f" | {_json_rule(json.loads(asked['otherwise']))}" if asked["otherwise"] else ""
        bodies = _any_of(f"body{at}" for at in range(len(rules)))
        return rf"""start: call{more}{otherwise}
call: {start} "\n" body "\n" {end}
body: {bodies}
{"".join(rules)}"""

    def _tag(self, text: str) -> str:
        """A tag as the vocabulary has it: a token of its own that is no text to llguidance, or text."""
        ids = self._lexicon.tokenize_str(text, parse_special=True)
        if len(ids) == 1 and self._lexicon.is_special_token(ids[0]):
            return f"<[{ids[0]}]>"
        return json.dumps(text)


def _json_rule(schema: Any) -> str:
    schema = {} if schema is True else closed(schema)
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": _JSON}
    return f"%json {json.dumps(schema)}"


def _any_of(parts: Iterable[str]) -> str:
    return " | ".join(parts)


def _reason(note: str) -> str:
    """The line of a message of llguidance that says what is wrong."""
    lines = note.strip().splitlines()
    what = [line for line in lines[1:] if line.startswith("error: ")][:1]
    return " ".join([lines[0].rpartition("failed to compile JSON schema: ")[2], *what])


def _signature(tool: Any) -> dict[str, Any]:
    """The name and the parameters of a tool in OpenAI's form."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if isinstance(function, Mapping) and isinstance(name, str) and name:
        return {"name": name, "parameters": function.get("parameters") or _NOTHING}
    msg = f"grammar: {tool!r:.80} is not a tool: {{'type': 'function', 'function': {{'name': ..., ...}}}}"
    raise GrammarError(msg)


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"grammar: {value!r:.80} is not JSON: {error}"
        raise GrammarError(msg) from error


def _text(kind: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        msg = f"grammar: {value!r:.80} is not the text of a {kind}"
        raise GrammarError(msg)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        lone = value[error.start : error.end]
        msg = f"grammar: the {kind} has {lone!r} at character {error.start}, which is not Unicode text"
        raise GrammarError(msg) from None
    return value
