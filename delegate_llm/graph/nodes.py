"""`delegated_node`: a node for graphs written by hand that spends its part of the run's budget.

It takes its allotment from the state, calls the model with it, tells takeovers as they happen, and writes
back the message, what was spent, and the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, merge_configs, run_in_executor
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Send

from delegate_llm.chat_model import DelegatedChatModel
from delegate_llm.errors import PolicyError, RequestError
from delegate_llm.graph.allocation import Allotment, DelegationContext, allot
from delegate_llm.graph.purse import Holding, catch_up, holding, is_caught_up, split_beside
from delegate_llm.graph.records import record
from delegate_llm.graph.resuming import aunfinished, unfinished
from delegate_llm.graph.state import as_count
from delegate_llm.graph.strategies import ALL, Strategy, as_share, strategy_named
from delegate_llm.watching import watch

if TYPE_CHECKING:
    from delegate_llm.trace import Decision

__all__ = ("DelegatedModel", "current_step", "delegated_model", "delegated_node", "fan_out", "told_to")

DelegatedModel: TypeAlias = Runnable[LanguageModelInput, AIMessage]
"""A `DelegatedChatModel`, or one with settings or tools bound to it."""
_BOOKS: Final = frozenset({"delegation_spent", "delegation_traces", "delegation_grants"})
State: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Callable[[State], LanguageModelInput]
Settings: TypeAlias = Mapping[str, Any] | Callable[[State], Mapping[str, Any]]
Update: TypeAlias = Callable[[AIMessage, State], Mapping[str, Any]]


def delegated_node(
    model: DelegatedModel | Callable[[Any], DelegatedModel],
    *,
    name: str,
    share: float | None = None,
    budget: int | None = None,
    strategy: str | Strategy = ALL,
    prompt: Prompt | None = None,
    settings: Settings | None = None,
    update: Update | None = None,
    context_schema: type[DelegationContext] = DelegationContext,
) -> Runnable[Any, dict[str, Any]]:
    """A node that calls a delegated model within the run's budget of takeovers.

    Where nothing is left for it, the base goes on alone, and no reasoner is run. Everything that happens is
    told on the stream mode `custom`, takeover by takeover.

    Args:
        model: A `DelegatedChatModel`, with settings or tools bound to it if you like; or a function that
            makes one from the run's context, for models that are chosen at run time.
        name: Of the node, in traces, events and the context's shares; as in `add_node(name, ...)`.
        share: Of the total that the node may spend over the whole run, in [0, 1]; 0 is the base alone.
        budget: Takeovers that it may spend over the run, instead. Without either: whatever is left.
        strategy: How its calls divide that: one of `STRATEGIES`, or a function.
        prompt: A system message before the state's messages, or a function from the state to the model's
            input. By default the messages as they are.
        settings: Of the model's calls, or a function from the state to them, such as
            `lambda state: {"tool_choice": state["plan"][0]}`.
        update: What the node writes, from the answer and the state, beside spent and trace. By default
            `{"messages": [answer]}`.
        context_schema: Of the graph, whose defaults hold for a run without context.

    Returns:
        A node for `StateGraph.add_node`, sync and async.

    Raises:
        RequestError: If the model is no delegated one.
        PolicyError: If a share, budget or strategy is none; in a run also if it has no total.

    ```python
    graph.add_node("planner", delegated_node(model, name="planner", share=0.75))
    ```
    """
    if share is not None and budget is not None:
        msg = f"node {name!r}: share {share!r} and budget {budget!r} are two ways to say it; give one"
        raise PolicyError(msg)
    node = _Node(
        name=name,
        model=_checked(model) if isinstance(model, Runnable) else _function(model),
        share=None if share is None else as_share("share", share),
        budget=None if budget is None else as_count("budget", budget),
        strategy=strategy_named(strategy),
        prompt=prompt,
        settings=settings,
        update=update,
        schema=context_schema,
    )
    return RunnableLambda(node.run, node.arun, name=name)


def fan_out(
    node: str,
    payloads: Sequence[Mapping[str, Any]],
    state: State,
    *,
    context: DelegationContext | None = None,
) -> list[Send]:
    """A `Send` to a node for each payload, with its part of what is left; what it leaves comes back.

    A part is a promise among branches: a node that runs beside them and is not one of them may take some of
    it first, since all of them together never spend more than the run may.

    Args:
        node: Where to; a delegated node, or a subgraph with some. A subgraph brings its part back with it, so
            the total must then be in the state, and not in the context alone.
        payloads: The state of each branch; what it has of the graph's own ledger and grants is left out.
        state: Of the graph.
        context: Of the run, if it holds the total.

    Raises:
        PolicyError: If the run has no total.
    """
    if not payloads:
        return []
    parts = split_beside(state, len(payloads), _runtime(), context)
    return [
        Send(node, {**_without_books(payload), "delegation_budget": part})
        for payload, part in zip(payloads, parts, strict=True)
    ]


def _without_books(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What was spent before the branch is not spent of its part, nor is a grant to the whole one to it."""
    return {name: value for name, value in payload.items() if name not in _BOOKS}


def delegated_model(model: Any) -> DelegatedChatModel | None:
    """The `DelegatedChatModel` under whatever is bound to it; None if there is none."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model if isinstance(model, DelegatedChatModel) else None


@contextmanager
def told_to(
    write: Callable[[Any], object], *, node: str, step: int | None, call: int, left: int
) -> Iterator[None]:
    """Within this context, every takeover is written as an event.

    Args:
        write: Of the stream mode `custom`.
        node: Who calls the model.
        step: Of the graph.
        call: How many calls the node had made before.
        left: Takeovers that are left to the run before this call.
    """
    spent = 0

    def tell(decision: Decision) -> None:
        nonlocal spent
        spent += 1
        write(
            {
                "type": "takeover",
                "node": node,
                "step": step,
                "call": call,
                "position": decision.position,
                "token": decision.token,
                "base_token": decision.base_token,
                "score": decision.score,
                "changed": decision.changed,
                "left": max(0, left - spent),
            }
        )

    with watch(tell):
        yield


@dataclass(frozen=True)
class _Prepared:
    """A call that is ready to be made."""

    model: DelegatedModel
    asked: LanguageModelInput
    config: RunnableConfig
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Node:
    name: str
    model: DelegatedModel | Callable[[Any], DelegatedModel]
    share: float | None
    budget: int | None
    strategy: Strategy
    prompt: Prompt | None
    settings: Settings | None
    update: Update | None
    schema: type[DelegationContext]

    def run(self, state: State) -> dict[str, Any]:
        runtime = _runtime()
        if not is_caught_up(runtime):
            catch_up(runtime, self._context(runtime), unfinished(ensure_config()))
        with self._held(state, runtime) as held:
            call = self._prepare(state, runtime, held)
            with self._told(runtime, held):
                message = call.model.invoke(call.asked, call.config, **call.settings)
            return self._written(message, state, held)

    async def arun(self, state: State) -> dict[str, Any]:
        runtime = _runtime()
        if not is_caught_up(runtime):
            catch_up(runtime, self._context(runtime), await aunfinished(ensure_config()))
        with self._held(state, runtime) as held:
            # In a worker: a function that makes models may read their folders.
            call = await run_in_executor(None, self._prepare, state, runtime, held)
            with self._told(runtime, held):
                message = await call.model.ainvoke(call.asked, call.config, **call.settings)
            return self._written(message, state, held)

    def _context(self, runtime: Runtime[Any] | None) -> DelegationContext:
        return self.schema.of(runtime and runtime.context)

    def _held(self, state: State, runtime: Runtime[Any] | None) -> Any:
        context = self._context(runtime)
        if not {"delegation_budget", "delegation_spent"} & state.keys():
            msg = (
                f"node {self.name!r}: its state has neither budget nor what was spent; derive it "
                "from DelegationState, and send branches by fan_out, which gives each its part"
            )
            raise PolicyError(msg)

        def part(seen: State) -> Allotment:
            return allot(
                seen,
                self.name,
                share=self.share,
                budget=self.budget,
                strategy=self.strategy,
                context=context,
            )

        return holding(state, self.name, runtime, context, part)

    def _told(self, runtime: Runtime[Any] | None, held: Holding) -> Any:
        write = _silent if runtime is None else runtime.stream_writer
        return told_to(write, node=self.name, step=current_step(), call=held.call, left=held.left)

    def _prepare(self, state: State, runtime: Runtime[Any] | None, held: Holding) -> _Prepared:
        context = self._context(runtime)
        model = self.model if isinstance(self.model, Runnable) else _checked(self.model(context))
        own = self.settings(state) if callable(self.settings) else self.settings or {}
        # One answer is kept; others would spend, too, and be charged to nobody.
        settings: dict[str, Any] = {**own, "n": 1, "max_takeovers": held.allotment.takeovers}
        if held.allotment.asks is not None:
            settings["max_asks"] = held.allotment.asks
        if (threshold := context.threshold) is not None:
            settings["threshold"] = threshold
        said = {"delegation_node": self.name, "delegation_allotted": held.allotment.takeovers}
        config = merge_configs(ensure_config(), {"metadata": said})
        return _Prepared(model, self._asked(state), config, settings)

    def _asked(self, state: State) -> LanguageModelInput:
        if callable(self.prompt):
            return self.prompt(state)
        messages = state.get("messages") or []
        return messages if self.prompt is None else [SystemMessage(self.prompt), *messages]

    def _written(self, message: AIMessage, state: State, held: Holding) -> dict[str, Any]:
        allotted = held.allotment.takeovers
        made = record(message, node=self.name, step=current_step(), call=held.call, allotted=allotted)
        held.charges = made["delegation_spent"]["calls"]
        own = {"messages": [message]} if self.update is None else self.update(message, state)
        return {**own, **made}


def _checked(model: Any) -> DelegatedModel:
    if delegated_model(model) is None:
        msg = (
            f"model: {model!r:.80} is no DelegatedChatModel, nor one with settings or tools bound to it; "
            "put prompts and parsers into the node's `prompt` and `update`"
        )
        raise RequestError(msg)
    return cast("DelegatedModel", model)


def _function(model: Any) -> Callable[[Any], DelegatedModel]:
    if isinstance(model, type) or not callable(model):
        msg = f"model: {model!r:.80} is neither a DelegatedChatModel nor a function that makes one"
        raise RequestError(msg)
    return cast("Callable[[Any], DelegatedModel]", model)


def _runtime() -> Runtime[Any] | None:
    """Of the graph's run; None where the node is called by hand."""
    try:
        return get_runtime()
    except (KeyError, RuntimeError):
        return None


def current_step() -> int | None:
    """The step of the graph that is running; None outside of any."""
    step = ensure_config().get("metadata", {}).get("langgraph_step")
    return step if isinstance(step, int) else None


def _silent(_: object) -> None:
    """Nobody listens."""
