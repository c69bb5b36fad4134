"""A pair whose tokens are decided elsewhere: by an engine that writes many answers at once.

Prompts, stop strings, loops, traces and usage are those of any pair; only who decides differs. The engine
runs in the background, and calls of many threads meet in it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch

from delegate_llm.errors import GrammarError, NumericsError, PromptError
from delegate_llm.grammar import Grammar, Guide
from delegate_llm.pairs.pair import OnStep, Pair, Piece, generation_of, piece_of
from delegate_llm.pairs.prompts import Prompt, Prompter, Rendered, Tools, Who
from delegate_llm.pairs.seam import Meter, Session
from delegate_llm.policy import DelegationPolicy
from delegate_llm.request import Request
from delegate_llm.rows import Likelihood, Row, Vocabulary
from delegate_llm.scoring import Facts, judged
from delegate_llm.trace import Generation, Trace
from delegate_llm.vllm_plugin.wire import Told

__all__ = ("Answer", "Engine", "Hosted", "HostedPair")

_MOMENT: Final = 0.02
"""Seconds between looks at whether a caller has had enough."""
_EVERYWHERE: Final = DelegationPolicy(divergence="random", threshold=0.0)
"""A policy under which the reasoner writes every token: no draw of the lot is 0."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """What is known of a model that runs elsewhere; a `Reader` that cannot be read from here."""

    name: str
    rows: int
    context: int | None
    cost: Callable[[Meter, int, int, int], None]
    """Books a forward, as `Costs.charge`."""
    rewinds: bool = True
    batches: bool = True

    def open(self, rows: int) -> Session:
        """Not here."""
        raise NotImplementedError(rows)


@dataclass(slots=True)
class Answer:
    """One answer that an engine is to write."""

    prompt: list[int]
    policy: DelegationPolicy
    request: Request
    seed: int
    room: int
    """Tokens at most."""
    eos: tuple[int, ...]
    grammar: str | None = None
    """What the answer must look like, in the dialect of Lark that llguidance reads."""
    forced: list[int] | None = None
    """Tokens that are said whatever the models say: a text to be scored."""


class Engine(Protocol):
    """Writes answers; any number at a time, from any thread."""

    ahead: int
    """Positions that the base drafts."""

    def write(self, answer: Answer, tell: Callable[[list[Told]], bool]) -> Future[None]:
        """Begin an answer.

        Args:
            answer: What to write.
            tell: Called in the engine's thread with what was decided, in order; False ends the answer.

        Returns:
            Done when the answer is; cancelling it stops the engine's work on it.
        """
        ...

    def close(self) -> None:
        """Stop for good."""
        ...


@dataclass(slots=True)
class _Job:
    """A row, and what it cost."""

    row: Row
    base: Meter = field(default_factory=Meter)
    reasoner: Meter = field(default_factory=Meter)


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
        """
        super().__init__(base, reasoner, vocabulary, prompter, policy=policy)
        self.engine = engine
        self._writer = writer

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
        )

    def close(self) -> None:
        """Stop the engine; its memory is free again."""
        self.engine.close()

    def score(
        self,
        prompt: Prompt,
        completion: str | Sequence[int],
        *,
        policy: DelegationPolicy | None = None,  # type: ignore[override]
        tools: Tools = None,
    ) -> Trace:
        """Read a given text with both models; see `Pair.score`."""
        ids = self.prompter.completion_ids(completion)
        request = self._request(policy, ignore_eos=True, max_tokens=len(ids), seed=0)
        row = self._row(prompt, request, tools)
        if row.room < len(ids):
            msg = f"completion: {len(ids)} tokens do not fit behind the prompt, where {row.room} are left"
            raise PromptError(msg)
        facts: list[Facts] = []

        def tell(told: list[Told]) -> bool:
            for each in told:
                assert each.reasoner_token is not None
                assert each.score is not None
                facts.append(Facts(each.score, each.entropy, each.base_token, each.reasoner_token))
            return True

        # The reasoner is consulted everywhere and never heard.
        listening = DelegationPolicy(divergence=request.policy.divergence, threshold=_NEVER)
        answer = self._answer(row, listening)
        answer.forced = ids
        _wait([self.engine.write(answer, tell)], None)
        return judged(ids, facts, self.vocabulary, request.policy)

    def _guide(self, grammar: Grammar | None, rendered: Rendered) -> Guide | None:
        """Not here: the engine follows grammars itself."""
        del rendered
        if grammar is not None and self.vocabulary.grammars is None:
            msg = "grammar: the tokenizers of this pair cannot follow one; load fast tokenizers"
            raise GrammarError(msg)
        return None

    def _row(self, prompt: Prompt, request: Request, tools: Tools, *, streaming: bool = False) -> Row:
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

    def _answer(self, row: Row, policy: DelegationPolicy | None = None) -> Answer:
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
        )

    def _run(self, rows: list[Row], on_step: OnStep | None) -> list[Generation]:
        jobs = [_Job(row) for row in rows]
        if on_step is not None:
            on_step()
        _wait([self.engine.write(self._answer(job.row), self._teller(job)) for job in jobs], on_step)
        return [self._finished(job) for job in jobs]

    def _pieces(self, row: Row, on_step: OnStep | None) -> Iterator[Piece | Generation]:
        if on_step is not None:
            on_step()
        job, heard = _Job(row), queue.SimpleQueue[list[Told] | None]()
        tell = self._teller(job)
        over = threading.Event()

        def put(told: list[Told]) -> bool:
            heard.put(told)
            return not over.is_set()

        future = self.engine.write(self._answer(row), put)
        future.add_done_callback(lambda _: heard.put(None))
        shown = told = 0
        try:
            while (some := _next(heard, on_step)) is not None:
                going = tell(some)
                safe = row.text.safe()
                if safe > shown:
                    yield piece_of(row, shown, safe, told)
                    shown, told = safe, len(row.decisions)
                if not going:
                    break
        finally:
            over.set()
            future.cancel()
        if row.reason is None:
            future.result()
        if shown < len(row.text.text) or told < len(row.decisions):
            yield piece_of(row, shown, len(row.text.text), told)
        yield self._finished(job)

    def _teller(self, job: _Job) -> Callable[[list[Told]], bool]:
        """Adds to a row what was decided; False once it has ended."""
        row, alone = job.row, self._writer is not None

        def tell(told: list[Told]) -> bool:
            for each in told:
                if row.reason is not None:
                    break
                self._charge(job, each)
                _check(each, len(row.tokens))
                likelihood = None
                if row.request.logprobs is not None:
                    likelihood = Likelihood(each.logprob, each.top)
                row.take(
                    each.token,
                    asked=each.asked and not alone,
                    takeover=each.takeover and not alone,
                    score=None if alone else each.score,
                    entropy=each.entropy,
                    base=each.token if alone else each.base_token,
                    reasoner=None if alone else each.reasoner_token,
                    likelihood=likelihood,
                )
            return row.reason is None

        return tell

    def _charge(self, job: _Job, told: Told) -> None:
        """Book the forwards that began with a token: one of the reasoner, and the base's draft before it."""
        if not told.read:
            return
        seen, fresh = len(job.row.base_prompt) + len(job.row.tokens), not job.row.tokens
        base, reasoner = self.base, self.reasoner
        assert isinstance(base, Hosted)
        assert isinstance(reasoner, Hosted)
        if fresh:
            base.cost(job.base, 0, seen, 1)
            reasoner.cost(job.reasoner, 0, seen, 1)
            return
        for at in range(self.engine.ahead + 1):
            base.cost(job.base, seen + at, 1, 1)
        if self._writer != "base":
            reasoner.cost(job.reasoner, seen, told.read, told.read)

    def _finished(self, job: _Job) -> Generation:
        if job.row.reason is None:  # the engine ended it: at the end of its context
            job.row.reason = "length"
            job.row.text.finish()
        alone = self._writer == "reasoner"
        return generation_of(job.row, *((job.reasoner, Meter()) if alone else (job.base, job.reasoner)))


_NEVER: Final = torch.finfo(torch.float64).max


def _check(told: Told, position: int) -> None:
    if told.entropy != told.entropy or (told.score is not None and told.score != told.score):  # noqa: PLR0124
        msg = (
            f"a model returned logits from which no token can be drawn (nan) at position {position}. "
            "Check the weights, or load them in another dtype (float32 or bfloat16)"
        )
        raise NumericsError(msg)


def _wait(futures: Sequence[Future[None]], on_step: OnStep | None) -> None:
    """Wait for all; what one of them or the caller raises ends the others."""
    try:
        for future in futures:
            while True:
                with suppress(TimeoutError):
                    future.result(None if on_step is None else _MOMENT)
                    break
                if future.done():
                    future.result()
                assert on_step is not None
                on_step()
    finally:
        for future in futures:
            future.cancel()


def _next(heard: queue.SimpleQueue[list[Told] | None], on_step: OnStep | None) -> list[Told] | None:
    """What was decided next; None at the end."""
    while True:
        try:
            some = heard.get(timeout=None if on_step is None else _MOMENT)
        except queue.Empty:
            assert on_step is not None
            on_step()
            continue
        if on_step is not None:
            on_step()
        return some
