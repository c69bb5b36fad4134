"""A finished generation as the metadata of a message: the delegation record, usage, log-probabilities."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata

from delegate_llm._settings import Settings
from delegate_llm.policy import DelegationPolicy
from delegate_llm.trace import Decision, Generation, Logprob, TokenLogprobs

__all__ = ("policy_fields", "response_metadata", "usage_metadata")

_DIGITS: Final = 4
"""Of scores in a record: what rounding leaves of a batch's noise, and more than anyone reads."""


def response_metadata(
    generation: Generation, policy: DelegationPolicy, *, model_name: str, arm: str, called: bool
) -> dict[str, Any]:
    """What a message says of how it came about, all of it JSON.

    Args:
        generation: The answer.
        policy: The policy it was made with.
        model_name: Names the models.
        arm: Who wrote: `"delegated"`, `"base"` or `"reasoner"`.
        called: Whether it calls a tool.

    Returns:
        `model_name`, `model_provider`, `finish_reason`, `logprobs` if there are any, `delegation` (what was
        decided, with a fresh `id`) and `delegation_cost` (what it cost, which a batch may change).
    """
    reason = generation.finish_reason
    said: dict[str, Any] = {
        "model_name": model_name,
        "model_provider": "delegate_llm",
        "finish_reason": "tool_calls" if called and reason == "stop" else reason,
        "delegation": _delegation(generation, policy),
        "delegation_cost": _cost(generation, arm),
    }
    if generation.logprobs is not None:
        said["logprobs"] = {"content": [_logprobs(each) for each in generation.logprobs]}
    return said


def usage_metadata(generation: Generation) -> UsageMetadata:
    """Tokens as LangChain counts them; `delegated` are those that it supplied in the base's place."""
    usage = generation.usage
    details: dict[str, int] = {"delegated": generation.trace.summary.takeovers}
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        output_token_details=OutputTokenDetails(**details),  # type: ignore[typeddict-item] # may hold more keys
    )


def policy_fields(policy: DelegationPolicy) -> dict[str, Any]:
    """A policy as JSON; a gate that is a plain callable is there by its name."""
    gates = [
        gate.model_dump(mode="json")
        if isinstance(gate, Settings)
        else {"kind": "callable", "name": getattr(gate, "__qualname__", type(gate).__name__)}
        for gate in policy.gates
    ]
    return {**policy.model_dump(mode="json", exclude={"gates"}), "gates": gates}


def _delegation(generation: Generation, policy: DelegationPolicy) -> dict[str, Any]:
    trace = generation.trace
    record = {
        "id": uuid.uuid4().hex,
        "policy": policy_fields(policy),
        "seed": generation.seed,
        "summary": _rounded(trace.summary.model_dump(mode="json"), ("share",)),
        "takeovers": _decisions(trace.takeovers),
    }
    if trace.level == "full":
        record["decisions"] = _decisions(trace.decisions)
    return record


def _decisions(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    return [_rounded(each.model_dump(mode="json"), ("score", "base_entropy")) for each in decisions]


def _rounded(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if isinstance(values[name], float):
            values[name] = round(values[name], _DIGITS)
    return values


def _cost(generation: Generation, arm: str) -> Mapping[str, Any]:
    usage = generation.usage
    names = ("forwards", "tokens", "flops")
    base = {name: getattr(usage, f"base_{name}") for name in names}
    reasoner = {name: getattr(usage, f"reasoner_{name}") for name in names}
    if arm == "reasoner":  # a pair counts its writer as the base
        base, reasoner = reasoner, base
    return {f"base_{name}": base[name] for name in names} | {
        f"reasoner_{name}": reasoner[name] for name in names
    }


def _logprobs(token: TokenLogprobs) -> dict[str, Any]:
    return {**_logprob(token), "top_logprobs": [_logprob(each) for each in token.top]}


def _logprob(each: Logprob) -> dict[str, Any]:
    whole = "\N{REPLACEMENT CHARACTER}" not in each.token  # a part of a character has no text
    return {
        "token": each.token,
        "logprob": each.logprob,
        "bytes": list(each.token.encode()) if whole else None,
    }
