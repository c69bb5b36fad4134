"""The policy over a whole batch at once: what `Referee` says of one position, in tensors, one row an answer.

vLLM scores the drafts of many answers in one forward, each with a policy of its own. Here they are judged
together on the device that the scores are on, without a look from the host: a loop over the positions of a
draft, and in it a few operations on one number an answer. `Referee` is the specification; the property tests
hold every decision and every standing to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from delegate_llm.gates import EntropyGate, WindowGate
from delegate_llm.policy import BASE_ONLY, WHOLE, DelegationPolicy

__all__ = ("NOTHING", "Block", "Rules", "Standings", "Verdicts", "judge", "outlook")

NOTHING: Final = -1
"""Stands where no token is: an answer's block is shorter than the widest."""
_FLOAT: Final = torch.float64  # counts are exact in it, and levels are what the host would say


class Rules(NamedTuple):
    """What policies say, `[B]` each; counts are floats, so that none can be unlimited."""

    threshold: Tensor
    spike: Tensor
    window: Tensor
    """Scores that the spike's mean is taken over."""
    above: Tensor
    """What the base's entropy must exceed; `-inf` without an entropy gate."""
    last: Tensor
    """The first position at which the reasoner is out for good."""
    limit: Tensor
    asks: Tensor
    least: Tensor
    """Level of the bucket below which the reasoner is out for good; `-inf` where it is refilled."""
    rate: Tensor
    capacity: Tensor
    base_only: Tensor
    """1 where the base alone decides on a takeover, else 0."""

    @classmethod
    def row(cls, policy: DelegationPolicy) -> list[float]:
        """The numbers of one policy, in this order; what its text gates say comes with each `Block`."""
        budget = policy.budget
        above = [gate.above for gate in policy.gates if isinstance(gate, EntropyGate)]
        first = [gate.first for gate in policy.gates if isinstance(gate, WindowGate)]
        return [
            policy.threshold,
            policy.spike,
            policy.spike_window,
            max(above, default=-math.inf),
            min(first, default=math.inf),
            math.inf if budget.limit is None else budget.limit,
            math.inf if budget.asks is None else budget.asks,
            -math.inf if budget.rate and budget.capacity >= 1 else WHOLE,
            budget.rate or 0.0,
            budget.capacity,
            float(policy.divergence in BASE_ONLY),
        ]


class Standings(NamedTuple):
    """What policies remember, `[B]` each, and the last scores `[B, W]`."""

    level: Tensor
    """Takeovers in the bucket."""
    spent: Tensor
    asked: Tensor
    position: Tensor
    """Tokens generated so far."""
    seen: Tensor
    """Scores that ever entered the window."""
    scores: Tensor
    """The last of them, the n-th at `n % W`; `[B, 0]` where no policy has a spike."""


@dataclass(frozen=True, slots=True)
class Block:
    """What is to be judged: for each answer, the positions of its draft and perhaps the one behind.

    Tensors are `[B, P]`: answer, position.
    """

    exists: Tensor
    """Whether there is such a position; a prefix of each row, empty for answers not at a word yet."""
    draft: Tensor
    """The drafted token, that what follows was computed with; `NOTHING` at a row's last position."""
    base: Tensor
    """What the base says."""
    reasoner: Tensor
    """What the reasoner says."""
    score: Tensor
    """Float64."""
    entropy: Tensor
    """Of the base, in nats; float64."""
    limit: Tensor | None = None
    """Takeovers that text gates allow in all at this position; None if no policy has any."""
    forced: Tensor | None = None
    """Said whatever was decided, where it is not negative; None if nothing is."""


class Verdicts(NamedTuple):
    """What was decided, `[B, P]` each."""

    token: Tensor
    """`NOTHING` behind the end of a row's block."""
    asked: Tensor
    takeover: Tensor
    opens: Tensor
    """Whether the gates were open, so that the score counted."""


def judge(rules: Rules, standings: Standings, block: Block) -> tuple[Verdicts, Standings]:
    """Decide blocks in order, each up to the first token that differs from its draft.

    Args:
        rules: One policy an answer.
        standings: Before the blocks.
        block: What both models say.

    Returns:
        The decisions, and the standings behind the last of each row. No tensor given is changed.
    """
    level, spent, asked, position, seen, scores = standings
    base_only = rules.base_only > 0
    recent = _Recent(rules, standings, block.score.shape[1]) if scores.shape[1] else None
    # What hangs on one position alone is worked out for all at once: each operation is a launch.
    may_open = block.exists & (block.entropy > rules.above.unsqueeze(1))
    alive = torch.ones_like(base_only)
    decided = []
    tables = (block.exists, may_open, block.score, block.base, block.reasoner, block.draft)
    columns = zip(*(each.unbind(1) for each in tables), strict=True)
    for at, (exists, may, score, ours, theirs, drafted) in enumerate(columns):
        alive = alive & exists
        over = _is_over(rules, position, spent, asked, level)
        bar = rules.threshold if recent is None else _bar(rules, recent.mean())
        opens = alive & may & ~over
        if block.limit is not None:
            opens = opens & (spent < block.limit[:, at])
        takeover = opens & (score > bar) & (level >= WHOLE)
        asks = torch.where(base_only, takeover, opens)
        token = torch.where(takeover, theirs, ours)
        if block.forced is not None:
            token = torch.where(block.forced[:, at] >= 0, block.forced[:, at], token)
        decided.append((torch.where(alive, token, NOTHING), asks, takeover, opens))
        if recent is not None:
            recent.add(at, score, opens & (rules.spike > 0))
        one = takeover.to(_FLOAT)
        level = torch.where(alive, torch.minimum(rules.capacity, level - one + rules.rate), level)
        spent, asked, position = spent + one, asked + asks, position + alive
        alive = alive & (token == drafted)
    verdicts = Verdicts(*(torch.stack(each, 1) for each in zip(*decided, strict=True)))
    if recent is not None:
        seen, scores = recent.seen, recent.scores()
    return verdicts, Standings(level, spent, asked, position, seen, scores)


def outlook(rules: Rules, standings: Standings) -> tuple[Tensor, Tensor]:
    """How things stand before the next position.

    Returns:
        Whether the reasoner is out for good `[B]`, and what a score has to exceed `[B]`.
    """
    over = _is_over(rules, standings.position, standings.spent, standings.asked, standings.level)
    if not standings.scores.shape[1]:
        return over, rules.threshold
    return over, _bar(rules, _Recent(rules, standings, 1).mean())


def _is_over(rules: Rules, position: Tensor, spent: Tensor, asked: Tensor, level: Tensor) -> Tensor:
    return (position >= rules.last) | (spent >= rules.limit) | (asked >= rules.asks) | (level < rules.least)


def _bar(rules: Rules, mean: Tensor) -> Tensor:
    return torch.where(rules.spike > 0, torch.maximum(rules.threshold, rules.spike * mean), rules.threshold)


class _Recent:
    """The means of the last scores, position by position of a block.

    A window can be as long as an answer, and a block is short: what was in the window before it is added up
    once, for each number of scores that the block may put in their place. Nothing is ever subtracted, so
    that no sum is less exact than the scores added in a row, and infinite ones may leave.
    """

    def __init__(self, rules: Rules, standings: Standings, width: int) -> None:
        """Add up what stands.

        Args:
            rules: One policy an answer.
            standings: Before the block.
            width: Positions of the block, `P`.
        """
        self._before, self._ring, self._window = standings.seen, standings.scores, rules.window
        self.seen = standings.seen
        """Scores that ever entered the window, with those of the block so far."""
        size, device = self._ring.shape[1], self._ring.device
        newest = torch.remainder(self._before - 1, size).unsqueeze(1)
        age = newest - torch.arange(size, device=device)
        # Those that stay in the window whatever the block brings.
        staying = torch.minimum(self._before, rules.window - (width - 1)).unsqueeze(1)
        stays = ((age >= 0) & (age < staying)) | (age < staying - size)
        sums = torch.where(stays, self._ring, 0.0).sum(1, keepdim=True)
        # Those that leave it one by one: the latest to leave is the newest.
        leaving = rules.window.unsqueeze(1) - torch.arange(width - 1, 0, -1, device=device)
        places = torch.remainder(newest - leaving, size).long()
        there = (leaving >= 0) & (leaving < self._before.unsqueeze(1))
        left = torch.where(there, self._ring.gather(1, places), 0.0)
        self._old = torch.cat((sums, left), 1).cumsum(1).flip(1)
        self._new = torch.zeros(len(self._ring), width, dtype=_FLOAT, device=device)
        self._ranks = torch.full_like(self._new, -1.0)

    def mean(self) -> Tensor:
        """Of the last `window` scores, over those there are; `-inf` where there are none."""
        count = torch.minimum(self.seen, self._window)
        entered = (self.seen - self._before).unsqueeze(1)
        old = self._old.gather(1, entered.long().clamp_max(self._old.shape[1] - 1)).squeeze(1)
        new = torch.where(self._ranks >= entered - self._window.unsqueeze(1), self._new, 0.0).sum(1)
        return torch.where(count > 0, (old + new) / count.clamp_min(1), -math.inf)

    def add(self, at: int, score: Tensor, enters: Tensor) -> None:
        """Let the scores of a position enter, of some answers."""
        self._new[:, at] = torch.where(enters, score, 0.0)
        self._ranks[:, at] = torch.where(enters, self.seen - self._before, -1.0)
        self.seen = self.seen + enters

    def scores(self) -> Tensor:
        """The ring behind the block; the one before it is not changed."""
        size = self._ring.shape[1]
        last = (self.seen - self._before - size).unsqueeze(1)
        kept = (self._ranks >= 0) & (self._ranks >= last)
        places = torch.remainder(self._before.unsqueeze(1) + self._ranks, size)
        places = torch.where(kept, places, size).long()  # what is not kept goes behind the end
        return torch.nn.functional.pad(self._ring, (0, 1)).scatter_(1, places, self._new)[:, :-1]
