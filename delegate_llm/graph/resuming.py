"""What a run that broke off has left in its checkpoints, beside the state that a node of it gets.

Nodes of one step see the state from before the step. When a step is resumed, after an interrupt or in a new
process, some of its nodes may be done: what they spent waits to be written once all are, and subgraphs that
are not done have states of their own. A call must not spend that again, so the first one of a run looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from delegate_llm.graph.state import as_spent, ledger

__all__ = ("aunfinished", "unfinished")

_PAGES: Final = (16, 256, None)
"""Checkpoints that are read at a time; mostly the first few are enough."""
Found = list[tuple[Mapping[str, Any], bool]]


def unfinished(config: RunnableConfig) -> Found:
    """The states of all graphs in the step that a node runs in, and whether it runs within that graph.

    Args:
        config: Of the node.
    """
    place = _Place.of(config)
    if place is None:
        return []
    if isinstance(place.saver, InMemorySaver):
        return place.found(place.in_memory(place.saver))
    read: list[CheckpointTuple] = []
    # A saver that cannot be read from here leaves us with what this process knows.
    with suppress(NotImplementedError, asyncio.InvalidStateError):
        for limit in _PAGES:
            read = list(place.saver.list(place.thread, limit=limit))
            if limit is None or place.is_enough(read, limit):
                break
    return place.found(read)


async def aunfinished(config: RunnableConfig) -> Found:
    """As `unfinished`."""
    place = _Place.of(config)
    if place is None:
        return []
    if isinstance(place.saver, InMemorySaver):
        return place.found(place.in_memory(place.saver))
    read: list[CheckpointTuple] = []
    with suppress(NotImplementedError):
        for limit in _PAGES:
            read = [each async for each in place.saver.alist(place.thread, limit=limit)]
            if limit is None or place.is_enough(read, limit):
                break
    return place.found(read)


@dataclass(frozen=True)
class _Place:
    """Where in a thread a node runs."""

    saver: BaseCheckpointSaver[Any]
    thread: RunnableConfig
    above: Mapping[str, str]
    """Checkpoints that the graphs around the node run from, by namespace."""

    @classmethod
    def of(cls, config: RunnableConfig) -> _Place | None:
        held = config.get("configurable", {})
        saver, above = held.get("__pregel_checkpointer"), held.get("checkpoint_map")
        if not isinstance(saver, BaseCheckpointSaver) or not above or held.get("thread_id") is None:
            return None
        if held.get("__pregel_replay_state") is not None:
            return None  # a fork from an older checkpoint does all of its step again
        return cls(saver, {"configurable": {"thread_id": held["thread_id"]}}, above)

    @property
    def top(self) -> tuple[str, str]:
        """The outermost graph, by namespace and checkpoint."""
        name = min(self.above, key=len)
        return name, str(self.above[name])

    def is_enough(self, read: list[CheckpointTuple], limit: int) -> bool:
        """Whether these, the newest first, reach back to where the step began: ids grow with time."""
        return len(read) < limit or _id_of(read[-1]) < self.top[1]

    def in_memory(self, saver: InMemorySaver) -> Iterable[CheckpointTuple]:
        """The newest of each namespace, without a look into the others: `list` would read them all."""
        thread = self.thread["configurable"]
        storage = saver.storage.get(thread["thread_id"], {})
        for name in list(storage):  # in one go: other nodes write to it meanwhile
            newest = max(list(storage[name]), default="")
            place = {**thread, "checkpoint_ns": name, "checkpoint_id": newest}
            if newest >= self.top[1] and (each := saver.get_tuple({"configurable": place})):
                yield each

    def found(self, read: Iterable[CheckpointTuple]) -> Found:
        states: Found = []
        for each in read:
            name, identity = each.config["configurable"]["checkpoint_ns"], _id_of(each)
            current = str(self.above.get(name)) == identity
            parents = each.metadata.get("parents") or {}
            if current or str(parents.get(self.top[0])) == self.top[1]:
                states.append((_state_of(each), current))
        return states


def _id_of(each: CheckpointTuple) -> str:
    return str(each.config["configurable"]["checkpoint_id"])


def _state_of(each: CheckpointTuple) -> Mapping[str, Any]:
    """The state of a checkpoint, with what its finished nodes have spent."""
    values = each.checkpoint["channel_values"]
    calls = ledger(values.get("delegation_spent"))
    for _, name, value in each.pending_writes or ():
        if name == "delegation_spent" and isinstance(value, Mapping) and "calls" in value:
            calls |= ledger(value)
    return {**values, "delegation_spent": as_spent(calls)}
