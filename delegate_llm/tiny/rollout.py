"""Many answers at once: how a model attempts problems, in text or with tools.

All rows advance together, one token a step, over one cache. Where a row has called a tool, the
tool's reply is fed to it token by token while the others go on speaking, so that no turn is ever
computed twice. Rows that have ended are dropped.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from delegate_llm.pairs.cache import cache_argument
from delegate_llm.tiny.agent import execute, parse_calls
from delegate_llm.tiny.authors import Format, opening, tool_reply
from delegate_llm.tiny.checkpoint import Model, Tokenizer
from delegate_llm.tiny.problems import Problem, grade
from delegate_llm.tiny.tokenizer import system_prompt
from delegate_llm.tiny.training import Example, shared_prefix

__all__ = ["Attempt", "attempt"]

_LONGEST: Final = 160
"""Spoken tokens after which a row is given up: twice what the longest good answer needs."""
_ROWS: Final = 512
"""Rows that advance together; the cache of more would not fit the processor's."""

Reply = Callable[[list[int]], list[int] | None]
"""Takes a finished turn; gives the tokens that come before the next, or None at the end."""


class Attempt(NamedTuple):
    """A problem with a model's answer to it."""

    problem: Problem
    example: Example
    correct: bool


@dataclass
class _Row:
    """One sequence on its way."""

    ids: list[int]
    spoken: list[bool]
    reply: Reply
    ended: bool = False
    turn: list[int] = field(default_factory=list)
    waiting: deque[int] = field(default_factory=deque)
    left: int = _LONGEST

    def take(self, drawn: int, eos: int) -> None:
        """Appends the drawn token, or the next of a tool's reply while there is one."""
        says = not self.waiting
        token = drawn if says else self.waiting.popleft()
        self.ids.append(token)
        self.spoken.append(says)
        if says:
            self.turn.append(token)
            self.left -= 1
        if says and token == eos:
            answer = self.reply(self.turn)
            self.ended = answer is None
            self.waiting.extend(answer or [])
            self.turn = []
        self.ended = self.ended or not self.left


def attempt(
    model: Model,
    tokenizer: Tokenizer,
    asked: Sequence[Problem],
    form: Format,
    *,
    temperature: float,
    seed: int,
) -> list[Attempt]:
    """Lets a model answer problems.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        asked: The problems.
        form: Whether to answer in text or to call tools.
        temperature: 0 for the likeliest token always.
        seed: Names the draws.

    Returns:
        An attempt for each problem, in order.
    """
    draw = partial(_draw, temperature, torch.Generator().manual_seed(seed))
    prefix = tokenizer(system_prompt(tokenizer, form)).input_ids
    attempts: list[Attempt] = []
    for index in range(0, len(asked), _ROWS):
        chunk = asked[index : index + _ROWS]
        prompts = tokenizer([opening(problem) for problem in chunk]).input_ids
        rows = [_Row(ids, [False] * len(ids), _replier(tokenizer, form)) for ids in prompts]
        _rollout(model, rows, prefix, tokenizer.eos_token_id, draw)
        for problem, row in zip(chunk, rows, strict=True):
            attempts.append(
                Attempt(problem, Example(row.ids, row.spoken), _is_right(tokenizer, problem, row))
            )
    return attempts


def _replier(tokenizer: Tokenizer, form: Format) -> Reply:
    """The other side of the chat."""

    def reply(turn: list[int]) -> list[int] | None:
        if form == "text":
            return None
        try:
            calls = parse_calls(tokenizer.decode(turn))
            results = [execute(name, arguments) for name, arguments in calls]
        except ValueError:
            return None
        return tokenizer(tool_reply(results)).input_ids if results else None

    return reply


def _is_right(tokenizer: Tokenizer, problem: Problem, row: _Row) -> bool:
    """Whether the last turn was ended and names the answer."""
    said = [token for token, spoken in zip(row.ids, row.spoken, strict=True) if spoken]
    last = tokenizer.decode(said).removesuffix("<|im_end|>").split("<|im_end|>")[-1]
    return said[-1] == tokenizer.eos_token_id and "<tool_call>" not in last and grade(problem, last)


@torch.inference_mode()
def _rollout(
    model: Model,
    rows: list[_Row],
    prefix: list[int],
    eos: int,
    draw: Callable[[Tensor], list[int]],
) -> None:
    """Takes every row, in place, from its prompt to its end."""
    live = rows
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[eos] * (width - len(row.ids)) + row.ids for row in rows])  # [R, T]
    mask = torch.tensor(  # [R, prefix + T]: prompts are padded on the left
        [[1] * len(prefix) + [0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows]
    )
    cache = shared_prefix(model, prefix, len(rows))
    slot = cache_argument(model)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, len(prefix) :]
    while live:
        logits = _forward(model, ids, mask, positions, {slot: cache})
        for row, token in zip(live, draw(logits), strict=True):
            if not row.ended:
                row.take(token, eos)
        running = [index for index, row in enumerate(live) if not row.ended]
        if len(running) < 0.8 * len(live):  # not at once: dropping rows copies the cache
            keep = torch.tensor(running, dtype=torch.long)
            cache.batch_select_indices(keep)
            mask, live = mask[keep], [live[index] for index in running]
        ids = torch.tensor([[row.ids[-1]] for row in live])
        positions = torch.tensor([[len(prefix) + len(row.ids) - 1] for row in live])
        mask = torch.cat([mask, torch.ones(len(live), 1, dtype=mask.dtype)], dim=1)


def _forward(
    model: Model, ids: Tensor, mask: Tensor, positions: Tensor, cache: dict[str, DynamicCache]
) -> Tensor:
    """Logits after the last token of each row, [R, V]; the cache grows in place."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        logits_to_keep=1,
        **cache,
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def _draw(temperature: float, generator: torch.Generator, logits: Tensor) -> list[int]:
    """A token for each row."""
    if temperature > 0:
        weights = (logits / temperature).softmax(-1)
        drawn = torch.multinomial(weights, 1, generator=generator)[:, 0]
    else:
        drawn = logits.argmax(-1)
    tokens: list[int] = drawn.tolist()
    return tokens
