"""What the commands, chat models and graphs of this package leave behind as JSON, read as answers to show.

A shape is told by its keys: a generation, a trace, the record of a message, a message in each of the forms
that LangChain dumps, the state of a graph, or a list of any of these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from delegate_llm.errors import PolicyError, RequestError
from delegate_llm.gates import GateView
from delegate_llm.policy import DelegationPolicy
from delegate_llm.report.answers import Shown, short
from delegate_llm.trace import Decision, Summary, Trace

__all__ = ("UNDERSTOOD", "answers_in", "chat_text", "policy_in", "trace_in")

UNDERSTOOD: Final = (
    "a folder of `delegate-llm evaluate`, a generation (`delegate-llm run --json --trace full`), a trace, a "
    "message of a chat model or its record, the state of a graph, or a list of these"
)
_NO_TOKEN: Final = -1
"""Id of a token of which only the text was kept."""


def answers_in(value: Any, where: str, *, among: bool = False) -> list[Shown]:
    """All answers in a JSON value.

    Args:
        value: As `json.loads` gives it.
        where: Named in errors.
        among: Whether there are others, so that the state of a graph may be without any.

    Raises:
        RequestError: If it has none of the shapes, or one of them with something wrong in it.
    """
    if isinstance(value, list):
        if _is_conversation(value):
            return _of_state({"messages": value}, where)
        listed = [answers_in(one, f"{where}, entry {at}", among=True) for at, one in enumerate(value, 1)]
        return [each for found in listed for each in found]
    if not isinstance(value, Mapping):
        msg = f"{where}: {value!r:.60} is nothing to show; give {UNDERSTOOD}"
        raise RequestError(msg)
    if among and _is_unanswered(value):
        return []
    for is_one, read in _SHAPES:
        if is_one(value):
            return read(value, where)
    keys = ", ".join(map(repr, list(value)[:8])) or "no keys"
    msg = f"{where}: an object with {keys} is nothing to show; give {UNDERSTOOD}"
    raise RequestError(msg)


def trace_in(value: Any, where: str) -> Trace:
    """The trace that a JSON object is.

    Raises:
        RequestError: If it is none.
    """
    try:
        return Trace.model_validate(value)
    except PolicyError as error:
        msg = f"{where}: not a trace of this version: {error!s:.300}"
        raise RequestError(msg) from None


def policy_in(value: Any) -> tuple[DelegationPolicy | None, tuple[str, ...]]:
    """The policy of a record, and what is to be said about it.

    A gate of a user's own is there by its name only, and stands in as one of which nothing is known.
    """
    if value is None:
        return None, ()
    try:
        fields = dict(value)
        fields["gates"] = [_gate(each) for each in fields.get("gates") or ()]
        return DelegationPolicy(**fields), ()
    except (PolicyError, TypeError, ValueError) as error:
        return None, (f"The policy cannot be read, so no reasons are given: {error!s:.200}",)


def chat_text(messages: Any) -> str | None:
    """A conversation as one text, with who said what; None if there is nothing to read."""
    if not isinstance(messages, list):
        return None
    told = [(_role(each), _said(each)) for each in map(_unwrapped, messages) if isinstance(each, Mapping)]
    if len(told) == 1:
        return told[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in told) or None


# --- Shapes ---


def _of_generation(value: Mapping[str, Any], where: str) -> list[Shown]:
    text, seed = value["text"], value.get("seed")
    if not isinstance(text, str):
        msg = f"{where}, text: {text!r:.60} is no text"
        raise RequestError(msg)
    trace = Trace(level="off") if value["trace"] is None else trace_in(value["trace"], f"{where}, trace")
    policy, notes = policy_in(value.get("policy"))
    if policy is None and not notes and trace.decisions:
        notes = ("The file does not name the policy, so there are no reasons, thresholds and budgets.",)
    prompt = value.get("prompt")
    prompt = prompt if isinstance(prompt, str) else chat_text(prompt)
    return [
        Shown(
            id=where,
            title=short(prompt or text) or "(empty)",
            text=text,
            trace=trace,
            policy=policy,
            prompt=prompt,
            seed=seed if isinstance(seed, int) else None,
            notes=notes,
        )
    ]


def _of_trace(value: Mapping[str, Any], where: str) -> list[Shown]:
    trace = trace_in(value, where)
    said = "".join(each.token for each in trace.decisions)
    return [Shown(id=where, title=short(said) or "(empty)", trace=trace)]


def _of_record(value: Mapping[str, Any], where: str) -> list[Shown]:
    listed = value.get("decisions")
    level = "takeovers" if listed is None else "full"
    fields = {"level": level, "decisions": value["takeovers"] if listed is None else listed}
    trace = trace_in({**fields, "summary": value["summary"]}, where)
    policy, notes = policy_in(value.get("policy"))
    seed = value.get("seed")
    said = "".join(each.token for each in trace.decisions)
    return [
        Shown(
            id=str(value.get("id", where)),
            call=str(value["id"]) if value.get("id") else None,
            title=short(said) or "(empty)",
            trace=trace,
            policy=policy,
            seed=seed if isinstance(seed, int) else None,
            notes=notes,
        )
    ]


def _of_message(value: Mapping[str, Any], where: str) -> list[Shown]:
    message = _unwrapped(value)
    record = message["response_metadata"].get("delegation")
    if not isinstance(record, Mapping) or not _is_record(record):
        msg = f"{where}: the message has no record of delegation; is it an answer of a DelegatedChatModel?"
        raise RequestError(msg)
    (found,) = _of_record(record, where)
    text = _said(message)
    return [replace(found, text=text, title=short(text) or found.title)]


def _of_state(value: Mapping[str, Any], where: str) -> list[Shown]:
    traces = {each["id"]: each for each in _listed(value.get("delegation_traces")) if _is_call(each)}
    order = {name: at for at, name in enumerate(traces)}
    found: list[Shown] = []
    before: list[Any] = []
    for at, each in enumerate(_listed(value.get("messages")), 1):
        message = _unwrapped(each)
        if _has_record(message):
            (shown,) = _of_message(message, f"{where}, message {at}")
            call = traces.pop(shown.id, None)
            prompt = chat_text(before[-1:])
            title = short(_asked(before)) or shown.title
            node = None if call is None else str(call["node"])
            found.append(replace(shown, node=node, prompt=prompt, title=title))
        before.append(message)
    found += [_of_call(each, where) for each in traces.values()]
    if not found:
        msg = f"{where}: no message of this state is an answer of a DelegatedChatModel, and it has no traces"
        raise RequestError(msg)
    return sorted(found, key=lambda each: order.get(each.id, -1))  # as the calls were made


def _of_call(call: Mapping[str, Any], where: str) -> Shown:
    """A trace of a call whose message is not in the state."""
    try:
        decisions = tuple(
            Decision(
                **{name: each[name] for name in ("position", "token", "base_token", "score", "changed")},
                reasoner_token=each.get("reasoner_token"),
                token_id=_NO_TOKEN,
                base_token_id=_NO_TOKEN,
                asked=True,
                takeover=True,
            )
            for each in call["takeovers"]
        )
        counts = {name: call[name] for name in ("tokens", "changed", "share")}
        summary = Summary(**counts, asked=call["asks"], takeovers=len(decisions))
    except (KeyError, TypeError, ValidationError) as error:
        msg = f"{where}, delegation_traces: {call.get('id')!r:.60} is no trace of a call: {error!s:.200}"
        raise RequestError(msg) from None
    trace = Trace(level="takeovers", decisions=decisions, summary=summary)
    title = f"Call {call.get('call', 0)} of {call['node']}"
    name = str(call["id"])
    return Shown(id=name, call=name, title=title, trace=trace, node=str(call["node"]))


# --- Which one it is ---


def _is_record(value: Mapping[str, Any]) -> bool:
    return {"summary", "takeovers"} <= value.keys()


def _has_record(value: Any) -> bool:
    metadata = value.get("response_metadata") if isinstance(value, Mapping) else None
    return isinstance(metadata, Mapping) and isinstance(metadata.get("delegation"), Mapping)


def _is_message(value: Mapping[str, Any]) -> bool:
    inner = _unwrapped(value)
    return isinstance(inner, Mapping) and isinstance(inner.get("response_metadata"), Mapping)


def _is_conversation(values: list[Any]) -> bool:
    """Whether a list is the messages of one conversation, people's among them."""
    messages = [_unwrapped(each) for each in values]
    kinds = [each for each in messages if isinstance(each, Mapping) and "content" in each]
    return len(kinds) == len(values) and 0 < sum(map(_has_record, kinds)) < len(kinds)


def _is_unanswered(value: Mapping[str, Any]) -> bool:
    """Whether it is the state of a graph, as it stands or in a snapshot, in which nobody has answered yet."""
    state = value["values"] if isinstance(value.get("values"), Mapping) else value
    there = {"messages", "delegation_traces"} & state.keys()
    plain = not (state.keys() & {"text", "summary", "decisions", "response_metadata"})
    inside = [_has_record(_unwrapped(each)) for each in _listed(state.get("messages"))]
    known = bool(there) or state is not value
    return known and plain and not any(inside) and not _listed(state.get("delegation_traces"))


def _is_call(value: Any) -> bool:
    if not isinstance(value, Mapping) or not {"id", "node", "takeovers"} <= value.keys():
        return False
    return isinstance(value["id"], str)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_Read = Callable[[Mapping[str, Any], str], list[Shown]]
_SHAPES: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], _Read], ...]] = (
    (lambda value: {"text", "trace"} <= value.keys(), _of_generation),
    (lambda value: {"decisions", "summary"} <= value.keys() and not _is_record(value), _of_trace),
    (lambda value: _is_call(value) and "summary" not in value, lambda value, at: [_of_call(value, at)]),
    (_is_record, _of_record),
    (_is_message, _of_message),
    (lambda value: bool({"messages", "delegation_traces"} & value.keys()), _of_state),
    (
        lambda value: isinstance(value.get("values"), Mapping),
        lambda value, at: answers_in(value["values"], at),
    ),
    (
        lambda value: isinstance(value.get("delegation"), Mapping),
        lambda value, at: answers_in(value["delegation"], at),
    ),
)
"""Tried in this order."""


# --- Messages ---


def _unwrapped(value: Any) -> Any:
    """The fields of a message: dumped as they are, or within `data`, or as LangChain serialises objects."""
    if isinstance(value, Mapping):
        if isinstance(value.get("data"), Mapping) and isinstance(value.get("type"), str):
            return {"type": value["type"], **value["data"]}
        if isinstance(value.get("kwargs"), Mapping) and "lc" in value:
            return value["kwargs"]
    return value


def _role(message: Mapping[str, Any]) -> str:
    return str(message.get("role") or message.get("type") or "message")


def _said(message: Mapping[str, Any]) -> str:
    """What a message says, its calls of tools included."""
    content = message.get("content")
    blocks: Sequence[Any] = content if isinstance(content, list) else [content]
    parts = list(_texts(blocks))
    parts += [
        json.dumps(each, ensure_ascii=False, default=str) for each in _listed(message.get("tool_calls"))
    ]
    return "\n".join(part for part in parts if part)


def _texts(blocks: Sequence[Any]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, str):
            yield block
        elif isinstance(block, Mapping):
            yield from (
                block[key] for key in ("reasoning", "thinking", "text") if isinstance(block.get(key), str)
            )


def _asked(messages: Sequence[Any]) -> str:
    """What a person asked last."""
    asked = [each for each in messages if isinstance(each, Mapping) and _role(each) in {"human", "user"}]
    return _said(asked[-1]) if asked else ""


def _gate(given: Any) -> Any:
    if not isinstance(given, Mapping) or given.get("kind") != "callable":
        return given

    def unknown(view: GateView) -> bool:
        msg = f"of this gate only the name is known, at position {view.position}"
        raise LookupError(msg)

    unknown.__qualname__ = str(given.get("name", "unnamed"))
    return unknown
