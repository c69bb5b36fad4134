"""From a message of a delegated model to what the graph keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import BaseMessage
from typing_extensions import TypedDict

from delegate_llm.errors import RequestError
from delegate_llm.graph.state import CallTrace, Charge, Spent, Takeover, as_spent

__all__ = ("Recorded", "record", "takeover_of")


class Recorded(TypedDict):
    """An update of the state."""

    delegation_spent: Spent
    delegation_traces: list[CallTrace]


def record(
    message: BaseMessage,
    *,
    node: str = "",
    step: int | None = None,
    call: int = 0,
    allotted: int | None = None,
) -> Recorded:
    """What a message spent, and its trace, as an update of the state.

    It may be applied any number of times, and is charged once: an answer from a cache has the id of the
    call that made it.

    Args:
        message: An answer of a `DelegatedChatModel`.
        node: Who called the model.
        step: Of the graph.
        call: How many calls the node had made before.
        allotted: Takeovers that the call was allowed.

    Raises:
        RequestError: If the message has no record.
    """
    said = message.response_metadata.get("delegation")
    if not isinstance(said, Mapping):
        msg = f"no record of delegation in {message!r:.80}; it is not an answer of a DelegatedChatModel"
        raise RequestError(msg)
    name, summary = cast("str", said["id"]), said["summary"]
    cost = message.response_metadata.get("delegation_cost", {})
    spent, tokens = summary["takeovers"], summary["tokens"]
    charge = Charge(node=node, takeovers=spent, asks=summary["asked"], tokens=tokens, allotted=allotted)
    trace = CallTrace(
        id=name,
        node=node,
        step=step,
        call=call,
        tokens=tokens,
        asks=summary["asked"],
        changed=summary["changed"],
        share=summary["share"],
        allotted=allotted,
        reasoner_forwards=cost.get("reasoner_forwards", 0),
        reasoner_tokens=cost.get("reasoner_tokens", 0),
        takeovers=[takeover_of(each) for each in said["takeovers"]],
    )
    return Recorded(delegation_spent=as_spent({name: charge}), delegation_traces=[trace])


def takeover_of(decision: Mapping[str, Any]) -> Takeover:
    """A decision of a record as the graph keeps it."""
    return cast("Takeover", {name: decision[name] for name in Takeover.__annotations__})
