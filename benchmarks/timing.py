"""The stopwatch: wall time of a call, how much of it was spent inside the two models, and medians.

The machine drifts, so the methods take turns (A B C A B C ...) on each prompt, and ratios are only ever
taken within one run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.methods import Answer, Method
from delegate_llm.pairs.pair import Pair

__all__ = ("Row", "take_turns")


@dataclass(frozen=True)
class _Lap:
    """One call: what it took, and what it gave."""

    seconds: float
    in_models: float
    base_forwards: int
    reasoner_forwards: int
    answers: list[Answer]


@dataclass(frozen=True)
class Row:
    """One method's line of the table."""

    name: str
    family: str
    share: float | None
    """Nominal share."""
    tokens: int
    """Generated, over all prompts."""
    seconds: float
    """Wall time for them: the sum over prompts of the median over repeats."""
    outside_ms: float
    """Milliseconds a token outside the two models, likewise."""
    takeovers: int
    asked: int
    base_forwards: int
    reasoner_forwards: int
    answers: list[tuple[int, ...]] = field(repr=False)

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def take_turns(
    pair: Pair, methods: Sequence[Method], calls: Sequence[list[list[int]]], tokens: int, repeats: int
) -> list[Row]:
    """Measure methods in turns.

    Args:
        pair: Whose models the methods use.
        methods: Each answers every call, `repeats` times.
        calls: The prompts that one call gets.
        tokens: To generate for each prompt.
        repeats: Of which the median counts.
    """
    laps: dict[str, list[list[_Lap]]] = {each.name: [[] for _ in calls] for each in methods}
    with _watch(pair) as clock:
        for method in methods:
            method.run(calls[0], min(tokens, 16))  # warm-up
        for repeat in range(repeats):
            for at, prompts in enumerate(calls):
                for method in methods:
                    lap = _lap(clock, method, prompts, tokens)
                    laps[method.name][at].append(lap)
                    speed = sum(len(each.tokens) for each in lap.answers) / lap.seconds
                    _say(f"{repeat + 1}/{repeats} {at + 1}/{len(calls)} {method.name}: {speed:.1f} tokens/s")
    return [_row(method, laps[method.name]) for method in methods]


@dataclass
class _Clock:
    """What the models' forwards took since it was last reset."""

    base: int = 0
    reasoner: int = 0
    seconds: float = 0.0
    started: float = 0.0
    forwards: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))


@contextmanager
def _watch(pair: Pair) -> Iterator[_Clock]:
    """Count and time every forward of the two models, whoever calls it."""
    clock = _Clock()
    models = [pair.base.model, pair.reasoner.model]  # type: ignore[attr-defined]

    def start(_model: Any, _arguments: Any) -> None:
        clock.started = _now()

    def stop(model: Any, _arguments: Any, _output: Any) -> None:
        clock.seconds += _now() - clock.started
        clock.forwards[id(model)] += 1

    handles = []
    for model in {id(each): each for each in models}.values():
        handles += [model.register_forward_pre_hook(start), model.register_forward_hook(stop)]
    try:
        clock.base, clock.reasoner = map(id, models)
        yield clock
    finally:
        for handle in handles:
            handle.remove()


def _now() -> float:
    """Seconds, once the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _lap(clock: _Clock, method: Method, prompts: list[list[int]], tokens: int) -> _Lap:
    clock.seconds = 0.0
    clock.forwards.clear()
    start = _now()
    answers = method.run(prompts, tokens)
    seconds = _now() - start
    return _Lap(
        seconds,
        clock.seconds,
        clock.forwards[clock.base],
        clock.forwards[clock.reasoner],
        answers,
    )


def _row(method: Method, laps: list[list[_Lap]]) -> Row:
    """The line of a method from its laps: `laps[call][repeat]`."""
    first = [each[0] for each in laps]
    answers = [answer for lap in first for answer in lap.answers]
    tokens = sum(len(each.tokens) for each in answers)
    outside = sum(statistics.median(lap.seconds - lap.in_models for lap in each) for each in laps)
    return Row(
        name=method.name,
        family=method.family,
        share=method.share,
        tokens=tokens,
        seconds=sum(statistics.median(lap.seconds for lap in each) for each in laps),
        outside_ms=1000 * outside / tokens,
        takeovers=sum(each.takeovers for each in answers),
        asked=sum(each.asked for each in answers),
        base_forwards=sum(lap.base_forwards for lap in first),
        reasoner_forwards=sum(lap.reasoner_forwards for lap in first),
        answers=[each.tokens for each in answers],
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
