"""The method as the paper states it, without caches, drafts or shared code: judge of both schedules.

Every position runs both models over the whole sequence from scratch, in float64 scores, with the policy's
conditions written out by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Position:
    token: int
    asked: bool
    takeover: bool
    score: float | None
    margin: float
    """How far the closest comparison was from going the other way; rounding decides below 1e-4."""


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def divergence(name: str, p: torch.Tensor, q: torch.Tensor) -> float:  # noqa: PLR0911 - one a name
    """Each score from its textbook definition, on float64 probabilities."""
    if name == "cross_entropy":
        return float(-(p * q.log()).sum())
    if name == "reverse_kl":
        return float((p * (p / q).log()).sum())
    if name == "kl":
        return float((q * (q / p).log()).sum())
    if name == "js":
        m = (p + q) / 2
        return float(((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2)
    if name == "tv":
        return float((p - q).abs().sum() / 2)
    if name == "nll_gap":
        best = q.argmax()
        return float(q[best].log() - p[best].log())
    if name == "entropy":
        return float(-(p * p.log()).sum())
    assert name == "top1"
    return float(1 - p.max())


def decode(
    base: Any,
    reasoner: Any,
    prompt: list[int],
    policy: dict[str, Any],
    *,
    max_tokens: int,
    size: int,
    eos: set[int],
    entropy_above: float | None = None,
    first: int | None = None,
    turn: tuple[int, int] | None = None,
) -> list[Position]:
    """Greedy delegated decoding; `turn` is how many takeovers a tool call and a final answer may spend."""
    rate, burst, limit, asks = (policy["budget"].get(key) for key in ("rate", "burst", "limit", "asks"))
    capacity = burst if burst is not None else (8 if rate is not None else math.inf)
    level, spent, asked_so_far = float(capacity), 0, 0
    window: list[float] = []
    tokens: list[int] = []
    positions: list[Position] = []
    base_only = policy["divergence"] in {"entropy", "top1"}
    while len(tokens) < max_tokens:
        lp, lq = _logits(base, prompt + tokens), _logits(reasoner, prompt + tokens)
        rows = min(lp.numel(), lq.numel())
        p, q = (each[:rows].double().softmax(-1) for each in (lp, lq))
        entropy = float(-(p * p.log()).sum())
        never = (
            (limit is not None and spent >= limit)
            or (asks is not None and asked_so_far >= asks)
            or (level < 1 - 1e-9 and (not rate or capacity < 1))
            or (first is not None and len(tokens) >= first)
            # No answer of these models can open a tool call, but nobody knows that before its first token.
            or (turn is not None and spent >= (turn[1] if tokens else max(turn)))
        )
        opens = not never and (entropy_above is None or entropy > entropy_above)
        margin = math.inf if entropy_above is None else abs(entropy - entropy_above)
        score, takeover = None, False
        if opens:
            score = divergence(policy["divergence"], p, q)
            bars = [policy["threshold"]]
            recent = window[-policy["spike_window"] :]
            if policy["spike"] and recent:
                bars.append(policy["spike"] * sum(recent) / len(recent))
            margin = min([margin, *(abs(score - bar) for bar in bars)])
            takeover = score > max(bars) and level >= 1 - 1e-9
            window.append(score)
        asked = takeover if base_only else opens
        speaker = (lq if takeover else lp)[:size]
        best, second = speaker.topk(2).values.tolist()
        margin = min(margin, best - second)
        token = int(speaker.argmax())
        positions.append(Position(token, asked, takeover, score, margin))
        tokens.append(token)
        spent += takeover
        asked_so_far += asked
        level = min(capacity, level - takeover + (rate or 0))
        if token in eos:
            break
    return positions
