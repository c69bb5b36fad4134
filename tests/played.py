"""The playground on 127.0.0.1, with real models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from delegate_llm import Pair
from delegate_llm.playground.app import make_app
from delegate_llm.playground.guard import names_of
from delegate_llm.playground.line import Job
from delegate_llm.playground.pairs import Offer
from delegate_llm.playground.serve import bound, server_of, url_of

PATIENCE_S = 60.0


@dataclass
class Played:
    """A server that runs, and a client of it."""

    client: httpx.Client
    offers: Sequence[Offer]

    def ask(self, question: str = "", **more: Any) -> list[dict[str, Any]]:
        """The events of an answer."""
        response = self.client.post("/api/ask", json={"pair": 0, "question": question, **more})
        assert response.status_code == 200, response.text
        return [json.loads(line) for line in response.text.splitlines()]

    def settled(self, pair: int = 0) -> dict[str, Any]:
        """What is told of a pair once its line has done what was in it."""
        done = threading.Event()
        self.offers[pair].line.enter(Job(done.set))
        assert done.wait(PATIENCE_S)
        return self.client.get("/api/pairs").json()["pairs"][pair]


@contextmanager
def playing(*offers: Offer, key: str | None = None, host: str = "127.0.0.1") -> Iterator[Played]:
    listening = bound("127.0.0.1", 0)
    server = server_of(make_app(offers, names=names_of(host), api_key=key))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=url_of("127.0.0.1", listening), timeout=PATIENCE_S) as client:
            yield Played(client, offers)
    finally:
        for each in offers:
            each.close()
        server.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()
        assert not thread.is_alive()


def offer_of(load: Callable[[], Pair], base: str = "base") -> Offer:
    return Offer(base, "reasoner", load)
