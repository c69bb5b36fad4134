"""Answers to many tasks, a batch at a time, on whatever backend a pair has.

A batch is the unit of work: the same tasks, in the same order, make the same batches, so that a run that
was broken off goes on with the very forwards that it would have taken.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delegate_llm.errors import PromptError
from delegate_llm.evaluation.tasks import Task
from delegate_llm.policy import DelegationPolicy
from delegate_llm.trace import Decision, Generation, Trace

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("Job", "Rollout", "batches", "jobs", "rollouts", "seed_of", "with_choices")


@dataclass(frozen=True, slots=True)
class Job:
    """One answer that is to be written."""

    task: Task
    sample: int
    """Which of the answers to this task."""
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """Names it among the jobs of a run."""
        return self.task.id, self.sample


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer, written."""

    job: Job
    generation: Generation
    seconds: float
    """Its part of the time that its batch took."""


def jobs(tasks: Iterable[Task], *, samples: int = 1, seed: int = 0) -> list[Job]:
    """Every answer that is to be written, all of a task's side by side.

    Args:
        tasks: What to answer.
        samples: Answers to each task.
        seed: Where their seeds begin.
    """
    return [Job(task, sample, seed_of(task, sample, seed)) for task in tasks for sample in range(samples)]


def seed_of(task: Task, sample: int, seed: int) -> int:
    """A seed for one answer: one for all tasks would draw the same noise for them all."""
    name = f"{seed}/{sample}/{task.id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big")


def batches(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    """The jobs in groups of `size`, the last one smaller."""
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def rollouts(
    pair: Pair,
    work: Iterable[Sequence[Job]],
    *,
    policy: DelegationPolicy | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[list[Rollout]]:
    """Write the answers, a batch at a time.

    Args:
        pair: Who writes.
        work: As `batches` gives it.
        policy: The pair's own by default.
        settings: Others of `Pair.generate`, such as `max_tokens` and `temperature`.

    Yields:
        The answers of each batch, in order.

    Raises:
        PromptError: Naming the tasks among which one cannot be used.
    """
    for batch in work:
        started = time.perf_counter()
        try:
            written = pair.generate_batch(
                [list(job.task.messages) for job in batch],
                policy=policy,
                seed=[job.seed for job in batch],
                **(settings or {}),
            )
        except PromptError as error:
            names = list(dict.fromkeys(job.task.id for job in batch))
            which = (
                f"task {names[0]!r}" if len(names) == 1 else f"one of the tasks {names[0]!r} to {names[-1]!r}"
            )
            msg = f"{which}: {error}"
            raise PromptError(msg) from error
        seconds = (time.perf_counter() - started) / len(batch)
        yield [Rollout(job, one, seconds) for job, one in zip(batch, written, strict=True)]


def check_prompts(pair: Pair, tasks: Iterable[Task]) -> None:
    """Say which task cannot be asked before any is.

    Raises:
        PromptError: If a model cannot read one.
    """
    for task in tasks:
        try:
            pair.check_prompt(list(task.messages))
        except PromptError as error:
            msg = f"task {task.id!r}: {error}"
            raise PromptError(msg) from error


def with_choices(pair: Pair, made: Sequence[Rollout], count: int) -> list[Trace]:
    """The full traces of answers, with the most probable tokens of both models where the two part.

    Args:
        pair: Who wrote them, and reads them once more.
        made: With full traces.
        count: Of tokens, at every takeover and wherever the first choices differ.

    Raises:
        RequestError: If they are more than the pair's backend tells.
    """
    read = pair.score_batch(
        [list(each.job.task.messages) for each in made],
        [each.generation.token_ids for each in made],
        top=count,
    )
    return [
        one.generation.trace.model_copy(
            update={"decisions": tuple(map(_with_choices, one.generation.trace.decisions, other.decisions))}
        )
        for one, other in zip(made, read, strict=True)
    ]


def _with_choices(decision: Decision, read: Decision) -> Decision:
    if not (decision.takeover or read.base_token_id != read.reasoner_token_id):
        return decision
    return decision.model_copy(update={"base_top": read.base_top, "reasoner_top": read.reasoner_top})
