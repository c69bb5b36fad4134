"""Every route into a chat model, and what two answers have to have in common."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

PAIR = {"base": "delegate-llm/tiny-base", "reasoner": "delegate-llm/tiny-reasoner"}
QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?"
OTHER = "Ann has 5 eggs. Ann loses 2 of them. How many eggs are left?"


def record(message: Any) -> dict[str, Any]:
    """What was decided; the id is another on each call."""
    kept = dict(message.response_metadata["delegation"])
    assert kept.pop("id")
    return kept


def near(one: Any, other: Any) -> bool:
    """Whether two records are equal, but for what rounding in a batch changes."""
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-3)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    return one == other


def stream(model: Any, prompt: Any) -> Any:
    merged = None
    for chunk in model.stream(prompt):
        merged = chunk if merged is None else merged + chunk
    return merged


async def _astream(model: Any, prompt: Any) -> Any:
    merged = None
    async for chunk in model.astream(prompt):
        merged = chunk if merged is None else merged + chunk
    return merged


async def _v2(model: Any, prompt: Any) -> Any:
    async for event in model.astream_events(prompt, version="v2"):
        if event["event"] == "on_chat_model_end":
            return event["data"]["output"]
    return None


async def _v3(model: Any, prompt: Any) -> Any:
    stream = await model.astream_events(prompt, version="v3")
    return await stream.output


ROUTES = {
    "invoke": lambda model, prompt: model.invoke(prompt),
    "ainvoke": lambda model, prompt: asyncio.run(model.ainvoke(prompt)),
    "stream": stream,
    "astream": lambda model, prompt: asyncio.run(_astream(model, prompt)),
    "events v2": lambda model, prompt: asyncio.run(_v2(model, prompt)),
    "events v3": lambda model, prompt: model.stream_events(prompt, version="v3").output,
    "async events v3": lambda model, prompt: asyncio.run(_v3(model, prompt)),
    "batch": lambda model, prompt: model.batch([prompt, OTHER, prompt])[2],
    "abatch": lambda model, prompt: asyncio.run(model.abatch([prompt, OTHER, prompt]))[2],
    "generate": lambda model, prompt: model.generate([[HumanMessage(prompt)]]).generations[0][0].message,
}
