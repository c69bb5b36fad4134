"""What is measured: a pair, the prompts it gets, and a policy for each share, calibrated on other prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import torch

from benchmarks import smollm2
from delegate_llm import DelegationPolicy, load_pair
from delegate_llm.pairs.pair import Pair
from delegate_llm.tiny import problems

__all__ = ("PAIRS", "SHARES", "Subject", "load")

PAIRS: Final = ("tiny", "smollm2")
SHARES: Final = (0.02, 0.05, 0.07)
"""Nominal shares; what a policy really spends on new prompts is measured, and claims end at 0.08."""

_QUESTIONS: Final = (
    "Why is the sky blue?",
    "How can I learn a new language quickly?",
    "Write a short story about a lighthouse keeper.",
    "What is the difference between a virus and a bacterium?",
    "Explain how a bicycle stays upright.",
    "Write a Python function that returns the n-th Fibonacci number, and explain it.",
    "Plan a day in Rome for a family with two children.",
    "Summarise the causes of the First World War.",
    "How do I bake a simple loaf of bread?",
    "What are the advantages and disadvantages of electric cars?",
    "Describe the water cycle to a ten-year-old.",
    "Write a polite email that asks for a deadline to be moved.",
    "How does a bank make money?",
    "Compare cats and dogs as pets.",
    "What should I consider before I buy a used laptop?",
    "Explain photosynthesis step by step.",
)
_CALIBRATION: Final = (
    "Why do leaves change colour in autumn?",
    "Give me some advice for a job interview.",
    "Write a short story about a lost key.",
    "Explain how a refrigerator works.",
    "How do I plan a week of healthy meals?",
    "What is the difference between weather and climate?",
)
_LONGEST_ANSWER: Final = {"tiny": 64, "smollm2": 4096}  # beyond it, the models only babble


@dataclass(frozen=True)
class Subject:
    """A loaded pair, ready to be measured."""

    name: str
    dtype: str
    pair: Pair
    prompts: list[list[int]]
    """Token ids, the same for every method; as many as were wanted."""
    policies: dict[float, DelegationPolicy]
    """One for each nominal share."""
    tokens: int
    """To generate for each prompt."""


def load(name: str, *, dtype: str, device: str | None, prompts: int, tokens: int) -> Subject:
    """Load a pair and calibrate it.

    Args:
        name: One of `PAIRS`.
        dtype: Such as `"float32"`.
        device: Such as `"cuda"`; the best there is if None.
        prompts: How many; beyond the list they repeat.
        tokens: To generate for each; fewer where the pair's answers are short.
    """
    pair = _load_pair(name, dtype, device)
    asked, calibration = _messages(name, prompts)
    tokens = min(tokens, _LONGEST_ANSWER[name])
    return Subject(
        name=name,
        dtype=dtype,
        pair=pair,
        prompts=[_ids(pair, each) for each in asked],
        policies=calibrate(pair, [_ids(pair, each) for each in calibration], tokens),
        tokens=tokens,
    )


def calibrate(pair: Pair, prompts: Sequence[list[int]], tokens: int) -> dict[float, DelegationPolicy]:
    """For each share r, the threshold that a fraction r of the scores on base rollouts exceeds.

    Args:
        pair: Whose base writes.
        prompts: Token ids, other ones than those that are measured.
        tokens: Length of each rollout.
    """
    alone = DelegationPolicy(budget=0)
    rollouts = pair.generate_batch(prompts, policy=alone, max_tokens=tokens, ignore_eos=True, trace="off")
    scores = [
        decision.score
        for prompt, rollout in zip(prompts, rollouts, strict=True)
        for decision in pair.score(prompt, rollout.token_ids).decisions
    ]
    levels = torch.tensor(scores, dtype=torch.float64)
    return {share: DelegationPolicy(threshold=float(levels.quantile(1 - share))) for share in SHARES}


def _load_pair(name: str, dtype: str, device: str | None) -> Pair:
    if name == "tiny":
        return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner", dtype=dtype, device=device)
    return load_pair(smollm2.base_folder(), smollm2.folder(), dtype=dtype, device=device)


def _messages(name: str, count: int) -> tuple[list[list[dict[str, str]]], list[list[dict[str, str]]]]:
    """Chats to measure on, and chats to calibrate on."""
    if name == "tiny":
        test = problems.problems(count, seed=0, split="test")
        calibration = problems.problems(32, seed=0, split="calibration")
        return [problems.messages(each) for each in test], [problems.messages(each) for each in calibration]
    asked = islice(cycle(_QUESTIONS), count)
    return [_chat(each) for each in asked], [_chat(each) for each in _CALIBRATION]


def _chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _ids(pair: Pair, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat, so that every method starts from the same ones and none renders templates."""
    return list(pair.prompter.render(messages).base)
