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
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

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

__all__ = ("Answer", "Engine", "Hosted", "HostedPair", "Telling", "following", "wait")

_Some = TypeVar("_Some")
_MOMENT: Final = 0.02
"""Seconds between looks at whether a caller has had enough."""
_EVERYWHERE: Final = DelegationPolicy(divergence="random", threshold=0.0)
"""A policy under which the reasoner writes every token: no draw of the lot is 0."""


@dataclass(slots=True)
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


class Telling:
    """An answer on its way: what was decided goes in, pieces of text and at last the answer come out."""

    def __init__(self, row: Row, models: tuple[Hosted, Hosted], ahead: int, writer: Who | None) -> None:
        """Start with nothing decided.

        Args:
            row: Of the answer.
            models: The base and the reasoner.
            ahead: Positions that the base drafts.
            writer: Who writes alone, if one of the two does.
        """
        self.row = row
        self._models = models
        self._ahead = ahead
        self._writer = writer
        self._meters = Meter(), Meter()
        self._shown = self._told = 0

    def hear(self, told: Sequence[Told]) -> bool:
        """Add what was decided; False once the answer has ended.

        Raises:
            NumericsError: If a model returned NaN.
        """
        row, alone = self.row, self._writer is not None
        for each in told:
            if row.reason is not None:
                break
            self._charge(each)
            _check(each, len(row.tokens))
            likelihood = None if row.request.logprobs is None else Likelihood(each.logprob, each.top)
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

    def piece(self) -> Piece | None:
        """Text that is whole now and was not told; None if there is none."""
        safe = self.row.text.safe()
        return self._piece(safe) if safe > self._shown else None

    def rest(self) -> Piece | None:
        """What `piece` has held back, at the end."""
        if self._shown < len(self.row.text.text) or self._told < len(self.row.decisions):
            return self._piece(len(self.row.text.text))
        return None

    def finished(self) -> Generation:
        """The answer."""
        if self.row.reason is None:  # the engine ended it: at the end of its context
            self.row.reason = "length"
            self.row.text.finish()
        meters = self._meters
        return generation_of(self.row, *(reversed(meters) if self._writer == "reasoner" else meters))

    def _piece(self, end: int) -> Piece:
        piece = piece_of(self.row, self._shown, end, self._told)
        self._shown, self._told = end, len(self.row.decisions)
        return piece

    def _charge(self, told: Told) -> None:
        """Book the forwards that began with a token: the base's draft before it, and one of the reasoner."""
        if not told.step:
            return
        row, (base, reasoner), (drafting, reading) = self.row, self._models, self._meters
        seen, fresh = len(row.base_prompt) + len(row.tokens), not row.tokens
        if self._writer != "reasoner":  # else what it spares is the engine's affair
            if fresh:
                base.cost(drafting, 0, seen, 1)
            else:
                for at in range(self._ahead + 1):
                    base.cost(drafting, seen + at, 1, 1)
        if told.read and self._writer != "base":
            reasoner.cost(reading, *((0, seen, 1) if fresh else (seen, told.read, told.read)))


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
        answer = self.answer(row, listening)
        answer.forced = ids
        wait([self.engine.write(answer, tell)], None)
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
        )

    def telling(self, row: Row) -> Telling:
        """For an answer that begins."""
        models: Any = self.base, self.reasoner
        return Telling(row, models, self.engine.ahead, self._writer)

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
                future.result()
        finally:
            over.set()
            future.cancel()
        if (piece := telling.rest()) is not None:
            yield piece
        yield telling.finished()


_NEVER: Final = torch.finfo(torch.float64).max


def _check(told: Told, position: int) -> None:
    if told.entropy != told.entropy or (told.score is not None and told.score != told.score):
        msg = (
            f"a model returned logits from which no token can be drawn (nan) at position {position}. "
            "Check the weights, or load them in another dtype (float32 or bfloat16)"
        )
        raise NumericsError(msg)


def wait(futures: Sequence[Future[None]], on_step: OnStep | None) -> None:
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


def following(heard: queue.SimpleQueue[_Some], on_step: OnStep | None) -> _Some:
    """What comes next."""
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
