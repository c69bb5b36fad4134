"""What a run found: accuracy with its interval, the share that was spent, and what it cost, by arm.

Tasks are what is drawn again for an interval, with all their answers: answers to one task are not
independent. Arms answer the same tasks with the same seeds, so differences are taken task by task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delegate_llm.evaluation.arms import Arm, Kind
from delegate_llm.evaluation.problems import recovery
from delegate_llm.evaluation.statistics import Estimate, bootstrap, holm, pass_at_k, sign_flip, wilson
from delegate_llm.trace import COSTS

__all__ = ("Comparison", "Row", "comparisons", "rows")

Record = Mapping[str, Any]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """An arm in numbers. Shares and accuracies are in [0, 1]; costs are means of an answer."""

    name: str
    kind: Kind
    of: str | None
    """For a control, the arm that it is set beside."""
    nominal: float | None
    tasks: int
    samples: int
    """Answers to each task."""
    accuracy: Estimate
    """Of an answer: avg@k."""
    pass_at: dict[int, Estimate]
    """That one of k answers is right, by k."""
    recovery: Estimate | None
    """(accuracy - base's) / (reasoner's - base's); None where the reasoner is no better."""
    share: Estimate | None
    """Takeovers per token; None for a model alone."""
    to_right: int
    """Answers that the base got wrong and this arm right, same task and seed."""
    to_wrong: int
    unread: int
    """Answers in which the checker found no conclusion; they count as wrong."""
    ended: dict[str, int]
    """Answers by how they ended."""
    asked: float
    """Positions per token at which the reasoner was consulted."""
    tokens: float
    base_forwards: float
    reasoner_forwards: float
    base_tokens: float
    """Tokens that the base processed, prompts included."""
    reasoner_tokens: float
    base_flops: float
    reasoner_flops: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm less another, task by task."""

    arm: str
    other: str
    difference: Estimate
    """Of the accuracies."""
    p: float
    """Of a paired permutation test, two-sided."""
    p_holm: float
    """Likewise, adjusted for all comparisons of the run."""


class _Answers:
    """The answers of one arm, tasks down and samples across."""

    def __init__(self, arm: Arm, records: Sequence[Record], place: Mapping[str, int]) -> None:
        self.arm = arm
        self.size = len(place), max(each["sample"] for each in records) + 1
        self.records = sorted(records, key=lambda each: (place[each["task"]], each["sample"]))
        self.correct = self.matrix(lambda each: each["correct"])

    def matrix(self, read: Any) -> Matrix:
        """A number of every answer, `[tasks, samples]`."""
        return np.array([float(read(each)) for each in self.records]).reshape(self.size)

    def mean(self, read: Any) -> float:
        """Of an answer."""
        return float(self.matrix(read).mean())


def rows(arms: Sequence[Arm], records: Sequence[Record]) -> list[Row]:
    """The numbers of every arm of a finished run.

    Args:
        arms: The base first, then the reasoner.
        records: Its samples.
    """
    answers = _by_arm(arms, records)
    return [_row(each, answers[0], answers[1]) for each in answers]


def comparisons(arms: Sequence[Arm], records: Sequence[Record]) -> list[Comparison]:
    """Each delegated arm beside the models alone and beside its controls."""
    answers = {each.arm.name: each for each in _by_arm(arms, records)}
    pairs = [
        (arm.name, other.name)
        for arm in arms
        if arm.kind == "delegated"
        for other in arms
        if other.kind in ("base", "reasoner") or other.of == arm.name
    ]
    found = [_difference(answers[one].correct, answers[other].correct) for one, other in pairs]
    adjusted = holm([p for _, p in found])
    return [
        Comparison(one, other, difference, p, p_holm)
        for (one, other), (difference, p), p_holm in zip(pairs, found, adjusted, strict=True)
    ]


def _by_arm(arms: Sequence[Arm], records: Sequence[Record]) -> list[_Answers]:
    # One order for all arms, whatever that of the lines: a run may have been mended by hand.
    place = {task: at for at, task in enumerate(sorted({each["task"] for each in records}))}
    return [_Answers(arm, [each for each in records if each["arm"] == arm.name], place) for arm in arms]


def _row(one: _Answers, base: _Answers, reasoner: _Answers) -> Row:
    tasks, samples = one.size
    delegated = one.arm.policy is not None
    costs = {name: one.mean(lambda each, name=name: each["usage"][name]) for name in COSTS}
    tokens = one.matrix(lambda each: each["summary"]["tokens"])
    asked = one.matrix(lambda each: each["summary"]["asked"])
    gained = one.correct - base.correct
    return Row(
        name=one.arm.name,
        kind=one.arm.kind,
        of=one.arm.of,
        nominal=one.arm.nominal,
        tasks=tasks,
        samples=samples,
        accuracy=_mean(one.correct),
        pass_at=_pass_at(one.correct),
        recovery=_recovery(one.correct, base.correct, reasoner.correct),
        share=_ratio(one.matrix(lambda each: each["summary"]["takeovers"]), tokens) if delegated else None,
        to_right=int((gained > 0).sum()),
        to_wrong=int((gained < 0).sum()),
        unread=sum(each["parsed"] is None for each in one.records),
        ended=dict(sorted(Counter(each["finish_reason"] for each in one.records).items())),
        asked=1.0 if one.arm.kind == "reasoner" else float(asked.sum() / max(1.0, tokens.sum())),
        tokens=float(tokens.mean()),
        seconds=one.mean(lambda each: each["seconds"]),
        **costs,
    )


def _pass_at(correct: Matrix) -> dict[int, Estimate]:
    """For 1, 2, 4, ... and as many answers as there are."""
    samples = correct.shape[1]
    wanted = sorted({*(2**power for power in range(samples.bit_length()) if 2**power <= samples), samples})
    right = correct.sum(axis=1)
    return {k: _mean(np.array([pass_at_k(samples, int(each), k) for each in right])) for k in wanted}


def _mean(values: Matrix) -> Estimate:
    """Of values in [0, 1], tasks down. Where all are 0 or all 1, drawing again says nothing: so Wilson."""
    found = bootstrap(np.mean, values)
    if values.size and values.min() == values.max() and found.value in {0.0, 1.0}:
        return Estimate(found.value, *wilson(int(found.value) * len(values), len(values)))
    return found


def _recovery(correct: Matrix, base: Matrix, reasoner: Matrix) -> Estimate | None:
    def found(one: Matrix, low: Matrix, high: Matrix) -> float | None:
        return recovery(float(one.mean()), float(low.mean()), float(high.mean()))

    if found(correct, base, reasoner) is None:
        return None
    return _varied(bootstrap(found, correct, base, reasoner))


def _ratio(above: Matrix, below: Matrix) -> Estimate:
    def share(one: Matrix, other: Matrix) -> float:
        return float(one.sum() / other.sum()) if other.sum() else 0.0

    return _varied(bootstrap(share, above, below))


def _difference(one: Matrix, other: Matrix) -> tuple[Estimate, float]:
    difference = one.mean(axis=1) - other.mean(axis=1)
    return _varied(bootstrap(np.mean, difference)), sign_flip(difference)


def _varied(found: Estimate) -> Estimate:
    """Without an interval where drawing tasks again changes nothing, which does not make it sure."""
    return Estimate(found.value, math.nan, math.nan) if found.low == found.high else found
