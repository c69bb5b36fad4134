"""The answers that a worker is writing: their policies, standings and draws, as rows of tensors.

A request keeps its seat from its first token to its end, wherever vLLM moves it in the batch, and through
preemption; its numbers stay on the device.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from delegate_llm.errors import PolicyError
from delegate_llm.foresight import Foresight
from delegate_llm.gates import BoundaryGate, TurnGate
from delegate_llm.policy import DelegationPolicy
from delegate_llm.sampling import COLD, argmax, as_int64, gumbel_noise
from delegate_llm.text import AnswerText
from delegate_llm.vllm_plugin.acceptance import Rules, Standings
from delegate_llm.vllm_plugin.wire import BRIEF, FORCED, IDLE, SEED, TEMPERATURE, TRACED, is_silent, policy_of

__all__ = ("Drawing", "Seat", "Seats")

logger = logging.getLogger(__name__)

_RULES: Final = len(Rules._fields)
_STANDING: Final = len(Standings._fields) - 1
_GROWTH: Final = 64


@dataclass
class Seat:
    """One request."""

    at: int
    """Its row."""
    policy: DelegationPolicy
    sampled: bool
    narrowed: bool
    """Whether it draws from a part of the vocabulary."""
    traced: bool
    """Whether it wants to be told what was decided."""
    idle: bool
    """Whether the reasoner need not even read along: it is never heard, and nobody shares its cache."""
    brief: bool
    """Whether it does not want to know of probabilities, idle as it is."""
    text: AnswerText | None
    """What it says so far, if a gate reads it."""
    foresight: Foresight
    above: float
    """Entropy of the base, in nats, up to which its gates are closed."""
    ends: frozenset[int]
    """Tokens that end it."""
    most: int
    """Tokens it may have."""
    window: int
    """Scores that its spike looks back on; 0 without one."""
    read: int = 0
    """Tokens in that text."""
    forced: Tensor | None = None
    """What it says whatever the models say, and a token that never counts; `[L + 1]`."""

    def limits(self, tokens: Sequence[int], drafted: Sequence[int]) -> list[float]:
        """Takeovers that gates which read the text allow, at each position of a draft and behind it.

        Behind a token that is none, nothing more is told.

        Args:
            tokens: Of the answer so far.
            drafted: Behind them.
        """
        if self.text is None:
            return [float("inf")] * (1 + len(drafted))
        for token in tokens[self.read :]:
            self.text.push(token)
        self.read = len(tokens)
        ahead, found = self.text.fork(), []
        for at in range(1 + len(drafted)):
            if at and drafted[at - 1] < 0:  # vLLM stands in for drafts where there are none yet
                break
            if at:
                ahead.push(drafted[at - 1])
            found.append(
                min(
                    gate.room(ahead.text, len(tokens) + at)
                    for gate in self.policy.gates
                    if isinstance(gate, BoundaryGate | TurnGate)
                )
            )
        return found


@dataclass(frozen=True)
class Drawing:
    """From which tokens is drawn."""

    size: int | None = None
    """Ids below it are tokens; None for all."""
    holes: tuple[int, ...] = ()
    """Ids below it that are none."""

    def within(self, logits: Tensor) -> Tensor:
        """The logits of ids that are tokens."""
        size = logits.shape[1] if self.size is None else min(self.size, logits.shape[1])
        logits = logits if size == logits.shape[1] else logits[:, :size]
        if self.holes:
            logits = logits.index_fill(1, torch.tensor(self.holes, device=logits.device), -torch.inf)
        return logits


@dataclass
class Seats:
    """All of them."""

    device: torch.device
    policy: DelegationPolicy
    """Of requests that bring none."""
    drawing: Drawing
    decode: Callable[[], Callable[[Sequence[int]], str]]
    """Gives what turns ids into text; asked for once a gate reads text."""
    batch: list[Seat] = field(default_factory=list)
    """In the order of the current batch."""
    at: Tensor = field(init=False)
    """Their rows `[B]`."""
    _seats: dict[str, Seat] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start empty."""
        self._numbers = torch.zeros(0, _RULES + _STANDING + 3, dtype=torch.float64, device=self.device)
        self._seeds = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._scores = torch.zeros(0, 0, dtype=torch.float64, device=self.device)
        self.at = torch.zeros(0, dtype=torch.int64, device=self.device)

    def arrange(self, names: Sequence[str], requests: Mapping[str, Any]) -> None:
        """Take the order of a batch; requests without a seat get one.

        Args:
            names: Of the batch.
            requests: vLLM's state of each.
        """
        batch = [self._seats.get(each) or self._take(each, requests[each].sampling_params) for each in names]
        if [each.at for each in batch] != [each.at for each in self.batch]:
            at = torch.tensor([each.at for each in batch], dtype=torch.int64)
            self.at = at.to(self.device, non_blocking=True)
        self.batch = batch

    def leave(self, names: Sequence[str]) -> None:
        """Free the seats of requests that are over."""
        for name in names:
            seat = self._seats.pop(name, None)
            if seat is not None:
                self._free.append(seat.at)
                if seat.window and seat.window == self._scores.shape[1]:
                    self._resize(max((each.window for each in self._seats.values()), default=0))

    @property
    def rules(self) -> Rules:
        """Of the batch."""
        return Rules(*self._numbers[self.at, :_RULES].unbind(1))

    @property
    def standings(self) -> Standings:
        """Of the batch."""
        numbers = self._numbers[self.at, _RULES : _RULES + _STANDING].unbind(1)
        level, spent, asked, position, seen = numbers
        return Standings(level, spent, asked, position, seen, self._scores[self.at])

    @standings.setter
    def standings(self, after: Standings) -> None:
        self._numbers[self.at, _RULES : _RULES + _STANDING] = torch.stack(after[:-1], 1)
        if after.scores.shape[1]:
            self._scores[self.at] = after.scores

    @property
    def positions(self) -> Tensor:
        """Tokens generated so far `[B]`, int64."""
        return self._numbers[self.at, _RULES + Standings._fields.index("position")].long()

    @property
    def seeds(self) -> Tensor:
        """Of the batch `[B]`, int64."""
        return self._seeds[self.at]

    def draw_next(self, logits: Tensor, *, ahead: int) -> Tensor:
        """Draw one token a row of the batch, `ahead` positions behind what is decided.

        Args:
            logits: Raw, `[B, V]`.
            ahead: Positions.

        Returns:
            Token ids `[B]`.
        """
        everyone = torch.arange(len(self.batch), device=self.device)
        drawn = self.draw(self.drawing.within(logits), everyone, self.positions + ahead)
        forced = self.forced(1, ahead)
        return drawn if forced is None else torch.where(forced[:, 0] >= 0, forced[:, 0], drawn)

    def forced(self, width: int, ahead: int = 0) -> Tensor | None:
        """The next tokens `[B, width]` of answers whose text is given, -1 in others; None without any.

        Args:
            width: How many.
            ahead: Positions behind what is decided, where they start.
        """
        if not any(seat.forced is not None for seat in self.batch):
            return None
        tokens = torch.full((len(self.batch), width), -1, dtype=torch.int64, device=self.device)
        places = self.positions.unsqueeze(1) + ahead + torch.arange(width, device=self.device)
        for row, seat in enumerate(self.batch):
            if seat.forced is not None:
                tokens[row] = seat.forced[places[row].clamp(max=len(seat.forced) - 1)]
        return tokens

    def draw(self, logits: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """Draw one token for each of `N` positions, of any rows of the batch.

        Args:
            logits: Raw, `[N, V]`.
            rows: Of the batch, `[N]`.
            positions: In their answers, `[N]`.

        Returns:
            Token ids `[N]`.
        """
        if not any(each.sampled for each in self.batch):
            return argmax(logits)
        at = self.at[rows]
        temperature, top_k, top_p = self._numbers[at, -3:].unbind(1)
        greedy = (temperature < COLD).unsqueeze(1)
        scaled = logits.float() / temperature.float().unsqueeze(1).masked_fill(greedy, 1.0)
        if any(each.narrowed for each in self.batch):
            from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

            every = scaled.shape[1]
            kept = torch.where((top_k < 1) | (top_k > every), every, top_k)
            scaled = apply_top_k_top_p(scaled, kept.to(torch.int32), top_p.float())
        noise = gumbel_noise(
            self._seeds[at], positions, torch.arange(scaled.shape[1], device=scaled.device)
        ).masked_fill(greedy, 0.0)
        return (scaled + noise).argmax(-1)

    def _take(self, name: str, sampling: Any) -> Seat:
        extra = sampling.extra_args or {}
        try:
            policy = policy_of(extra) or self.policy
        except PolicyError:  # whoever sends requests checks them; the others' answers must not suffer here
            logger.exception("the policy of request %s cannot be read: it gets the default one", name)
            policy = self.policy
        traced = bool(extra.get(TRACED))
        temperature = extra.get(TEMPERATURE, sampling.temperature)
        # No answer has more scores than tokens.
        window = min(policy.spike_window, sampling.max_tokens) if policy.spike else 0
        rules = Rules.row(policy)
        if window:
            rules[Rules._fields.index("window")] = window
        idle = bool(extra.get(IDLE)) and is_silent(policy) and not extra.get(FORCED)
        seat = Seat(
            at=self._free.pop() if self._free else self._grow(),
            policy=policy,
            sampled=temperature >= COLD,
            narrowed=sampling.top_p < 1 or sampling.top_k > 0,
            traced=traced,
            idle=idle,
            brief=idle and (bool(extra.get(BRIEF)) if traced else sampling.logprobs is None),
            text=AnswerText(self.decode(), ())
            if any(isinstance(each, BoundaryGate | TurnGate) for each in policy.gates)
            else None,
            foresight=Foresight(on_entropy=policy.divergence == "cross_entropy"),
            above=rules[Rules._fields.index("above")],
            ends=frozenset([*(sampling.stop_token_ids or ()), sampling.eos_token_id]) - {None},
            most=sampling.max_tokens,
            window=window,
        )
        if extra.get(FORCED):
            seat.forced = torch.tensor([*extra[FORCED], 0], dtype=torch.int64).to(
                self.device, non_blocking=True
            )
        numbers = [
            *rules,
            *(rules[Rules._fields.index("capacity")], 0, 0, 0, 0),
            *(temperature, max(sampling.top_k, 0), sampling.top_p),
        ]
        self._numbers[seat.at] = torch.tensor(numbers, dtype=torch.float64).to(self.device, non_blocking=True)
        # Workers side by side have to draw the same, so a seed that nobody chose is the name's.
        seed = sampling.seed
        if SEED in extra:  # vLLM counts its own up from choice to choice
            seed = int(extra[SEED]) + (seed or 0)
        if seed is None:
            seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        self._seeds[seat.at] = as_int64(int(seed))
        if window > self._scores.shape[1]:
            self._resize(window)
        self._seats[name] = seat
        return seat

    def _grow(self) -> int:
        count = len(self._seeds)
        self._numbers = torch.nn.functional.pad(self._numbers, (0, 0, 0, _GROWTH))
        self._seeds = torch.nn.functional.pad(self._seeds, (0, _GROWTH))
        self._scores = torch.nn.functional.pad(self._scores, (0, 0, 0, _GROWTH))
        self._free.extend(range(count + _GROWTH - 1, count, -1))
        return count

    def _resize(self, window: int) -> None:
        """Make room for the widest spike's window; what is remembered moves to where that ring has it."""
        width = self._scores.shape[1]
        seen = self._numbers[:, _RULES + Standings._fields.index("seen")].long().unsqueeze(1)
        ring = torch.zeros(len(self._seeds), window, dtype=torch.float64, device=self.device)
        if width and window:
            last = seen - 1 - torch.arange(min(width, window), device=self.device)
            kept = torch.where(last >= 0, self._scores.gather(1, last % width), 0.0)
            # Behind the first score there are none, and their places are overwritten before they are read.
            ring.scatter_(1, last % window, kept)
        self._scores = ring
