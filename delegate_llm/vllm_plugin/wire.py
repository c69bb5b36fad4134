"""What travels with a request to the worker, and with every token back.

There: the policy as JSON, in the request's extra arguments. Back: what was decided, in the columns that vLLM
has for log-probabilities. They leave the engine in the same message as the token they belong to, so nothing
has to be kept, found again or thrown away, whatever becomes of the request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from delegate_llm.errors import NumericsError, PolicyError
from delegate_llm.policy import DelegationPolicy, Referee

__all__ = (
    "ASKED",
    "BRIEF",
    "COLUMNS",
    "DRAFTED",
    "FORCED",
    "IDLE",
    "KEY",
    "RAN",
    "SALT",
    "SEED",
    "STEP",
    "STRIDE",
    "TAKEOVER",
    "TEMPERATURE",
    "TRACED",
    "Told",
    "is_silent",
    "policy_of",
    "room_of",
    "to_wire",
    "told",
)

KEY: Final = "delegation"
"""Of the policy in a request's extra arguments."""
SEED: Final = "delegation_seed"
"""Of the seed that names a sampled text, any integer."""
TEMPERATURE: Final = "delegation_temperature"
"""Of the temperature, where vLLM has put a higher one in its place."""
TRACED: Final = "delegation_trace"
"""Whether what is decided comes back with every token, in `COLUMNS` columns."""
FORCED: Final = "delegation_forced"
"""Of token ids that are said whatever the models say, for a text to be scored."""
IDLE: Final = "delegation_idle"
"""Whether the reasoner need not read this request, whose policy never listens to it. Only for requests with
`SALT` as their cache salt: what the reasoner did not read must not be found in the cache by others."""
BRIEF: Final = "delegation_brief"
"""Whether a request with `IDLE` wants to know of tokens and flags alone: log-probabilities and entropies are
what its positions cost besides the base's forward. In place of the first stands the token's raw logit."""
SALT: Final = "delegate-llm: base alone"
COLUMNS: Final = 4
"""Of a token, before those that the request itself asked for: the token and its log-probability; the base's
token and the flags; the reasoner's token and the score; the base's entropy."""
STRIDE: Final = 1 << 28
"""Added to the ids of each column but the first, times its number, and to those of all alternatives times
`COLUMNS`: vLLM keys log-probabilities by token, and two models often say the same one."""
_FORBIDDEN: Final = -1e20
"""Log-probabilities from here down stand for 0."""
ASKED: Final = 1
TAKEOVER: Final = 2
RAN: Final = 4
"""Set at the first token of a step in which the reasoner ran."""
STEP: Final = 8
"""Times the positions that were to be decided in a step; at the first token of each step, else 0."""
DRAFTED: Final = STEP << 10
"""Times the positions that the base had drafted for it; 0 where it had to read the prompt instead. A float32
holds both, for drafts of up to `MOST_AHEAD`."""


class Told(NamedTuple):
    """What was decided at a position."""

    token: int
    logprob: float
    """To the model that was heard, in nats."""
    base_token: int
    reasoner_token: int | None
    """None where it was not asked."""
    asked: bool
    takeover: bool
    score: float | None
    """None where it did not count."""
    entropy: float
    """Of the base, in nats."""
    step: int
    """Positions that were to be decided in one step, at its first token; else 0."""
    drafted: int
    """Positions that the base drafted for the step, at its first token."""
    read: int
    """Those that the reasoner read: as many, or none where it did not run."""
    top: list[tuple[int, float]]
    """The most probable tokens, as many as the request asked for."""


def to_wire(policy: DelegationPolicy) -> str:
    """A policy as text that any client can send.

    Raises:
        PolicyError: If a gate is a plain callable.
    """
    return policy.model_dump_json()


def is_silent(policy: DelegationPolicy) -> bool:
    """Whether the reasoner can never be heard under a policy."""
    referee = Referee(policy)
    return referee.is_over(referee.start(), 0)


def policy_of(extra: Mapping[str, Any] | None) -> DelegationPolicy | None:
    """The policy in a request's extra arguments, or None.

    Raises:
        PolicyError: If it is none.
    """
    given = (extra or {}).get(KEY)
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            msg = f"{KEY}: {given!r:.80} is no JSON ({error})"
            raise PolicyError(msg) from error
    if not isinstance(given, Mapping):
        msg = f"{KEY}: {given!r:.80} is no policy; give its fields, such as {{'threshold': 1.5, 'budget': 8}}"
        raise PolicyError(msg)
    return DelegationPolicy.of(given)


def room_of(length: int, ahead: int) -> int:
    """Tokens of prompt and answer that fit: drafts run ahead of them, and are scored behind them."""
    return length - 2 * ahead - 1


def told(ids: Sequence[int], numbers: Sequence[float]) -> Told:
    """A position from its columns.

    Args:
        ids: `COLUMNS` token ids, and one for each alternative, apart by `STRIDE`.
        numbers: Likewise.

    Raises:
        NumericsError: If a model returned NaN there.
    """
    unheard = bool(int(numbers[1]) & ASKED) and math.isnan(numbers[2])
    if unheard or math.isnan(numbers[0]) or math.isnan(numbers[3]):
        msg = (
            "a model returned logits from which no token can be drawn (nan). "
            "Check the weights, or load them in another dtype (float32 or bfloat16)"
        )
        raise NumericsError(msg)
    flags = int(numbers[1])
    step = flags % DRAFTED // STEP
    asked = bool(flags & ASKED)
    return Told(
        token=ids[0],
        logprob=numbers[0],
        base_token=ids[1] - STRIDE,
        reasoner_token=ids[2] - 2 * STRIDE if asked else None,
        asked=asked,
        takeover=bool(flags & TAKEOVER),
        score=None if math.isnan(numbers[2]) else numbers[2],
        entropy=numbers[3],
        step=step,
        drafted=flags // DRAFTED,
        read=step if flags & RAN else 0,
        top=[
            (each - COLUMNS * STRIDE, number)
            for each, number in zip(ids[COLUMNS:], numbers[COLUMNS:], strict=True)
            if number > _FORBIDDEN  # a grammar leaves some tokens out, and they are no alternatives
        ],
    )
