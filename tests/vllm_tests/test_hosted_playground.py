"""The playground is the same over an engine in its process and over a server."""

import json

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from played import playing
from vllm_server import serving

from delegate_llm import load_pair
from delegate_llm.playground.pairs import Offer
from delegate_llm.tiny.problems import problems

QUESTION = problems(3, seed=7, split="test")[2].question
ASKED = {"arms": ["delegated", "base", "reasoner"], "max_tokens": 80, "policy": {"threshold": 0.5}}


class Lent:
    """A pair that is not closed with the playground."""

    def __init__(self, pair):
        self._pair = pair

    def close(self):
        """Nothing: others use it still."""

    def __getattr__(self, name):
        return getattr(self._pair, name)


def told(played):
    """Everything that the page is told of an answer, but for what no two runs share."""
    events = played.ask(QUESTION, **ASKED)
    for each in events:
        if each["event"] == "end":
            del each["cost"]
    return [each for each in events if each.get("arm")]


def essence(events):
    """By arm: the text, the summary, and where it was taken over."""
    found = {}
    for each in events:
        arm = found.setdefault(each["arm"], {"written": "", "columns": []})
        if each["event"] == "end":
            arm["end"] = (each["text"], each["finish_reason"], each["summary"])
        if each["event"] == "choices":
            arm["tops"] = [
                {at: [token for token, *_ in top] for at, top in each["tops"][name].items()}
                for name in ("base_top", "reasoner_top")
            ]
        if each["event"] == "piece":
            arm["written"] += each.get("text", "")
            chunk = each.get("chunk", {"tokens": [], "flags": []})
            arm["columns"] += zip(chunk["tokens"], chunk["flags"], strict=True)
    return found


@pytest.fixture(scope="module")
def expected(reference):
    with playing(Offer("base", "reasoner", lambda: reference)) as played:
        return essence(told(played))


def test_over_an_engine(hosted, expected):
    lent = Offer("base", "reasoner", lambda: Lent(hosted))
    with playing(lent) as played:
        assert essence(told(played)) == expected
        assert played.settled()["state"] == "ready"
    assert expected["delegated"]["end"][2]["takeovers"] > 0
    assert all(expected["delegated"]["tops"])


def test_over_a_server(reference, expected, tmp_path):
    with serving(tmp_path / "log") as server:
        offer = Offer(None, None, lambda: load_pair(backend="remote", base_url=server.url))
        with playing(offer) as played:
            assert played.client.get("/api/pairs").json()["pairs"][0]["base"] == "the server's base"
            assert essence(told(played)) == expected
            about = played.settled()
            assert (about["base"], about["reasoner"]) == (
                "delegate-llm/tiny-base",
                "delegate-llm/tiny-reasoner",
            )
        assert about["policy"] == json.loads(reference.policy.model_dump_json())
