"""Scored answers as a table with a row for each token, in memory and as Parquet.

| column | meaning |
| --- | --- |
| `task`, `position` | which answer, and which of its tokens, from 0 on |
| `token_id`, `token` | what the base wrote |
| `score`, `base_entropy` | how far the models are apart, and how unsure the base is, in nats |
| `base_token`, `reasoner_token` | the first choice of each |
| `kind`, `opening` | planning, execution or other; whether it opens a sentence |
| `sentence` | which sentence of the answer |
| `relative`, `sentence_relative` | the middle of the token, as a share of the answer or the sentence |
| `top` | whether it is among the top p by score |
| `correct` | whether the answer is right; null where nobody can tell |
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delegate_llm._files import write_file
from delegate_llm.errors import require
from delegate_llm.evaluation.listening import Scored
from delegate_llm.evaluation.statistics import top
from delegate_llm.evaluation.words import Lexicon, Place, token_places
from delegate_llm.trace import Decision

__all__ = ("TokenTable", "token_table", "write_tokens")

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The tokens of all answers, one behind the other; every array is `[tokens]` but for `ends`."""

    answers: tuple[Scored, ...]
    """Those that have tokens."""
    ends: NDArray[np.int64]
    """`[answers]`: where the tokens of each end."""
    score: Floats
    entropy: Floats
    """Of the base, in nats."""
    planning: Flags
    execution: Flags
    opening: Flags
    top: Flags
    """Whether it is among the top p of all by score."""
    sentence: NDArray[np.int64]
    start: Floats
    """Where the token begins, as a share of its answer."""
    length: Floats
    """One token, as a share of its answer."""
    sentence_start: Floats
    sentence_length: Floats
    places: tuple[Place, ...]
    decisions: tuple[Decision, ...]

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.score)


def token_table(answers: Sequence[Scored], lexicon: Lexicon, share: float) -> TokenTable:
    """Lay out scored answers token by token.

    Args:
        answers: At least one of them with a token.
        lexicon: What makes a token plan, carry out or open a sentence.
        share: Of the tokens that count as those with the top scores, in (0, 1).
    """
    written = tuple(each for each in answers if each.decisions)
    decisions = tuple(each for answer in written for each in answer.decisions)
    listed = [token_places([each.token for each in answer.decisions], lexicon) for answer in written]
    places = tuple(place for each in listed for place in each)
    whole = [_within([0] * len(answer.decisions)) for answer in written]
    inside = [_within([place.sentence for place in each]) for each in listed]
    score = np.array([each.score for each in decisions], dtype=np.float64)
    return TokenTable(
        answers=written,
        ends=np.cumsum([len(each.decisions) for each in written]),
        score=score,
        entropy=np.array([each.base_entropy for each in decisions], dtype=np.float64),
        planning=np.array([each.kind == "planning" for each in places]),
        execution=np.array([each.kind == "execution" for each in places]),
        opening=np.array([each.opening for each in places]),
        top=top(score, share),
        sentence=np.array([each.sentence for each in places], dtype=np.int64),
        start=np.concatenate([start for start, _ in whole]),
        length=np.concatenate([length for _, length in whole]),
        sentence_start=np.concatenate([start for start, _ in inside]),
        sentence_length=np.concatenate([length for _, length in inside]),
        places=places,
        decisions=decisions,
    )


def write_tokens(table: TokenTable, file: Path, about: Mapping[str, Any]) -> None:
    """Write the table as Parquet, whole or not at all.

    Args:
        table: What to write.
        file: Where to; its folder must exist.
        about: What was run, kept as JSON in the file's metadata under `delegate_llm`.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        RequestError: If the file cannot be written.
    """
    arrow, parquet = require("pyarrow", "evaluate"), require("pyarrow.parquet", "evaluate")
    made = arrow.table(_columns(table, arrow))
    out = io.BytesIO()
    about_it = {"delegate_llm": json.dumps(about)}
    parquet.write_table(made.replace_schema_metadata(about_it), out, compression="zstd")
    write_file(file, out.getvalue())


def _columns(table: TokenTable, arrow: Any) -> dict[str, Any]:
    lengths = np.diff(table.ends, prepend=0)
    tasks = np.repeat(np.arange(len(table.answers)), lengths).tolist()
    return {
        "task": arrow.array([_clean(table.answers[each].task) for each in tasks], arrow.string()),
        "position": arrow.array([each.position for each in table.decisions], arrow.int32()),
        "token_id": arrow.array([each.token_id for each in table.decisions], arrow.int32()),
        "token": arrow.array([_clean(each.token) for each in table.decisions], arrow.string()),
        "score": table.score,
        "base_entropy": table.entropy,
        "base_token": arrow.array([_clean(each.base_token) for each in table.decisions], arrow.string()),
        "reasoner_token": arrow.array(
            [_clean(each.reasoner_token) for each in table.decisions], arrow.string()
        ),
        "kind": arrow.array([each.kind for each in table.places], arrow.string()),
        "opening": table.opening,
        "sentence": arrow.array(table.sentence, arrow.int32()),
        "relative": table.start + table.length / 2,
        "sentence_relative": table.sentence_start + table.sentence_length / 2,
        "top": table.top,
        "correct": arrow.array([table.answers[each].correct for each in tasks], arrow.bool_()),
    }


def _clean(text: str | None) -> str | None:
    """Lone surrogates, which JSON may hold, have no place in UTF-8."""
    return None if text is None else text.encode(errors="replace").decode()


def _within(groups: Sequence[int]) -> tuple[Floats, Floats]:
    """For the tokens of one answer, where each begins within its group and how long it is there."""
    numbers = np.asarray(groups)
    # A sentence's tokens lie side by side, so an index counts from the first of them.
    _, first, group, counts = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    length = 1 / counts[group]
    return (np.arange(len(numbers)) - first[group]) * length, length
