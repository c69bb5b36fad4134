"""What the package claims about its speed, each as a figure of this run beside its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.methods import MIDDLE
from benchmarks.subjects import SHARES
from benchmarks.timing import Row

__all__ = ("Claim", "claims")

_OVER_LOCKSTEP: Final = {"float32": 1.7, "bfloat16": 1.85}
_MOST: Final = 0.08
"""Share up to which speed is claimed; a calibrated threshold may spend more on new prompts."""


@dataclass(frozen=True)
class Claim:
    """A figure and its target."""

    text: str
    value: float
    target: float
    at_most: bool = False
    """Whether the value is to stay below the target."""

    @property
    def holds(self) -> bool:
        """Whether this run reached it."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def claims(single: Sequence[Row], batched: Sequence[Row], dtype: str) -> list[Claim]:
    """The claims that these rows decide."""
    row = {each.name: each for each in (*single, *batched)}

    def ratio(fast: str, slow: str) -> float:
        return row[fast].speed / row[slow].speed

    found = []
    for share in SHARES:
        name = f"draft {share:.2f}"
        fast, over = row[name], _OVER_LOCKSTEP.get(dtype, 1.0)
        if fast.takeovers / fast.tokens > _MOST:
            continue
        realised = f"share {fast.takeovers / fast.tokens:.3f}"
        asks = fast.reasoner_forwards / fast.tokens
        found += [
            Claim(f"draft over lockstep, {realised}", ratio(name, f"lockstep {share:.2f}"), over),
            Claim(f"draft over assisted generation, {realised}", ratio(name, "transformers assisted"), 1.0),
            Claim(f"reasoner forwards a token, {realised}", asks, 0.12, at_most=True),
        ]
    traced = 100 * (ratio(f"draft {MIDDLE:.2f} no trace", f"draft {MIDDLE:.2f} full trace") - 1)
    outside = {
        family: max(each.outside_ms for each in single if each.family == family)
        for family in ("draft", "lockstep")
    }
    return [
        *found,
        Claim(
            "draft with budget 0 over transformers base", ratio("draft budget 0", "transformers base"), 1.0
        ),
        *(
            Claim(f"ms a token outside the models, worst {family}", worst, 1.0, at_most=True)
            for family, worst in outside.items()
        ),
        Claim("cost of a full trace, %", traced, 3.0, at_most=True),
        Claim("batched draft over one by one", ratio("draft batched", "draft one by one"), 4.0),
    ]
