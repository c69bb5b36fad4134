"""Text while it comes: whole characters, stop strings wherever they are split, forks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.text import AnswerText


def of_bytes(ids: Sequence[int]) -> str:
    """The hardest tokenizer: one byte a token."""
    return bytes(ids).decode("utf-8", errors="replace")


def of_whole_bytes(ids: Sequence[int]) -> str:
    """As ByT5's: what is no whole character is left out, and so are control tokens."""
    return bytes(each for each in ids if each < 256).decode("utf-8", errors="ignore")


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=9))
def test_half_a_character_may_be_no_text(text: str, controls: list[int]) -> None:
    answer, ids = AnswerText(of_whole_bytes), [[*each.encode()] for each in text]
    for at in controls:
        ids.insert(at, [256])
    for each in itertools.chain(*ids):
        answer.push(each)
        assert text.startswith(answer.text)
    assert answer.text == text


@given(st.lists(st.sampled_from(["▁", "▁▁", "▁a", "b"]), max_size=12))
def test_a_space_at_the_start_is_left_out_once(words: list[str]) -> None:
    """As of tokenizers that write a space before every word."""
    said = AnswerText(lambda ids: "".join(words[each] for each in ids).replace("▁", " ").removeprefix(" "))
    for each in range(len(words)):
        said.push(each)
    said.finish()
    assert said.text == "".join(words).replace("▁", " ").removeprefix(" ")


@given(st.text(max_size=30))
def test_bytes_become_the_text_they_were(text: str) -> None:
    answer, shown = AnswerText(of_bytes), 0
    for byte in text.encode():
        answer.push(byte)
        assert "\N{REPLACEMENT CHARACTER}" not in answer.text or "\N{REPLACEMENT CHARACTER}" in text
        assert text.startswith(answer.text)
        assert answer.safe() >= shown
        shown = answer.safe()
    answer.finish()
    assert answer.text == text


@given(st.binary(max_size=40))
def test_broken_bytes_lose_nothing(data: bytes) -> None:
    answer = AnswerText(of_bytes)
    for byte in data:
        answer.push(byte)
    answer.finish()
    ascii_only = [byte for byte in data if byte < 0x80]
    assert [ord(each) for each in answer.text if ord(each) < 0x80] == ascii_only


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 3), min_size=30, max_size=30),
)
def test_stops_are_cut_and_never_shown(text: str, stops: list[str], cuts: list[int]) -> None:
    pieces, rest = [], text
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    answer, shown = AnswerText(lambda ids: "".join(pieces[each] for each in ids), stops), ""
    for each in range(len(pieces)):
        if answer.stopped:
            break
        answer.push(each)
        shown = answer.text[: answer.safe()]
        assert answer.text.startswith(shown)
    answer.finish()
    ends = [text.find(stop) for stop in stops if stop in text]
    assert answer.stopped is bool(ends)
    assert answer.text.startswith(shown)
    if not ends:
        assert answer.text == text
    else:
        assert text.startswith(answer.text)
        assert not any(stop in answer.text for stop in stops)


@pytest.mark.parametrize(("text", "safe"), [("x", 1), ("xS", 1), ("xST", 1), ("STO", 0), ("xTS", 2)])
def test_a_possible_stop_is_held_back(text: str, safe: int) -> None:
    answer = AnswerText(of_bytes, ["STOP"])
    for byte in text.encode():
        answer.push(byte)
    assert answer.safe() == safe


def test_forks_do_not_meet() -> None:
    answer = AnswerText(of_bytes)
    for byte in "né".encode()[:2]:
        answer.push(byte)
    twin = answer.fork()
    twin.push("né".encode()[2])
    twin.push(ord("e"))
    assert (answer.text, twin.text) == ("n", "née")
    answer.push("né".encode()[2])
    assert answer.text == "né"


def test_a_token_without_text_takes_no_space_from_the_next() -> None:
    """As decoders of SentencePiece do: they strip a space at the start of what they are given."""
    pieces = {0: "t", 1: "", 2: " a", 3: "b"}

    def decode(ids: Sequence[int]) -> str:
        return "".join(pieces[each] for each in ids).removeprefix(" ")

    answer = AnswerText(decode)
    for token in (0, 1, 1, 2, 3):
        answer.push(token)
    assert answer.text == decode((0, 1, 1, 2, 3)) == "t ab"
