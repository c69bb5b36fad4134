"""A model whose record is known, every route by which it may be called, and what LangSmith gets of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import START, MessagesState, StateGraph
from langsmith.run_helpers import tracing_context
from loopback import Loopback

from delegate_llm.tracing import TracedRoutes

PIECES = ["It ", "is ", "Tuesday", "."]
TEXT = "".join(PIECES)
SUMMARY = {"tokens": 4, "takeovers": 1, "changed": 1, "asked": 3, "share": 0.25}
COST = {
    "base_forwards": 4,
    "reasoner_forwards": 2,
    "base_tokens": 9,
    "reasoner_tokens": 7,
    "base_flops": 1.5e6,
    "reasoner_flops": 2.5e6,
}
TAKEOVER = {
    "position": 2,
    "token_id": 7,
    "token": "Tuesday",
    "asked": True,
    "takeover": True,
    "changed": True,
    "score": 2.345,
    "base_entropy": 0.5,
    "base_token_id": 6,
    "base_token": "Monday",
    "reasoner_token_id": 7,
    "reasoner_token": "Tuesday",
}
POLICY = {"version": 1, "divergence": "js", "threshold": 0.5, "gates": [], "budget": {"limit": 3}}
RECORD = {"policy": POLICY, "summary": SUMMARY, "takeovers": [TAKEOVER]}
PROMOTED = {
    **{f"delegation_{name}": value for name, value in (SUMMARY | COST).items()},
    "delegation_divergence": "js",
    "delegation_threshold": 0.5,
    "delegation_takeover_log": "2: 'Monday' -> 'Tuesday' (2.35)",
}
TOLD = {"position": 2, "token": "Tuesday", "base_token": "Monday", "score": 2.345}


class Model(TracedRoutes):
    """Says one sentence; its record is what `record` says, and the question is the record's id."""

    record: Any = RECORD

    @property
    def _llm_type(self) -> str:
        return "test"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"base": "b", "reasoner": "r"}

    def _generate(self, messages, *_args, **_kwargs):
        chunks = [each.message for each in self._stream(messages)]
        whole = sum(chunks[1:], chunks[0])
        message = AIMessage(
            whole.content, response_metadata=whole.response_metadata, usage_metadata=whole.usage_metadata
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, *_args, **_kwargs):
        for piece in PIECES:
            yield ChatGenerationChunk(message=AIMessageChunk(piece))
        record = self.record | {"id": messages[-1].text} if isinstance(self.record, dict) else self.record
        last = AIMessageChunk(
            "",
            chunk_position="last",
            response_metadata={"delegation": record, "delegation_cost": COST, "model_name": "b"},
            usage_metadata={"input_tokens": 1, "output_tokens": 4, "total_tokens": 5},
        )
        yield ChatGenerationChunk(message=last)


def tracing(smith: Loopback, **settings: Any) -> AbstractContextManager[None]:
    return tracing_context(**{"enabled": True, "client": smith.client, "project_name": "p"} | settings)


# Each route asks "q0?" (and "q1?" if it asks twice) and returns the answers as text.


def joined(chunks: Any) -> str:
    return "".join(chunk.text for chunk in chunks)


async def collected(chunks: Any) -> list[Any]:
    return [chunk async for chunk in chunks]


def stream_v3(model, config):
    return [str(model.stream_events("q0?", config, version="v3").output.text)]


def astream_v3(model, config):
    async def ask():
        answer = await (await model.astream_events("q0?", config, version="v3")).output
        # LangChain gives the output before it ends the run, in a task that `asyncio.run` would cancel.
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        return answer.text

    return [str(asyncio.run(ask()))]


def events_v2(runnable, question, config):
    events = asyncio.run(collected(runnable.astream_events(question, config, version="v2")))
    return [joined(each["data"]["chunk"] for each in events if each["event"] == "on_chat_model_stream")]


def chain(model):
    return ChatPromptTemplate.from_messages([("human", "{q}")]) | model | StrOutputParser()


def graph(model, *, asynchronous=False):
    def talk(state):
        return {"messages": [model.invoke(state["messages"])]}

    async def atalk(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    built = StateGraph(MessagesState).add_node("talk", atalk if asynchronous else talk)
    return built.add_edge(START, "talk").compile()


def streaming_graph(model):
    def talk(state):
        chunks = list(model.stream(state["messages"]))
        return {"messages": [sum(chunks[1:], chunks[0])]}

    return StateGraph(MessagesState).add_node("talk", talk).add_edge(START, "talk").compile()


ASK = {"messages": [HumanMessage("q0?")]}


def token_by_token(stream):
    chunks = [chunk for chunk, _ in stream]
    # LangGraph shows the whole message when the node ends, unless it has seen the chunks.
    assert len(chunks) >= len(PIECES)
    return [joined(chunks)]


def graph_messages(model, config, *, built=graph):
    return token_by_token(built(model).stream(ASK, config, stream_mode="messages"))


def agraph_messages(model, config):
    stream = graph(model, asynchronous=True).astream(ASK, config, stream_mode="messages")
    return token_by_token(asyncio.run(collected(stream)))


def graph_v3(model, config):
    run = graph(model).stream_events(ASK, config, version="v3")
    return [run.output["messages"][-1].text]


IN_CHAIN, IN_GRAPH = ["RunnableSequence"], ["LangGraph", "talk"]
ROUTES: dict[str, tuple[Callable[[Any, Any], list[str]], list[str]]] = {
    "invoke": (lambda model, config: [model.invoke("q0?", config).text], []),
    "ainvoke": (lambda model, config: [asyncio.run(model.ainvoke("q0?", config)).text], []),
    "stream": (lambda model, config: [joined(model.stream("q0?", config))], []),
    "astream": (lambda model, config: [joined(asyncio.run(collected(model.astream("q0?", config))))], []),
    "events v2": (lambda model, config: events_v2(model, "q0?", config), []),
    "events v3": (stream_v3, []),
    "async events v3": (astream_v3, []),
    "batch": (lambda model, config: [each.text for each in model.batch(["q0?", "q1?"], config)], []),
    "abatch": (
        lambda model, config: [each.text for each in asyncio.run(model.abatch(["q0?", "q1?"], config))],
        [],
    ),
    "bound": (lambda model, config: [model.bind(stop=["x"]).invoke("q0?", config).text], []),
    "chain": (lambda model, config: [chain(model).invoke({"q": "q0?"}, config)], IN_CHAIN),
    "chain, async": (
        lambda model, config: [asyncio.run(chain(model).ainvoke({"q": "q0?"}, config))],
        IN_CHAIN,
    ),
    "chain, stream": (lambda model, config: ["".join(chain(model).stream({"q": "q0?"}, config))], IN_CHAIN),
    "chain, events v2": (lambda model, config: events_v2(chain(model), {"q": "q0?"}, config), IN_CHAIN),
    "graph": (lambda model, config: [graph(model).invoke(ASK, config)["messages"][-1].text], IN_GRAPH),
    "graph, messages": (graph_messages, IN_GRAPH),
    "graph, async messages": (agraph_messages, IN_GRAPH),
    "graph that streams": (
        lambda model, config: [streaming_graph(model).invoke(ASK, config)["messages"][-1].text],
        IN_GRAPH,
    ),
    "graph that streams, messages": (
        lambda model, config: graph_messages(model, config, built=streaming_graph),
        IN_GRAPH,
    ),
    "graph, v3": (graph_v3, IN_GRAPH),
}


def llm_runs(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if run["run_type"] == "llm"]


def metadata_of(run: dict[str, Any]) -> dict[str, Any]:
    return run["extra"]["metadata"]


def promoted(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata_of(run).items() if key.startswith("delegation_")}


def takeovers(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [event["kwargs"] for event in run["events"] if event["name"] == "takeover"]


def parents(run: dict[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    by_id = {each["id"]: each for each in runs}
    names: list[str] = []
    while run.get("parent_run_id"):
        run = by_id[run["parent_run_id"]]
        names.insert(0, run["name"])
    return names
