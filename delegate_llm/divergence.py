"""How far two next-token distributions are apart: pure functions of log-probabilities.

Every function takes float32 log-probabilities of shape `[..., V]` over the same vocabulary, the base's
first, and returns scores of shape `[...]`. `log_probs` makes them from raw logits. The default,
`cross_entropy`, is the score of the source paper (arXiv 2605.16874); the others answer the same question
with another emphasis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = (
    "BASE_SIGNALS",
    "CACHED",
    "DIVERGENCES",
    "FLOOR",
    "WEIGHED",
    "cross_entropy",
    "entropy",
    "js",
    "kl",
    "log_probs",
    "nll_gap",
    "reverse_kl",
    "surprise_",
    "top1",
    "tv",
)

FLOOR: Final = -1e30
"""Stands for log 0. Finite, so that a token neither model allows adds 0 * FLOOR = 0 and not NaN."""

CACHED: Final = 1 << 18
"""Probabilities that a CPU scores at a time: few enough that they stay in its cache from step to step."""


def log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities of raw logits, in float32, with `FLOOR` for impossible tokens.

    Args:
        logits: Raw scores of shape `[..., V]`, any floating dtype; `-inf` marks a forbidden token.

    Returns:
        `[..., V]` in nats. NaN logits give NaN.
    """
    return torch.log_softmax(logits.float(), dim=-1).clamp_min_(FLOOR)


def surprise_(scratch: Tensor, other: Tensor) -> Tensor:
    """`-sum_y p(y) log q(y)`, in nats, from `p` and `log q`, in either order; the first is overwritten.

    The cross-entropy of two models, and the entropy of one: exponentials and fresh memory are what these
    cost, and `p` serves both.
    """
    return scratch.mul_(other).sum(-1).neg_()


def cross_entropy(base: Tensor, reasoner: Tensor) -> Tensor:
    """`CE(p, q) = -sum_y p(y) log q(y)` = KL(p‖q) + H(p), in nats; never below the base's entropy."""
    return surprise_(base.exp(), reasoner)


def reverse_kl(base: Tensor, reasoner: Tensor) -> Tensor:
    """`KL(p‖q)`, in nats: how badly the reasoner would code what the base wants to say."""
    return (base.exp() * (base - reasoner)).sum(-1).clamp_min(0.0)


def kl(base: Tensor, reasoner: Tensor) -> Tensor:
    """`KL(q‖p)`, in nats: how badly the base would code what the reasoner wants to say."""
    return reverse_kl(reasoner, base)


def js(base: Tensor, reasoner: Tensor) -> Tensor:
    """Jensen-Shannon divergence, in nats: symmetric, between 0 and ln 2."""
    middle = torch.logaddexp(base, reasoner) - math.log(2.0)
    both = base.exp() * (base - middle) + reasoner.exp() * (reasoner - middle)
    return (0.5 * both.sum(-1)).clamp(0.0, math.log(2.0))


def tv(base: Tensor, reasoner: Tensor) -> Tensor:
    """Total variation distance: half the absolute difference, without unit, between 0 and 1."""
    return (0.5 * (base.exp() - reasoner.exp()).abs().sum(-1)).clamp_max(1.0)


def nll_gap(base: Tensor, reasoner: Tensor) -> Tensor:
    """`log q(y*) - log p(y*)` at the reasoner's own choice `y*`, in nats; negative if the base is surer."""
    best, choice = reasoner.max(-1, keepdim=True)
    return (best - base.gather(-1, choice)).squeeze(-1)


def entropy(base: Tensor) -> Tensor:
    """`H(p) = -sum_y p(y) log p(y)`, in nats: a signal that needs no reasoner."""
    return surprise_(base.exp(), base)


def top1(base: Tensor) -> Tensor:
    """`1 - max_y p(y)`, without unit: a signal that needs no reasoner."""
    return 1.0 - base.amax(-1).exp()


DIVERGENCES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": cross_entropy,
    "reverse_kl": reverse_kl,
    "kl": kl,
    "js": js,
    "tv": tv,
    "nll_gap": nll_gap,
}
"""The divergences by name; these ask the reasoner for its distribution."""

WEIGHED: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": lambda probs, reasoner: surprise_(reasoner, probs)
}
"""Those that need no more of the base than its probabilities: the same scores, from `p` and a `log q` that
is overwritten."""

BASE_SIGNALS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"entropy": entropy, "top1": top1}
"""Controls that the base decides alone; the reasoner is asked only where it takes over."""
