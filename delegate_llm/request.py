"""What is asked of a pair in one call: the settings of a generation, checked once at the door."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from delegate_llm.errors import RequestError
from delegate_llm.grammar import Grammar
from delegate_llm.policy import DelegationPolicy
from delegate_llm.trace import TraceLevel

__all__ = ("Request", "Sampling", "Schedule")

Schedule = Literal["draft", "lockstep"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings of a draw; `temperature` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """The settings of one generation; see `Pair.generate` for what each means."""

    policy: DelegationPolicy
    max_tokens: int
    sampling: Sampling
    seed: int | None
    stop: tuple[str, ...]
    schedule: Schedule
    trace: TraceLevel
    draft: int
    ignore_eos: bool
    logprobs: int | None
    grammar: Grammar | None

    @classmethod
    def check(
        cls,
        *,
        policy: Any,
        max_tokens: Any = 512,
        temperature: Any = 0.0,
        top_p: Any = 1.0,
        top_k: Any = 0,
        seed: Any = None,
        stop: Any = None,
        schedule: Any = "draft",
        trace: Any = "takeovers",
        draft: Any = 32,
        ignore_eos: bool = False,
        logprobs: Any = None,
        grammar: Any = None,
    ) -> Request:
        """A request from a user's values.

        Raises:
            RequestError: Naming the setting, the value, and what would do.
            PolicyError: The same for a setting of the policy.
        """
        if not isinstance(policy, DelegationPolicy | Mapping):
            msg = f"policy: {policy!r:.80} is neither a DelegationPolicy nor a mapping of its fields"
            raise RequestError(msg)
        grammar = Grammar.of(grammar)
        if grammar is not None and ignore_eos:
            msg = "ignore_eos: an answer with a grammar ends where the grammar ends; leave one of the two out"
            raise RequestError(msg)
        temperature, stops = _number("temperature", temperature, low=0.0), _stop(stop)
        return cls(
            policy=DelegationPolicy.of(policy),
            max_tokens=_count("max_tokens", max_tokens, low=1),
            sampling=Sampling(temperature, _top_p(top_p), _count("top_k", top_k, low=0)),
            seed=_seed(seed, sampled=temperature > 0),
            # A grammar ends its answers itself; a stop string could only cut them in two.
            stop=() if grammar is not None else stops,
            schedule=_choice("schedule", schedule, get_args(Schedule)),
            trace=_choice("trace", trace, get_args(TraceLevel)),
            draft=_count("draft", draft, low=0),
            ignore_eos=bool(ignore_eos),
            logprobs=None if logprobs is None else _count("logprobs", logprobs, low=0),
            grammar=grammar,
        )

    def seed_of(self, seed: Any) -> int:
        """The seed of one answer of a batch; drawn afresh for None, if anything is drawn."""
        return _seed(seed, sampled=self.sampling.temperature > 0) or 0


def _count(name: str, value: Any, *, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        msg = f"{name}: {value!r} is not an integer of at least {low}"
        raise RequestError(msg)
    return value


def _number(name: str, value: Any, *, low: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name}: {value!r} is not a number"
        raise RequestError(msg)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= low):
        msg = f"{name}: {value!r} is not a finite number of at least {low:g}"
        raise RequestError(msg)
    return number


def _top_p(value: Any) -> float:
    mass = _number("top_p", value, low=0.0)
    if not 0 < mass <= 1:
        msg = f"top_p: {value!r} is outside (0, 1]; 1 keeps every token"
        raise RequestError(msg)
    return mass


def _seed(value: Any, *, sampled: bool) -> int | None:
    if value is None:
        return secrets.randbits(32) if sampled else None
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"seed: {value!r} is not an integer"
        raise RequestError(msg)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = (value,) if isinstance(value, str) else tuple(value) if _listed(value) else (value,)
    if not all(isinstance(string, str) and string for string in strings):
        msg = f"stop: {value!r} is not a non-empty string or a list of them"
        raise RequestError(msg)
    return strings


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence | set | frozenset)


def _choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        msg = f"{name}: {value!r} is unknown; choose one of {', '.join(map(repr, choices))}"
        raise RequestError(msg)
    return value
