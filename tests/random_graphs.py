"""Graphs at random whose nodes share one budget: chains, parallel nodes, branches, loops, subgraphs, all of
them in each other, with nodes that fail, crash, wait for a person, or answer from a cache.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeAlias

from answers import answering
from hypothesis import strategies as st
from langchain_core.caches import InMemoryCache as ModelCache
from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, RetryPolicy, Send, interrupt

from delegate_llm import DelegatedChatModel
from delegate_llm.graph import DelegationContext, DelegationState, delegated_node, fan_out

PAIRS = [answering("aaaa", other) for other in ("aaaa", "abab", "bbbb")]
"""The second and third disagree at two and at four tokens."""


class Call(NamedTuple):
    """A delegated node."""

    pair: int
    share: float | None
    strategy: str
    fails: int
    """How often it fails, each time after the model was called, before it succeeds."""
    cached: bool
    remembers: bool
    """Whether the chat model has a cache."""


class Chain(NamedTuple):
    """One after the other."""

    blocks: tuple[Block, ...]


class Beside(NamedTuple):
    """Side by side, by static edges."""

    blocks: tuple[Block, ...]


class Branches(NamedTuple):
    """Side by side, by as many `Send`s."""

    count: int
    block: Block
    parts: bool
    """Whether each has a part of the budget; otherwise it gets the whole state."""


class Again(NamedTuple):
    """In a loop."""

    times: int
    block: Block


class Within(NamedTuple):
    """A subgraph."""

    block: Block


class Pause(NamedTuple):
    """A node that waits for a person."""


class Crash(NamedTuple):
    """A node that fails the first time, and the run with it."""


Block: TypeAlias = Call | Chain | Beside | Branches | Again | Within | Pause | Crash

calls = st.builds(
    Call,
    pair=st.sampled_from([2, 2, 1, 0]),
    share=st.sampled_from([None, None, None, 0.0, 0.5]),
    strategy=st.sampled_from(["all", "all", "even", "front-loaded", "adaptive"]),
    fails=st.sampled_from([0, 0, 0, 1, 2]),
    cached=st.sampled_from([False, False, False, True]),
    remembers=st.booleans(),
)


def blocks(*, breaks: bool) -> st.SearchStrategy[Block]:
    """Any of the above; those that break a run off only if wanted."""
    leaves = st.one_of(calls, calls, calls, st.just(Pause()), st.just(Crash())) if breaks else calls

    def composed(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
        some = st.lists(inner, min_size=2, max_size=3).map(tuple)
        beside = st.builds(Beside, some)
        return st.one_of(
            beside,
            beside.map(Within),
            st.builds(Chain, some),
            st.builds(Chain, some).map(Within),
            st.builds(Branches, st.integers(0, 3), inner, st.booleans()),
            st.builds(Again, st.integers(1, 2), inner),
        )

    return composed(st.recursive(leaves, composed, max_leaves=9))


class State(DelegationState):
    """With how often each loop went round."""

    rounds: Annotated[dict[str, int], lambda held, given: {**held, **given}]


class Flaky(Exception):  # noqa: N818 - what it is
    """A failure that is tried again."""


class Crashed(Exception):  # noqa: N818 - what it is
    """One that is not."""


@dataclass
class Plan:
    """What the nodes of one graph share."""

    caches: bool
    names: Iterator[int] = field(default_factory=itertools.count)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By node and thread."""

    def name(self, kind: str) -> str:
        return f"{kind}{next(self.names)}"

    def fail(self, name: str, config: RunnableConfig, times: int, error: type[Exception]) -> None:
        key = name, config["configurable"].get("thread_id", "")
        if self.failed[key] < times:
            self.failed[key] += 1
            raise error


def build(block: Block, saver: BaseCheckpointSaver[Any] | None = None, *, shared: bool = False) -> Any:
    """The graph of a block.

    Args:
        block: What it does.
        saver: Of its threads.
        shared: Whether threads of different budgets will use it, so that what one of them has in a cache
            would be too much for another; nothing is cached then.
    """
    return _graph(block, Plan(caches=not shared)).compile(
        checkpointer=saver, cache=None if shared else InMemoryCache()
    )


def is_calm(block: Block) -> bool:
    """Whether nothing fails in it, so that every answer is kept; waiting for a person is no failure."""
    match block:
        case Call():
            return not block.fails
        case Chain(inner) | Beside(inner):
            return all(map(is_calm, inner))
        case Branches() | Again() | Within():
            return is_calm(block.block)
    return isinstance(block, Pause)


def _graph(block: Block, plan: Plan) -> StateGraph:
    graph = StateGraph(State, context_schema=DelegationContext)
    first, last = _place(graph, block, plan)
    graph.add_edge(START, first)
    graph.add_edge(last, END)
    return graph


def _place(graph: StateGraph, block: Block, plan: Plan) -> tuple[str, str]:
    """Add a block; where it starts and where it ends."""
    return _PLACED[type(block)](graph, block, plan)


def _chain(graph: StateGraph, block: Chain, plan: Plan) -> tuple[str, str]:
    placed = [_place(graph, each, plan) for each in block.blocks]
    for (_, before), (after, _) in itertools.pairwise(placed):
        graph.add_edge(before, after)
    return placed[0][0], placed[-1][1]


def _beside(graph: StateGraph, block: Beside, plan: Plan) -> tuple[str, str]:
    first, last = _nodes(graph, plan, "split", "join")
    placed = [_place(graph, each, plan) for each in block.blocks]
    for start, _ in placed:
        graph.add_edge(first, start)
    graph.add_edge([end for _, end in placed], last)
    return first, last


def _within(graph: StateGraph, block: Within, plan: Plan) -> tuple[str, str]:
    name = plan.name("graph")
    graph.add_node(name, _graph(block.block, plan).compile())
    return name, name


def _pause(graph: StateGraph, _: Pause, plan: Plan) -> tuple[str, str]:
    name = plan.name("pause")
    graph.add_node(name, lambda _: interrupt(name) and {})
    return name, name


def _crash(graph: StateGraph, _: Crash, plan: Plan) -> tuple[str, str]:
    name = plan.name("crash")

    def crash(_: State, config: RunnableConfig) -> dict[str, Any]:
        plan.fail(name, config, 1, Crashed)
        return {}

    graph.add_node(name, crash)
    return name, name


def _call(graph: StateGraph, block: Call, plan: Plan) -> tuple[str, str]:
    name = plan.name("call")
    graph.add_node(
        name,
        _node(name, block, plan),
        retry_policy=RetryPolicy(initial_interval=0, jitter=False, retry_on=Flaky),
        cache_policy=CachePolicy(key_func=lambda _: name) if block.cached and plan.caches else None,
    )
    return name, name


def _node(name: str, block: Call, plan: Plan) -> Any:
    cache = ModelCache() if block.remembers and plan.caches else None
    model = DelegatedChatModel(pair=PAIRS[block.pair], cache=cache)
    return delegated_node(
        model,
        name=name,
        share=block.share,
        strategy=block.strategy,
        prompt=lambda _: "go?",
        update=_failing(name, block.fails, plan),
    )


def _failing(name: str, times: int, plan: Plan) -> Callable[..., dict[str, Any]]:
    def update(message: Any, _: State) -> dict[str, Any]:
        plan.fail(name, get_config(), times, Flaky)
        return {"messages": [message]}

    return update


def _branches(graph: StateGraph, block: Branches, plan: Plan) -> tuple[str, str]:
    first, last = _nodes(graph, plan, "map", "reduce")
    if isinstance(block.block, Call):
        target, _ = _call(graph, block.block, plan)
    else:
        target = plan.name("branch")
        graph.add_node(target, _graph(block.block, plan).compile())

    def send(state: State, runtime: Runtime[DelegationContext]) -> list[Send] | str:
        if not block.parts:
            return [Send(target, dict(state))] * block.count or last
        payloads = [{"messages": []}] * block.count
        return fan_out(target, payloads, state, context=DelegationContext.of(runtime.context)) or last

    graph.add_conditional_edges(first, send, [target, last])
    graph.add_edge(target, last)
    return first, last


def _again(graph: StateGraph, block: Again, plan: Plan) -> tuple[str, str]:
    first, last = _place(graph, block.block, plan)
    (end,) = _nodes(graph, plan, "after")
    count = plan.name("count")
    graph.add_node(count, lambda state: {"rounds": {count: state.get("rounds", {}).get(count, 0) + 1}})
    graph.add_edge(last, count)
    graph.add_conditional_edges(
        count, lambda state: first if state["rounds"][count] % block.times else end, [first, end]
    )
    return first, end


def _nodes(graph: StateGraph, plan: Plan, *kinds: str) -> list[str]:
    """Nodes that do nothing."""
    names = [plan.name(kind) for kind in kinds]
    for name in names:
        graph.add_node(name, lambda _: {})
    return names


_PLACED: dict[type, Callable[..., tuple[str, str]]] = {
    Call: _call,
    Chain: _chain,
    Beside: _beside,
    Branches: _branches,
    Again: _again,
    Within: _within,
    Pause: _pause,
    Crash: _crash,
}
