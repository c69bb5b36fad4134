"""The ways to generate that stand side by side: transformers' own, and ours on both schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from benchmarks.subjects import SHARES, Subject
from delegate_llm import DelegationPolicy

__all__ = ("MIDDLE", "Answer", "Method", "batched_methods", "single_methods")

MIDDLE: Final = SHARES[len(SHARES) // 2]
"""The share at which everything that is measured at one share only is measured."""

_LOOKUP: Final = 7
"""Tokens that transformers' prompt lookup guesses at most: as many as a draft's own."""


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    tokens: tuple[int, ...]
    takeovers: int = 0
    asked: int = 0


@dataclass(frozen=True)
class Method:
    """One way to answer prompts."""

    name: str
    family: str
    """Colour in the plot: `transformers`, `lockstep` or `draft`."""
    run: Callable[[Sequence[list[int]], int], list[Answer]]
    """Answers to prompts, each so many tokens long."""
    share: float | None = None
    """Nominal share of takeovers; None where there are none."""


def single_methods(subject: Subject) -> list[Method]:
    """All that answers one prompt at a time."""
    base, reasoner = subject.pair.base.model, subject.pair.reasoner.model  # type: ignore[attr-defined]
    peers = [
        Method("transformers base", "transformers", _peer(base)),
        Method("transformers reasoner", "transformers", _peer(reasoner)),
        Method("transformers assisted", "transformers", _peer(reasoner, assistant_model=base)),
        *(
            Method(
                f"transformers {who} lookup", "transformers", _peer(model, prompt_lookup_num_tokens=_LOOKUP)
            )
            for who, model in (("base", base), ("reasoner", reasoner))
        ),
    ]
    ours = [
        Method(f"{schedule} {share:.2f}", schedule, _ours(subject, policy, schedule), share)
        for share, policy in subject.policies.items()
        for schedule in ("lockstep", "draft")
    ]
    alone, middle = DelegationPolicy(budget=0), subject.policies[MIDDLE]
    extra = [
        Method(
            f"draft {MIDDLE:.2f} {level} trace", "draft", _ours(subject, middle, "draft", trace=level), MIDDLE
        )
        for level in ("no", "full")
    ]
    return [*peers, *ours, Method("draft budget 0", "draft", _ours(subject, alone, "draft")), *extra]


def batched_methods(subject: Subject) -> list[Method]:
    """All that answers a batch of prompts, at the middle share; the first answers them one by one."""
    policy = subject.policies[MIDDLE]
    return [
        Method("draft one by one", "draft", _ours(subject, policy, "draft"), MIDDLE),
        Method("draft batched", "draft", _ours(subject, policy, "draft", batched=True), MIDDLE),
        Method("lockstep batched", "lockstep", _ours(subject, policy, "lockstep", batched=True), MIDDLE),
        Method("transformers base batched", "transformers", _peer(subject.pair.base.model)),  # type: ignore[attr-defined]
    ]


def _ours(
    subject: Subject,
    policy: DelegationPolicy,
    schedule: str,
    *,
    trace: str = "takeovers",
    batched: bool = False,
) -> Callable[[Sequence[list[int]], int], list[Answer]]:
    """Generation by the pair, greedy and of a fixed length."""
    level = "off" if trace == "no" else trace

    def run(prompts: Sequence[list[int]], tokens: int) -> list[Answer]:
        settings: dict[str, Any] = {
            "policy": policy,
            "max_tokens": tokens,
            "schedule": schedule,
            "trace": level,
            "ignore_eos": True,
        }
        if batched:
            made = subject.pair.generate_batch(prompts, **settings)
        else:
            made = [subject.pair.generate(prompt, **settings) for prompt in prompts]
        return [
            Answer(each.token_ids, each.trace.summary.takeovers, each.trace.summary.asked) for each in made
        ]

    return run


def _peer(model: Any, **options: Any) -> Callable[[Sequence[list[int]], int], list[Answer]]:
    """Greedy generation by transformers itself, of a fixed length."""

    def run(prompts: Sequence[list[int]], tokens: int) -> list[Answer]:
        width = max(map(len, prompts))
        # Padding is masked, so any id will do.
        ids = torch.tensor([[0] * (width - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
        made = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
            **options,
        )
        return [Answer(tuple(row[width:].tolist())) for row in made]

    return run
