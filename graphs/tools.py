"""The tools of these graphs: the three that the shipped models were trained to call. Put your own here."""

from typing import Any

from delegate_llm.graph import ModelContext, model_of


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TOOLS = [add, subtract, multiply]


def with_tools(context: ModelContext) -> Any:
    """The run's chat model, told of the tools."""
    return model_of(context).bind_tools(TOOLS)
