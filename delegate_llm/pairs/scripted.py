"""A pair whose two models are plain functions: for tests, and for seeing the method at work on paper.

A script takes the token ids so far, prompt included, and returns the logits of the next token. Everything
else is the real thing: policy, schedules, traces, streaming, batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from delegate_llm.errors import PromptError
from delegate_llm.pairs.pair import Pair
from delegate_llm.pairs.prompts import Prompt, Tools, Who
from delegate_llm.pairs.seam import Meter, Session
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
) -> Pair:
    """A pair of two functions.

    Args:
        base: What the base says.
        reasoner: What the reasoner says.
        pieces: The vocabulary: text of every token id. Prompts are cut into the longest that fit.
        eos: The id that ends an answer; its text is not shown.
        policy: The pair's own.
        context: Longest sequence, in tokens.
    """
    vocabulary = Vocabulary(
        size=len(pieces),
        rows=len(pieces),
        eos=frozenset(() if eos is None else (eos,)),
        decode=lambda ids: "".join(pieces[each] for each in ids if each != eos),
        piece=pieces.__getitem__,
    )
    return Pair(
        _ScriptedReader(base, "scripted base", len(pieces), context),
        _ScriptedReader(reasoner, "scripted reasoner", len(pieces), context),
        vocabulary,
        _PiecePrompter(pieces),
        policy=policy,
    )


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
    """Cuts text into the longest pieces that fit; messages are their contents, one after the other."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces
        self.ids_by_length = sorted(range(len(pieces)), key=lambda each: -len(pieces[each]))

    def ids(self, prompt: Prompt, *, tools: Tools = None) -> tuple[list[int], list[int]]:
        del tools  # a script has no template to put them into
        ids = self._cut(self._text(prompt)) if _is_text(prompt) else list(prompt)
        if not ids:
            msg = "prompt: it is empty; a model needs at least one token to go on from"
            raise PromptError(msg)
        return ids, list(ids)  # type: ignore[arg-type, return-value] # told apart by _is_text

    def completion_ids(self, completion: str | Sequence[int]) -> list[int]:
        return self._cut(completion) if isinstance(completion, str) else list(completion)

    def alone(self, who: Who) -> _PiecePrompter:
        del who  # both read the same
        return self

    @staticmethod
    def _text(prompt: Any) -> str:
        return prompt if isinstance(prompt, str) else "".join(str(each["content"]) for each in prompt)

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


def _is_text(prompt: Prompt) -> bool:
    return isinstance(prompt, str) or all(isinstance(each, Mapping) for each in prompt)
