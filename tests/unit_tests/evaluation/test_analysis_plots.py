"""Pictures of an analysis: drawn from anything, and text in them is never a formula or a missing glyph."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listened import answer

pytest.importorskip("matplotlib")

from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text

from delegate_llm.errors import RequestError
from delegate_llm.evaluation import analysis_plots
from delegate_llm.evaluation._labels import label, plain
from delegate_llm.evaluation.analysis import summarize
from delegate_llm.evaluation.analysis_plots import plot_analysis, plot_answer, typical
from delegate_llm.evaluation.tokens import token_table
from delegate_llm.evaluation.words import read_lexicon

HOSTILE = [
    "$x_{1$",
    "$$",
    "\\frac{",
    "\x1b[31m",
    "\u202e",
    "中",
    "\ufffd",
    "\ud800",
    "a" * 200,
    "\n",
    " ",
    "",
]
LEXICON = read_lexicon()


@pytest.mark.parametrize("count", [1, 3, 450])
@pytest.mark.parametrize("score", [0.0, 3.0, -1.0])
def test_pictures_are_drawn_whatever_the_tokens_and_the_scores(
    tmp_path: Path, count: int, score: float
) -> None:
    written = [(HOSTILE[at % len(HOSTILE)], score * (at % 3), 0.1) for at in range(count)]
    answers = [answer(str(at), written, correct=bool(at)) for at in range(2)]
    table = token_table(answers, LEXICON, 0.1)
    summary = summarize(table, 0.1, resamples=5)
    plot_analysis(table, summary, "".join(HOSTILE), tmp_path / "analysis.png")
    plot_answer(typical(table), "$".join(HOSTILE), summary["top"]["least"], tmp_path / "answer.png")
    for name in ("analysis.png", "answer.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_small_share_is_not_called_none(tmp_path: Path) -> None:
    table = token_table([answer("a", [("x", float(at), 0.1) for at in range(300)])], LEXICON, 0.004)
    plot_analysis(table, summarize(table, 0.004, resamples=5), "", tmp_path / "analysis.svg")
    drawn = (tmp_path / "analysis.svg").read_text()  # which says in comments what its glyphs spell
    assert "<!-- top 0.4 % -->" in drawn
    assert "<!-- over-representation among the top 0.4 % by score -->" in drawn


def test_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A remark on few right answers once ran out of the picture."""
    answers = [
        answer(str(at), [(" first", 3.0 * (at + place) % 7, 0.1) for place in range(30)], correct=at < 4)
        for at in range(20)
    ]
    table = token_table(answers, LEXICON, 0.1)
    summary = summarize(table, 0.1, resamples=5)
    assert summary["wrong_answers"]["caveat"]
    drawn: list[Figure] = []
    monkeypatch.setattr(analysis_plots, "save", lambda figure, file: drawn.append(figure))
    plot_analysis(table, summary, "base and reasoner", tmp_path / "analysis.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    assert any("only 4 right answers" in each.get_text() for each in figure.findobj(Text))
    needed, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(needed.x0, needed.y0) >= 0
    assert needed.x1 <= width
    assert needed.y1 <= height


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot write '.*answer\.png'"):
        plot_answer(answer("a", [("x", 1.0, 1.0)]), "", 1.0, tmp_path / "nowhere" / "answer.png")


def test_the_typical_answer_is_in_the_middle_and_can_be_read() -> None:
    answers = [answer(str(at), [("x", float(at), 0.0)] * (1000 if at > 6 else 5)) for at in range(12)]
    assert typical(token_table(answers, LEXICON, 0.1)).task == "3"
    assert typical(token_table(answers[7:], LEXICON, 0.1)).task == "9"


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" add ", "add"), ("  ", "␣"), ("", "␣"), ("\n\n", "⏎⏎"), ("$5", r"\$5"), ("\x1b", "⟨1B⟩"),
        ("中", "⟨4E2D⟩"), ("\u202ex", "⟨202E⟩x"), ("x" * 40, "x" * 16 + "…"), ("\ud800", "⟨D800⟩"),
        ("中" * 9, "⟨4E2D⟩⟨4E2D⟩…"),
    ],
)  # fmt: skip
def test_a_token_is_shown_in_short(token: str, shown: str) -> None:
    assert label(token) == shown


@given(st.text(st.sampled_from("$\\_^{}a1 \n\x00é中\u202e") | st.characters(), max_size=12))
def test_no_text_is_a_formula_or_lacks_a_glyph(text: str) -> None:
    figure = Figure(figsize=(1, 1))
    for shown in (label(text), plain(text)):
        figure.text(0.5, 0.5, shown, fontsize=4)
        assert not is_math_text(shown)
    figure.canvas.draw()
