"""An answer as columns: compact, and nothing in it is lost that the view shows."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy
from delegate_llm.report import Shown, columns
from delegate_llm.report.answers import LONGEST_TOKEN, chunk, policy_told, short
from delegate_llm.report.reasons import Replay
from delegate_llm.trace import Decision, Logprob, Summary, Trace

POLICY = DelegationPolicy(threshold=1.0, budget=Budget(rate=0.25, burst=2))


def decision(position: int, **fields: Any) -> Decision:
    plain = {"token": " a", "token_id": 1, "base_token": " a", "base_token_id": 1}
    return Decision(position=position, **{**plain, **fields})


def whole(*decisions: Decision) -> Trace:
    return Trace(decisions=decisions, summary=Summary(tokens=len(decisions)))


def test_columns_hold_what_was_decided() -> None:
    trace = whole(
        decision(0, asked=True, reasoner_token=" a", score=0.12345, base_entropy=1.0),
        decision(1, token="b", asked=True, takeover=True, changed=True, score=2.0, reasoner_token="b"),
        decision(2, asked=True, reasoner_token=" c", score=1.5),
        decision(3),
    )
    data = columns(Shown(id="x", trace=trace, policy=POLICY, title="T", seed=3, correct=True, arm="A"))
    assert data["tokens"] == [" a", "b", " a", " a"]
    assert data["scores"] == [0.123, 2, 1.5, None]
    assert data["entropies"] == [1, None, None, None]
    assert data["flags"] == [1, 7, 1, 0]
    assert data["base"] == {1: " a"}
    assert data["reasoner"] == {2: " c"}
    assert data["bars"] == 1
    assert data["levels"] == [2, 2, 1.25, 1.5]
    assert [data["causes"][at] for at in data["why"]][1].startswith("A takeover")
    assert data["at"] is None
    assert data["text"] is None
    assert data["notes"] == []
    assert (data["title"], data["seed"], data["correct"], data["arm"]) == ("T", 3, True, "A")


def test_without_a_policy_nothing_is_made_up() -> None:
    data = columns(Shown(id="x", trace=whole(decision(0, score=1.0))))
    assert (data["bars"], data["levels"], data["why"], data["causes"], data["policy"]) == (
        None,
        None,
        None,
        [],
        None,
    )


def test_unlimited_takeovers_have_no_level() -> None:
    assert columns(Shown(id="x", trace=whole(decision(0)), policy=DelegationPolicy()))["levels"] is None


@pytest.mark.parametrize(
    ("score", "told"), [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, None), (2.00001, 2)]
)
def test_numbers_are_ones_that_json_has(score: float, told: Any) -> None:
    data = columns(Shown(id="x", trace=whole(decision(0, score=score)), policy=POLICY))
    assert data["scores"] == [told]
    json.dumps(data, allow_nan=False)


def test_long_tokens_are_cut_and_counted() -> None:
    token = "x" * 100_000
    data = columns(Shown(id="x", trace=whole(decision(0), decision(1, token=token))))
    assert data["long"] == {1: 100_000}
    assert [len(each) for each in data["tokens"]] == [2, LONGEST_TOKEN]


@pytest.mark.parametrize(
    ("trace", "text", "note"),
    [
        (Trace(level="takeovers", decisions=(decision(4),), summary=Summary(tokens=9)), "A text.", "1 of 9"),
        (Trace(level="off", summary=Summary(tokens=9)), "A text.", "no decisions"),
        (Trace(decisions=(decision(0),), summary=Summary(tokens=2)), "A text.", "1 of 2"),
        (Trace(decisions=(decision(1), decision(0)), summary=Summary(tokens=2)), None, "2 of 2"),
    ],
)
def test_gaps_are_said(trace: Trace, text: str | None, note: str) -> None:
    data = columns(Shown(id="x", trace=trace, text=text))
    assert data["text"] == text
    assert data["at"] == [each.position for each in trace.decisions]
    assert note in data["notes"][-1]


def test_the_most_probable_tokens_of_both_models_are_kept() -> None:
    top = tuple(Logprob(token_id=at, token=str(at), logprob=-float(at)) for at in range(9))
    data = columns(Shown(id="x", trace=whole(decision(0), decision(1, base_top=top, reasoner_top=top[:1]))))
    assert data["base_top"] == {1: [("0", 1), ("1", 0.3679), ("2", 0.1353), ("3", 0.0498), ("4", 0.0183)]}
    assert data["reasoner_top"] == {1: [("0", 1)]}


def test_the_answer_of_the_base_is_its_text() -> None:
    own = Shown(id="b", trace=whole(decision(0, token="Fir"), decision(1, token="st")), correct=False, seed=4)
    told = columns(Shown(id="x", trace=whole(), own=own))["own"]
    assert told == {"id": "b", "correct": False, "seed": 4, "level": "off", "text": "First"}


def test_chunks_continue_the_columns() -> None:
    decisions = [decision(at, token=str(at), score=at / 2, takeover=at == 3, asked=True) for at in range(6)]
    data = columns(Shown(id="x", trace=whole(*decisions), policy=POLICY))
    replay, causes = Replay(POLICY), dict[str, int]()
    parts = [
        chunk(part, [replay.step(each) for each in part], causes, start=start)
        for start, part in ((0, decisions[:2]), (2, decisions[2:]))
    ]
    for name in ("tokens", "scores", "entropies", "flags", "levels", "why"):
        assert parts[0][name] + parts[1][name] == data[name]
    for name in ("base", "reasoner", "base_top", "reasoner_top"):
        assert parts[0][name] | parts[1][name] == data[name]
    assert parts[1]["causes"] == data["causes"]


def test_a_policy_in_words() -> None:
    gates = {"entropy": 0.5, "window": 64, "boundary": ["line"], "turn": {"tool_call": 3, "final": 0}}
    policy = DelegationPolicy(
        divergence="js", threshold=0.3, spike=1.5, gates=gates, budget={"rate": 0.05, "limit": 6, "asks": 90}
    )
    assert policy_told(policy) == {
        "divergence": "js",
        "unit": "nats",
        "threshold": 0.3,
        "spike": 1.5,
        "spike_window": 32,
        "gates": [
            "the base's entropy above 0.5 nats",
            "the first 64 tokens",
            "the start of a line",
            "takeovers by kind of answer: 3 where tool call, 0 where final",
        ],
        "budget": "at most 6 takeovers, 0.05 takeovers a token, at most 8 at once, "
        "the reasoner asked at most at 90 positions",
        "capacity": 6,
    }
    assert policy_told(DelegationPolicy(divergence="tv"))["unit"] == ""
    assert policy_told(DelegationPolicy())["budget"] is None


def test_what_is_cut_off_a_long_text_is_told() -> None:
    own = Shown(id="o", trace=Trace(level="off"), text="o" * 200_002)
    data = columns(Shown(id="x", trace=whole(decision(0)), prompt="p" * 200_001, own=own))
    assert [len(data["prompt"]), len(data["own"]["text"])] == [200_000, 200_000]
    assert "200001 characters of the prompt" in data["notes"][0]
    assert "200002 characters of the base's own text" in data["notes"][1]


@given(st.text())
def test_a_title_is_one_short_line(text: str) -> None:
    title = short(text)
    assert len(title) <= 90
    assert title == " ".join(title.split())


@given(
    st.lists(
        st.tuples(st.text(alphabet=st.characters(), max_size=5), st.none() | st.floats(), st.booleans())
    ),
    st.none() | st.just(POLICY),
)
def test_any_trace_has_columns_of_one_length(
    made: list[tuple[str, float | None, bool]], policy: DelegationPolicy | None
) -> None:
    decisions = [
        decision(at, token=token, score=score, takeover=takeover)
        for at, (token, score, takeover) in enumerate(made)
    ]
    data = columns(Shown(id="x", trace=whole(*decisions), policy=policy))
    json.dumps(data, allow_nan=False)
    for name in ("tokens", "scores", "entropies", "flags", "levels", "why"):
        assert data[name] is None or len(data[name]) == len(decisions)
