"""What stands between a pair and a message: a job is rendered once, run on any route, and told in chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk

from delegate_llm import parsing
from delegate_llm.chat.call import Call
from delegate_llm.chat.record import response_metadata, usage_metadata
from delegate_llm.chat.waiting import AT_ONCE, elsewhere
from delegate_llm.errors import CancelledError, DelegateError, PromptError
from delegate_llm.parsing import (
    AnswerParser,
    Part,
    Text,
    answer_message,
    part_chunk,
)
from delegate_llm.policy import DelegationPolicy
from delegate_llm.trace import Generation
from delegate_llm.watching import watcher

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.pairs.prompts import Rendered

_CALLS: Final = (parsing.Call, parsing.BrokenCall)
_MOMENT: Final = 0.001
"""Seconds."""

__all__ = ("Job", "chunks", "message", "run", "run_together", "some")


@dataclass(frozen=True, slots=True)
class Job:
    """A call that is ready to run."""

    call: Call
    pair: Pair
    """Whose policy and prompts are those of the arm that the call wants."""
    policy: DelegationPolicy
    prompt: Rendered
    model_name: str
    on_step: Callable[[], None]

    @classmethod
    def of(cls, call: Call, pair: Pair, chat: Sequence[dict[str, Any]], model_name: str) -> Job:
        """The job that a call of these messages is on a pair; raises what is wrong with them."""
        own = call.pair_for(pair)
        prompt = own.prompter.render(chat, tools=call.tools)
        policy = call.policy_for(pair.policy)
        call.warn_of(pair.policy, policy)
        return cls(call, own, policy, prompt, model_name, call.clock())

    @property
    def settings(self) -> dict[str, Any]:
        """For the pair, but for the seed."""
        return {**self.call.settings, "policy": self.policy}


def run(job: Job) -> list[Generation]:
    """The answers that a call asks for."""
    seeds = job.call.seeds
    if len(seeds) > 1:
        prompts = [job.prompt] * len(seeds)
        return job.pair.generate_batch(prompts, seed=seeds, on_step=job.on_step, **job.settings)
    if watcher() is None:
        return [job.pair.generate(job.prompt, seed=seeds[0], on_step=job.on_step, **job.settings)]
    *_, generation = _pieces(job)
    assert isinstance(generation, Generation)
    return [generation]


def run_together(jobs: Sequence[Job]) -> list[list[Generation] | BaseException]:
    """The answers or the error of each of several calls, those with the same settings in one batch."""
    if len(jobs) > 1 and elsewhere(jobs[0].pair):
        return _run_apart(jobs)
    results: list[list[Generation] | BaseException | None] = [None] * len(jobs)
    waiting = list(range(len(jobs)))
    while waiting:
        first = jobs[waiting[0]]
        alike = [at for at in waiting if _alike(first, jobs[at])]
        waiting = [at for at in waiting if at not in alike]
        for at, result in zip(alike, _run_alike([jobs[at] for at in alike]), strict=True):
            results[at] = result
    return [each for each in results if each is not None]


def _alike(one: Job, other: Job) -> bool:
    return one.call.arm == other.call.arm and one.settings == other.settings


def _run_apart(jobs: Sequence[Job]) -> list[list[Generation] | BaseException]:
    """Each by itself and all at once: what runs them brings them together, and none is another's affair."""
    with ThreadPoolExecutor(min(len(jobs), AT_ONCE)) as threads:
        try:
            return list(threads.map(_attempt, jobs))
        except BaseException:
            for job in jobs:
                job.call.cancelled.set()
            raise


def _run_alike(jobs: list[Job]) -> list[list[Generation] | BaseException]:
    """Those with a prompt that can be answered in one batch."""
    faults = [_fault(job) for job in jobs]
    results = iter(_run_batch([job for job, fault in zip(jobs, faults, strict=True) if fault is None]))
    return [next(results) if fault is None else fault for fault in faults]


def _fault(job: Job) -> PromptError | None:
    """What is wrong with a prompt, as far as it is known before anything runs."""
    try:
        job.pair.check_prompt(job.prompt)
    except PromptError as error:
        return error
    return None


def _run_batch(jobs: list[Job]) -> list[list[Generation] | BaseException]:
    prompts = [job.prompt for job in jobs for _ in job.call.seeds]
    seeds = [seed for job in jobs for seed in job.call.seeds]
    if len(jobs) > 1:
        try:
            generations = iter(
                jobs[0].pair.generate_batch(prompts, seed=seeds, on_step=_joint(jobs), **jobs[0].settings)
            )
            return [[next(generations) for _ in job.call.seeds] for job in jobs]
        except CancelledError as error:
            return [error] * len(jobs)
        except DelegateError:
            pass  # of one of them, most likely: each alone gets its own answer or error
    return [_attempt(job) for job in jobs]


def _attempt(job: Job) -> list[Generation] | BaseException:
    try:
        return run(job)
    except DelegateError as error:
        return error


def _joint(jobs: Sequence[Job]) -> Callable[[], None]:
    """For `on_step` of a batch, which goes on for as long as anybody waits for it."""

    def check() -> None:
        waiting = [job for job in jobs if not job.call.cancelled.is_set()] or jobs
        for job in waiting:
            job.on_step()

    return check


def chunks(job: Job) -> Iterator[AIMessageChunk]:
    """The answer to a call as it comes; the last chunk, an empty one, has the record."""
    parser, calls = _parser(job), 0
    for piece in _pieces(job):
        finished = isinstance(piece, Generation)
        parts = parser.finish() if finished else parser.push(piece.text)
        for part in parts:
            yield part_chunk(part, calls)
            calls += isinstance(part, _CALLS)
        if finished:
            yield _closing(job, piece, called=calls > 0)


def some(stream: Iterator[AIMessageChunk]) -> list[AIMessageChunk]:
    """The next chunks: one, and those that come within a moment; none at the end.

    A worker hands them over to an event loop, which costs as much as a small model's token.
    """
    ready: list[AIMessageChunk] = []
    end = time.monotonic() + _MOMENT
    for chunk in stream:
        ready.append(chunk)
        if time.monotonic() > end:
            break
    return ready


def message(job: Job, generation: Generation) -> AIMessage:
    """A finished answer as a message: what its chunks add up to."""
    parser = _parser(job)
    parts = [*parser.push(generation.text), *parser.finish()]
    made, calls = [], 0
    for part in parts:
        made.append(part_chunk(part, calls))
        calls += isinstance(part, _CALLS)
    return answer_message(reduce(add, [*made, _closing(job, generation, called=calls > 0)]))


def _closing(job: Job, generation: Generation, *, called: bool) -> AIMessageChunk:
    return AIMessageChunk(
        content="",
        response_metadata=response_metadata(
            generation, job.policy, model_name=job.model_name, arm=job.call.arm, called=called
        ),
        usage_metadata=usage_metadata(generation),
        chunk_position="last",
    )


def _pieces(job: Job) -> Iterator[Any]:
    """As the pair streams, told to whoever watches."""
    told = watcher()
    stream = job.pair.stream(job.prompt, seed=job.call.seeds[0], on_step=job.on_step, **job.settings)
    for piece in stream:
        if told is not None and not isinstance(piece, Generation):
            told(piece)
        yield piece


class _Verbatim:
    """Stands in for a parser where an answer has a form of its own, in which a tag is only text."""

    def push(self, text: str) -> list[Part]:
        return [Text(text)] if text else []

    def finish(self) -> list[Part]:
        return []


def _parser(job: Job) -> AnswerParser | _Verbatim:
    grammar = job.call.settings["grammar"]
    if grammar is not None and grammar.kind != "calls" and not job.prompt.thinking:
        return _Verbatim()
    return AnswerParser(
        thinking=job.prompt.thinking, spaced=bool(job.pair.prompter.stops), formed=grammar is not None
    )
