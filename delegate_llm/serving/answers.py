"""What was decided for one HTTP request: a log for each of its choices, and the form in which it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from delegate_llm.trace import Decision, Summary, Trace, TraceLevel
from delegate_llm.vllm_plugin.wire import Told

__all__ = ("KEY", "Choice", "Delegation", "Log", "Record")

KEY = "delegation"
"""Where an answer tells what was decided, beside `choices` and `usage`."""


class Choice(BaseModel):
    """One of a response's choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    """As in the response."""
    seed: int | None = None
    """The seed that gives this text again; None for a greedy answer."""
    trace: Trace


class Delegation(BaseModel):
    """What an answer says under `KEY`, and what `GET /v1/delegation/traces/{id}` gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    choices: tuple[Choice, ...] = ()


@dataclass(slots=True)
class Log:
    """One answer while it is written."""

    level: TraceLevel
    piece: Callable[[int], str]
    """Text of a single token id."""
    seed: int | None = None
    decisions: list[Decision] = field(default_factory=list)
    """Those that the level keeps."""
    tokens: int = 0
    takeovers: int = 0
    changed: int = 0
    asked: int = 0
    _shown: int = 0

    def add(self, told: Told) -> None:
        """Take the next position."""
        changed = told.token != told.base_token
        if self.level == "full" or (self.level == "takeovers" and told.takeover):
            other = told.reasoner_token
            self.decisions.append(
                Decision(
                    position=self.tokens,
                    token_id=told.token,
                    token=self.piece(told.token),
                    asked=told.asked,
                    takeover=told.takeover,
                    changed=changed,
                    score=told.score,
                    base_entropy=told.entropy,
                    base_token_id=told.base_token,
                    base_token=self.piece(told.base_token),
                    reasoner_token_id=other,
                    reasoner_token=None if other is None else self.piece(other),
                )
            )
        self.tokens += 1
        self.takeovers += told.takeover
        self.changed += changed
        self.asked += told.asked

    def fresh(self) -> list[Decision]:
        """The decisions since the last call."""
        start, self._shown = self._shown, len(self.decisions)
        return self.decisions[start:]

    def trace(self) -> Trace:
        """All of it."""
        return Trace(
            level=self.level,
            decisions=tuple(self.decisions),
            summary=Summary(
                tokens=self.tokens,
                takeovers=self.takeovers,
                changed=self.changed,
                asked=self.asked,
                share=self.takeovers / self.tokens if self.tokens else 0.0,
            ),
        )


@dataclass(slots=True)
class Record:
    """A request with all its choices."""

    told: bool = False
    """Whether the client wants to read of it in the answer."""
    temperature: float | None = None
    """As the client says it."""
    logs: list[Log] = field(default_factory=list)
    """By index of the choice."""

    def choice(self, index: int) -> Choice:
        """What was decided for one of them."""
        log = self.logs[index]
        return Choice(index=index, seed=log.seed, trace=log.trace())

    def delegation(self) -> Delegation:
        """What was decided for all of them."""
        return Delegation(choices=tuple(map(self.choice, range(len(self.logs)))))
