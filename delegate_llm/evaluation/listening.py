"""The base's own answers, or given texts, with what both models say at every position.

Answers are kept in a file batch by batch, so that an error, a full disk or a kill costs one batch: the same
command takes up what is there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from delegate_llm.errors import PolicyError, PromptError, RequestError
from delegate_llm.evaluation.grading import Checker, grade
from delegate_llm.evaluation.rollouts import Job, Rollout, batches, check_prompts, jobs, rollouts
from delegate_llm.evaluation.run_folder import Lines, Record
from delegate_llm.evaluation.tasks import Task
from delegate_llm.policy import DelegationPolicy, DivergenceName
from delegate_llm.trace import Decision, Trace

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("Listening", "Scored", "digest", "listening_policy", "scored")

_ENDLESS: Final = 1e20
"""Nats: a score beyond it comes of a logit of minus infinity, for which a finite number stands."""
_NEVER: Final = 1e300
"""A threshold that no score exceeds; unlike infinity, plain JSON has it."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer with a score and the base's entropy at every position."""

    task: str
    text: str
    decisions: tuple[Decision, ...]
    correct: bool | None = None
    """None where there is no answer to grade by."""
    finish_reason: str | None = None
    """None for a text that was given."""

    @property
    def scores(self) -> list[float]:
        """Of every position, in nats mostly."""
        return [each.score for each in self.decisions if each.score is not None]

    @property
    def entropies(self) -> list[float]:
        """Of the base at every position, in nats."""
        return [each.base_entropy for each in self.decisions if each.base_entropy is not None]


@dataclass(frozen=True, slots=True)
class Listening:
    """How the answers come about."""

    divergence: DivergenceName = "cross_entropy"
    seed: int = 0
    batch: int = 16
    given: bool = False
    """Whether the tasks' completions are scored, and nothing is written."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Others of `Pair.generate`, such as `temperature` and `max_tokens`."""


def listening_policy(divergence: DivergenceName = "cross_entropy") -> DelegationPolicy:
    """A policy under which both models are asked everywhere, and the base alone is heard."""
    return DelegationPolicy(divergence=divergence, threshold=_NEVER)


def digest(tasks: Sequence[Task]) -> str:
    """A name for just these tasks."""
    listed = json.dumps([asdict(each) for each in tasks])
    return f"{len(tasks)} tasks, sha256 {hashlib.sha256(listed.encode()).hexdigest()}"


def scored(
    load: Callable[[], Pair],
    tasks: Sequence[Task],
    how: Listening,
    lines: Lines,
    *,
    checker: Checker | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> list[Scored]:
    """Score an answer to each task.

    Args:
        load: Gives the pair; called only if there is something left to do.
        tasks: What to answer.
        how: How.
        lines: Where finished answers are kept; those that are there are not made again.
        checker: Grades all tasks in place of their own.
        done: Told how many answers there are more, at first and after each batch.

    Returns:
        The answers, in the order of the tasks.

    Raises:
        RequestError: If nothing was written, a position has no finite score, or the disk is full.
        DelegateError: As the pair does; what was finished by then is kept.
    """
    there = {each.task: each for each in map(_told, lines.records)}
    lines.records.clear()  # traces are large, and these are the same
    done(len(there))
    work = jobs(tasks, seed=how.seed)
    left = [each for each in batches(work, how.batch) if any(job.task.id not in there for job in each)]
    pair = load() if left else None
    if pair is not None:
        check_prompts(pair, [job.task for batch in left for job in batch])
    for batch in left:
        assert pair is not None
        made = [_line(each, checker) for each in _batch(pair, batch, how) if each.job.task.id not in there]
        lines.add(made)
        lines.records.clear()
        there.update({each["task"]: _told(each) for each in made})
        done(len(made))
    found = [there[task.id] for task in tasks]
    _check(found)
    return found


@dataclass(frozen=True, slots=True)
class _Made:
    """What became of one job, written or given."""

    job: Job
    text: str
    trace: Trace
    finish_reason: str | None
    seconds: float


def _batch(pair: Pair, batch: Sequence[Job], how: Listening) -> Iterator[_Made]:
    policy = listening_policy(how.divergence)
    if not how.given:
        settings = {**how.settings, "trace": "full"}
        for one in next(iter(rollouts(pair, [batch], policy=policy, settings=settings))):
            yield _written(one)
        return
    texts = [job.task.completion or "" for job in batch]
    started = time.perf_counter()
    try:
        traces = pair.score_batch([list(job.task.messages) for job in batch], texts, policy=policy)
    except PromptError as error:
        msg = f"the text of one of the tasks {batch[0].task.id!r} to {batch[-1].task.id!r}: {error}"
        raise PromptError(msg) from error
    seconds = (time.perf_counter() - started) / len(batch)
    for job, text, trace in zip(batch, texts, traces, strict=True):
        yield _Made(job, text, trace, None, seconds)


def _written(one: Rollout) -> _Made:
    made = one.generation
    return _Made(one.job, made.text, made.trace, made.finish_reason, one.seconds)


def _line(made: _Made, checker: Checker | None) -> Record:
    """One answer as it is kept; the fields are those of an evaluation's samples."""
    task = made.job.task
    found = None if task.answer is None else grade(made.text, task.answer, checker or task.checker)
    return {
        "arm": "base",
        "task": task.id,
        "sample": made.job.sample,
        "seed": made.job.seed,
        "text": made.text,
        "correct": None if found is None else found.correct,
        "parsed": None if found is None else found.read,
        "finish_reason": made.finish_reason,
        "seconds": round(made.seconds, 4),
        "trace": made.trace.to_fields(),
    }


def _told(record: Record) -> Scored:
    try:
        trace = Trace.model_validate(record["trace"])
        found = Scored(
            task=str(record["task"]),
            text=record["text"],
            decisions=trace.decisions,
            correct=record["correct"],
            finish_reason=record["finish_reason"],
        )
    except (KeyError, TypeError, PolicyError) as error:
        msg = f"a kept answer is none that this version wrote ({error!r:.80}); remove the file to start over"
        raise RequestError(msg) from error
    if trace.level != "full":
        msg = (
            f"the kept answer to task {found.task!r} has not every decision; remove its line to run it again"
        )
        raise RequestError(msg)
    return found


def _check(found: Sequence[Scored]) -> None:
    """Say now what no statistic could take."""
    if not any(each.decisions for each in found):
        msg = (
            f"tasks: the {len(found)} answers have no token among them; raise max_tokens, or give other tasks"
        )
        raise RequestError(msg)
    for answer in found:
        for each in answer.decisions:
            if each.score is None or each.base_entropy is None or not abs(each.score) < _ENDLESS:
                msg = (
                    f"task {answer.task!r}: the score at position {each.position} is {each.score}, with "
                    "which nothing can be computed; choose another divergence, such as js, which is bounded"
                )
                raise RequestError(msg)
