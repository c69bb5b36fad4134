"""Problems solved before one's eyes: in text by a chain, with tools by an agent that has a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from delegate_llm.cli.terminal import inline

if TYPE_CHECKING:
    from delegate_llm.chat_model import DelegatedChatModel
    from delegate_llm.graph.allocation import DelegationContext
    from delegate_llm.tiny.problems import Problem

__all__ = ("solve_by_agent", "solve_in_text")


def solve_in_text(out: Console, model: DelegatedChatModel, problem: Problem) -> None:
    """Answer a problem by a chain as one writes it, and show the answer as it is decided."""
    from langchain_core.prompts import ChatPromptTemplate  # noqa: PLC0415 - slow

    from delegate_llm.tiny.problems import grade  # noqa: PLC0415 - needed here only

    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    with _shown(out, model) as end_turn:
        message = chain.invoke({"question": problem.question})
        end_turn()
    summary = message.response_metadata["delegation"]["summary"]
    counts = f"{_takeovers(summary['takeovers'])} in {summary['tokens']} tokens, {summary['changed']} of them"
    _conclude(out, problem, f"{counts} changed the token", right=grade(problem, message.text))


def solve_by_agent(out: Console, model: DelegatedChatModel, problem: Problem, *, budget: int) -> None:
    """Solve a problem by a LangGraph agent: its turns as they are decided, its tools, and its budget."""
    from langgraph.errors import GraphRecursionError  # noqa: PLC0415 - slow

    from delegate_llm.evaluation.agents import LIMITED  # noqa: PLC0415 - slow
    from delegate_llm.graph import DelegationContext, tool_agent  # noqa: PLC0415 - slow
    from delegate_llm.tiny.agent import FUNCTIONS  # noqa: PLC0415 - needed here only
    from delegate_llm.tiny.problems import grade, messages  # noqa: PLC0415 - needed here only

    context, right = DelegationContext(total=budget), False
    agent, told = tool_agent(model, FUNCTIONS), 1
    state: Mapping[str, Any] = {}
    with _shown(out, model) as end_turn:
        try:
            for state in agent.stream(
                {"messages": messages(problem)}, LIMITED, context=context, stream_mode="values"
            ):
                for message in state["messages"][told:]:
                    _tell(out, message, state, context, end_turn)
                told = len(state["messages"])
            right = grade(problem, state["messages"][-1].text)
        except GraphRecursionError:
            out.print(Text("no answer within the turns allowed", "dim"))
    tokens = sum(each["tokens"] for each in state["delegation_traces"])
    _conclude(out, problem, f"{_spent(state, context)}, in {tokens} tokens", right=right)


def _tell(
    out: Console,
    message: Any,
    state: Mapping[str, Any],
    context: DelegationContext,
    end_turn: Callable[[], None],
) -> None:
    """What a step of the agent brought, but for the text of its turn, which stands there already."""
    if message.type == "tool":
        out.print(Text("tool: ", "dim").append(inline(message.text)))
        return
    end_turn()
    if message.tool_calls:
        out.print(Text(_spent(state, context), "dim"))


def _spent(state: Mapping[str, Any], context: DelegationContext) -> str:
    from delegate_llm.graph import remaining  # noqa: PLC0415 - slow

    left = remaining(state, context)
    return f"{state['delegation_spent']['takeovers']} of {_takeovers(context.total or 0)} spent, {left} left"


@contextmanager
def _shown(out: Console, model: DelegatedChatModel) -> Iterator[Callable[[], None]]:
    """Within this context, answers are written as they are decided, with their takeovers in place.

    Yields:
        What ends one answer, so that the next one can begin.
    """
    from delegate_llm.cli.stream import Highlighter  # noqa: PLC0415 - brings pydantic
    from delegate_llm.watching import watch_pieces  # noqa: PLC0415 - brings pydantic

    decode = model.load().vocabulary.decode
    highlighter = Highlighter(decode)

    def end_turn() -> None:
        nonlocal highlighter
        out.print(highlighter.finish())
        highlighter = Highlighter(decode)

    with watch_pieces(lambda piece: out.print(highlighter.feed(piece), end="")):
        yield end_turn


def _conclude(out: Console, problem: Problem, counts: str, *, right: bool) -> None:
    verdict = ("right", "bold green") if right else (f"wrong, it is {problem.answer}", "bold red")
    out.print(Text.assemble("→ ", verdict, (f"; {counts}", "dim"), "\n"))


def _takeovers(count: int) -> str:
    return f"{count} takeover{'' if count == 1 else 's'}"
