"""What a call over many prompts is given, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from delegate_llm._checks import integer
from delegate_llm.errors import PromptError, RequestError

__all__ = ("alike", "check_batch", "check_texts", "check_top")

_SHORT: Final = 64
"""Tokens that any row takes room for."""
_PADDING: Final = 2
"""Times its tokens that a batch may take room for."""


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in as few groups as keep padding down: room is taken for the longest, times the rows.

    Args:
        lengths: Tokens of each row.

    Returns:
        Places in `lengths`, each once; the longest rows come first.
    """
    groups: list[list[int]] = []
    longest = held = 0
    for at in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        length = max(lengths[at], _SHORT)
        if not groups or longest * (len(groups[-1]) + 1) > _PADDING * (held + length):
            groups.append([])
            longest, held = length, 0
        groups[-1].append(at)
        held += length
    return groups


def check_batch(prompts: Any, seeds: Any = None) -> list[Any]:
    """Check what a batch is given.

    Returns:
        A seed for each prompt.

    Raises:
        PromptError: If the prompts are no list.
        RequestError: If there are not as many seeds as prompts.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        msg = f"prompts: {type(prompts).__name__} is not a list of prompts; for one, use generate"
        raise PromptError(msg)
    if not isinstance(seeds, list | tuple):
        return [seeds] * len(prompts)
    if len(seeds) != len(prompts):
        msg = f"seed: {len(seeds)} seeds for {len(prompts)} prompts; give one, or one a prompt"
        raise RequestError(msg)
    return list(seeds)


def check_texts(prompts: Any, completions: Any) -> None:
    """Check what many texts are given as.

    Raises:
        PromptError: If there is not one completion for each prompt.
    """
    check_batch(prompts)
    if isinstance(completions, str) or not isinstance(completions, Sequence):
        msg = f"completions: {type(completions).__name__} is not a list of texts; for one, use score"
        raise PromptError(msg)
    if len(completions) != len(prompts):
        msg = f"completions: {len(completions)} texts for {len(prompts)} prompts; give one a prompt"
        raise PromptError(msg)


def check_top(top: Any, most: int | None = None) -> int:
    """Check how many choices of each model are asked for.

    Args:
        top: The count.
        most: How many the backend tells; None is any number.

    Raises:
        RequestError: If it is none, or more than is told.
    """
    count = integer("top", top, low=0)
    if most is not None and count > most:
        msg = f"top: {count} is more than the {most} choices of each model that this backend tells"
        raise RequestError(msg)
    return count
