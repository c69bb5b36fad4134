"""A pair whose two models are plain functions: for tests, and for seeing the method at work on paper.

A script takes the token ids so far, prompt included, and returns the logits of the next token. Everything
else is the real thing: policy, schedules, traces, streaming, batches.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.utils.chat_template_utils import render_jinja_template

from delegate_llm.errors import PromptError
from delegate_llm.grammar import Grammars
from delegate_llm.pairs.conversation import Message, Messages
from delegate_llm.pairs.pair import Pair
from delegate_llm.pairs.prompts import Prompt, Rendered, Tools, Who
from delegate_llm.pairs.seam import Meter, Session
from delegate_llm.pairs.templates import answer_stops, is_thinking, write_chat
from delegate_llm.policy import DelegationPolicy
from delegate_llm.rows import Vocabulary

__all__ = ("Script", "scripted_pair")

Script = Callable[[Sequence[int]], Sequence[float]]
"""Token ids so far -> logits of the next token, one a vocabulary entry."""


def scripted_pair(
    base: Script,
    reasoner: Script,
    pieces: Sequence[str],
    *,
    eos: int | None = None,
    policy: DelegationPolicy | None = None,
    context: int | None = None,
    chat_template: str | None = None,
) -> Pair:
    """A pair of two functions.

    Args:
        base: What the base says.
        reasoner: What the reasoner says.
        pieces: The vocabulary: text of every token id. Prompts are cut into the longest that fit.
        eos: The id that ends an answer; its text is not shown. Without one, no grammar can be followed.
        policy: The pair's own.
        context: Longest sequence, in tokens.
        chat_template: Jinja; renders messages, whose contents are otherwise put one after the other. The
            pieces must spell what it writes, control tokens included.
    """
    vocabulary = Vocabulary(
        size=len(pieces),
        rows=len(pieces),
        eos=frozenset(() if eos is None else (eos,)),
        decode=lambda ids: "".join(pieces[each] for each in ids if each != eos),
        piece=pieces.__getitem__,
        grammars=None if eos is None else Grammars(lambda: _lexicon(pieces, eos), len(pieces)),
    )
    return Pair(
        _ScriptedReader(base, "scripted base", len(pieces), context),
        _ScriptedReader(reasoner, "scripted reasoner", len(pieces), context),
        vocabulary,
        _PiecePrompter(pieces, chat_template),
        policy=policy,
    )


def _lexicon(pieces: Sequence[str], eos: int) -> Any:
    """The pieces as llguidance knows a vocabulary."""
    llguidance = importlib.import_module("llguidance")
    spelled = llguidance.TokenizerWrapper(_Spelling(pieces, eos))
    return llguidance.LLTokenizer(spelled, n_vocab=len(pieces), eos_token=eos)


class _Spelling:
    """A tokenizer of bytes: what llguidance asks for. All but the piece that ends an answer is text."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[str], eos: int) -> None:
        self.eos_token_id = eos
        self.special_token_ids = [eos]
        self.tokens = [piece.encode() for piece in pieces]
        longest = {token: at for at, token in enumerate(self.tokens) if token and at != eos}
        self.longest = sorted(longest.items(), key=lambda each: -len(each[0]))

    def __call__(self, text: bytes) -> list[int]:
        """The longest pieces that fit, as far as there are any; llguidance must not meet an exception."""
        ids, rest = [], text
        while found := next((each for each in self.longest if rest.startswith(each[0])), None):
            ids.append(found[1])
            rest = rest[len(found[0]) :]
        return ids


class _ScriptedReader:
    rewinds = True
    batches = True

    def __init__(self, script: Script, name: str, rows: int, context: int | None) -> None:
        self.script = script
        self.name = name
        self.rows = rows
        self.context = context

    def open(self, rows: int) -> Session:
        return _ScriptedSession(self.script, rows, self.rows)


class _ScriptedSession:
    """Keeps nothing but the count of what it was asked."""

    def __init__(self, script: Script, rows: int, size: int) -> None:
        self.script = script
        self.size = size
        self.cost = 1.0
        self.block = 0.0
        self.meters = [Meter() for _ in range(rows)]

    def read(self, sequences: Sequence[Sequence[int] | None], last: int | Sequence[int] = 1) -> Tensor:
        wanted = [last] * len(sequences) if isinstance(last, int) else list(last)
        logits = torch.zeros(len(sequences), max(wanted), self.size)
        for row, sequence in enumerate(sequences):
            if sequence is None:
                continue
            for back in range(wanted[row]):
                seen = list(sequence[: len(sequence) - back])
                logits[row, -1 - back] = torch.tensor(self.script(seen))
            self.meters[row].forwards += 1
            self.meters[row].tokens += wanted[row]
        return logits

    def retain(self, rows: Sequence[int]) -> None:
        self.meters = [self.meters[row] for row in rows]


class _PiecePrompter:
    """Cuts text into the longest pieces that fit; both models read the same."""

    def __init__(self, pieces: Sequence[str], template: str | None) -> None:
        self.pieces = pieces
        self.ids_by_length = sorted(range(len(pieces)), key=lambda each: -len(pieces[each]))
        self.template = template
        self.stops: tuple[str, ...] = answer_stops(template) if template else ()

    def render(self, prompt: Prompt, *, tools: Tools = None) -> Rendered:
        if isinstance(prompt, Rendered):
            return prompt
        thinking = False
        stops: tuple[str, ...] = ()
        if isinstance(prompt, str):
            ids = self._cut(prompt)
        elif all(isinstance(each, Mapping) for each in prompt):
            text = self._text(cast("Messages", prompt), tools)
            ids, thinking = self._cut(text), self.template is not None and is_thinking(text)
            stops = self.stops
        else:
            ids = list(cast("Sequence[int]", prompt))
        if not ids:
            msg = "prompt: it is empty; a model needs at least one token to go on from"
            raise PromptError(msg)
        return Rendered(tuple(ids), tuple(ids), thinking, thinking, stops)

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        return self._cut(completion) if isinstance(completion, str) else list(completion)

    def alone(self, who: Who) -> _PiecePrompter:
        del who  # both read the same
        return self

    def _text(self, messages: Messages, tools: Tools) -> str:
        if self.template is None:  # and nowhere to put tools
            return "".join(str(each["content"]) for each in messages)
        return write_chat(self.template, messages, tools, self._write)

    def _write(self, messages: list[Message], tools: list[Message] | None) -> str:
        rendered, _ = render_jinja_template(
            [messages], tools, chat_template=self.template, add_generation_prompt=True
        )
        return str(rendered[0])

    def _cut(self, text: str) -> list[int]:
        ids = []
        while text:
            fits = (
                each
                for each in self.ids_by_length
                if self.pieces[each] and text.startswith(self.pieces[each])
            )
            found = next(fits, None)
            if found is None:
                msg = f"prompt: no piece of the vocabulary starts {text[:20]!r}"
                raise PromptError(msg)
            ids.append(found)
            text = text[len(self.pieces[found]) :]
        return ids
