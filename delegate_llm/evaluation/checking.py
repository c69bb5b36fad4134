"""Whether prompts that a policy was not made from bear it out.

The check answers them with takeovers on. The audit is for policies that do not ask everywhere: a random few
of the positions where nobody asked are scored after all, and tell how many takeovers were missed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from delegate_llm.evaluation.grading import Checker, grade
from delegate_llm.evaluation.rollouts import Rollout, batches, jobs, rollouts
from delegate_llm.evaluation.statistics import Estimate, bootstrap, wilson
from delegate_llm.evaluation.tasks import Task
from delegate_llm.policy import DelegationPolicy

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("Audit", "Check", "audit", "check", "parts")

_FAR: Final = 0.5
"""Relative; a realised share that is further from the nominal one is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a policy did on prompts that it was not made from."""

    answers: int
    tokens: int
    takeovers: int
    share: Estimate
    """Takeovers per token, over the answers."""
    asked: Estimate
    """Positions at which the reasoner was consulted, per token."""
    graded: int
    """Answers that could be graded."""
    correct: int | None
    base_correct: int | None
    """The same of the base alone; None where nothing could be graded."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found where nobody had asked."""

    skipped: int
    """Positions at which the reasoner was not consulted."""
    audited: int
    missed: int
    """Audited positions whose score is above the threshold."""
    missed_per_thousand: Estimate
    """Takeovers missed in 1,000 generated tokens."""
    missed_share: Estimate
    """Of all takeovers, those made and those missed together."""


def check(
    pair: Pair,
    tasks: Sequence[Task],
    policy: DelegationPolicy,
    *,
    seed: int = 0,
    batch: int = 16,
    settings: Mapping[str, Any] | None = None,
    checker: Checker | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[Check, list[Rollout]]:
    """Answer tasks with takeovers on, and by the base alone where answers can be graded.

    Args:
        pair: The models.
        tasks: Others than those that the policy was made from.
        policy: What is checked.
        seed: Where the answers' seeds begin.
        batch: Answers written together.
        settings: Others of `Pair.generate`.
        checker: Grades all tasks in place of their own.
        done: Told how many answers were written more.

    Returns:
        What was found, and the answers with takeovers on, every decision kept.

    Raises:
        DelegateError: As the pair does.
    """
    given = dict(settings or {})
    work = batches(jobs(tasks, seed=seed), batch)
    made = _all(rollouts(pair, work, policy=policy, settings={**given, "trace": "full"}), done)
    graded = [task for task in tasks if task.answer is not None]
    base: list[Rollout] = []
    if graded:
        alone, off = batches(jobs(graded, seed=seed), batch), {**given, "trace": "off"}
        base = _all(rollouts(pair, alone, policy=DelegationPolicy(budget=0), settings=off), done)
    counts = [each.generation.trace.summary for each in made]
    tokens, takeovers, asked = (
        np.array([getattr(each, name) for each in counts], dtype=np.float64)
        for name in ("tokens", "takeovers", "asked")
    )
    found = Check(
        answers=len(made),
        tokens=int(tokens.sum()),
        takeovers=int(takeovers.sum()),
        share=bootstrap(_per_token, takeovers, tokens),
        asked=bootstrap(_per_token, asked, tokens),
        graded=len(graded),
        correct=_right(made, checker) if graded else None,
        base_correct=_right(base, checker) if graded else None,
    )
    return found, made


def parts(nominal: float, realised: Estimate) -> str | None:
    """In which way a realised share is not the nominal one; None where it is."""
    if not abs(realised.value - nominal) <= _FAR * nominal:
        return f"the realised share {realised.value:.3g} is more than {_FAR:.0%} off the nominal {nominal:g}"
    if realised.low > nominal or realised.high < nominal:
        return (
            f"the nominal share {nominal:g} is outside the interval of the realised one, "
            f"{realised.low:.3g} to {realised.high:.3g}"
        )
    return None


def audit(
    pair: Pair,
    made: Sequence[Rollout],
    policy: DelegationPolicy,
    *,
    count: int = 200,
    seed: int = 0,
    batch: int = 16,
) -> Audit:
    """Score a random few of the positions at which the reasoner was not consulted.

    Args:
        pair: The models.
        made: Answers written under the policy, with every decision.
        policy: Its divergence and its threshold tell what was missed.
        count: Positions to score; all of them if there are not as many.
        seed: Names the draw.
        batch: Texts read together.

    Raises:
        DelegateError: As the pair does.
    """
    skipped = [
        (number, each.position)
        for number, one in enumerate(made)
        for each in one.generation.trace.decisions
        if not each.asked
    ]
    drawn = sorted(random.Random(seed).sample(skipped, min(count, len(skipped))))  # noqa: S311 - no secret
    missed = sum(score > policy.threshold for score in _scores_at(pair, made, drawn, policy, batch))
    tokens = sum(each.generation.trace.summary.tokens for each in made)
    takeovers = sum(each.generation.trace.summary.takeovers for each in made)
    rate = missed / len(drawn) if drawn else 0.0
    some = len(drawn) < len(skipped)  # else nothing is left to estimate
    low, high = wilson(missed, len(drawn)) if some else (rate, rate)
    rates = Estimate(rate, low, high)
    return Audit(
        skipped=len(skipped),
        audited=len(drawn),
        missed=missed,
        missed_per_thousand=Estimate(*(1000 * each * len(skipped) / max(1, tokens) for each in rates)),
        missed_share=Estimate(*(_part(each * len(skipped), takeovers) for each in rates)),
    )


def _scores_at(
    pair: Pair,
    made: Sequence[Rollout],
    drawn: Iterable[tuple[int, int]],
    policy: DelegationPolicy,
    batch: int,
) -> Iterator[float]:
    """The scores at positions of answers, in order; each answer is read up to the last of its positions."""
    ungated = DelegationPolicy(divergence=policy.divergence, threshold=policy.threshold)
    groups = [(number, [at for _, at in each]) for number, each in groupby(drawn, key=lambda one: one[0])]
    for start in range(0, len(groups), batch):
        some = groups[start : start + batch]
        traces = pair.score_batch(
            [list(made[number].job.task.messages) for number, _ in some],
            [made[number].generation.token_ids[: places[-1] + 1] for number, places in some],
            policy=ungated,
        )
        for (_, places), trace in zip(some, traces, strict=True):
            for at in places:
                score = trace.decisions[at].score
                yield math.nan if score is None else score


def _all(work: Iterable[list[Rollout]], done: Callable[[int], object]) -> list[Rollout]:
    made: list[Rollout] = []
    for batch in work:
        made += batch
        done(len(batch))
    return made


def _right(made: Iterable[Rollout], checker: Checker | None) -> int:
    return sum(
        grade(each.generation.text, each.job.task.answer, checker or each.job.task.checker).correct
        for each in made
        if each.job.task.answer is not None
    )


def _per_token(counts: Any, tokens: Any) -> float | None:
    return float(counts.sum() / tokens.sum()) if tokens.sum() else None


def _part(missed: float, made: float) -> float:
    return missed / (missed + made) if missed + made else 0.0
