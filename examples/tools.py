"""Tools by hand: bind them, run the calls that the model makes, and go on until it answers.

Run it with `python examples/tools.py`, or with a story of your own in quotes behind that. An agent of
LangChain or LangGraph does the same loop for you; here one sees which calls the reasoner decided.
"""

import sys

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool

from delegate_llm import DelegatedChatModel


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def subtract(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


# The toy models were trained with exactly these three tools. Your own models and tools go here.
tools = {each.name: each for each in (add, subtract, multiply)}
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
agent = model.bind_tools(list(tools.values()))

question = "Mia has 4 bags with 6 shells in each. She loses 7 of them. How many shells are left?"
messages: list[BaseMessage] = [HumanMessage(" ".join(sys.argv[1:]) or question)]
print(messages[0].text)
for _ in range(8):  # enough for any story that has an end
    answer = agent.invoke(messages)
    messages.append(answer)
    for takeover in answer.response_metadata["delegation"]["takeovers"]:
        if takeover["changed"]:
            print(f"    the reasoner says {takeover['token']!r} instead of {takeover['base_token']!r}")
    if not answer.tool_calls:
        break
    for call in answer.tool_calls:
        result = tools[call["name"]].invoke(call)  # a ToolMessage, with the id of the call that it answers
        messages.append(result)
        print(f"  {call['name']}({call['args']['a']}, {call['args']['b']}) = {result.content}")
print(answer.text)
