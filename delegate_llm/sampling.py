"""How a token is drawn: greedily, or by Gumbel-max with noise that depends on (seed, position) alone.

The noise for a token id at a position is a hash, not the state of a generator: it does not matter in what
order, in which batch or along which draft positions are visited. So a seed names one text on every
schedule, and where base and reasoner agree they also draw the same token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ("Sampling", "draw", "gumbel_noise", "uniform")

_GOLDEN: Final = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1: Final = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2: Final = -7723592293110705685  # 0x94D049BB133111EB
_MASK64: Final = (1 << 64) - 1
# A position's stretch of counters; longer than any vocabulary. 2**62 / 2**24 positions fit a seed.
_STRIDE: Final = 1 << 24
# Nucleus candidates looked at before falling back to sorting the whole vocabulary.
_NUCLEUS: Final = 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings of a draw; `temperature` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


def draw(logits: Tensor, sampling: Sampling, seeds: list[int], positions: list[int]) -> Tensor:
    """Draw one token from each row.

    Args:
        logits: Raw logits `[N, V]`.
        sampling: Temperature, top-p and top-k, as vLLM orders them: temperature, top-k, top-p.
        seeds: One seed a row.
        positions: The position in its answer that each row draws for.

    Returns:
        Token ids `[N]`, int64.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() / sampling.temperature
    ids: Tensor | None = None
    if 0 < sampling.top_k < scaled.shape[-1]:
        scaled, ids = scaled.topk(sampling.top_k, dim=-1)
    if sampling.top_p < 1:
        scaled, ids = _nucleus(scaled, ids, sampling.top_p)
    if ids is None:
        ids = torch.arange(scaled.shape[-1], device=scaled.device)
    choice = (scaled + gumbel_noise(seeds, positions, ids)).argmax(-1, keepdim=True)
    return ids.expand_as(scaled).gather(-1, choice).squeeze(-1)


def _nucleus(scaled: Tensor, ids: Tensor | None, top_p: float) -> tuple[Tensor, Tensor]:
    """The smallest set of most probable tokens whose mass reaches `top_p`; the rest become -inf."""
    total = scaled.logsumexp(-1, keepdim=True)
    width = min(_NUCLEUS, scaled.shape[-1])
    values, order = scaled.topk(width, dim=-1)
    before = (values - total).exp().cumsum(-1)
    if width < scaled.shape[-1] and bool((before[..., -1] < top_p).any()):
        values, order = scaled.sort(dim=-1, descending=True)
        before = (values - total).exp().cumsum(-1)
    # A token stays if the mass before it has not reached top_p, so the first always stays.
    outside = before.roll(1, -1) >= top_p
    outside[..., 0] = False
    ids = order if ids is None else ids.gather(-1, order)
    return values.masked_fill(outside, -torch.inf), ids


def gumbel_noise(seeds: list[int], positions: list[int], ids: Tensor) -> Tensor:
    """Standard Gumbel noise for token ids.

    Args:
        seeds: `N` seeds, any integers.
        positions: `N` positions.
        ids: Token ids `[V]` or `[N, V]`, int64.

    Returns:
        `[N, V]` float32: a function of (seed, position, id) alone.
    """
    starts = [_start(seed, position) for seed, position in zip(seeds, positions, strict=True)]
    counters = torch.tensor(starts, device=ids.device).unsqueeze(-1) + ids * _GOLDEN
    # 63 random bits as a float keep full relative precision near 0, where the largest noise comes from.
    bits = _mix(counters).bitwise_and_(0x7FFF_FFFF_FFFF_FFFF).bitwise_or_(1)
    uniforms = bits.float().mul_(2.0**-63).clamp_(max=1 - 2.0**-24)
    return uniforms.neg_().log1p_().neg_().log_().neg_()


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of (seed, position) alone: the score of `random`."""
    return (_mix_int(_start(seed, position) ^ _GOLDEN) >> 11) * 2.0**-53


def _start(seed: int, position: int) -> int:
    """The counter that a (seed, position) starts from, as a signed 64-bit integer."""
    return _signed(_mix_int(seed) + position * _STRIDE * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), elementwise on int64."""
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_int(x: int) -> int:
    """`_mix` of one Python integer, unsigned."""
    x &= _MASK64
    x = ((x ^ (x >> 30)) * _MIX1) & _MASK64
    x = ((x ^ (x >> 27)) * _MIX2) & _MASK64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    x &= _MASK64
    return x - (1 << 64) if x >> 63 else x
