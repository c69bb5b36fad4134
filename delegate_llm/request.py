"""What is asked of a pair in one call: the settings of a generation, checked once at the door."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from delegate_llm._checks import integer, number
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
        temperature, stops = number("temperature", temperature, low=0.0), _stop(stop)
        return cls(
            policy=DelegationPolicy.of(policy),
            max_tokens=integer("max_tokens", max_tokens, low=1),
            sampling=Sampling(temperature, _top_p(top_p), integer("top_k", top_k, low=0)),
            seed=_seed(seed, sampled=temperature > 0),
            # A grammar ends its answers itself; a stop string could only cut them in two.
            stop=() if grammar is not None else stops,
            schedule=_choice("schedule", schedule, get_args(Schedule)),
            trace=_choice("trace", trace, get_args(TraceLevel)),
            draft=integer("draft", draft, low=0),
            ignore_eos=bool(ignore_eos),
            logprobs=None if logprobs is None else integer("logprobs", logprobs, low=0),
            grammar=grammar,
        )

    @property
    def by_lot(self) -> bool:
        """Whether a seed has a say in the answer: in its tokens, or in who is heard."""
        return self.sampling.temperature > 0 or self.policy.divergence == "random"

    def seed_of(self, seed: Any) -> int:
        """The seed of one answer of a batch; drawn afresh for None, if anything is drawn."""
        return _seed(seed, sampled=self.sampling.temperature > 0) or 0


def _top_p(value: Any) -> float:
    mass = number("top_p", value, low=0.0)
    if not 0 < mass <= 1:
        msg = f"top_p: {value!r} is outside (0, 1]; 1 keeps every token"
        raise RequestError(msg)
    return mass


def _seed(value: Any, *, sampled: bool) -> int | None:
    if value is None:
        return secrets.randbits(32) if sampled else None
    return integer("seed", value)


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
