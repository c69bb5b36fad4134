"""A page of many answers made small: tokens by number, columns as bytes, and all else that has room.

Only a page that would be large is packed; `report.js` unpacks an answer when it is shown. What has to be left
out or cut short is said in a note.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ("packed", "size_of")

_TEXTS: Final = 2_500_000
"""Bytes for prompts and whole texts together, and as many again for the table of tokens."""
_LEAST: Final = 8
"""Characters that stay of a text or a token in any case."""
_FEWER: Final = (None, 3, 2, 1)
"""Most probable tokens of a model at a position: all, or fewer where takeovers would have no room."""
_NONE, _INFINITE, _BEYOND = -32_768, 32_767, 32_768
_SPECIAL: Final[dict[str | None, int]] = {None: _NONE, "Infinity": _INFINITE}
_SHARES: Final = 10_000
_CHANGED, _TAKEN, _DIFFERENT, _ALIKE = range(4)
"""Positions by how much they matter."""

_Answer = dict[str, Any]
_Top = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class _Choices:
    """The most probable tokens of both models at a position."""

    rank: tuple[int, float]
    """The least is kept first."""
    answer: int
    entry: int
    base: _Top
    reasoner: _Top


def size_of(data: Any) -> int:
    """Bytes of a value as the page's JSON."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return len(text.encode(errors="replace"))


def packed(answers: Sequence[_Answer], room: int) -> tuple[dict[str, Any], list[str]]:
    """Answers in the form that `report.js` unpacks, and what is to be said about them.

    Args:
        answers: As `columns` makes them; they are changed.
        room: Bytes that the result should have at most.

    Returns:
        `words`, a table of tokens, and `answers`, whose columns are base64 of little-endian integers: of
        tokens their places in the table, of numbers thousandths.
    """
    notes = [*_cut_texts(answers), *_cut_tokens(answers)]
    choices = sorted(_choices(answers), key=lambda each: each.rank)
    words: dict[str, int] = {}
    code = _code(answers, choices)
    for each in answers:
        _pack(each, words, code)
    left = room - size_of({"words": list(words), "answers": answers})
    kept, most = _kept(choices, words, left, struct.calcsize(code))
    mine: list[list[_Choices]] = [[] for _ in answers]
    for one in kept:
        mine[one.answer].append(one)
    for each, those in zip(answers, mine, strict=True):
        each["tops"] = _tops(those, words, code)
    if most is not None or len(kept) < len(choices):
        notes.append(
            f"To keep this page small, {'the' if most is None else most} most probable tokens of a model are "
            f"there at {len(kept)} of {len(choices)} positions, takeovers first; fewer answers keep more."
        )
    return {"words": list(words), "answers": list(answers)}, notes


# --- What is cut short ---


def _cut_texts(answers: Sequence[_Answer]) -> list[str]:
    """Cut prompts and texts to a length at which they have room together."""
    places = [
        (holder, name)
        for each in answers
        for holder in (each, each["own"] or {})
        for name in ("prompt", "text")
        if holder.get(name)
    ]
    most = _fitting([holder[name] for holder, name in places])
    if most is None:
        return []
    cut = [(holder, name) for holder, name in places if len(holder[name]) > most]
    for holder, name in cut:
        holder[name] = f"{holder[name][:most]} …"
    return [f"To keep this page small, {len(cut)} prompts and texts are cut to {most} characters."]


def _cut_tokens(answers: Sequence[_Answer]) -> list[str]:
    """Likewise tokens, each of which stands in the table once."""
    most = _fitting({word for each in answers for word in _words(each)})
    if most is None:
        return []
    count = 0
    for each in answers:
        for at, token in enumerate(each["tokens"]):
            if len(token) > most:
                each["long"].setdefault(at, len(token))
                each["tokens"][at] = token[:most]
                count += 1
        for name in ("base", "reasoner"):
            each[name] = {at: word and word[:most] for at, word in each[name].items()}
        for name in ("base_top", "reasoner_top"):
            each[name] = {at: [(word[:most], p) for word, p in top] for at, top in each[name].items()}
    return [f"To keep this page small, {count} tokens are cut to {most} characters."]


def _fitting(texts: Iterable[str]) -> int | None:
    """The length to which texts must be cut to have room together; None if they have it as they are."""
    sizes = [(len(each), size_of(each)) for each in texts if each]
    if sum(size for _, size in sizes) <= _TEXTS:
        return None
    most = max(length for length, _ in sizes)
    while most > _LEAST and sum(size * min(1.0, most / length) for length, size in sizes) > _TEXTS:
        most = max(_LEAST, most // 2)
    return most


# --- Columns ---


def _words(answer: _Answer) -> Iterable[str]:
    yield from answer["tokens"]
    yield from answer["base"].values()
    yield from (each for each in answer["reasoner"].values() if each is not None)


def _code(answers: Sequence[_Answer], choices: Sequence[_Choices]) -> str:
    """The integer that every place in the table of words, and every entry, fits in."""
    words = {word for each in answers for word in _words(each)}
    words.update(word for each in choices for top in (each.base, each.reasoner) for word, _ in top)
    most = max([len(words), *(len(each["tokens"]) for each in answers)])
    return "H" if most < 2**16 - 1 else "I"


def _pack(answer: _Answer, words: dict[str, int], code: str) -> None:
    """Turn the columns of an answer into bytes; those whose values do not fit stay as they are."""
    tokens = answer["tokens"]
    for name in ("base", "reasoner"):
        others = answer[name]
        said = [others.get(at, token) for at, token in enumerate(tokens)]
        answer[name] = _column(code, [_place(words, each) for each in said]) if others else ""
    answer["tokens"] = _column(code, [_place(words, each) for each in tokens])
    answer["flags"] = _column("B", answer["flags"])
    for name in ("scores", "entropies", "bars", "levels"):
        answer[name] = _thousandths(answer[name])
    answer |= {"wide": code == "I", "base_top": {}, "reasoner_top": {}}


def _place(words: dict[str, int], word: str | None) -> int:
    """A word's place in the table, from 1 on; 0 for none."""
    return 0 if word is None else words.setdefault(word, len(words)) + 1


def _thousandths(values: Any) -> Any:
    if not isinstance(values, list) or not values:
        return values
    whole = [
        _SPECIAL.get(each, _BEYOND) if each is None or isinstance(each, str) else round(1000 * each)
        for each in values
    ]
    return _column("h", whole) if min(whole) >= _NONE and max(whole) <= _INFINITE else values


def _column(code: str, values: Sequence[int]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}{code}", *values)).decode()


# --- The most probable tokens ---


def _choices(answers: Sequence[_Answer]) -> Iterable[_Choices]:
    """Those of every position; first come takeovers, and where both models' first choices differ."""
    for at, each in enumerate(answers):
        base, reasoner = each["base_top"], each["reasoner_top"]
        for entry in sorted(base.keys() | reasoner.keys()):
            flags, score = each["flags"][entry], each["scores"][entry]
            differs = entry in each["base"] or entry in each["reasoner"]
            kind = _CHANGED if flags & 4 else _TAKEN if flags & 2 else _DIFFERENT if differs else _ALIKE
            height = -score if isinstance(score, int | float) else 0.0
            yield _Choices((kind, height), at, entry, base.get(entry, []), reasoner.get(entry, []))


def _kept(
    choices: Sequence[_Choices], words: dict[str, int], room: int, width: int
) -> tuple[list[_Choices], int | None]:
    """As many as there is room for, takeovers first, and how many tokens each; their words join the table."""
    for most in _FEWER:
        known, left, kept = dict(words), room, []
        for each in choices:
            one = _Choices(each.rank, each.answer, each.entry, each.base[:most], each.reasoner[:most])
            both = [*one.base, *one.reasoner]
            left -= 4 * width * (3 + 2 * len(both)) // 3 + 1
            fresh = dict.fromkeys(word for word, _ in both if word not in known)
            left -= sum(size_of(word) + 1 for word in fresh)
            if left < 0:
                break
            for word in fresh:
                known[word] = len(known)
            kept.append(one)
        if len(kept) == len(choices) or choices[len(kept)].rank[0] > _TAKEN:
            break
    words.update(known)
    return kept, most


def _tops(kept: Sequence[_Choices], words: dict[str, int], code: str) -> str:
    """Of each: entry, how many of the base and of the reasoner, and word and share of each."""
    numbers: list[int] = []
    for each in kept:
        numbers += [each.entry, len(each.base), len(each.reasoner)]
        for word, share in (*each.base, *each.reasoner):
            numbers += [_place(words, word), round(_SHARES * share)]
    return _column(code, numbers)
