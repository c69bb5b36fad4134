"""What the calls of one run hold while they are at it, so that calls side by side never spend the same.

Nodes of one step all see the state from before the step. Here, in the one process that runs the step, they
also see each other: a call takes out what it is allotted, and what it did not spend goes back at its end.
Nothing here outlives the run; what it spent is in the state by then.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.runtime import Runtime

from delegate_llm.graph.allocation import Allotment, DelegationContext, total_of
from delegate_llm.graph.state import Charge, as_spent, ledger

__all__ = ("Holding", "holding")

_RUNS: Final = 1024
"""That are remembered; a run that is forgotten only loses sight of calls beside the next one."""


@dataclass
class Holding:
    """What one call holds."""

    allotment: Allotment
    left: int
    """Takeovers that are left to the run, those held here included."""
    call: int
    """How many calls of the node came before."""
    charges: Mapping[str, Charge] = field(default_factory=dict)
    """What the call spent, once it is known; set by whoever made it."""


@dataclass
class _Purse:
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: dict[object, tuple[str, Allotment]] = field(default_factory=dict)
    spent: dict[tuple[str, int], dict[str, Charge]] = field(default_factory=dict)
    """By task and attempt: what an attempt spent whose node failed afterwards is not the run's."""


_purses: OrderedDict[tuple[int, str], tuple[object, _Purse]] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def holding(
    state: Mapping[str, Any],
    node: str,
    runtime: Runtime[Any] | None,
    context: DelegationContext,
    allot: Callable[[Mapping[str, Any]], Allotment],
) -> Iterator[Holding]:
    """Take out what a call may spend, and put back at its end what it did not.

    Args:
        state: Of the graph, as the node got it.
        node: Its name.
        runtime: Of the run; None outside of any.
        context: Its settings.
        allot: What the call may spend, given the state with everything in it that is spent or held.
    """
    total = total_of(state, context)
    purse, task = _purse_of(total["account"], runtime), _task_of(runtime)
    key = object()
    with purse.lock:
        for other in [each for each in purse.spent if each[0] == task[0] and each[1] < task[1]]:
            del purse.spent[other]
        seen = _seen(state, purse)
        allotment = allot(seen)
        calls = sum(each["node"] == node for each in ledger(seen.get("delegation_spent")).values())
        left = max(0, total["takeovers"] - seen["delegation_spent"]["takeovers"])
        purse.held[key] = (node, allotment)
    mine = Holding(allotment, left, calls)
    try:
        yield mine
    finally:
        with purse.lock:
            del purse.held[key]
            purse.spent.setdefault(task, {}).update(mine.charges)


def _seen(state: Mapping[str, Any], purse: _Purse) -> dict[str, Any]:
    """The state, with what calls beside this one have spent and hold."""
    calls = ledger(state.get("delegation_spent"))
    for spent in purse.spent.values():
        calls = {**spent, **calls}
    for at, (node, held) in enumerate(purse.held.values()):
        asks = held.asks if held.asks is not None else 0
        calls[f"held {at}"] = Charge(node=node, takeovers=held.takeovers, asks=asks, tokens=0, allotted=None)
    return {**state, "delegation_spent": as_spent(calls)}


def _purse_of(account: str, runtime: Runtime[Any] | None) -> _Purse:
    """The purse of this budget in this run."""
    control = getattr(runtime, "control", None)
    if control is None:
        return _Purse()
    with _lock:
        key = (id(control), account)
        _, purse = _purses.setdefault(key, (control, _Purse()))  # the control is kept, so is its id
        _purses.move_to_end(key)
        while len(_purses) > _RUNS:
            _purses.popitem(last=False)
        return purse


def _task_of(runtime: Runtime[Any] | None) -> tuple[str, int]:
    info = getattr(runtime, "execution_info", None)
    return ("", 0) if info is None else (info.task_id, info.node_attempt)
