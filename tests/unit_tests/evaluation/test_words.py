"""Which words plan, which carry out, and where sentences begin: whatever the tokens are."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.words import Lexicon, read_lexicon, token_places

SHIPPED = read_lexicon()
CALL = '<tool_call>\n{"name": "fetch_page", "arguments": {"pages": 4}}\n</tool_call>'


def kinds(*tokens: str) -> list[str]:
    return [each.kind for each in token_places(tokens, SHIPPED)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["First", " mult", "iply", " 3", " by", " 4"],
         ["planning", "planning", "planning", "execution", "other", "execution"]),
        (["3", " * ", "4", " = ", "12"], ["execution"] * 5),
        (["3*4=", "12"], ["execution"] * 2),
        (["1", ",2", "34", ".5", "."], ["execution"] * 4 + ["other"]),
        (["so", "me ", "address", "es"], ["other"] * 4),  # no part of a word is a word
        (["THE", "REFORE", ","], ["planning", "planning", "other"]),
        (["given", "\n", "that"], ["planning", "other", "planning"]),
        (["let", "'s"], ["planning", "other"]),
        (["**", "bold", "**", " a-b ", "- item"], ["other"] * 5),
        (["<|im_", "end|>"], ["other", "other"]),
        (["<first>", " ", ""], ["other", "other", "other"]),
        (["\ufffd", "\ufffd", " then"], ["other", "other", "planning"]),  # torn within a character
        (["\\frac", "{1}", "{2}"], ["execution", "other", "other"]),
        (["8 plus", " 4"], ["execution", "execution"]),
        ([], []),
    ],
)  # fmt: skip
def test_a_token_is_of_the_word_in_which_it_begins(tokens: list[str], expected: list[str]) -> None:
    assert kinds(*tokens) == expected


def test_a_call_that_never_comes_takes_no_quadratic_time() -> None:
    started = time.process_time()
    assert kinds("<tool_call>" + " " * 100_000) == ["other"]
    assert time.process_time() - started < 5  # seconds; a tenth of one, or half a minute


def test_the_name_of_a_tool_plans_and_its_numbers_carry_out() -> None:
    found = dict(zip(("call", "fetch", "page", "rest", "4", "end"), kinds(
        '<tool_call>\n{"name": "', "fetch", "_page", '", "arguments": {"pages": ', "4", "}}\n</tool_call>"
    ), strict=True))  # fmt: skip
    assert found == {"call": "other", "fetch": "planning", "page": "planning", "rest": "other",
                     "4": "execution", "end": "other"}  # fmt: skip
    assert "planning" not in kinds('{"name": "', "fetch", '"}')  # that is no call


@pytest.mark.parametrize(
    ("tokens", "opening", "sentences"),
    [
        (["We", " add", " 3", "."], [1, 1, 0, 0], [0, 0, 0, 0]),
        (
            ["Pi", " is", " 3", ".", "14", "5", ". ", "So", " what"],
            [1, 1, 0, 0, 0, 0, 0, 1, 1],
            [0] * 7 + [1, 1],
        ),
        (["A", "\n", "\n", " b", " c", " d"], [1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]),
        (["It", " is", " 5", ".", "<|end|>"], [1, 1, 0, 0, 0], [0] * 5),
        (["Real", "ly?", '" ', "Y", "es", "!"], [1, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]),
        (["一", "。", "二"], [1, 0, 1], [0, 0, 1]),
        (["...", " ", "\n", "x"], [0, 0, 0, 1], [0, 0, 0, 1]),
    ],
)
def test_the_first_two_words_open_a_sentence(
    tokens: list[str], opening: list[int], sentences: list[int]
) -> None:
    places = token_places(tokens, SHIPPED)
    assert [int(each.opening) for each in places] == opening
    assert [each.sentence for each in places] == sentences


PARTS = st.sampled_from(
    ["first", "so", " ", "\n", ". ", "4", "+", " = ", "<", ">", "é", "中", "\ufffd", "'", CALL, "given that"]
)


@given(st.lists(PARTS | st.text(max_size=3), max_size=15).map("".join), st.data())
def test_how_a_text_is_cut_changes_no_class(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    tokens = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
    single = token_places(list(text), SHIPPED)
    places = token_places(tokens, SHIPPED)
    assert len(places) == len(tokens)
    start = 0
    for token, place in zip(tokens, places, strict=True):
        if seen := token.strip():
            assert place == single[start + token.index(seen[0])]
        start += len(token)
    assert [each.sentence for each in places] == sorted(each.sentence for each in places)


def test_a_long_run_of_signs_takes_no_long_time() -> None:
    """Patterns are read once along a text, not once from each place in it."""
    for run in ("." * 200_000, "<" * 200_000, "\\" * 200_000, "1," * 100_000, " " * 200_000):
        assert len(token_places([run], SHIPPED)) == 1


def test_the_lexicon_can_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    mine = {
        "planning": {"words": ["zuerst"]},
        "execution": {"patterns": ["(?:x)(y)?"]},
        "sentence_end": ";",
        "opening": 1,
    }
    file.write_text(json.dumps(mine), encoding="utf-8")
    lexicon = read_lexicon(file)
    places = token_places(["First", " Zuerst", ";", "x", "x", "y"], lexicon)
    assert [each.kind for each in places] == ["other", "planning", "other", "other", "other", "execution"]
    assert [each.opening for each in places] == [True, False, False, True, True, True]
    assert lexicon.digest() != SHIPPED.digest()
    assert Lexicon.from_json(lexicon.to_json()) == lexicon


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", r"mine\.json' is none: Invalid JSON"),
        (b"\xff", r"mine\.json' is none: 'utf-8' codec"),
        (b"{}", r"is none: Lexicon: planning: Field required"),
        (
            b'{"planning": {"patterns": ["("]}, "execution": {}, "sentence_end": "x"}',
            r"'\(' is no regular",
        ),
        (b'{"planning": {"words": [" "]}, "execution": {}, "sentence_end": "x"}', r"words: one is empty"),
        (b'{"planning": {}, "execution": {}, "sentence_end": "*"}', r"sentence_end: '\*' is no regular exp"),
        (b'{"planning": {}, "execution": {}, "sentence_end": "x", "opening": -1}', r"opening: "),
        (b'{"planing": {}, "planning": {}, "execution": {}, "sentence_end": "x"}', r"planing: "),
    ],
)
def test_a_broken_lexicon_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(content)
    with pytest.raises(RequestError, match=said):
        read_lexicon(file)


def test_a_lexicon_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot read '.*mine\.json': No such file"):
        read_lexicon(tmp_path / "mine.json")
