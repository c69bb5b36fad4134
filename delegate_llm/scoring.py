"""Teacher forcing: both models along a given text, and what a policy would have done at each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from torch import Tensor

from delegate_llm.decoding import likelihoods, tokens_only
from delegate_llm.divergence import BASE_SIGNALS, DIVERGENCES, entropy, log_probs
from delegate_llm.errors import NumericsError
from delegate_llm.gates import GateView
from delegate_llm.pairs.seam import Session
from delegate_llm.policy import DelegationPolicy, Referee
from delegate_llm.rows import Vocabulary
from delegate_llm.sampling import argmax, uniform
from delegate_llm.text import AnswerText
from delegate_llm.trace import Decision, Logprob, Summary, Trace

__all__ = ("Choices", "Facts", "Given", "judged", "score")

_BLOCK = 64  # positions whose distributions are held at once, of all rows together
_LEAST = 8  # positions of a row that are worth a forward


Choices: TypeAlias = Sequence[tuple[int, float]]


class Facts(NamedTuple):
    """What both models say at a position of a given text."""

    score: float
    entropy: float
    """Of the base, in nats."""
    base: int
    """Its first choice."""
    reasoner: int
    base_top: Choices = ()
    """Its most probable tokens with their log-probabilities, best first."""
    reasoner_top: Choices = ()


class Given(NamedTuple):
    """A text behind its prompts, as token ids; the text has at least one."""

    base: list[int]
    """The base's prompt."""
    reasoner: list[int]
    completion: Sequence[int]


def score(
    rows: Sequence[Given],
    sessions: tuple[Session, Session],
    vocabulary: Vocabulary,
    policy: DelegationPolicy,
    *,
    top: int = 0,
) -> list[Trace]:
    """Score every position of given texts.

    Args:
        rows: The texts.
        sessions: A fresh session for each model, with as many rows.
        vocabulary: What the two share.
        policy: Gives the divergence, and says where it would have handed over.
        top: How many of each model's most probable tokens to keep.

    Returns:
        A full trace of each.

    Raises:
        NumericsError: If a model returns NaN.
    """
    facts: list[list[Facts]] = [[] for _ in rows]
    step = max(_LEAST, _BLOCK // len(rows))
    for start in range(0, max(len(row.completion) for row in rows), step):
        ends = [min(start + step, len(row.completion)) for row in rows]
        fresh = [max(0, end - start) for end in ends]
        seen = [list(row.completion[: end - 1]) for row, end in zip(rows, ends, strict=True)]
        both = [
            session.read(
                [
                    [*row[who], *text] if new else None
                    for row, text, new in zip(rows, seen, fresh, strict=True)
                ],
                last=[max(1, new) for new in fresh],
            )
            for who, session in enumerate(sessions)
        ]
        for at, new in enumerate(fresh):
            if new:
                spoken, heard = (logits[at, -new:] for logits in both)
                facts[at] += _facts(spoken, heard.to(spoken.device), vocabulary, policy, start=start, top=top)
    return [judged(row.completion, found, vocabulary, policy) for row, found in zip(rows, facts, strict=True)]


def judged(
    completion: Sequence[int], facts: Sequence[Facts], vocabulary: Vocabulary, policy: DelegationPolicy
) -> Trace:
    """What a policy would have done along a text.

    Args:
        completion: Its token ids, at least one.
        facts: What both models said at each of them.
        vocabulary: What the two share.
        policy: Says where it would have handed over.

    Returns:
        A full trace.
    """
    referee, text = Referee(policy), AnswerText(vocabulary.decode)
    standing, decisions = referee.start(), []
    for position, (token, said) in enumerate(zip(completion, facts, strict=True)):
        view = GateView(position, said.entropy, referee.budget(standing), lambda: text.text, standing.spent)
        opens = referee.opens(standing, view)
        asked = opens and referee.asks(standing, said.score if referee.base_only else None)
        takeover = asked and referee.fires(standing, said.score)
        decisions.append(
            Decision(
                position=position,
                token_id=token,
                token=vocabulary.piece(token),
                asked=True,
                takeover=takeover,
                changed=takeover and said.base != said.reasoner,
                score=said.score,
                base_entropy=said.entropy,
                base_token_id=said.base,
                base_token=vocabulary.piece(said.base),
                reasoner_token_id=said.reasoner,
                reasoner_token=vocabulary.piece(said.reasoner),
                base_top=_told(said.base_top, vocabulary),
                reasoner_top=_told(said.reasoner_top, vocabulary),
            )
        )
        standing = referee.after(
            standing, score=said.score if opens else None, asked=asked, takeover=takeover
        )
        text.push(token)
    spent, tokens = standing.spent, len(decisions)
    return Trace(
        decisions=tuple(decisions),
        summary=Summary(
            tokens=tokens,
            takeovers=spent,
            changed=sum(each.changed for each in decisions),
            asked=tokens,
            share=spent / tokens,
        ),
    )


def _told(choices: Choices, vocabulary: Vocabulary) -> tuple[Logprob, ...]:
    return tuple(
        Logprob(token_id=token, token=vocabulary.piece(token), logprob=logprob) for token, logprob in choices
    )


def _facts(
    spoken: Tensor, heard: Tensor, vocabulary: Vocabulary, policy: DelegationPolicy, *, start: int, top: int
) -> list[Facts]:
    """For logits `[n, V]` of each model."""
    base, reasoner = (log_probs(each[:, : vocabulary.rows]) for each in (spoken, heard))
    unsure = entropy(base).tolist()
    if policy.divergence == "random":
        values = [uniform(0, start + offset) for offset in range(len(unsure))]
    elif policy.divergence in BASE_SIGNALS:
        values = BASE_SIGNALS[policy.divergence](base).tolist()
    else:
        values = DIVERGENCES[policy.divergence](base, reasoner).tolist()
    for who, each in (("base", base), ("reasoner", reasoner)):
        if any(map(math.isnan, each.amax(-1).tolist())):
            msg = f"the {who} returned NaN logits while scoring; load it in another dtype"
            raise NumericsError(msg)
    (first, base_top), (second, reasoner_top) = (_choices(each, vocabulary, top) for each in (spoken, heard))
    return list(map(Facts, values, unsure, first, second, base_top, reasoner_top))


def _choices(logits: Tensor, vocabulary: Vocabulary, top: int) -> tuple[list[int], list[Choices]]:
    """For each row of `[n, V]`, the first choice and the most probable tokens."""
    drawable = tokens_only(logits.float(), vocabulary)
    first = argmax(drawable)
    tops: list[Choices] = [each.top if each else () for each in likelihoods(drawable, first, top or None)]
    return first.tolist(), tops
