"""Delegation in LangGraph: one budget for a whole run, spent where it counts, with its traces as state."""

from __future__ import annotations

from delegate_llm.graph.agent import tool_agent
from delegate_llm.graph.allocation import (
    Adaptive,
    Allotment,
    ByRole,
    DelegationContext,
    Even,
    Everything,
    FrontLoaded,
    Outlook,
    Strategy,
    allot,
    remaining,
    remaining_asks,
    split,
)
from delegate_llm.graph.gate import BudgetAnswer, BudgetQuestion, budget_gate
from delegate_llm.graph.models import ModelContext, model_of
from delegate_llm.graph.nodes import delegated_node, fan_out
from delegate_llm.graph.records import record
from delegate_llm.graph.state import CallTrace, Charge, DelegationState, Spent, Takeover, Total

__all__ = (
    "Adaptive",
    "Allotment",
    "BudgetAnswer",
    "BudgetQuestion",
    "ByRole",
    "CallTrace",
    "Charge",
    "DelegationContext",
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
    "fan_out",
    "model_of",
    "record",
    "remaining",
    "remaining_asks",
    "split",
    "tool_agent",
)
