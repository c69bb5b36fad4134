"""Grammars that are none, and those that cannot be followed: errors of ours, and no answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from models import EOS, random_model, tokenizer
from spelled import alphabet, grammars_of, insists, stubborn

from delegate_llm import Pair, load_pair
from delegate_llm.errors import GrammarError, RequestError
from delegate_llm.grammar import Grammar
from delegate_llm.pairs.scripted import scripted_pair

SCHEDULES = ("lockstep", "draft")


@pytest.fixture(scope="module")
def shipped() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "3 is neither a Grammar nor one of"),
        ({"json": {}, "regex": "a"}, "neither a Grammar nor one of"),
        ({"xml": "a"}, "neither a Grammar"),
        ({"json": 3}, "3 is not a JSON schema"),
        ({"json": "{"}, "the JSON schema is not JSON"),
        ({"json": "3"}, "3 is not a JSON schema"),
        ({"json": {"a": {1}}}, "is not JSON: .*set"),
        ({"json": {"const": float("nan")}}, "is not JSON"),
        ({"regex": ""}, "is not the text of a regex"),
        ({"regex": 3}, "3 is not the text of a regex"),
        ({"lark": None}, "None is not the text of a lark"),
        ({"choice": "yes"}, "'yes' is not a list of texts"),
        ({"choice": []}, "is not a list of texts"),
        ({"choice": [""]}, "is not a list of texts"),
        ({"choice": ["a", 3]}, "is not a list of texts"),
        ({"choice": 5}, "5 is not a list of texts"),
        ({"regex": "a\ud800"}, "the regex has '.ud800' at character 1, which is not Unicode"),
        ({"lark": 'start: "\ud800"'}, "the lark has '.ud800' at character 8"),
        ({"regex": "["}, "'\\[' is not taken: .*unclosed character class"),
        ({"regex": "(?=a)a"}, "look-around"),
        ({"lark": "start: foo"}, 'unknown name: "foo"'),
        ({"lark": "x: 3 3"}, "is not taken"),
        ({"json": {"type": "array", "uniqueItems": True}}, 'Unimplemented keys: \\["uniqueItems"\\]'),
        ({"json": json.loads('{"items":' * 450 + "{}" + "}" * 450)}, "nested too deeply|is not taken"),
    ],
)
def test_what_is_no_grammar_is_refused(shipped: Pair, value: Any, said: str) -> None:
    with pytest.raises(GrammarError, match=said):
        shipped.generate("A: ", grammar=value, max_tokens=5)
    assert shipped.generate("A: ", grammar={"choice": ["ok"]}).text == "ok"


@pytest.mark.parametrize(
    "tools",
    [[], [3], [{"name": "f"}], [{"function": {}}], [{"function": {"name": ""}}], [{"function": {"name": 3}}]],
)
def test_tools_of_another_form_are_refused(tools: Any) -> None:
    with pytest.raises(GrammarError, match="tool"):
        Grammar.calls(tools)


def test_what_is_no_list_of_tools() -> None:
    with pytest.raises(GrammarError, match="5 is not a list of tools"):
        Grammar.calls(cast("Any", 5))


def test_only_json_will_do_otherwise() -> None:
    with pytest.raises(GrammarError, match=r"otherwise.*'regex'"):
        Grammar.calls(
            [{"type": "function", "function": {"name": "f", "parameters": None}}],
            otherwise=Grammar.regex("a"),
        )
    with pytest.raises(GrammarError, match="otherwise: 5 will not do"):
        Grammar.calls([{"type": "function", "function": {"name": "f"}}], otherwise=cast("Any", 5))


def test_a_grammar_is_a_value() -> None:
    assert Grammar.json({"a": 1}) == Grammar.of({"json": {"a": 1}}) == Grammar.json('{"a": 1}')
    assert len({Grammar.regex("a"), Grammar.regex("a"), Grammar.choice(["a"])}) == 2
    assert Grammar.of(None) is None
    assert Grammar.of(Grammar.regex("a")) == Grammar.regex("a")


def test_ignore_eos_and_a_grammar_exclude_each_other(shipped: Pair) -> None:
    with pytest.raises(RequestError, match=r"ignore_eos.*grammar"):
        shipped.generate("A: ", grammar={"choice": ["a"]}, ignore_eos=True)


def test_a_tokenizer_that_llguidance_cannot_read_is_named(pair: Pair) -> None:
    with pytest.raises(GrammarError, match=r"cannot read the tokenizer of this pair.*decoder"):
        pair.generate("a", grammar={"choice": ["a"]}, max_tokens=3)
    slow = load_pair(*((random_model("llama", seed), tokenizer()) for seed in (1, 2)))
    slow.vocabulary = replace(slow.vocabulary, grammars=None)
    with pytest.raises(GrammarError, match="load fast tokenizers"):
        slow.generate("a", grammar={"choice": ["a"]}, max_tokens=3)
    assert len(slow.generate("a", max_tokens=3, ignore_eos=True).token_ids) == 3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_form_that_cannot_be_finished_is_an_error_and_no_short_answer(schedule: str) -> None:
    """llguidance lets an answer end where it has given up itself."""
    pieces, end = alphabet()
    pair = stubborn("a", "b", pieces, end)
    for grammar in (
        Grammar.choice(["aéa"]),  # which these pieces do not spell
        Grammar.json(
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}},
            }
        ),
    ):
        with pytest.raises(GrammarError, match="cannot be followed any further"):
            pair.generate("a", grammar=grammar, schedule=schedule, max_tokens=200)
    assert pair.generate("a", grammar={"choice": ["ab"]}, schedule=schedule).text == "ab"


def test_pieces_that_mean_nothing_or_the_same_are_no_trouble() -> None:
    pieces, end = alphabet("é", "<eos>", EOS)
    guide = grammars_of(pieces, end).guide(Grammar.regex("[ab]+"))
    allowed = {at for at, each in enumerate(pieces) if each and set(each) <= {"a", "b"}}
    assert set(guide.allowed([]).nonzero()[0].tolist()) == allowed
    assert set(guide.allowed([0]).nonzero()[0].tolist()) == {*allowed, end}


def test_a_vocabulary_without_an_end_follows_no_grammar() -> None:
    pair = scripted_pair(insists(0, 2), insists(1, 2), "ab")
    with pytest.raises(GrammarError, match="cannot follow one"):
        pair.generate("a", grammar={"choice": ["a"]}, max_tokens=3)
