"""One answer on a page: what is known of it, and its decisions as columns of compact JSON.

`Shown` is what a source of answers fills in; `columns` is what the view in the browser reads. The form of
that data stands at the top of `assets/columns.js`, key by key; a live view appends chunks of the same
columns, which `chunk` makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from delegate_llm.policy import Budget, DelegationPolicy, unit_of
from delegate_llm.report.reasons import Verdict, gate_name, verdicts
from delegate_llm.trace import Decision, Logprob, Trace

__all__ = ("LONGEST_TOKEN", "Causes", "Shown", "chunk", "columns", "policy_told", "short")

LONGEST_TOKEN: Final = 2_000
"""Characters of a token that reach the page; of longer ones it says how long they are."""
_LONGEST_TEXT: Final = 200_000
_LONGEST_TITLE: Final = 90
_MOST_TOP: Final = 5
"""Of the most probable tokens of a model, at a position."""
_ASKED, _TAKEOVER, _CHANGED = 1, 2, 4

Causes = dict[str, int]
"""Sentences that were needed so far, each with its place in the page's table of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One answer, as far as it is known."""

    id: str
    trace: Trace
    title: str = ""
    """The question in short."""
    call: str | None = None
    """Of a chat model, by the id of its record."""
    prompt: str | None = None
    text: str | None = None
    """The answer without special tokens; needed where the trace has not every token."""
    policy: DelegationPolicy | None = None
    node: str | None = None
    """Of an agent."""
    arm: str | None = None
    """Of an evaluation."""
    correct: bool | None = None
    """None if it was not graded."""
    seed: int | None = None
    own: Shown | None = None
    """What the base writes alone."""
    notes: tuple[str, ...] = field(default=())
    """What a reader has to know about gaps."""


def columns(shown: Shown) -> dict[str, Any]:
    """An answer as the data of its view: JSON, but for lone surrogates that model text may hold.

    It has the keys that `assets/columns.js` lists.
    """
    decisions = shown.trace.decisions
    whole = _is_whole(shown.trace)
    found = verdicts(decisions, shown.policy) if shown.policy else (Verdict() for _ in decisions)
    data = chunk(decisions, list(found), {})
    bars = data["bars"]
    if bars and bars.count(bars[0]) == len(bars):
        data["bars"] = bars[0]
    return {
        "id": shown.id,
        "title": shown.title,
        "prompt": None if shown.prompt is None else _cut(shown.prompt, _LONGEST_TEXT),
        "node": shown.node,
        "arm": shown.arm,
        "correct": shown.correct,
        "seed": shown.seed,
        "notes": [*shown.notes, *_gaps(shown, whole=whole)],
        "level": shown.trace.level,
        "text": None if whole or shown.text is None else _cut(shown.text, _LONGEST_TEXT),
        "policy": None if shown.policy is None else policy_told(shown.policy),
        "summary": {**shown.trace.summary.model_dump(), "share": round(shown.trace.summary.share, 4)},
        "own": None if shown.own is None else _own(shown.own),
        **data,
        "at": None if whole else data["at"],
    }


def chunk(
    decisions: Sequence[Decision], judged: Sequence[Verdict], causes: Causes, *, start: int = 0
) -> dict[str, Any]:
    """Some decisions as entries of the columns.

    Args:
        decisions: In order.
        judged: One verdict for each; `Verdict()` where there is no policy.
        causes: Sentences of the chunks before, which those of this one are added to.
        start: How many entries the columns have already.

    Returns:
        The columns, and `causes`; all that JSON can hold.
    """
    listed = list(enumerate(decisions, start))
    why = [None if each.cause is None else causes.setdefault(each.cause, len(causes)) for each in judged]
    levels = [None if each.level == math.inf else _rounded(each.level, 2) for each in judged]
    return {
        "at": [each.position for each in decisions],
        "tokens": [_cut(each.token, LONGEST_TOKEN) for each in decisions],
        "scores": [_rounded(each.score, 3) for each in decisions],
        "entropies": [_rounded(each.base_entropy, 3) for each in decisions],
        "flags": [_ASKED * e.asked + _TAKEOVER * e.takeover + _CHANGED * e.changed for e in decisions],
        "base": {
            at: _cut(each.base_token, LONGEST_TOKEN) for at, each in listed if each.base_token != each.token
        },
        "reasoner": {
            at: None if each.reasoner_token is None else _cut(each.reasoner_token, LONGEST_TOKEN)
            for at, each in listed
            if each.asked and each.reasoner_token != each.token
        },
        "base_top": {at: _top(each.base_top) for at, each in listed if each.base_top},
        "reasoner_top": {at: _top(each.reasoner_top) for at, each in listed if each.reasoner_top},
        "long": {at: len(each.token) for at, each in listed if len(each.token) > LONGEST_TOKEN},
        "bars": _some([_rounded(each.bar, 3) for each in judged]),
        "levels": _some(levels),
        "why": _some(why),
        "causes": list(causes),
    }


def policy_told(policy: DelegationPolicy) -> dict[str, Any]:
    """A policy as the view reads it; gates and budget in words."""
    most = min(policy.budget.capacity, math.inf if policy.budget.limit is None else policy.budget.limit)
    return {
        "divergence": policy.divergence,
        "unit": unit_of(policy.divergence),
        "threshold": _rounded(policy.threshold, 6),
        "spike": policy.spike,
        "spike_window": policy.spike_window,
        "gates": [gate_name(gate) for gate in policy.gates],
        "budget": _budget_told(policy.budget),
        "capacity": most if math.isfinite(most) else None,
    }


def short(text: str) -> str:
    """The beginning of a text, on one line, as a title."""
    line = " ".join(text[: 8 * _LONGEST_TITLE].split())
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1].rstrip(' .,;:')}…"


def _budget_told(budget: Budget) -> str | None:
    parts = []
    if budget.limit is not None:
        parts.append(f"at most {budget.limit} takeovers")
    if budget.rate is not None:
        parts.append(f"{budget.rate:g} takeovers a token")
    if budget.capacity != math.inf:
        parts.append(f"at most {budget.capacity:g} at once")
    if budget.asks is not None:
        parts.append(f"the reasoner asked at most at {budget.asks} positions")
    return ", ".join(parts) or None


def _own(own: Shown) -> dict[str, Any]:
    """Another answer beside: its text is enough."""
    text = own.text if own.text is not None else "".join(each.token for each in own.trace.decisions)
    return {
        "id": own.id,
        "correct": own.correct,
        "seed": own.seed,
        "level": "off",
        "text": _cut(text, _LONGEST_TEXT),
    }


def _is_whole(trace: Trace) -> bool:
    """Whether there is a decision for every token, in order."""
    decisions = trace.decisions
    if len(decisions) != trace.summary.tokens:
        return False
    return trace.level == "full" and all(at == each.position for at, each in enumerate(decisions))


def _gaps(shown: Shown, *, whole: bool) -> Iterable[str]:
    own = None if shown.own is None else shown.own.text
    for name, text in (("prompt", shown.prompt), ("text", shown.text), ("base's own text", own)):
        if text is not None and len(text) > _LONGEST_TEXT:
            yield f"Of {len(text)} characters of the {name}, the first {_LONGEST_TEXT} are shown."
    if whole:
        return
    kept, tokens = len(shown.trace.decisions), shown.trace.summary.tokens
    text = "the text is below them" if shown.text is None else "the text stands above them"
    if shown.text is None:
        text = "the rest of the text is not there"
    if kept:
        yield f'The trace has {kept} of {tokens} decisions, shown in order; {text}. `trace="full"` keeps all.'
    else:
        yield 'The trace has no decisions, so there are only text and counts. `trace="full"` keeps them.'


def _top(entries: Sequence[Logprob]) -> list[tuple[str, float]]:
    shares = ((each.token, min(0.0, each.logprob)) for each in entries[:_MOST_TOP])
    return [(_cut(token, LONGEST_TOKEN), round(math.exp(logprob), 4)) for token, logprob in shares]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most]


def _rounded(value: float | None, digits: int) -> float | int | str | None:
    """A number as short as it can be in JSON, which knows no infinity."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    near = round(value, digits)
    return int(near) if near == int(near) else near


def _some(values: list[Any]) -> list[Any] | None:
    """A column, or None if nothing is in it."""
    return values if any(each is not None for each in values) else None
