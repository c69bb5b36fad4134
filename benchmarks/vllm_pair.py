"""The pair itself, in a process of its own: thresholds, prompts, and what transformers makes of them.

`python -m benchmarks.vllm_pair PLAN RESULT`, both JSON. The pair's own batch is measured here too, for the
models are loaded already; they are gone before vLLM starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, Final

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import smollm2
from benchmarks.subjects import PAIRS
from benchmarks.vllm_figures import Answer, Counts, Lap
from benchmarks.vllm_load import requests
from delegate_llm import DelegationPolicy, load_pair
from delegate_llm.calibration import threshold_for
from delegate_llm.pairs.pair import Pair
from delegate_llm.tiny import problems
from delegate_llm.vllm_plugin.wire import room_of

__all__ = ("ENDING", "TRANSFORMERS", "Found", "Wanted", "models_of", "questions")

TRANSFORMERS: Final = "transformers"
"""First word of the method that is measured here."""
_KINDS: Final = (
    "Explain {} to a ten-year-old.",
    "Write a short story about {}.",
    "What should everybody know about {}?",
    "Plan a lesson about {} for a class of beginners.",
    "Write a polite email that asks an expert a question about {}.",
    "List the advantages and disadvantages of {}.",
    "How did people think about {} two hundred years ago?",
    "Summarise what is known about {} in five sentences.",
)
_TOPICS: Final = (
    "lighthouses",
    "photosynthesis",
    "electric cars",
    "the water cycle",
    "bread",
    "banks",
    "bicycles",
    "learning a language",
)
_CALIBRATION: Final = ("refrigerators", "autumn leaves")
ENDING: Final = frozenset({"tiny"})
"""Pairs whose answers end of themselves; what they would say after that, nobody asks for."""
_PROBLEMS: Final = 32
"""Of the shipped pair's own task, to calibrate on."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of this process."""

    pair: str
    """One of `PAIRS`, or two checkpoints and a comma between them: base, reasoner."""
    dtype: str
    device: str | None
    threads: int
    shares: list[float]
    share: float
    """At which the pair's own batch is measured."""
    tokens: int
    levels: list[int]
    least: int
    repeats: int
    ahead: int
    ends: bool
    """Whether answers end where the models end them."""
    engine: dict[str, Any]
    """Arguments of vLLM's engine that were given."""


@dataclass(frozen=True)
class Found:
    """What it answers."""

    arguments: dict[str, Any]
    """Of an engine that delegates; the others have fewer."""
    base: str
    """The checkpoint, for an engine of its own."""
    prompts: list[list[int]]
    stops: list[int]
    """Tokens that end an answer, if any are to."""
    thresholds: dict[str, float]
    """By share."""
    laps: list[dict[str, Any]]


def models_of(pair: str) -> tuple[str, str]:
    """Base and reasoner of a pair by its name.

    Raises:
        ValueError: If it is no name of a pair and not two checkpoints.
    """
    if pair == "tiny":
        return "delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"
    if pair == "smollm2":
        return str(smollm2.base_folder()), str(smollm2.folder())
    base, comma, reasoner = pair.partition(",")
    if not (comma and base and reasoner):
        msg = f"pair: {pair!r} is none of {', '.join(PAIRS)} and not BASE,REASONER"
        raise ValueError(msg)
    return base, reasoner


def questions(topics: Sequence[str]) -> Iterator[str]:
    """Different questions, every kind about a topic before the next topic's."""
    return (kind.format(topic) for topic, kind in product(topics, _KINDS))


def main() -> None:
    """Read what is wanted, and write what was found."""
    source, target = map(Path, sys.argv[1:])
    wanted = Wanted(**json.loads(source.read_text()))
    torch.set_num_threads(wanted.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    target.write_text(json.dumps(asdict(find(wanted))))


def find(wanted: Wanted) -> Found:
    """Load the pair, calibrate it, and measure its batches."""
    models = models_of(wanted.pair)
    pair = load_pair(*models, dtype=wanted.dtype, device=wanted.device)
    count = max(requests(level, wanted.least) for level in wanted.levels)
    prompts, others = _prompts(pair, wanted.pair, count)
    _say(f"{wanted.pair} {wanted.dtype}: calibrating")
    scores = list(_scores(pair, others, wanted))
    thresholds = {str(share): threshold_for(scores, share) for share in wanted.shares}
    policy = DelegationPolicy(threshold=thresholds[str(wanted.share)])
    laps = list(_laps(pair, policy, prompts, wanted))
    return Found(
        arguments=_arguments(pair, models, prompts, wanted),
        base=_source(models[0], "base"),
        prompts=prompts,
        stops=sorted(pair.vocabulary.eos) if wanted.ends else [],
        thresholds=thresholds,
        laps=[asdict(each) for each in laps],
    )


def _prompts(pair: Pair, name: str, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompts to measure on, and of others to calibrate on."""
    if name == "tiny":
        split = {"test": count, "calibration": _PROBLEMS}
        chats = [
            [problems.messages(each) for each in problems.problems(number, seed=0, split=part)]
            for part, number in split.items()
        ]
    else:
        asked = (islice(cycle(questions(_TOPICS)), count), questions(_CALIBRATION))
        chats = [[[{"role": "user", "content": each}] for each in some] for some in asked]
    first, second = ([list(pair.prompter.render(each).base) for each in some] for some in chats)
    return first, second


def _scores(pair: Pair, prompts: Sequence[list[int]], wanted: Wanted) -> Iterator[float]:
    """At every position of the base's own answers, as in `subjects.calibrate`."""
    rollouts = pair.generate_batch(
        prompts,
        policy=DelegationPolicy(budget=0),
        max_tokens=wanted.tokens,
        ignore_eos=not wanted.ends,
        trace="off",
    )
    for prompt, rollout in zip(prompts, rollouts, strict=True):
        yield from (decision.score for decision in pair.score(prompt, rollout.token_ids).decisions)


def _laps(
    pair: Pair, policy: DelegationPolicy, prompts: Sequence[list[int]], wanted: Wanted
) -> Iterator[Lap]:
    """The pair's own batches, as many prompts in each as vLLM has in flight, one batch after the other."""
    name = f"{TRANSFORMERS} {wanted.share:.2f}"
    settings: dict[str, Any] = {"policy": policy, "ignore_eos": not wanted.ends, "trace": "takeovers"}
    pair.generate_batch(prompts[:2], max_tokens=8, **settings)  # what only the first call needs
    for repeat in range(wanted.repeats):
        for level in wanted.levels:
            count = requests(level, wanted.least)
            began = time.perf_counter()
            made = [
                each
                for at in range(0, count, level)
                for each in pair.generate_batch(
                    prompts[at : min(at + level, count)], max_tokens=wanted.tokens, **settings
                )
            ]
            seconds = time.perf_counter() - began
            yield Lap(name, level, seconds, [_answer(each) for each in made], Counts())
            speed = sum(len(each.token_ids) for each in made) / seconds
            _say(f"{repeat + 1}/{wanted.repeats} {name}, {level} at once: {speed:.1f} tokens/s")


def _answer(made: Any) -> Answer:
    summary = made.trace.summary
    return Answer(
        list(made.token_ids),
        None,
        None,
        takeovers=[each.position for each in made.trace.takeovers],
        changed=summary.changed,
        asked=summary.asked,
        forwards=made.usage.reasoner_forwards,
    )


def _arguments(
    pair: Pair, models: tuple[str, str], prompts: Sequence[list[int]], wanted: Wanted
) -> dict[str, Any]:
    """The package's own for an engine that delegates, and what makes a lap like the next."""
    from delegate_llm.pairs.vllm import engine_arguments  # noqa: PLC0415 - loads vLLM

    needed = max(map(len, prompts)) + wanted.tokens
    ours = {
        # The second lap must not find the first one's prompts read.
        "enable_prefix_caching": False,
        "max_num_seqs": max(wanted.levels),
        "max_model_len": needed - room_of(0, wanted.ahead),
        **wanted.engine,
    }
    return engine_arguments(
        *(_source(model, who) for model, who in zip(models, ("base", "reasoner"), strict=True)),
        given=ours,
        ahead=wanted.ahead,
        vocabulary=pair.vocabulary,
        policy=None,
        dtype=wanted.dtype,
    )


def _source(model: str, who: str) -> str:
    """A folder or a hub id that vLLM loads."""
    from delegate_llm.pairs.sources import resolve  # noqa: PLC0415 - beside its only use

    return str(resolve(model, who)[0])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
