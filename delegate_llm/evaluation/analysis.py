"""What scored tokens say: how sparse disagreement is, where it falls, and what it coincides with.

Answers, not tokens, are the units of every interval: the tokens of one answer depend on each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delegate_llm.evaluation.statistics import Estimate, auroc, bootstrap, carriers, gini, iou, lorenz, top
from delegate_llm.evaluation.tokens import Flags, Floats, TokenTable

__all__ = ("OVERLAPS", "Record", "estimate", "predicted", "roc", "summarize")

OVERLAPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares p whose top-p by score and by entropy are compared."""
_CARRIED: Final = (0.5, 0.8, 0.9)
_QUANTILES: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
_TENTHS: Final = 10
_POINTS: Final = 101
"""Of a curve."""
_WORST: Final = 0.1
"""Share of an answer's tokens whose mean predicts whether the answer is wrong."""
_FEW: Final = 10
"""Answers of the rarer outcome, below which an interval by bootstrap is far too narrow, by simulation."""
_WORK: Final = 4_000_000
"""Tokens over which a statistic of all tokens is computed, resamples together."""

Record: TypeAlias = dict[str, Any]
Index = NDArray[np.int64]


def summarize(table: TokenTable, share: float, *, resamples: int = 1000) -> Record:
    """All numbers of an analysis.

    Args:
        table: The tokens.
        share: Of the tokens that count as those with the top scores, as the table was made with.
        resamples: Behind each interval; fewer, but at least 200, where a statistic goes over many tokens.

    Returns:
        A JSON object. Shares are in [0, 1], scores and entropies mostly in nats; an estimate is
        `{"value", "low", "high"}` with its 95 % interval, null where there is none.
    """
    draw = _Draw(table, resamples)
    # Scores below 0, which the log ratio may have, are no disagreement.
    amounts = np.maximum(table.score, 0.0)
    quantiles = np.quantile(table.score, _QUANTILES)
    x, y = lorenz(amounts)
    points = np.linspace(0, 1, _POINTS)
    return {
        "counts": _counts(table),
        "score": {
            "mean": float(table.score.mean()),
            "quantiles": dict(zip(map(str, _QUANTILES), map(float, quantiles), strict=True)),
        },
        "gini": draw.over_tokens(lambda at: gini(amounts[at])),
        "lorenz": {"tokens": points.tolist(), "score": np.interp(points, x, y).tolist()},
        "carriers": [_carriers(draw, amounts, each) for each in _CARRIED],
        "top": {"share": share, "tokens": int(table.top.sum()), "least": float(table.score[table.top].min())},
        "position": {
            "answer": _tenths(draw, amounts, table.start, table.length),
            "sentence": _tenths(draw, amounts, table.sentence_start, table.sentence_length),
        },
        "words": _enrichment(draw, {"planning": table.planning, "execution": table.execution}),
        "sentence_start": _enrichment(draw, {"opening": table.opening, "later": ~table.opening}),
        "overlap": _overlap(draw, share),
        "wrong_answers": _wrong_answers(draw),
    }


def estimate(found: Estimate) -> Record:
    """An estimate as JSON, in which there is no NaN."""
    return {name: None if math.isnan(each) else each for name, each in found._asdict().items()}


def predicted(table: TokenTable) -> tuple[Floats, Floats, Flags]:
    """What is to predict wrong answers.

    Returns:
        For the answers that could be graded: the mean of the highest tenth of the scores, the same of the
        base's entropies, and whether the answer is wrong; `[graded]` each.
    """
    graded = [
        (each.correct, at)
        for each, at in zip(table.answers, _indices(table), strict=True)
        if each.correct is not None
    ]
    means = [
        np.array([values[at][top(values[at], _WORST)].mean() for _, at in graded])
        for values in (table.score, table.entropy)
    ]
    return means[0], means[1], np.array([not correct for correct, _ in graded], dtype=np.bool_)


def roc(scores: Floats, positive: Flags) -> tuple[Floats, Floats]:
    """The curve whose area `auroc` is: false and true positive rates, from (0, 0) to (1, 1).

    Args:
        scores: `[n]`; equal ones make one step, so that no order among them is made up.
        positive: `[n]`, with at least one of each.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true, false = (np.cumsum(each[order])[last] for each in (positive, ~positive))
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def _counts(table: TokenTable) -> Record:
    graded = [each.correct for each in table.answers if each.correct is not None]
    return {
        "answers": len(table.answers),
        "tokens": len(table),
        "sentences": int(np.count_nonzero(table.sentence_start == 0)),
        "graded": len(graded),
        "correct": sum(graded),
        "finish_reasons": dict(Counter(each.finish_reason or "given" for each in table.answers)),
    }


def _indices(table: TokenTable) -> list[Index]:
    """The rows of each answer."""
    return np.split(np.arange(len(table)), table.ends[:-1])


class _Draw(NamedTuple):
    """Intervals over the answers of a table."""

    table: TokenTable
    resamples: int

    def over(self, statistic: Callable[..., float | None], *samples: NDArray[Any]) -> Record:
        """A statistic of arrays with a row for each answer."""
        return estimate(bootstrap(statistic, *samples, resamples=self.resamples))

    def over_tokens(self, statistic: Callable[[Index], float | None]) -> Record:
        """A statistic of tokens, by their rows; answers are drawn with all of theirs."""
        rows = _indices(self.table)

        def drawn(answers: Index) -> float | None:
            return statistic(np.concatenate([rows[each] for each in answers]))

        fewer = min(self.resamples, max(200, _WORK // len(self.table)))
        return estimate(bootstrap(drawn, np.arange(len(rows)), resamples=fewer))


def _carriers(draw: _Draw, amounts: Floats, fraction: float) -> Record:
    """The smallest share of tokens that carries a fraction of the score."""
    found = draw.over_tokens(lambda at: carriers(amounts[at], fraction))
    return {"fraction": fraction, "tokens": found}


def _per_answer(table: TokenTable, values: NDArray[Any]) -> Floats:
    """Sums over the tokens of each answer: `[tokens, ...]` to `[answers, ...]`."""
    starts = np.concatenate(([0], table.ends[:-1]))
    return np.add.reduceat(values.astype(np.float64), starts)


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def _tenths(draw: _Draw, amounts: Floats, start: Floats, length: Floats) -> list[Record]:
    """Tokens, score and top tokens by tenth; a token counts in all tenths that it reaches into."""
    table = draw.table
    edges = np.linspace(0, 1, _TENTHS + 1)
    low = np.maximum(start[:, None], edges[:-1])
    high = np.minimum((start + length)[:, None], edges[1:])
    weight = np.clip(high - low, 0, None) / length[:, None]
    tokens, score, chosen = (
        _per_answer(table, weight * each[:, None]) for each in (np.ones(len(table)), amounts, table.top)
    )
    # Without any score, no tenth has a part of it.
    whole, marked = max(float(amounts.sum()), math.ulp(0.0)), int(table.top.sum())
    return [
        {
            "from": float(edges[at]),
            "tokens": float(tokens[:, at].sum()),
            "sum": float(score[:, at].sum()) / whole,
            "mean": draw.over(_mean_of, score[:, at], tokens[:, at]),
            "top": float(chosen[:, at].sum()) / marked,
        }
        for at in range(_TENTHS)
    ]


def _mean_of(score: Floats, tokens: Floats) -> float | None:
    return _ratio(float(score.sum()), float(tokens.sum()))


def _enrichment(draw: _Draw, classes: dict[str, Flags]) -> Record:
    """How over-represented classes of tokens are among those with the top scores.

    Args:
        draw: From the tokens.
        classes: By name; the first is set against the second.
    """
    ones = np.ones(len(draw.table))
    counts = np.stack(
        [_per_answer(draw.table, each) for kind in classes.values() for each in (kind, kind & draw.table.top)]
        + [_per_answer(draw.table, each) for each in (ones, draw.table.top)],
        axis=-1,
    )
    found: Record = {}
    for at, name in enumerate(classes):
        total = counts.sum(0)
        found[name] = {
            "tokens": int(total[2 * at]),
            "top": int(total[2 * at + 1]),
            "rate": _ratio(total[2 * at + 1], total[2 * at]),
            "over_representation": draw.over(_over(at), counts),
        }
    first, second = classes
    found[f"{first}_to_{second}"] = draw.over(_odds, counts)
    return found


def _over(at: int) -> Callable[[Floats], float | None]:
    """P(class | top) / P(class), of counts `[answers, (class, class and top)..., all, top]`."""

    def ratio(counts: Floats) -> float | None:
        total = counts.sum(0)
        share, among = _ratio(total[2 * at], total[-2]), _ratio(total[2 * at + 1], total[-1])
        return None if among is None or not share else among / share

    return ratio


def _odds(counts: Floats) -> float | None:
    """P(top | first class) / P(top | second class)."""
    total = counts.sum(0)
    first, second = _ratio(total[1], total[0]), _ratio(total[3], total[2])
    return None if first is None or not second else first / second


def _overlap(draw: _Draw, asked: float) -> list[Record]:
    """Whether the top scores are where the base is most unsure."""
    found = []
    for share in sorted({*OVERLAPS, asked}):

        def shared(at: Index, share: float = share) -> float:
            return iou(top(draw.table.score[at], share), top(draw.table.entropy[at], share))

        size, marked = len(draw.table), int(top(draw.table.score, share).sum())
        found.append(
            {
                "share": share,
                "iou": draw.over_tokens(shared),
                # Two sets by lot share marked² / size positions on average.
                "chance": marked / (2 * size - marked),
            }
        )
    return found


def _wrong_answers(draw: _Draw) -> Record:
    """How well the top scores of an answer predict that it is wrong, against the top entropies."""
    scores, entropies, wrong = predicted(draw.table)
    counts = {"answers": len(wrong), "wrong": int(wrong.sum())}
    reason = _one_sided(wrong)
    if reason is not None:
        return {**counts, **dict.fromkeys(("score", "entropy", "difference", "caveat")), "reason": reason}
    found = {
        "score": draw.over(auroc, scores, wrong),
        "entropy": draw.over(auroc, entropies, wrong),
        "difference": draw.over(_ahead, scores, entropies, wrong),
    }
    few = min(counts["wrong"], len(wrong) - counts["wrong"])
    if few >= _FEW:
        return {**counts, **found, "reason": None, "caveat": None}
    rarer = "wrong" if counts["wrong"] == few else "right"
    return {
        **counts,
        **{name: each and {**each, "low": None, "high": None} for name, each in found.items()},
        "reason": None,
        "caveat": f"only {few} {rarer} answer{'' if few == 1 else 's'}: too few to say how sure the AUROC is",
    }


def _one_sided(wrong: Flags) -> str | None:
    """Why nothing can be predicted, if so."""
    if not len(wrong):
        return "the tasks have no answers to grade by"
    if wrong.all() or not wrong.any():
        return f"all {len(wrong)} answers are {'wrong' if wrong.any() else 'right'}"
    return None


def _ahead(scores: Floats, entropies: Floats, wrong: Flags) -> float | None:
    by_score, by_entropy = auroc(scores, wrong), auroc(entropies, wrong)
    return None if by_score is None or by_entropy is None else by_score - by_entropy
