"""Two models on paper: scripts that say what a test wants said."""

from __future__ import annotations

from typing import Any

from delegate_llm import DelegationPolicy, Pair
from delegate_llm.pairs.scripted import scripted_pair

PIECES = ["a", "b", "c", "ST", "OP", "OPT", "<", ">", "x"]
A, B, C, ST, OP, OPT, END = 0, 1, 2, 3, 4, 5, 8
POLICY = DelegationPolicy(threshold=3.0)


def says(*ids: int, after: int = 1, sure: float = 9.0) -> Any:
    """A script that says these ids, one after the other, behind a prompt of `after` tokens."""

    def script(seen: Any) -> list[float]:
        at = min(len(seen) - after, len(ids) - 1)
        return [sure if each == ids[at] else 0.0 for each in range(len(PIECES))]

    return script


def scripted(base: Any, reasoner: Any, **options: Any) -> Pair:
    return scripted_pair(base, reasoner, PIECES, eos=END, **options)
