"""Delegation in LangGraph: one budget for a whole run, spent where it counts, with its traces as state."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from delegate_llm.graph.agent import tool_agent
from delegate_llm.graph.allocation import (
    Allotment,
    DelegationContext,
    allot,
    remaining,
    remaining_asks,
    split,
)
from delegate_llm.graph.gate import BudgetAnswer, BudgetQuestion, budget_gate
from delegate_llm.graph.inputs import DelegationInput
from delegate_llm.graph.models import ModelContext, model_of
from delegate_llm.graph.nodes import delegated_node, fan_out
from delegate_llm.graph.picture import draw_run
from delegate_llm.graph.records import record
from delegate_llm.graph.state import CallTrace, Charge, DelegationState, Spent, Takeover, Total
from delegate_llm.graph.strategies import Adaptive, ByRole, Even, Everything, FrontLoaded, Outlook, Strategy

if TYPE_CHECKING:
    from delegate_llm.graph.middleware import DelegationMiddleware

__all__ = (
    "Adaptive",
    "Allotment",
    "BudgetAnswer",
    "BudgetQuestion",
    "ByRole",
    "CallTrace",
    "Charge",
    "DelegationContext",
    "DelegationInput",
    "DelegationMiddleware",
    "DelegationState",
    "Even",
    "Everything",
    "FrontLoaded",
    "ModelContext",
    "Outlook",
    "Spent",
    "Strategy",
    "Takeover",
    "Total",
    "allot",
    "budget_gate",
    "delegated_node",
    "draw_run",
    "fan_out",
    "model_of",
    "record",
    "remaining",
    "remaining_asks",
    "split",
    "tool_agent",
)


def __getattr__(name: str) -> Any:
    """The middleware, once it is asked for: it needs the extra `agents`, and all else here does not."""
    if name != "DelegationMiddleware":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.middleware"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
