"""A scripted pair that answers whatever it is told to: for what a chat model does with an answer."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

from delegate_llm import DelegatedChatModel, DelegationPolicy, Pair
from delegate_llm.pairs.scripted import scripted_pair

TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
PIECES = (*string.printable, *"äé中文", *TAGS, "<|end|>")
EOS = len(PIECES) - 1


def answering(base: str, reasoner: str | None = None, *, told: Callable[[], object] = lambda: None) -> Pair:
    """A pair that answers everything up to the first "?" so: the base in its words, the reasoner in its.

    Args:
        base: What the base says.
        reasoner: What the reasoner says, of the same length, or None for the same; where the two differ,
            they disagree strongly.
        told: Called whenever the base is asked for a token.
    """

    def script(words: str, asked: Callable[[], object]) -> Callable[[Sequence[int]], Sequence[float]]:
        def say(ids: Sequence[int]) -> Sequence[float]:
            asked()
            text = [PIECES[each] for each in ids]
            position = len(text) - text.index("?") - 1
            wanted = _pieces(words)
            chosen = wanted[position] if position < len(wanted) else EOS
            return [9.0 if each == chosen else 0.0 for each in range(len(PIECES))]

        return say

    return scripted_pair(
        script(base, told),
        script(base if reasoner is None else reasoner, lambda: None),
        PIECES,
        eos=EOS,
        policy=DelegationPolicy(threshold=3.0),
    )


def chat(base: str, reasoner: str | None = None, **settings: object) -> DelegatedChatModel:
    """A chat model of such a pair."""
    return DelegatedChatModel(pair=answering(base, reasoner), **settings)


def _pieces(text: str) -> list[int]:
    ids = []
    while text:
        tag = next((each for each in TAGS if text.startswith(each)), text[0])
        ids.append(PIECES.index(tag))
        text = text[len(tag) :]
    return ids
