"""How a token is drawn: greedily, or by Gumbel-max with noise that depends on (seed, position) alone.

The noise for a token id at a position is a hash, not the state of a generator: it does not matter in what
order, in which batch or along which draft positions are visited. So a seed names one text on every
schedule, and where base and reasoner agree they also draw the same token.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from delegate_llm.request import Sampling

__all__ = ("COLD", "HOT", "argmax", "as_int64", "draw", "gumbel_noise", "uniform", "uniforms")

# Odd constants of Weyl sequences and integer hashes, as torch's signed integers.
_WEYL: Final = -1640531527  # 2**32 / golden ratio
_MIX1: Final = 0x7FEB352D  # the two multipliers of Wellons' 32-bit hash
_MIX2: Final = -2073254261  # 0x846CA68B
_MASK64: Final = (1 << 64) - 1
COLD: Final = 1e-6
"""Below this temperature no noise outweighs a difference that float32 shows: it is greedy."""
HOT: Final = 1e37
"""Above this temperature nothing changes, and soon a forbidden token would be drawn: -inf / inf is NaN."""
# Nucleus candidates looked at before falling back to sorting the whole vocabulary.
_NUCLEUS: Final = 1024


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
    if sampling.temperature < COLD:
        return argmax(logits)
    scaled = logits.float() / min(sampling.temperature, HOT)
    ids: Tensor | None = None
    if 0 < sampling.top_k < scaled.shape[-1]:
        scaled, ids = scaled.topk(sampling.top_k, dim=-1)
    if sampling.top_p < 1:
        scaled, ids = _nucleus(scaled, ids, sampling.top_p)
    if ids is None:
        ids = torch.arange(scaled.shape[-1], device=scaled.device)
    choice = (scaled + gumbel_noise(seeds, positions, ids)).argmax(-1, keepdim=True)
    return ids.expand_as(scaled).gather(-1, choice).squeeze(-1)


def argmax(logits: Tensor) -> Tensor:
    """As torch's own; on a CPU by numpy, whose argmax is vectorised and torch's is not."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.detach().float().numpy().argmax(-1))  # numpy knows no bfloat16


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


def gumbel_noise(seeds: list[int] | Tensor, positions: list[int] | Tensor, ids: Tensor) -> Tensor:
    """Standard Gumbel noise for token ids.

    Args:
        seeds: `N` seeds, any integers; or as a tensor, the integers modulo 2**64 (`as_int64`).
        positions: `N` positions; a tensor if the seeds are one.
        ids: Token ids `[V]` or `[N, V]`, int64.

    Returns:
        `[N, V]` float32: a function of (seed, position, id) alone.
    """
    if isinstance(seeds, Tensor):
        assert isinstance(positions, Tensor)
        mixed = _mix_all(_mix_all(seeds) ^ (positions << 1 | 1))
        first, second = ((mixed >> bits).to(torch.int32).unsqueeze(-1) for bits in (32, 0))
    else:
        keys = [_key(seed, position) for seed, position in zip(seeds, positions, strict=True)]
        first, second = (
            torch.tensor([each[half] for each in keys], dtype=torch.int32, device=ids.device).unsqueeze(-1)
            for half in (0, 1)
        )
    bits = _hash(ids.to(torch.int32) * _WEYL + first, second)
    # 31 bits as a float are exact near 0, where the largest noise comes from.
    uniforms = bits.bitwise_and_(0x7FFF_FFFF).float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return uniforms.neg_().log1p_().neg_().log_().neg_()


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of (seed, position) alone: the score of `random`."""
    return (_mix(_mix(seed) + position + 1) >> 11) * 2.0**-53


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """As `uniform` for int64 tensors `[N]`, seeds modulo 2**64; float64."""
    return _shift(_mix_all(_mix_all(seeds) + positions + 1), 11).double() * 2.0**-53


def as_int64(seed: int) -> int:
    """The signed 64-bit integer that is `seed` modulo 2**64, as tensors hold it."""
    return ((seed & _MASK64) ^ (1 << 63)) - (1 << 63)


def _key(seed: int, position: int) -> tuple[int, int]:
    """Two signed 32-bit integers that name a (seed, position)."""
    mixed = _mix(_mix(seed) ^ (position << 1 | 1))
    return _signed(mixed >> 32), _signed(mixed & 0xFFFF_FFFF)


def _hash(x: Tensor, key: Tensor) -> Tensor:
    """Wellons' `lowbias32` on int32, with a second key mixed in half-way so that no two streams overlap."""
    x = x.bitwise_xor_(_shift(x, 16)).mul_(_MIX1)
    x = x.bitwise_xor_(key)
    x = x.bitwise_xor_(_shift(x, 15)).mul_(_MIX2)
    return x.bitwise_xor_(_shift(x, 16))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (8 * x.element_size() - bits)) - 1)


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), unsigned."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def _mix_all(x: Tensor) -> Tensor:
    """`_mix` of int64, whose products wrap around."""
    x = x + as_int64(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * as_int64(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * as_int64(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _signed(x: int) -> int:
    """The signed 32-bit integer with these bits."""
    return x - (1 << 32) if x >> 31 else x
