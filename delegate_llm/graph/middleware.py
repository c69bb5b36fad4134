"""`DelegationMiddleware`: an agent of `langchain.agents.create_agent` under one budget of takeovers.

It hands each call of the model its part of what is left, tells takeovers as they happen, and writes back
what was spent. It needs the extra `agents`.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NotRequired, get_args

from langchain_core.messages import AIMessage
from langchain_core.runnables.base import RunnableBindingBase
from langgraph.runtime import Runtime
from langgraph.types import Command

from delegate_llm.errors import PolicyError, RequestError, require
from delegate_llm.graph.allocation import DelegationContext, total_of
from delegate_llm.graph.gate import ask_for_budget
from delegate_llm.graph.limits import Limits, Part, as_turn_shares, so_far
from delegate_llm.graph.nodes import current_step, delegated_model, told_to
from delegate_llm.graph.records import record
from delegate_llm.graph.state import CallTrace, Spent, add_spent, add_traces, ledger, merge_grants
from delegate_llm.graph.strategies import ALL, Strategy, strategy_named

require("langchain.agents.middleware", "agents")  # before the imports that would only say what is missing

from langchain.agents.middleware import (  # noqa: E402 - see above
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    hook_config,
)
from langchain.agents.middleware.types import (  # noqa: E402 - see above
    ContextT,
    OmitFromInput,
    PrivateStateAttr,
    ResponseT,
)

__all__ = ("DelegationAgentState", "DelegationMiddleware")

OnExhausted = Literal["base", "stop", "interrupt"]
_TOOLS: Final = frozenset({"tools", "tool_choice"})


class DelegationAgentState(AgentState[ResponseT]):
    """What the middleware adds to an agent's state. None of it can be set by the agent's input.

    It is state like any other, though: whoever is allowed to write a thread's state past its input, by
    `update_state` or `Command(update=...)`, can write this, too.
    """

    # The reducer comes last: LangGraph looks for it there and nowhere else.
    delegation_spent: NotRequired[Annotated[Spent, OmitFromInput, add_spent]]
    """What the thread has spent, by call."""
    delegation_traces: NotRequired[Annotated[list[CallTrace], OmitFromInput, add_traces]]
    """What the reasoner did, call by call."""
    delegation_before: NotRequired[Annotated[list[str], PrivateStateAttr]]
    """The calls and grants that were there before this run, by id."""
    delegation_grants: NotRequired[Annotated[dict[str, int], PrivateStateAttr, merge_grants]]
    """What a person added to the limits, by grant."""
    delegation_alone: NotRequired[Annotated[bool, PrivateStateAttr]]
    """Whether a person decided that the base goes on alone, in this run."""


class DelegationMiddleware(AgentMiddleware[DelegationAgentState[ResponseT], ContextT, ResponseT]):
    """Keeps an agent within a budget of takeovers, for a thread, for each of its runs, or for both.

    A run is one `invoke`, with all that resumes it; without a checkpointer every run is a thread of its own.
    The result has `delegation_spent` and `delegation_traces`; takeovers are told as they happen on the
    stream mode `custom`. An agent that is made with `context_schema=DelegationContext` takes a `total`,
    `asks`, a `threshold`, a `strategy` and `shares` for a run, too; the first two only ever lower its limits.

    A call is charged once its answer is there, by the id of its record: an answer that comes again, from a
    cache or a resumed run, counts once in a thread. Attempts that failed do not count, nor answers that a
    middleware around this one discards.

    ```python
    from langchain.agents import create_agent

    from delegate_llm.graph import DelegationMiddleware

    agent = create_agent(model, tools, middleware=[DelegationMiddleware(run_limit=8)])
    ```
    """

    state_schema = DelegationAgentState  # type: ignore[assignment] # generic, as LangChain's own are

    def __init__(
        self,
        *,
        thread_limit: int | None = None,
        run_limit: int | None = None,
        thread_asks: int | None = None,
        run_asks: int | None = None,
        shares: Mapping[str, float] | None = None,
        strategy: str | Strategy = ALL,
        on_exhausted: OnExhausted = "base",
        name: str = "model",
    ) -> None:
        """Set the limits; at least one is needed, and all that are given hold together.

        Args:
            thread_limit: Takeovers that a thread may spend, over all its runs.
            run_limit: Takeovers that one run may spend.
            thread_asks: Positions at which the reasoner may be consulted in a thread.
            run_asks: The same for one run.
            shares: Of each limit, for answers that call tools and for final ones, such as
                `{"tool_call": 0.8, "final": 0.2}`. Calls are then charged to the nodes `"tool_call"` and
                `"final"`. What is written shows which one it is, and words before the first tool call are
                final until then, so a kind may come to more than its share, but the two never to more than
                the limit. An answer in the form of a tool (`ToolStrategy`) is a tool call.
            strategy: How the calls divide what is left: one of `STRATEGIES`, or a function.
            on_exhausted: What happens before the next call once nothing is left: `"base"` goes on with the
                base alone, `"stop"` ends the run with a message that says so, and `"interrupt"` asks a
                person, as `budget_gate` does; that needs a checkpointer. What is granted raises the limits
                of thread and run alike, and who answers `"base"` is not asked again in this run.
            name: Of the node, in traces, events and the context's shares.

        Raises:
            PolicyError: If there is no limit, or one of the settings is none.
        """
        super().__init__()
        if on_exhausted not in get_args(OnExhausted):
            choices = ", ".join(map(repr, get_args(OnExhausted)))
            msg = f"on_exhausted: {on_exhausted!r:.80} is unknown; choose one of {choices}"
            raise PolicyError(msg)
        self.on_exhausted = on_exhausted
        self.limits = Limits(
            node=name,
            thread_limit=thread_limit,
            run_limit=run_limit,
            thread_asks=thread_asks,
            run_asks=run_asks,
            shares=as_turn_shares(shares),
            strategy=strategy_named(strategy),
        )

    def before_agent(
        self, state: DelegationAgentState[ResponseT], runtime: Runtime[ContextT]
    ) -> dict[str, Any]:
        """Remember where the thread stands as the run starts; a run that is resumed does not come here."""
        del runtime
        return {"delegation_before": so_far(state), "delegation_alone": False}

    async def abefore_agent(
        self, state: DelegationAgentState[ResponseT], runtime: Runtime[ContextT]
    ) -> dict[str, Any]:
        """As `before_agent`."""
        return self.before_agent(state, runtime)

    @hook_config(can_jump_to=["end"])
    def before_model(
        self, state: DelegationAgentState[ResponseT], runtime: Runtime[ContextT]
    ) -> dict[str, Any] | None:
        """Once nothing is left, stop or ask a person, if that is wanted."""
        if self.on_exhausted == "base":
            return None
        context = _settings(runtime)
        if self.on_exhausted == "interrupt":
            return self._asked(state, context)
        spent_out = self.limits.spent_out(state, context)
        return None if spent_out is None else _stopped(spent_out)

    @hook_config(can_jump_to=["end"])
    async def abefore_model(
        self, state: DelegationAgentState[ResponseT], runtime: Runtime[ContextT]
    ) -> dict[str, Any] | None:
        """As `before_model`."""
        return self.before_model(state, runtime)

    def wrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], ModelResponse[ResponseT]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """Call the model with its part of the budget, and charge what it spent.

        Raises:
            RequestError: If the model is no delegated one.
        """
        call = self._call(request)
        with call.told():
            response = handler(call.request)
        return call.charged(response)

    async def awrap_model_call(
        self,
        request: ModelRequest[ContextT],
        handler: Callable[[ModelRequest[ContextT]], Awaitable[ModelResponse[ResponseT]]],
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        """As `wrap_model_call`."""
        call = self._call(request)
        with call.told():
            response = await handler(call.request)
        return call.charged(response)

    def _call(self, request: ModelRequest[ContextT]) -> _Call:
        model, bound = _unbound(request.model)
        context = _settings(request.runtime)
        part = self.limits.part(request.state, context)
        kinds = self.limits.shares is not None
        settings = {
            **bound,
            **request.model_settings,
            "n": 1,  # one answer is kept; others would spend, too, and be charged to nobody
            "max_takeovers": dict(part.takeovers) if kinds else part.takeovers[self.limits.node],
        }
        if part.asks is not None:
            settings["max_asks"] = part.asks
        if context.threshold is not None:
            settings["threshold"] = context.threshold
        count = len(ledger(request.state.get("delegation_spent")))
        told = request.override(model=model, model_settings=settings)
        return _Call(told, self.limits.node, part, kinds=kinds, count=count)

    def _asked(self, state: Mapping[str, Any], context: DelegationContext) -> dict[str, Any] | None:
        """What a person decides, for as long as nothing is left."""
        held, grants = dict(state.get("delegation_grants") or {}), dict[str, int]()
        while spent_out := self.limits.spent_out({**state, "delegation_grants": {**held, **grants}}, context):
            match ask_for_budget(spent_out, DelegationContext()):
                case {"action": "stop"}:
                    return _stopped(spent_out)
                case {"action": "base"}:
                    return {"delegation_grants": grants, "delegation_alone": True}
                case {"action": "grant", "takeovers": count}:
                    grants[uuid.uuid4().hex] = count
        return {"delegation_grants": grants} if grants else None


@dataclass(frozen=True)
class _Call:
    """A call that is ready to be made."""

    request: ModelRequest[Any]
    node: str
    part: Part
    kinds: bool
    """Whether it is charged to the kind of answer it turns out to be."""
    count: int
    """How many calls came before."""

    def told(self) -> AbstractContextManager[None]:
        write = self.request.runtime.stream_writer
        return told_to(write, node=self.node, step=current_step(), call=self.count, left=self.part.left)

    def charged(
        self, response: ModelResponse[ResponseT]
    ) -> ModelResponse[ResponseT] | ExtendedModelResponse[ResponseT]:
        answer = next((each for each in response.result if isinstance(each, AIMessage)), None)
        if answer is None or "delegation" not in answer.response_metadata:
            return response  # another middleware's words, say of a model that failed
        node = _kind(answer) if self.kinds else self.node
        allotted = self.part.takeovers[node]
        made = record(answer, node=node, step=current_step(), call=self.count, allotted=allotted)
        return ExtendedModelResponse(model_response=response, command=Command(update=dict(made)))


def _kind(answer: AIMessage) -> str:
    """What an answer turned out to be, by the same sign that `TurnGate` goes by while it is written."""
    return "tool_call" if answer.tool_calls or answer.invalid_tool_calls else "final"


def _settings(runtime: Runtime[Any]) -> DelegationContext:
    """Of the run; a context of any other class is the agent's own business."""
    context = runtime.context
    return context if isinstance(context, DelegationContext) else DelegationContext()


def _unbound(model: Any) -> tuple[Any, dict[str, Any]]:
    """The chat model, and the settings that are bound to it, which an agent with tools would lose."""
    bound: dict[str, Any] = {}
    chat = delegated_model(model)
    while isinstance(model, RunnableBindingBase):
        bound, model = {**model.kwargs, **bound}, model.bound
    if chat is None:
        msg = (
            f"model: {model!r:.80} is no DelegatedChatModel, so there is nothing to budget; "
            "give create_agent a DelegatedChatModel, or leave DelegationMiddleware out"
        )
        raise RequestError(msg)
    if tools := _TOOLS & bound.keys():
        msg = f"model: {', '.join(sorted(tools))} is bound to it; give create_agent the model and its tools"
        raise RequestError(msg)
    return chat, bound


def _stopped(spent_out: Mapping[str, Any]) -> dict[str, Any]:
    total, spent = total_of(spent_out), spent_out["delegation_spent"]
    said = f"{spent['takeovers']} of {total['takeovers']}"
    if total["asks"] is not None:
        said += f", asked at {spent['asks']} of {total['asks']} positions"
    return {"jump_to": "end", "messages": [AIMessage(f"Stopped: the budget of takeovers is spent ({said}).")]}
