"""An agent that counts cats: a scripted pair, one tool, and what the middleware makes of its budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel
from scripted_chat import conversing

from delegate_llm import DelegatedChatModel
from delegate_llm.graph import DelegationMiddleware

ASK = {"messages": [("user", "Count to 3, please.")]}
THREAD = {"configurable": {"thread_id": "1"}}
# Left alone, the base counts to 8 and calls cats cars. The first slip is in a call, the others in the answer.
NEEDED = 3
SAID = {0: "8 cars", 1: "8 cars", 2: "3 cars", 3: "3 cats"}
"""What it says in the end, by how many of its slips the reasoner may put right."""
PETS = {"messages": [("user", "Answer in JSON with 'animals'.")]}

Run = Callable[..., dict[str, Any]]


class Pets(BaseModel):
    """What is there."""

    animals: str


def count(n: int) -> str:
    """Count so many cats."""
    return f"{n} cats"


def agent(
    *others: AgentMiddleware, model: Any = None, tools: Any = (count,), of: Any = None, **settings: Any
) -> Any:
    """The agent; the budget's own settings by name, those of `create_agent` in `of`."""
    model = model or DelegatedChatModel(pair=conversing())
    return create_agent(model, [*tools], middleware=[*others, DelegationMiddleware(**settings)], **(of or {}))


def saver() -> InMemorySaver:
    """A checkpointer that restores nothing but plain data and LangChain's messages."""
    return InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))


def _sync(made: Any, asked: Any = ASK, config: Any = None, **more: Any) -> dict[str, Any]:
    return made.invoke(asked, config, **more)


def _async(made: Any, asked: Any = ASK, config: Any = None, **more: Any) -> dict[str, Any]:
    return asyncio.run(made.ainvoke(asked, config, **more))


RUNS: dict[str, Run] = {"sync": _sync, "async": _async}


def spent(result: dict[str, Any]) -> int:
    return (result["delegation_spent"] or {"takeovers": 0})["takeovers"]


def by_call(result: dict[str, Any]) -> list[int]:
    """Takeovers, call by call; the ledger and the traces say the same."""
    charges = list(result["delegation_spent"]["calls"].values())
    traces = result["delegation_traces"]
    assert [each["takeovers"] for each in charges] == [len(each["takeovers"]) for each in traces]
    assert [each["node"] for each in charges] == [each["node"] for each in traces]
    return [each["takeovers"] for each in charges]


def said(result: dict[str, Any]) -> str:
    return result["messages"][-1].text.removeprefix("The tool says: ")


def question(result: dict[str, Any]) -> dict[str, Any]:
    (asked,) = result["__interrupt__"]
    return asked.value
