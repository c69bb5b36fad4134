"""A pair whose tokens are decided elsewhere: by an engine that writes many answers at once.

Prompts, stop strings, loops, traces and usage are those of any pair; only who decides differs. The engine
runs in the background, and calls of many threads meet in it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from delegate_llm.errors import GrammarError, PromptError, RequestError
from delegate_llm.grammar import Grammar, Guide
from delegate_llm.pairs.batches import check_texts, check_top
from delegate_llm.pairs.pair import OnStep, Pair, Piece
from delegate_llm.pairs.prompts import Prompt, Prompter, Rendered, Tools, Who
from delegate_llm.pairs.telling import Answer, Engine, Hosted, Scoring, Telling, following, wait
from delegate_llm.policy import BASE_ONLY, DelegationPolicy
from delegate_llm.request import Request
from delegate_llm.rows import Row, Vocabulary
from delegate_llm.trace import Generation, Trace
from delegate_llm.vllm_plugin.defaults import ALTERNATIVES
from delegate_llm.vllm_plugin.wire import Told

__all__ = ("HostedPair",)

_EVERYWHERE: Final = DelegationPolicy(divergence="random", threshold=0.0)
"""A policy under which the reasoner writes every token: no draw of the lot is 0."""
_NEVER: Final = torch.finfo(torch.float64).max
"""Nats that no score reaches."""


class HostedPair(Pair):
    """A pair on an engine. `schedule` and `draft` mean nothing here: the engine has its own."""

    def __init__(
        self,
        engine: Engine,
        base: Hosted,
        reasoner: Hosted,
        vocabulary: Vocabulary,
        prompter: Prompter,
        *,
        policy: DelegationPolicy | None = None,
        writer: Who | None = None,
        alternatives: int = ALTERNATIVES,
    ) -> None:
        """Put a pair together from its parts.

        Args:
            engine: Writes the answers.
            base: The cheap model.
            reasoner: The model that is asked.
            vocabulary: What the two share.
            prompter: Renders prompts; both models have to read the same.
            policy: Used by calls that give none.
            writer: Who writes alone, if one of the two does.
            alternatives: Log-probabilities that the engine tells of a token at most.
        """
        super().__init__(base, reasoner, vocabulary, prompter, policy=policy)
        self.engine = engine
        self._writer = writer
        self._alternatives = alternatives

    def alone(self, who: Who) -> HostedPair:
        """One of the two writing by itself, on the same engine; see `Pair.alone`."""
        prompter = super().alone(who).prompter
        reader: Any = self.base if who == "base" else self.reasoner
        return HostedPair(
            self.engine,
            reader,
            reader,
            self.vocabulary,
            prompter,
            policy=DelegationPolicy(budget=0),
            writer=self._writer or who,
            alternatives=self._alternatives,
        )

    def close(self) -> None:
        """Stop the engine; its memory is free again."""
        self.engine.close()

    def score_batch(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str | Sequence[int]],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        top: int = 0,
    ) -> list[Trace]:
        """Read given texts with both models, all at once; see `Pair.score_batch`."""
        check_texts(prompts, completions)
        scorings = [
            self.scoring(*each, policy=policy, tools=tools, top=top)
            for each in zip(prompts, completions, strict=True)
        ]
        wait([self.engine.write(*reading) for each in scorings for reading in each.readings], None)
        return [each.trace() for each in scorings]

    def scoring(
        self,
        prompt: Prompt,
        completion: str | Sequence[int],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        top: int = 0,
    ) -> Scoring:
        """A text that is to be scored; arguments as for `score`."""
        if self._writer is not None:
            msg = f"score: the {self._writer} alone has nobody to be compared with; ask the pair"
            raise RequestError(msg)
        ids, top = self.prompter.completion_ids(completion), check_top(top, self._alternatives)
        request = self._request(policy, ignore_eos=True, max_tokens=len(ids), seed=0, logprobs=top or None)
        row = self._row(prompt, request, tools)
        if row.room < len(ids):
            msg = f"completion: {len(ids)} tokens do not fit behind the prompt, where {row.room} are left"
            raise PromptError(msg)
        # The reasoner is consulted everywhere, or nowhere by a signal of the base's, and never heard. Who is
        # heard says what it finds most probable.
        divergence = request.policy.divergence
        listening = DelegationPolicy(divergence=divergence, threshold=_NEVER)
        policies = [listening, *([_EVERYWHERE] if top or divergence in BASE_ONLY else [])]
        answers = [replace(self.answer(row, each), forced=ids) for each in policies]
        return Scoring(answers, request.policy, self.vocabulary)

    def begin(
        self,
        prompt: Prompt,
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        streaming: bool = False,
        **settings: Any,
    ) -> Telling:
        """An answer that is to be written by whoever asks; settings as for `generate`."""
        return self.telling(self._row(prompt, self._request(policy, **settings), tools, streaming=streaming))

    def _guide(self, grammar: Grammar | None, rendered: Rendered) -> Guide | None:
        """Not here: the engine follows grammars itself."""
        del rendered
        if grammar is not None and self.vocabulary.grammars is None:
            msg = "grammar: the tokenizers of this pair cannot follow one; load fast tokenizers"
            raise GrammarError(msg)
        return None

    def _row(self, prompt: Prompt, request: Request, tools: Tools, *, streaming: bool = False) -> Row:
        if request.logprobs is not None and request.logprobs > self._alternatives:
            msg = (
                f"logprobs: {request.logprobs} is more than the {self._alternatives} that this engine tells "
                "of a token; more need a larger max_logprobs of vLLM"
            )
            raise RequestError(msg)
        rendered = self.prompter.render(prompt, tools=tools)
        row = super()._row(rendered, request, tools, streaming=streaming)
        if row.base_prompt != row.reasoner_prompt:
            msg = (
                "prompt: the two chat templates write it differently, and this engine reads one prompt for "
                "both models; load the pair with the same base_template and reasoner_template (and kwargs)"
            )
            raise PromptError(msg)
        if request.grammar is not None and self.vocabulary.grammars is not None:
            row.form = self.vocabulary.grammars.text(request.grammar, thinking=rendered.thinking)
        return row

    def answer(self, row: Row, policy: DelegationPolicy | None = None) -> Answer:
        """What the engine is to write for a row, by its own policy or another."""
        if policy is None:
            policy = _EVERYWHERE if self._writer == "reasoner" else row.request.policy
        return Answer(
            prompt=row.base_prompt,
            policy=policy,
            request=row.request,
            seed=row.seed,
            room=row.room,
            eos=tuple(sorted(self.vocabulary.eos)),
            grammar=row.form,
            brief=not row.traced and row.request.logprobs is None,
        )

    def telling(self, row: Row) -> Telling:
        """For an answer that begins."""
        models: Any = self.base, self.reasoner
        return Telling(row, models, self._writer)

    def _run(self, rows: list[Row], on_step: OnStep | None) -> list[Generation]:
        if on_step is not None:
            on_step()
        telling = [self.telling(row) for row in rows]
        wait([self.engine.write(self.answer(each.row), each.hear) for each in telling], on_step)
        return [each.finished() for each in telling]

    def _pieces(self, row: Row, on_step: OnStep | None) -> Iterator[Piece | Generation]:
        if on_step is not None:
            on_step()
        telling, heard = self.telling(row), queue.SimpleQueue[list[Told] | None]()
        over = threading.Event()

        def put(told: list[Told]) -> bool:
            heard.put(told)
            return not over.is_set()

        future = self.engine.write(self.answer(row), put)
        future.add_done_callback(lambda _: heard.put(None))
        try:
            while (told := following(heard, on_step)) is not None:
                going = telling.hear(told)
                if (piece := telling.piece()) is not None:
                    yield piece
                if not going:
                    break
            else:
                wait([future], None)
        finally:
            over.set()
            future.cancel()
        if (piece := telling.rest()) is not None:
            yield piece
        yield telling.finished()
