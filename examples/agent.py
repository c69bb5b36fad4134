"""An agent of LangChain under one budget: the takeovers of every turn, and what is left for the next.

Run it with `python examples/agent.py`, or with stories of your own, each in quotes, behind that. It needs
LangChain's agents: `pip install '.[agents]'`. Once the budget is spent, the base goes on alone; see
`DelegationMiddleware` for agents that should rather stop, or ask a person.
"""

import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage

from delegate_llm import DelegatedChatModel
from delegate_llm.graph import DelegationContext, DelegationMiddleware, remaining


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


LIMIT = 8  # takeovers, for one run of the agent
# Your own models and tools go here.
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner", max_tokens=160)
agent = create_agent(model, [add, subtract, multiply], middleware=[DelegationMiddleware(run_limit=LIMIT)])
stories = (
    "Mia has 4 bags with 6 shells in each. She loses 7 of them. How many shells are left?",
    "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens does Tom have now?",
)
for story in sys.argv[1:] or stories:
    print(story)
    for mode, told in agent.stream({"messages": [("user", story)]}, stream_mode=["custom", "values"]):
        last = told["messages"][-1] if mode == "values" else None
        if last is None and told["changed"]:  # a takeover, as it happens
            print(f"    the reasoner says {told['token']!r} instead of {told['base_token']!r}")
        elif isinstance(last, AIMessage):
            heard = len(told["delegation_traces"][-1]["takeovers"])
            left = remaining(told, DelegationContext(total=LIMIT))
            calls = [f"{each['name']}({each['args']['a']}, {each['args']['b']})" for each in last.tool_calls]
            print(f"  {', '.join(calls) or last.text}  (takeovers: {heard}, left: {left})")
        elif isinstance(last, ToolMessage):
            print(f"    = {last.content}")
