"""Scored answers as a table: every token once, in its place, and the same from Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listened import answer

from delegate_llm.errors import RequestError
from delegate_llm.evaluation.tokens import token_table, write_tokens
from delegate_llm.evaluation.words import read_lexicon

parquet = pytest.importorskip("pyarrow.parquet")

LEXICON = read_lexicon()
ANSWERS = [
    answer("a", [("First", 5.0, 0.5), (" 3", 0.1, 0.0), (". ", 0.0, 0.1), ("Good", 2.0, 1.0)], correct=True),
    answer("none", []),
    answer("b", [("4", 0.2, 0.3)], correct=None),
]


def test_parquet_holds_every_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.parquet"
    write_tokens(token_table(ANSWERS, LEXICON, 0.4), file, {"divergence": "js"})
    read = parquet.read_table(file)
    assert json.loads(read.schema.metadata[b"delegate_llm"]) == {"divergence": "js"}
    assert read.to_pydict() == {
        "task": ["a", "a", "a", "a", "b"],
        "position": [0, 1, 2, 3, 0],
        "token_id": [0, 1, 2, 3, 0],
        "token": ["First", " 3", ". ", "Good", "4"],
        "score": [5.0, 0.1, 0.0, 2.0, 0.2],
        "base_entropy": [0.5, 0.0, 0.1, 1.0, 0.3],
        "base_token": ["First", " 3", ". ", "Good", "4"],
        "reasoner_token": ["First", " 3", ". ", "Good", "4"],
        "kind": ["planning", "execution", "other", "other", "execution"],
        "opening": [True, True, False, True, True],
        "sentence": [0, 0, 0, 1, 0],
        "relative": [0.125, 0.375, 0.625, 0.875, 0.5],
        "sentence_relative": pytest.approx([1 / 6, 1 / 2, 5 / 6, 1 / 2, 1 / 2]),
        "top": [True, False, False, True, False],
        "correct": [True, True, True, True, None],
    }


def test_a_lone_surrogate_does_not_keep_the_rest_from_being_written(tmp_path: Path) -> None:
    file = tmp_path / "tokens.parquet"
    write_tokens(token_table([answer("\ud800", [("a\udfff", 1.0, 1.0)])], LEXICON, 0.1), file, {})
    read = parquet.read_table(file).to_pydict()
    assert (read["task"], read["token"]) == (["?"], ["a?"])


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    table = token_table(ANSWERS, LEXICON, 0.4)
    with pytest.raises(RequestError, match=r"cannot write '.*tokens\.parquet': No such file"):
        write_tokens(table, tmp_path / "nowhere" / "tokens.parquet", {})
    assert list(tmp_path.iterdir()) == []


TOKENS = st.tuples(st.sampled_from(["so", " ", "\n", ". ", "4"]), st.floats(0, 10), st.floats(0, 5))


@given(st.lists(st.lists(TOKENS, max_size=12), min_size=1, max_size=6).filter(any), st.floats(0.01, 0.99))
def test_the_tokens_of_an_answer_and_of_a_sentence_fill_it(written: list[list[tuple]], share: float) -> None:
    answers = [answer(str(at), each) for at, each in enumerate(written)]
    table = token_table(answers, LEXICON, share)
    assert len(table) == sum(map(len, written)) == table.ends[-1]
    rows = np.split(np.arange(len(table)), table.ends[:-1])
    assert [[table.decisions[at].token for at in each] for each in rows] == [
        [token for token, _, _ in each] for each in written if each
    ]
    for at in rows:
        assert table.length[at].sum() == pytest.approx(1)
        assert table.start[at] == pytest.approx(np.arange(len(at)) / len(at))
        for sentence in np.unique(table.sentence[at]):
            inside = at[table.sentence[at] == sentence]
            assert table.sentence_length[inside].sum() == pytest.approx(1)
            assert table.sentence_start[inside[0]] == 0
    assert table.score[table.top].min() >= table.score[~table.top].max(initial=0)
