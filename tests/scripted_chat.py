"""A scripted pair that holds a conversation: it calls the tools it is asked to, or answers in text or JSON.

The reasoner says what is right. The base says the same, but for a few slips of one letter each; so whatever
is tested with this pair is tested with takeovers that matter.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from delegate_llm import Pair, tiny
from delegate_llm.pairs.scripted import Script, scripted_pair

START, END = "<|im_start|>", "<|im_end|>"
TAGS = (START, END, "<tool_call>", "</tool_call>", "<think>", "</think>")
PIECES = (*string.printable, *"äéöüß…–’“”中文你好啊集团こんにちは株式会社", *TAGS)
IDS = {piece: at for at, piece in enumerate(PIECES)}
TEMPLATE = (Path(tiny.__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
SLIPS = {"Hello": "Hullo", "cats": "cars", "sunny": "funny", "3": "8"}
"""What the base writes instead of some words, each another in one letter."""


@functools.cache
def conversing() -> Pair:
    """The pair."""
    scripts = (_script(slips=True), _script(slips=False))
    return scripted_pair(*scripts, PIECES, eos=IDS[END], chat_template=TEMPLATE)


# --- What is said ---


def answers(prompt: str) -> list[str]:
    """All answers that make sense, the best first; a grammar may leave only another."""
    *_, asked = re.findall(rf"{re.escape(START)}\w+\n(.*?){re.escape(END)}", prompt, re.DOTALL)
    if results := re.findall(r"<tool_response>\n(.*?)\n</tool_response>", asked, re.DOTALL):
        return [f"The tool says: {' And: '.join(results)}"]
    talk = ["Hello! What can I do for you?"]
    if "JSON" in asked:
        talk.insert(0, json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", asked), "Two cats.")))
    tools = [
        json.loads(line)["function"] for line in re.findall(r'^{"type": "function".*', prompt, re.MULTILINE)
    ]
    tools.sort(key=lambda tool: not _is_meant(tool, asked))  # those that are meant come first
    calls = [_call(tool, asked) for tool in tools]
    return [*calls, *talk] if tools and _is_meant(tools[0], asked) else [*talk, *calls]


def _is_meant(tool: Mapping[str, Any], asked: str) -> bool:
    """Whether a question has one of the words that a tool's name is made of."""
    return any(word in asked.lower() for word in tool["name"].lower().split("_"))


def _call(tool: Mapping[str, Any], asked: str) -> str:
    """A call with the numbers and names of a question for arguments."""
    numbers, names = _numbers(asked), _names(asked)
    wanted = tool.get("parameters", {}).get("properties", {})
    arguments = {name: _argument(schema, numbers, names) for name, schema in wanted.items()}
    body = json.dumps({"name": tool["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _argument(schema: Mapping[str, Any], numbers: Iterator[int], names: Iterator[str]) -> Any:
    match schema.get("type"):
        case "integer" | "number":
            return next(numbers)
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return {}
    return schema["enum"][0] if "enum" in schema else next(names)


def _numbers(asked: str) -> Iterator[int]:
    yield from map(int, re.findall(r"\d+", asked))
    while True:
        yield 3


def _names(asked: str) -> Iterator[str]:
    yield from re.findall(r"'(.+?)'", asked)
    yield from re.findall(r"(?<=\s)[A-Z]\w+(?:,? [A-Z]\w*)*", asked)
    while True:
        yield (re.findall(r"\w+", asked) or ["nothing"])[-1]


# --- How it is said ---


def _script(*, slips: bool) -> Script:
    def say(ids: Sequence[int]) -> list[float]:
        start = len(ids) - ids[::-1].index(IDS[START]) + len("assistant\n")
        written = ids[start:]
        logits = [0.0] * len(PIECES)
        # Where a grammar forbids all that makes sense: to an end, the shortest way.
        for rank, piece in enumerate((END, *'"}],: 1')):
            logits[IDS[piece]] = 16.0 - 2.0 * rank
        for rank, (right, wrong) in enumerate(_planned(tuple(ids[:start]))):
            spoken = zip(written, right, wrong, strict=False)
            if len(written) < len(right) and all(each in two for each, *two in spoken):
                own, other = (wrong, right) if slips else (right, wrong)
                sure = 60.0 - 4.0 * rank
                for piece, logit in ((other, sure - 3.0), (own, sure)):  # if they agree, it is the latter
                    logits[piece[len(written)]] = max(logits[piece[len(written)]], logit)
        return logits

    return say


@functools.lru_cache(maxsize=256)
def _planned(prompt: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Every answer to a prompt, and the same with slips."""
    slip = functools.partial(re.sub, rf"\b({'|'.join(SLIPS)})\b", lambda word: SLIPS[word[0]])
    told = answers("".join(PIECES[each] for each in prompt))
    return [(_cut(each + END), _cut(slip(each) + END)) for each in told]


def _cut(text: str) -> list[int]:
    return [IDS[each] for each in re.findall("|".join(map(re.escape, TAGS)) + "|.", text, re.DOTALL)]
