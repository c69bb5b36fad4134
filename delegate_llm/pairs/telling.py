"""What stands between an engine and a pair: an answer goes in, what was decided comes out and is told on."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from delegate_llm.errors import EngineError
from delegate_llm.pairs.pair import OnStep
from delegate_llm.pairs.pieces import Piece, generation_of, piece_of
from delegate_llm.pairs.prompts import Who
from delegate_llm.pairs.seam import Meter, Session
from delegate_llm.policy import DelegationPolicy
from delegate_llm.request import Request
from delegate_llm.rows import Likelihood, Row, Vocabulary
from delegate_llm.scoring import Choices, Facts, judged
from delegate_llm.trace import Generation, Trace
from delegate_llm.vllm_plugin.wire import Told

__all__ = ("Answer", "Engine", "Hosted", "Scoring", "Telling", "following", "wait")

_Some = TypeVar("_Some")
_MOMENT: Final = 0.02
"""Seconds between looks at whether a caller has had enough."""


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
    brief: bool = False
    """Whether nobody will ask for probabilities and entropies, should the reasoner never be heard."""
    forced: list[int] | None = None
    """Tokens that are said whatever the models say: a text to be scored."""


class Engine(Protocol):
    """Writes answers; any number at a time, from any thread."""

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

    def __init__(self, row: Row, models: tuple[Hosted, Hosted], writer: Who | None) -> None:
        """Start with nothing decided.

        Args:
            row: Of the answer.
            models: The base and the reasoner.
            writer: Who writes alone, if one of the two does.
        """
        self.row = row
        self._models = models
        self._writer = writer
        self._meters = Meter(), Meter()
        self._shown = self._told = 0

    def hear(self, told: Sequence[Told]) -> bool:
        """Add what was decided; False once the answer has ended."""
        row, alone = self.row, self._writer is not None
        for each in told:
            if row.reason is not None:
                break
            self._charge(each)
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
            if not told.drafted:
                base.cost(drafting, 0, seen, 1)
            for at in range(told.drafted):
                base.cost(drafting, seen + at, 1, 1)
        if told.read and self._writer != "base":
            reasoner.cost(reading, *((0, seen, 1) if fresh else (seen, told.read, told.read)))


class Scoring:
    """A given text on its way through both models."""

    def __init__(self, answers: Sequence[Answer], policy: DelegationPolicy, vocabulary: Vocabulary) -> None:
        """Start with nothing read.

        Args:
            answers: The text, as an answer that is forced; and once more under a policy that always hears the
                reasoner, if its most probable tokens are to be known, or the first never asks it.
            policy: Says where it would have handed over.
            vocabulary: What the two models share.
        """
        self._answers = answers
        self._policy = policy
        self._vocabulary = vocabulary
        self._facts: list[Facts] = []
        self._tops: list[Choices] = []
        self._reasoner: list[int | None] = []

    @property
    def readings(self) -> list[tuple[Answer, Callable[[Sequence[Told]], bool]]]:
        """What is to be written, each with whom to tell."""
        return list(zip(self._answers, (self._hear, self._hear_reasoner), strict=False))

    def _hear(self, told: Sequence[Told]) -> bool:
        """Add what both models said."""
        for each in told:
            assert each.score is not None
            said = each.base_token, -1 if each.reasoner_token is None else each.reasoner_token
            self._facts.append(Facts(each.score, each.entropy, *said, base_top=each.top))
        return True

    def _hear_reasoner(self, told: Sequence[Told]) -> bool:
        """Add what the reasoner says, and finds most probable."""
        self._tops += [each.top for each in told]
        self._reasoner += [each.reasoner_token for each in told]
        return True

    def trace(self) -> Trace:
        """What the policy says of the whole text."""
        facts = self._facts
        if self._tops:
            heard = zip(facts, self._tops, self._reasoner, strict=True)
            facts = [
                each._replace(reasoner_top=top, reasoner=each.reasoner if said is None else said)
                for each, top, said in heard
            ]
        return judged(self._answers[0].forced or (), facts, self._vocabulary, self._policy)


def wait(futures: Sequence[Future[Any]], on_step: OnStep | None) -> None:
    """Wait for all; what one of them or the caller raises ends the others.

    Raises:
        EngineError: If somebody closes what they run on.
    """
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
    except CancelledError as error:
        msg = "the pair was closed while this call was under way"
        raise EngineError(msg) from error
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
