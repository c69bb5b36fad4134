"""What a call may spend at most, whatever the policy's budget; and who is told of it while it happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from answers import answering, chat
from routes import ROUTES, record

from delegate_llm import (
    Budget,
    Decision,
    DelegatedChatModel,
    DelegationPolicy,
    Piece,
    RequestError,
    TurnGate,
    watch,
    watch_pieces,
)

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")

SAID, MEANT = "It is Monday.", "It is Friday."  # three letters apart, at 6, 7 and 8
CALL = '<tool_call>\n{"name": "%s", "arguments": {}}\n</tool_call>'


def taken(message: Any) -> int:
    return int(message.response_metadata["delegation"]["summary"]["takeovers"])


def limit_of(message: Any) -> Any:
    return message.response_metadata["delegation"]["policy"]["budget"]["limit"]


# --- max_takeovers and max_asks ---


@pytest.mark.parametrize("route", [each for each in ROUTES if each != "generate"])  # it cannot be bound
def test_every_route_keeps_to_it(route: str) -> None:
    said = ROUTES[route](chat(SAID, MEANT).bind(max_takeovers=2), "what?")
    assert said.text == "It is Frnday."
    assert taken(said) == 2


def test_a_cap_only_lowers_a_budget() -> None:
    model = chat(SAID, MEANT)
    assert [taken(model.invoke("what?", max_takeovers=most)) for most in (0, 1, 3, 99)] == [0, 1, 3, 3]
    assert [limit_of(model.invoke("what?", budget=5, max_takeovers=most)) for most in (2, 9)] == [2, 5]
    assert limit_of(model.invoke("what?", policy=DelegationPolicy(budget=4), max_takeovers=9)) == 4
    assert limit_of(model.invoke("what?", max_takeovers=None)) is None
    asked = [
        model.invoke("what?", max_asks=most).response_metadata["delegation"]["summary"]["asked"]
        for most in (0, 1, 7)
    ]
    assert asked == [0, 1, 7]
    none = model.invoke("what?", max_asks=0).response_metadata
    assert none["delegation_cost"]["reasoner_forwards"] == 0
    assert limit_of(model.invoke("what?", model="base", max_takeovers=3)) == 0


def test_a_budget_is_capped_field_by_field() -> None:
    paced = Budget(rate=0.1, burst=2, limit=5)
    assert paced.capped() is paced
    assert paced.capped(limit=3, asks=4) == Budget(rate=0.1, burst=2, limit=3, asks=4)
    assert paced.capped(limit=7) == paced
    assert Budget(asks=2).capped(limit=0, asks=9) == Budget(limit=0, asks=2)


def test_takeovers_by_the_kind_of_answer() -> None:
    by_kind = {"tool_call": 1, "final": 2}
    final = chat(SAID, MEANT).invoke("what?", max_takeovers=by_kind)
    assert final.text == "It is Frnday."
    called = chat(CALL % "subs", CALL % "adds").invoke("what?", max_takeovers=by_kind)
    assert (called.tool_calls[0]["name"], taken(called)) == ("aubs", 1)
    # Which of the two it is shows only once the call is open: until then it is final.
    talk = chat(f"So: {CALL % 'subs'}", f"Oh! {CALL % 'adds'}").invoke("what?", max_takeovers=by_kind)
    assert (talk.text, talk.tool_calls[0]["name"], taken(talk)) == ("Oh:", "subs", 2)
    one = chat(SAID, MEANT).invoke("what?", max_takeovers={"tool_call": 0})
    assert one.text == MEANT


def test_it_comes_on_top_of_the_gates_and_caps_of_the_policy() -> None:
    own = DelegationPolicy(threshold=3.0, gates={"window": 8}, budget=5)
    said = chat(SAID, MEANT, policy=own).invoke("what?", max_takeovers={"final": 9, "tool_call": 9})
    assert said.text == "It is Frnday."  # by the window
    policy = said.response_metadata["delegation"]["policy"]
    assert policy["gates"] == [
        {"kind": "window", "first": 8},
        {"kind": "turn", "limits": {"final": 9, "tool_call": 9}},
    ]
    assert own.gates != TurnGate(limits={"final": 9})
    assert policy["budget"]["limit"] == 5
    none = chat(SAID, MEANT).invoke("what?", max_takeovers={"final": 0, "tool_call": 0})
    assert none.response_metadata["delegation_cost"]["reasoner_forwards"] == 0


def test_calls_of_a_batch_are_capped_one_by_one() -> None:
    model = chat(SAID, MEANT)
    alike = model.batch(["what?"] * 3, max_takeovers=1)
    assert [each.text for each in alike] == ["It is Fonday."] * 3
    assert record(alike[0]) == record(model.invoke("what?", max_takeovers=1))
    assert [each.text for each in asyncio.run(model.abatch(["what?"] * 2, max_takeovers=1))] == [
        "It is Fonday."
    ] * 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_takeovers": -1}, "max_takeovers: -1 is not an integer of at least 0"),
        ({"max_takeovers": 1.0}, "max_takeovers: 1.0 is not"),
        ({"max_takeovers": True}, "max_takeovers: True is not"),
        ({"max_takeovers": "3"}, "max_takeovers: '3' is not"),
        ({"max_takeovers": [1]}, r"max_takeovers: \[1\] is not"),
        ({"max_takeovers": {}}, r"max_takeovers: \{\} is no limit by the kind of answer, such as"),
        ({"max_takeovers": {"call": 1}}, r"max_takeovers: \{'call': 1\} is no limit"),
        ({"max_takeovers": {"final": -1}}, "max_takeovers: final: -1 is not an integer"),
        ({"max_takeovers": {"final": "1", "tool_call": 2}}, "max_takeovers: final: '1' is not"),
        ({"max_takeovers": {"final": None, "tool_call": 2}}, "max_takeovers: final: None is not"),
        ({"max_asks": -1}, "max_asks: -1 is not an integer of at least 0"),
        ({"max_asks": False}, "max_asks: False is not"),
        ({"max_asks": {"final": 1}}, "max_asks: .* is not an integer"),
        ({"max_ask": 1}, "did you mean 'max_asks'"),
    ],
)
def test_a_cap_that_is_none_is_refused(settings: Any, said: str) -> None:
    model = chat(SAID, MEANT)
    with pytest.raises(RequestError, match=said):
        model.invoke("what?", **settings)
    with pytest.raises(RequestError, match=said):
        list(model.stream("what?", **settings))
    assert model.invoke("what?").text == MEANT


def test_a_model_is_told_that_it_is_a_setting_of_calls() -> None:
    for name in ("max_takeovers", "max_asks", "tools"):
        with pytest.raises(RequestError, match=f"{name}: a setting of single calls; .* `bind`"):
            DelegatedChatModel(pair=answering(SAID), **{name: 1})


# --- Watchers ---


def test_watchers_nest_and_the_outer_one_is_told_first() -> None:
    told: list[tuple[str, str]] = []
    model = chat(SAID, MEANT)
    with watch(lambda each: told.append(("outer", each.token))):
        with watch(lambda each: told.append(("inner", each.token))):
            model.invoke("what?")
        assert told == [(who, letter) for letter in "Fri" for who in ("outer", "inner")]
        told.clear()
        model.invoke("what?")
        assert told == [("outer", letter) for letter in "Fri"]
    told.clear()
    model.invoke("what?")
    assert not told


def test_pieces_make_up_the_answer_for_a_watcher_within_another() -> None:
    decisions: list[Decision] = []
    pieces: list[Piece] = []
    with watch(decisions.append), watch_pieces(pieces.append):
        said = asyncio.run(chat(SAID, MEANT).ainvoke("what?"))
    assert "".join(each.text for each in pieces) == said.text == MEANT
    assert [each for piece in pieces for each in piece.decisions if each.takeover] == decisions
    assert [each.token for each in decisions] == list("Fri")


def test_what_an_outer_watcher_raises_ends_the_call_before_the_inner_one_is_told() -> None:
    told: list[Any] = []

    def stop(_: Decision) -> None:
        msg = "enough"
        raise ValueError(msg)

    model = chat(SAID, MEANT)
    with watch(stop), watch(told.append), pytest.raises(ValueError, match="enough"):
        model.invoke("what?")
    assert not told
    assert model.invoke("what?").text == MEANT
