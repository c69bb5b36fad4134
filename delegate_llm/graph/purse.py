"""What the calls of one run hold while they are at it, so that calls side by side never spend the same.

Nodes of one step all see the state from before the step. Here, in the one process that runs the step, they
also see each other: a call takes out what it is allotted, and what it did not spend goes back at its end.
A branch's part is a part of another budget, and a call there takes out of both. Nothing here outlives the
run; what it spent is in the state by then, and what a run that broke off left is read from its checkpoints.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from langgraph.runtime import Runtime

from delegate_llm.errors import PolicyError
from delegate_llm.graph.allocation import CONTEXT, Allotment, DelegationContext, remaining, split, total_of
from delegate_llm.graph.state import Charge, Total, as_spent, ledger

__all__ = ("Holding", "catch_up", "holding", "is_caught_up", "split_beside")

_RUNS: Final = 1024
"""That are remembered; a run that is forgotten only loses sight of calls beside the next one."""
State = Mapping[str, Any]


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
    """One budget in one run."""

    total: Total | None = None
    """As the state that holds it says; None while nobody has brought that state."""
    grants: dict[str, int] = field(default_factory=dict)
    """Those in the total."""
    extra: dict[str, int] = field(default_factory=dict)
    """Those that only branches know yet."""
    known: dict[str, Charge] = field(default_factory=dict)
    """What states say was spent."""
    spent: dict[tuple[str, int], dict[str, Charge]] = field(default_factory=dict)
    """By task and attempt: what an attempt spent whose node failed afterwards is not the run's. That a whole
    subgraph is tried again does not show in the tasks of its nodes, which stay spent until the run ends."""
    held: dict[object, tuple[str, Allotment]] = field(default_factory=dict)

    def begin(self, task: tuple[str, int]) -> None:
        """Forget what earlier attempts of a task spent."""
        for other in [each for each in self.spent if each[0] == task[0] and each[1] < task[1]]:
            del self.spent[other]

    def learn(self, state: State, total: Total) -> None:
        """Take in the state that holds this budget."""
        self.total, self.grants = total, dict(state.get("delegation_grants") or {})
        self.known.update(ledger(state.get("delegation_spent")))

    def seen(self, state: State) -> dict[str, Any]:
        """The state, with what calls beside it have spent and hold."""
        calls = ledger(state.get("delegation_spent"))
        for others in (self.known, *self.spent.values()):
            calls.update((name, each) for name, each in others.items() if name not in calls)
        for at, (node, held) in enumerate(self.held.values()):
            asks = held.asks if held.asks is not None else 0
            calls[f"held {at}"] = Charge(
                node=node, takeovers=held.takeovers, asks=asks, tokens=0, allotted=None
            )
        return {**state, "delegation_spent": as_spent(calls)}

    def within(self, part: Allotment, grants: Mapping[str, int]) -> Allotment:
        """As much of a branch's allotment as this budget, of which it has a part, still covers."""
        self.extra.update(grants)
        if self.total is None:
            return part
        spent = self.seen({})["delegation_spent"]
        extra = sum(count for name, count in self.extra.items() if name not in self.grants)
        takeovers = min(part.takeovers, max(0, self.total["takeovers"] + extra - spent["takeovers"]))
        if self.total["asks"] is None:
            return Allotment(takeovers, part.asks)
        asks = max(0, self.total["asks"] + extra - spent["asks"])
        return Allotment(takeovers, asks if part.asks is None else min(part.asks, asks))


@dataclass
class _Run:
    control: object = None
    """Of the graph's run; it is kept, so its id stays its own."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    purses: defaultdict[str, _Purse] = field(default_factory=lambda: defaultdict(_Purse))
    """By account."""
    caught_up: bool = False

    def all_of(self, account: str, context: DelegationContext | None) -> list[_Purse]:
        """The purse of a budget, and of those that it is a part of, the nearest first."""
        if context is not None and context.total is not None and self.purses[CONTEXT].total is None:
            self.purses[CONTEXT].total = total_of({}, context)  # it is known without any state
        names = account.split("/")
        return [self.purses["/".join(names[:end])] for end in range(len(names), 0, -1)]


_runs: OrderedDict[int, _Run] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def holding(
    state: State,
    node: str,
    runtime: Runtime[Any] | None,
    context: DelegationContext,
    allot: Callable[[State], Allotment],
) -> Iterator[Holding]:
    """Take out what a call may spend, and put back at its end what it did not.

    Args:
        state: Of the graph, as the node got it.
        node: Its name.
        runtime: Of the run; None outside of any.
        context: Its settings.
        allot: What the call may spend, given the state with everything in it that is spent or held.
    """
    total, grants = total_of(state, context), state.get("delegation_grants") or {}
    run, task, key = _run_of(runtime), _task_of(runtime), object()
    with run.lock:
        purses = own, *wider = run.all_of(total["account"], context)
        for purse in purses:
            purse.begin(task)
        own.learn(state, total)
        seen = own.seen(state)
        part, left = allot(seen), remaining(seen, context)
        for purse in wider:
            left = purse.within(Allotment(left, None), grants).takeovers
            part = purse.within(part, grants)
        for purse in purses:
            purse.held[key] = (node, part)
        calls = sum(each["node"] == node for each in ledger(seen["delegation_spent"]).values())
    mine = Holding(part, left, calls)
    try:
        yield mine
    finally:
        with run.lock:
            for purse in purses:
                del purse.held[key]
                purse.spent.setdefault(task, {}).update(mine.charges)


def split_beside(
    state: State, count: int, runtime: Runtime[Any] | None, context: DelegationContext | None
) -> list[Total]:
    """As `split`, but of what calls beside this one leave."""
    total, run = total_of(state, context), _run_of(runtime)
    with run.lock:
        own, *_ = run.all_of(total["account"], context)
        own.learn(state, total)
        return split(own.seen(state), count, context=context)


def is_caught_up(runtime: Runtime[Any] | None) -> bool:
    """Whether nothing is to be learned about what was spent before this run, beside the state."""
    return _run_of(runtime).caught_up


def catch_up(
    runtime: Runtime[Any] | None,
    context: DelegationContext,
    found: Iterable[tuple[State, bool]],
) -> None:
    """Take in the states that a run which broke off has left behind.

    Args:
        runtime: Of the run.
        context: Its settings.
        found: Each state of a graph in the step that is resumed, and whether this call runs within it,
            so that it still holds its budget.
    """
    run = _run_of(runtime)
    with run.lock:
        for state, current in found:
            try:
                total = total_of(state, context)
            except PolicyError:  # a graph around this one, which knows no budget
                continue
            own, *wider = run.all_of(total["account"], context)
            if current:
                own.learn(state, total)
            for purse in (own, *wider):
                purse.known.update(ledger(state.get("delegation_spent")))
        run.caught_up = True


def _run_of(runtime: Runtime[Any] | None) -> _Run:
    """What is held in this run."""
    control = getattr(runtime, "control", None)
    if control is None:
        return _Run(caught_up=True)
    with _lock:
        run = _runs.setdefault(id(control), _Run(control))
        _runs.move_to_end(id(control))
        while len(_runs) > _RUNS:
            _runs.popitem(last=False)
        return run


def _task_of(runtime: Runtime[Any] | None) -> tuple[str, int]:
    info = getattr(runtime, "execution_info", None)
    return ("", 0) if info is None else (info.task_id, info.node_attempt)
