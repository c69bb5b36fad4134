"""LangSmith: what a run of the model says about its takeovers, seen without an account.

Run it with `python examples/langsmith_local.py`. LangSmith's own client posts to a little server on this
machine, which prints what it gets. With an account you need none of this: set `LANGSMITH_TRACING=true` and
`LANGSMITH_API_KEY`, and filter or chart your runs by `delegation_share` and its siblings.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from langsmith import Client, tracing_context

from delegate_llm import DelegatedChatModel

runs: dict[str, dict[str, Any]] = {}


class LangSmith(BaseHTTPRequestHandler):
    """Takes a run when it begins (POST) and when it ends (PATCH)."""

    def do_POST(self) -> None:
        """Keep what came."""
        run = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        run_id = run.get("id") or self.path.rpartition("/")[2]
        runs.setdefault(run_id, {}).update(run)
        self.send_response(202)
        self.end_headers()

    do_PATCH = do_POST  # noqa: N815 - the server's name for it

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


# Your own two models go here.
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | model
question = "Max has 5 trays with 2 roses in each. He loses 3 of them. How many roses are left?"

with HTTPServer(("127.0.0.1", 0), LangSmith) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    # The plainest way to post, one run a request: the server has to understand nothing else.
    client = Client(api_url=url, api_key="none", auto_batch_tracing=False, info={})
    with tracing_context(enabled=True, client=client, project_name="examples"):
        chain.invoke({"question": question})
    client.close()
    server.shutdown()

for run in runs.values():
    print(f"{run['run_type']}: {run['name']}")
    for name, value in run["extra"]["metadata"].items():
        if name.startswith("delegation_"):
            print(f"    {name}: {value!r}")
    for event in run["events"]:
        if event["name"] == "takeover":
            print(f"    event: {event['kwargs']}")
