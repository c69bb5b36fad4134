"""What a request asks for, checked at the door and put into the form that the worker reads.

Sampling parameters are vLLM's; nothing here imports it.
"""

from __future__ import annotations

import difflib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from delegate_llm._checks import integer
from delegate_llm.errors import PolicyError, RequestError
from delegate_llm.gates import BoundaryGate, TurnGate
from delegate_llm.policy import DelegationPolicy
from delegate_llm.sampling import as_int64
from delegate_llm.serving.tags import one_spelling, to_lark
from delegate_llm.trace import TraceLevel
from delegate_llm.vllm_plugin.wire import (
    BRIEF,
    COLUMNS,
    IDLE,
    KEY,
    SEED,
    TEMPERATURE,
    TRACED,
    is_silent,
    policy_of,
    room_of,
    to_wire,
)

__all__ = ("NEUTRAL", "Admitted", "Limits", "admit", "reads_text")

NEUTRAL: Final[Mapping[str, Any]] = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "min_tokens": 0,
    "logit_bias": None,
    "bad_words": None,
    "allowed_token_ids": None,
    "logprob_token_ids": None,
    "prompt_logprobs": None,
    "thinking_token_budget": None,
}
"""Settings that delegation does not follow, with the value that means they are off."""
_LEVELS: Final[Mapping[Any, tuple[bool, TraceLevel]]] = {
    None: (False, "takeovers"),
    0: (False, "takeovers"),
    "off": (False, "takeovers"),
    1: (True, "takeovers"),
    "takeovers": (True, "takeovers"),
    "full": (True, "full"),
}
_SEEDS: Final = 1 << 64
_SEED_BITS: Final = 53  # what JSON carries unharmed through any client


class Limits(NamedTuple):
    """What the engine allows."""

    context: int
    """Tokens of prompt and answer."""
    ahead: int
    """Tokens that the base drafts."""
    logprobs: int
    """Alternatives that a request may ask for, at most."""
    eos: tuple[int, ...]
    """Ids that end an answer, of either model."""
    synchronous: bool
    """Whether a worker knows the text before it decides on the next token."""
    policy: DelegationPolicy
    """Of requests that bring none."""
    special: Callable[[], Mapping[str, int]] | None = None
    """Gives the tokens that are no text to llguidance; None if others follow grammars."""

    @property
    def tokens(self) -> int:
        """What prompt and answer may have together: drafts reach beyond the answer's end."""
        return room_of(self.context, self.ahead)


class Admitted(NamedTuple):
    """A request that may pass."""

    sampling: Any
    """vLLM's parameters, as the worker wants them."""
    told: bool
    """Whether the client wants the trace in the answer."""
    level: TraceLevel
    """Of the trace."""
    logprobs: int | None
    """Alternatives that the client asked for."""
    seeds: list[int | None]
    """Of each choice; None for greedy ones."""
    silent: bool
    """Whether the reasoner need not read: then the prompt needs a cache of its own, see `wire.IDLE`."""


def admit(sampling: Any, prompt_tokens: int, limits: Limits, *, temperature: float | None = None) -> Admitted:
    """Check a request, and fit it to delegation.

    Args:
        sampling: vLLM's parameters; left as they are.
        prompt_tokens: Length of the prompt.
        limits: Of the engine.
        temperature: As the client said it, if that is known; vLLM lifts low ones.

    Raises:
        RequestError: If it asks for what delegation cannot do.
        PolicyError: If its policy is none.
    """
    sampling = sampling.clone()
    extra = dict(sampling.extra_args or {})
    _check_names(extra)
    told, level = _level(extra)
    _check_settings(sampling)
    policy = _policy(extra, limits)
    silent = is_silent(policy)
    wanted = _logprobs(sampling, limits)
    if limits.special is not None:
        _translate(sampling.structured_outputs, limits.special)
    sampling.max_tokens = _room(sampling.max_tokens, prompt_tokens, limits)
    if not sampling.ignore_eos:
        sampling.stop_token_ids = sorted({*(sampling.stop_token_ids or ()), *limits.eos})
    # vLLM counts the seed up from choice to choice; under our own key it would be the same for all.
    sampled = sampling.temperature > 0
    sampling.seed = _seed(extra.pop(SEED, sampling.seed), sampled=sampled)
    sampling.logprobs = COLUMNS - 1 + (wanted or 0)
    sampling.flat_logprobs = True
    sampling.extra_args = {**extra, TRACED: 1}
    if temperature is not None and 0 < temperature < sampling.temperature:
        sampling.extra_args[TEMPERATURE] = temperature
    if silent:
        sampling.extra_args |= {IDLE: 1, **({BRIEF: 1} if level != "full" and wanted is None else {})}
    named = sampled or policy.divergence == "random"
    seeds = [(sampling.seed + at) % _SEEDS if named else None for at in range(sampling.n)]
    if not 0 <= sampling.seed <= _SEEDS - sampling.n:  # more than a message to the engine can hold
        sampling.extra_args[SEED], sampling.seed = as_int64(sampling.seed), 0
    return Admitted(sampling, told, level, wanted, seeds, silent)


def reads_text(policy: DelegationPolicy) -> bool:
    """Whether a gate of it has to know what was said so far."""
    return any(isinstance(gate, BoundaryGate | TurnGate) for gate in policy.gates)


def _level(extra: Mapping[str, Any]) -> tuple[bool, TraceLevel]:
    asked = extra.get(TRACED)
    try:
        return _LEVELS[asked]
    except (KeyError, TypeError):
        msg = f"{TRACED}: {asked!r:.80} is unknown; give 1 or 'takeovers', or 'full', or 'off'"
        raise RequestError(msg) from None


def _check_settings(sampling: Any) -> None:
    for name, off in NEUTRAL.items():
        value = getattr(sampling, name, None)
        if value is None or value == off or (isinstance(value, list | dict) and not value):
            continue
        msg = f"{name}: {value!r:.80} is not supported with delegation; leave it out"
        raise RequestError(msg)


def _check_names(extra: Mapping[str, Any]) -> None:
    """Keep out what only this package itself may tell a worker."""
    known = KEY, TRACED, SEED
    for name in extra:
        if name not in known and (name.startswith(KEY) or difflib.get_close_matches(name, known, 1, 0.8)):
            msg = f"{name}: there is no such argument; there are {', '.join(known)}"
            raise RequestError(msg)


def _policy(extra: dict[str, Any], limits: Limits) -> DelegationPolicy:
    """The policy of a request, which is spelled out there if it brings one."""
    policy = policy_of(extra)
    if policy is None:
        extra.pop(KEY, None)
        policy = limits.policy
    else:
        extra[KEY] = to_wire(policy)
    if reads_text(policy) and not limits.synchronous:
        msg = (
            "gates: boundary and turn gates read the text so far, which an engine that schedules ahead "
            "does not know in time; start the server with --no-async-scheduling, or use other gates"
        )
        raise PolicyError(msg)
    return policy


def _logprobs(sampling: Any, limits: Limits) -> int | None:
    wanted: int | None = sampling.logprobs
    if wanted is not None and not 0 <= wanted <= limits.logprobs:
        msg = f"logprobs: {wanted} is not in [0, {limits.logprobs}]; more need a server with --max-logprobs"
        raise RequestError(msg)
    return wanted


def _translate(form: Any, special: Callable[[], Mapping[str, int]]) -> None:
    """Say to llguidance what is meant: tags in Lark, and JSON that cannot be padded for ever."""
    if form is None:
        return
    if form.structural_tag is not None:
        grammar = to_lark(form.structural_tag, special())
        if grammar is not None:
            form.structural_tag, form.grammar = None, grammar
    elif form.json_object:
        form.json_object, form.json = None, one_spelling({"type": "object"})
    elif form.json is not None:
        try:
            schema = json.loads(form.json) if isinstance(form.json, str) else form.json
        except ValueError:
            return  # vLLM says what is wrong with it
        form.json = one_spelling(schema)


def _room(max_tokens: int | None, prompt_tokens: int, limits: Limits) -> int:
    room = limits.tokens - prompt_tokens
    if room < 1:
        msg = (
            f"the prompt has {prompt_tokens} tokens, and at most {limits.tokens - 1} leave room for an "
            f"answer: the context holds {limits.context}, and drafts need some of it; shorten the prompt, "
            "or start the server with a larger --max-model-len, if both models read that far"
        )
        raise RequestError(msg)
    return room if max_tokens is None else min(max_tokens, room)


def _seed(seed: Any, *, sampled: bool) -> int:
    if seed is None:  # a greedy answer may be under the control `random`, which draws by it
        return secrets.randbits(_SEED_BITS) if sampled else 0
    return integer(SEED, seed)
