"""An answer as its caller gets it: pieces while it is decided, and the whole at the end."""

from __future__ import annotations

from dataclasses import dataclass

from delegate_llm.pairs.seam import Meter
from delegate_llm.rows import Row
from delegate_llm.trace import Decision, Generation, TokenLogprobs, Usage

__all__ = ("Piece", "generation_of", "piece_of")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text as it is decided, with the decisions that made it; the texts of all pieces are the answer."""

    text: str
    decisions: tuple[Decision, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One a token, if they were asked for."""


def piece_of(row: Row, shown: int, safe: int, told: int) -> Piece:
    """What is new: the text between two places, and all decisions from the first that was not told."""
    return Piece(row.text.text[shown:safe], tuple(row.decisions[told:]), tuple(row.logprobs[told:]))


def generation_of(row: Row, base: Meter, reasoner: Meter) -> Generation:
    """A finished row as what the caller gets."""
    assert row.reason is not None
    return Generation(
        text=row.text.text,
        token_ids=tuple(row.tokens),
        finish_reason=row.reason,
        trace=row.trace(),
        usage=Usage(
            prompt_tokens=len(row.base_prompt),
            reasoner_prompt_tokens=len(row.reasoner_prompt),
            completion_tokens=len(row.tokens),
            base_forwards=base.forwards,
            reasoner_forwards=reasoner.forwards,
            base_tokens=base.tokens,
            reasoner_tokens=reasoner.tokens,
            base_flops=base.flops,
            reasoner_flops=reasoner.flops,
        ),
        logprobs=None if row.request.logprobs is None else tuple(row.logprobs),
        seed=row.seed if row.request.by_lot else None,
    )
