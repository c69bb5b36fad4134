"""Scored answers, written down: tokens with their scores and the base's entropies."""

from __future__ import annotations

from collections.abc import Sequence

from delegate_llm.evaluation.listening import Scored
from delegate_llm.trace import Decision

Written = tuple[str, float, float]
"""A token, its score, the base's entropy."""


def answer(task: str, written: Sequence[Written], correct: bool | None = None) -> Scored:
    """An answer whose tokens are the base's own, and the reasoner's too."""
    decisions = tuple(
        Decision(
            position=at,
            token_id=at,
            token=token,
            asked=True,
            score=score,
            base_entropy=entropy,
            base_token_id=at,
            base_token=token,
            reasoner_token_id=at,
            reasoner_token=token,
        )
        for at, (token, score, entropy) in enumerate(written)
    )
    return Scored(task, "".join(token for token, _, _ in written), decisions, correct, "stop")
