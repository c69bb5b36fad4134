"""Gates: where the reasoner may be heard at all, decided from the base alone.

A gate looks at one position through a `GateView` and answers yes or no; the reasoner is consulted only
where every gate says yes. `entropy`, `window`, `boundary` and `turn` are named and can be saved; any callable
`GateView -> bool` works too. A gate must be a pure function of its view: the fast schedule asks it about
drafted positions that may later be dropped, and asks again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from pydantic import Field

from delegate_llm._settings import MOST, Settings

__all__ = (
    "BoundaryGate",
    "EntropyGate",
    "Gate",
    "GateView",
    "NamedGate",
    "TurnGate",
    "WindowGate",
    "boundary",
    "entropy",
    "window",
)


@dataclass(frozen=True, slots=True)
class GateView:
    """What a gate may know about a position: the base's side of it, and what was generated before."""

    position: int
    """0 for the first generated token."""
    base_entropy: float
    """Entropy of the base's next-token distribution, in nats."""
    budget: float
    """Takeovers that could be spent right here; `inf` without a budget."""
    read_text: Callable[[], str] = field(default=lambda: "", repr=False)
    spent: int = 0
    """Takeovers before this position."""

    @property
    def text(self) -> str:
        """The generated text so far, before this position."""
        return self.read_text()


class EntropyGate(Settings):
    """Open where the base is unsure: its entropy, in nats, is above `above`."""

    kind: Literal["entropy"] = "entropy"
    above: float = Field(ge=0, allow_inf_nan=False)

    def __call__(self, view: GateView) -> bool:
        """Whether the base's entropy is above the bound."""
        return view.base_entropy > self.above


class WindowGate(Settings):
    """Open for the first `first` generated tokens; after them the reasoner is never run again."""

    kind: Literal["window"] = "window"
    first: int = Field(ge=0, le=MOST)

    def __call__(self, view: GateView) -> bool:
        """Whether the position lies within the window."""
        return view.position < self.first


Boundary = Literal["sentence", "line", "tool_call"]

# A tool call is decided right after its tag, and again where its name begins.
_STARTS: dict[Boundary, re.Pattern[str]] = {
    "sentence": re.compile(r"(?:^|[.!?…。！？][\"'”’)\]]*\s*|\n)\Z"),
    "line": re.compile(r"(?:^|\n)[ \t]*\Z"),
    "tool_call": re.compile(r"<tool_call>\s*(?:\{\s*\"name\"\s*:\s*\"?)?\Z"),
}
_TAIL = 64  # characters; more context never changes what these patterns say


class BoundaryGate(Settings):
    """Open where a sentence, a line or a tool call starts, judged by the text before the position."""

    kind: Literal["boundary"] = "boundary"
    at: tuple[Boundary, ...] = Field(default=("sentence", "line", "tool_call"), min_length=1)

    def __call__(self, view: GateView) -> bool:
        """Whether the text before the position ends where one of `at` starts."""
        text = view.text
        # `^` must mean the start of the answer, never the start of the tail.
        tail = text if len(text) <= _TAIL else "x" + text[-_TAIL:]
        return any(_STARTS[kind].search(tail) is not None for kind in self.at)

    def room(self, text: str, position: int) -> float:
        """Takeovers allowed in all behind `text`: any number, or none."""
        return math.inf if self(GateView(position, 0.0, math.inf, lambda: text)) else 0.0


Turn = Literal["tool_call", "final"]


class TurnGate(Settings):
    """Open while fewer takeovers were spent than an answer of its kind may: with tool calls, or final.

    Which kind it is shows in what is written: an answer is final until it opens a tool call. The very first
    token, which mostly decides it, may be taken over if either kind allows it.
    """

    kind: Literal["turn"] = "turn"
    limits: dict[Turn, Annotated[int, Field(ge=0, le=MOST)]] = Field(min_length=1)
    """Takeovers by kind; a kind that is missing has no limit."""

    def __call__(self, view: GateView) -> bool:
        """Whether another takeover is allowed here."""
        if view.position == 0:
            return view.spent < self.most
        return view.spent < self.room(view.text, view.position)

    def room(self, text: str, position: int) -> float:
        """Takeovers allowed in all behind `text`."""
        if position == 0:
            return self.most
        kind: Turn = "tool_call" if "<tool_call>" in text else "final"
        return self.limits.get(kind, math.inf)

    def __hash__(self) -> int:
        """As of a policy with any other gates, which are hashable by themselves."""
        return hash(frozenset(self.limits.items()))

    @property
    def most(self) -> float:
        """Takeovers that an answer of either kind may spend; `inf` if one kind has no limit."""
        return max(self.limits.get(kind, math.inf) for kind in get_args(Turn))


NamedGate = Annotated[EntropyGate | WindowGate | BoundaryGate | TurnGate, Field(discriminator="kind")]
Gate = NamedGate | Callable[[GateView], bool]


def entropy(above: float) -> EntropyGate:
    """A gate that opens where the base's entropy is above `above` nats."""
    return EntropyGate(above=above)


def window(first: int) -> WindowGate:
    """A gate that opens for the first `first` generated tokens."""
    return WindowGate(first=first)


def boundary(*at: Boundary) -> BoundaryGate:
    """A gate that opens where a `"sentence"`, a `"line"` or a `"tool_call"` starts (default: all)."""
    return BoundaryGate(at=at) if at else BoundaryGate()
