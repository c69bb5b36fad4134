"""Whether an answer is right: by mathematics, or by a checker with a name.

Answers that a checker cannot read are wrong, and counted as unread beside: a model that forgets to conclude
is another finding than one that concludes wrongly. A checker of one's own, `module:function`, is code, so
it is named on the command line or passed as a function, never in a file of tasks.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from delegate_llm.errors import RequestError, require

__all__ = ("CHECKERS", "Checker", "Grade", "check_answer", "checker_from", "grade", "named_checker")


class Grade(NamedTuple):
    """What became of one answer."""

    correct: bool
    read: str | None
    """What the checker read as the conclusion; None where it found none."""


Reading = tuple[str, Any]
"""A conclusion in words, and what it is compared by."""

Checker = Callable[[str, str], Grade]
"""From the text of an answer and the right answer."""

_ANCHOR: Final = re.compile(
    r"(?i:(?:answer|option|choice)[*_\s\"']*(?:is|:|=|(?:would|should|will|must) be))|####|\\boxed\s*\{"
)
"""What models and data sets announce a conclusion with, in bold type or as JSON, too."""
_NUMBER: Final = re.compile(
    r"(?<![A-Za-z]\^)(?:(?<!\d)[-+])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
)
_OPERATOR: Final = re.compile(r"\s*(?:[-+*/×÷]|\\times|\\cdot|x(?=\s*\d))")
"""Behind the first number of a conclusion that is still being worked out."""
_GOES_ON: Final = re.compile(r"\s*(?:/\s*\d|\^|:\d)|\s+\d+\s*/\s*\d")
"""Behind a number that is only a part of one: of a fraction, a power, a time."""
_GOES_BACK: Final = re.compile(r"(?:\d\s*/\s*|\d:|\^\s*\{?|frac\s*\{[^{}]*(?:\}\s*\{)?)$")
_LETTER: Final = re.compile(r"(?<![A-Za-z])(?<!not )(?:(?!I\s+[a-z])[A-J](?![A-Za-z'])|(?<=\()[a-j](?=\)))")
_LONE_LETTER: Final = re.compile(
    r"(?<=\()[A-Ja-j](?=\))|(?<=\[)[A-J](?=\])|(?<=\$)[A-J](?=\$)|(?<=>)[A-J](?=<)"
    r"|(?<=\b[Oo]ption )[A-J]\b|(?<=\b[Cc]hoice )[A-J]\b"
    r"|(?<![A-Za-z])[A-J](?=\s+is\s+(?:the\s+)?(?:correct|right|answer))"
    r"|(?<![A-Za-z])[A-J](?=[.):*]*\s*$)",
    re.MULTILINE,
)
"""Unannounced, most letters are words: `A` and `I`."""
_LABEL: Final = re.compile(r"^\W*([A-J])[.):]", re.MULTILINE)
"""A letter that begins a line; where several do, they are the options."""
_TOWER: Final = re.compile(r"(?:\^|\*\*)[\s{(]*(?:\d+[\s})]*(?:\^|\*\*)|\d{5})|\d{5}!")
"""Powers that no algebra should be asked to work out, where nothing can stop it."""
_SPELLED: Final = re.compile(r"\$|\\[(\[]|\\boxed|####")
"""What a right answer has that shows where its expression stands."""
_WORD: Final = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")
_LONGEST: Final = 80
_NEAR: Final = 40
"""Characters, of a conclusion and before a number."""
_SECONDS: Final = 5
"""After which an expression that is too much for the algebra counts as unread."""


def grade(text: str, answer: str, checker: str | Checker) -> Grade:
    """Grade one answer.

    Args:
        text: What the model wrote.
        answer: The right answer.
        checker: A name from `CHECKERS`, or a function.

    Raises:
        RequestError: If the checker is unknown, or its library is not installed.
    """
    check = named_checker(checker) if isinstance(checker, str) else checker
    return check(text, answer)


def named_checker(name: str) -> Checker:
    """The checker of a name.

    Raises:
        RequestError: If there is none.
        MissingExtraError: If its library is not installed.
    """
    if name not in CHECKERS:
        msg = f"checker: {name!r:.80} is unknown; choose one of {', '.join(CHECKERS)}"
        if ":" in name:
            msg += "; a function of your own is named on the command line, not in a file"
        raise RequestError(msg)
    if name == "math":
        require("math_verify", "evaluate")
    return CHECKERS[name]


def checker_from(place: str) -> Checker:
    """A function of the user's as a checker.

    Args:
        place: `module:function`; it takes the text and the right answer, and returns whether the text is
            right, or None where it could not be read.

    Raises:
        RequestError: If there is no such function.
    """
    module, _, name = place.partition(":")
    try:
        check = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module's own code runs, and may raise anything
        msg = f"checker: cannot take {name!r} from {module!r}: {error}; its folder has to be on PYTHONPATH"
        raise RequestError(msg) from error
    if not callable(check):
        msg = f"checker: {place!r} is no function"
        raise RequestError(msg)

    def graded(text: str, answer: str) -> Grade:
        try:
            verdict = _verdict(check(text, answer))
        except (Exception, SystemExit) as error:
            msg = f"checker: {place!r} raised {error!r:.200} for the right answer {answer!r:.80}; mend it"
            raise RequestError(msg) from error
        return Grade(bool(verdict), None if verdict is None else text.strip())

    return graded


def _verdict(given: Any) -> bool | None:
    """What a function of the user's returned, numpy's truth values included; raises `TypeError`."""
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, str) or bool(given) != given:
        msg = f"it returned {given!r:.80}, and not True, False or None"
        raise TypeError(msg)
    return bool(given)


def check_answer(answer: str, name: str, checker: Checker) -> None:
    """Say if a right answer is one that its checker cannot read.

    Raises:
        RequestError: If so.
    """
    # As it stands, or as a model would announce it.
    found = [checker(text, answer) for text in (answer, f"\\boxed{{{answer}}}")]
    if not any(each.correct for each in found):
        msg = f"answer: {answer!r:.80} cannot be read by the checker {name!r}; choose another `checker`"
        raise RequestError(msg)


# --- The checkers ---


def _compared(read: Callable[[str], Reading | None], gold: Callable[[str], Reading | None]) -> Checker:
    """A checker that reads both sides and compares what they come to."""

    def check(text: str, answer: str) -> Grade:
        said, right = read(text), gold(answer)
        return Grade(said is not None and right is not None and said[1] == right[1], said and said[0])

    return check


def _plain(text: str) -> str:
    """With the signs that programs know: a minus, a dollar that begins no LaTeX, and no bold type."""
    text = re.sub(r"\\\$\s*(?=[-+.\d])", "", text.replace("\N{MINUS SIGN}", "-"))
    return re.sub(r"(?<![\d)])\*\*|\*\*(?![\d(])", "", text)


def _concluded(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first match behind the last announcement that has one."""
    end = len(text)
    for anchor in reversed(list(_ANCHOR.finditer(text))):
        # Behind the next one there is none, and to look again would take long where a model repeats itself.
        if found := pattern.search(text, anchor.end(), end):
            return found
        end = anchor.start()
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(reversed(list(pattern.finditer(text)))), None)


def _as_number(found: re.Match[str] | None) -> Reading | None:
    """A number by its value; None for what is only a part of one."""
    if found is None or _GOES_ON.match(found.string, found.end()):
        return None
    if _GOES_BACK.search(found.string, max(0, found.start() - _NEAR), found.start()):
        return None
    return found[0], Decimal(found[0].replace(",", ""))


def _worked_out(found: re.Match[str]) -> re.Match[str]:
    """What a sum comes to: `20 - 5 = 15` concludes in 15."""
    text = found.string
    line = text.find("\n", found.end())
    stop = re.compile(r"[.;]\s|$").search(text, found.end(), len(text) if line < 0 else line)
    equals = text.rfind("=", found.end(), stop.start() if stop else len(text))
    if equals < 0 or not _OPERATOR.match(text, found.end()):
        return found
    return _NUMBER.search(text, equals) or found


def _announced(text: str) -> re.Match[str] | None:
    found = _concluded(_NUMBER, text)
    return found and _worked_out(found)


def _stated(text: str) -> Reading | None:
    return _as_number(_announced(_plain(text)))


def _number(text: str) -> Reading | None:
    text = _plain(text)
    return _as_number(_announced(text) or _last(_NUMBER, text))


def _right_number(text: str) -> Reading | None:
    """A right answer: one number and nothing else, or one that is announced behind how it was found."""
    whole = _NUMBER.fullmatch(_plain(text).strip().strip("$%").strip())
    return _as_number(whole) if whole else _stated(text)


def _choice(text: str) -> Reading | None:
    labels = _LABEL.findall(text)
    found = _concluded(_LETTER, text) or _last(_LONE_LETTER, text)
    letter = found[0].upper() if found else labels[0] if len(labels) == 1 else None
    return (letter, letter) if letter else None


def _whole(text: str) -> Reading | None:
    words = " ".join(text.split())
    return (words, words) if words else None


def _contains(text: str, answer: str) -> Grade:
    words, wanted = _whole(text.casefold()), _whole(answer.casefold())
    if not words or not wanted:
        return Grade(correct=False, read=words and words[0])
    # As whole words: 5 is not in 15. Only of letters that words are parted by, as not all scripts do.
    there = re.search(rf"(?<![a-z0-9]){re.escape(wanted[0])}(?![a-z0-9])", words[0])
    return Grade(there is not None, words[0])


def _math(text: str, answer: str) -> Grade:
    """By math-verify: both sides are read as expressions and compared by algebra."""
    library = require("math_verify", "evaluate")
    # Its time limits are alarms, which only the main thread has.
    limit = _SECONDS if threading.current_thread() is threading.main_thread() else None
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every limit that it cannot set
    text, answer = _plain(text), _plain(answer)
    if _TOWER.search(text):
        return Grade(correct=False, read=None)

    def parse(form: str) -> Any:
        return library.parse(form, parsing_timeout=limit)

    # As plain text `3\sqrt{13}` would be read as 3, and as LaTeX `18 dollars` as a product of letters.
    forms = [answer, f"${answer}$"]
    if not _SPELLED.search(answer) and ("\\" in answer or not _WORD.search(answer)):
        forms.reverse()
    right: Any = next(filter(None, map(parse, forms)), None)
    said, read = parse(text), None
    # What is announced in plain text may be an expression all the same, such as `(2, 5)` or `2^{10}`.
    for each in filter(None, (said, *(parse(form) for form in _as_latex(text)))):
        read = read or str(each[-1])
        if right and library.verify(right, each, timeout_seconds=limit):
            return Grade(correct=True, read=str(each[-1]))
    return Grade(correct=False, read=read)


def _as_latex(text: str) -> list[str]:
    """The rest of the line behind the last announcement as LaTeX, if it is short and has none."""
    anchor = _last(_ANCHOR, text)
    tail = text[anchor.end() :].lstrip().partition("\n")[0] if anchor else ""
    tail = tail.rstrip().strip("*").rstrip(".")
    plain = not tail or len(tail) > _LONGEST or "$" in tail or "\\boxed" in text or _WORD.search(tail)
    return [] if plain else [f"${tail}$"]


CHECKERS: Final[Mapping[str, Checker]] = {
    "math": _math,
    "number": _compared(_number, _right_number),
    "stated": _compared(_stated, _right_number),
    "choice": _compared(_choice, _choice),
    "exact": _compared(_whole, _whole),
    "contains": _contains,
}
"""`math`: equal as mathematics, by math-verify. `number`: the number that is announced ("the answer is",
"####", `\\boxed`), else the last one. `stated`: only one that is announced. `choice`: a letter, A to J, found
likewise. `exact`: the same words. `contains`: the right answer stands in the text, whatever the case."""
