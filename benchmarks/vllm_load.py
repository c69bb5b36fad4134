"""Load on one engine of vLLM, in a process of its own: `python -m benchmarks.vllm_load PLAN RESULT`.

Two engines side by side would share the cores, and what one leaves behind would slow the next; so the
benchmark starts this once for each engine, one after another. Both files are JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.vllm_figures import Answer, Counts, Lap
from delegate_llm.vllm_plugin.wire import COLUMNS, TRACED, told

__all__ = ("Method", "Plan", "counted", "requests")

_SETTLES: Final = 0.1  # seconds in which the last step's counts come in
_WARM: Final = 8  # tokens of each request that warms an engine up
_names: Final = itertools.count()
_Read = Callable[[], Answer]


@dataclass(frozen=True)
class Method:
    """One kind of request."""

    name: str
    extra: dict[str, Any]
    """Arguments for the worker; none where the worker is vLLM's own."""
    salt: str | None = None
    """Of the prompt's place in the cache."""
    forwards: int | None = None
    """Of the reasoner for every token; None where that is to be counted."""


@dataclass(frozen=True)
class Plan:
    """An engine, and the load on it."""

    arguments: dict[str, Any]
    """Of vLLM's `AsyncEngineArgs`."""
    methods: list[Method]
    """They take turns at each concurrency."""
    prompts: list[list[int]]
    stops: list[int]
    """Tokens that end an answer; if there are none, all have the same length."""
    tokens: int
    """Of each answer, at most."""
    levels: list[int]
    """Requests in flight."""
    least: int
    """Requests of a lap, where fewer are in flight."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Plan:
        """From `dataclasses.asdict` and JSON."""
        return cls(**{**plain, "methods": [Method(**each) for each in plain["methods"]]})


def requests(level: int, least: int) -> int:
    """How many requests a lap has: whole waves, so that the last is as full as the first."""
    return level * -(-least // level)


def counted(stats: Any) -> Counts:
    """A step in numbers, from vLLM's scheduler."""
    drafts = getattr(stats, "spec_decoding_stats", None)
    if drafts is None:
        return Counts(steps=1)
    return Counts(
        steps=1,
        drafts=drafts.num_drafts,
        drafted=drafts.num_draft_tokens,
        accepted=drafts.num_accepted_tokens,
        # A draft that was accepted at its last position was accepted at all.
        whole=drafts.num_accepted_tokens_per_pos[-1],
    )


def decided(flat: Any, start: float, arrivals: Sequence[float], method: Method, tokens: list[int]) -> Answer:
    """An answer with what was decided in it, if that was asked for.

    Args:
        flat: Log-probability columns `(ids, numbers)` of each token; empty if not traced.
        start: When the request was made, in seconds.
        arrivals: When its tokens came.
        method: Of the request.
        tokens: Of the answer.
    """
    first, last = arrivals[0] - start, arrivals[-1] - start
    if not flat:
        forwards = None if method.forwards is None else method.forwards * len(tokens)
        return Answer(tokens, first, last, forwards=forwards)
    every = [told(ids, numbers) for ids, numbers in flat]
    heard = [each for each in every if each.takeover]
    return Answer(
        tokens,
        first,
        last,
        takeovers=[at for at, each in enumerate(every) if each.takeover],
        changed=sum(each.token != each.base_token for each in heard),
        asked=sum(each.asked for each in every),
        forwards=sum(each.read > 0 for each in every),
    )


async def load(plan: Plan) -> list[Lap]:
    """Start the engine, warm it up, and serve every lap."""
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415 - only in the process that serves
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415 - likewise
    from vllm.v1.metrics.loggers import StatLoggerBase  # noqa: PLC0415 - likewise

    total = [Counts()]

    class Counter(StatLoggerBase):  # type: ignore[misc]
        """Adds up what vLLM would log."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

        def log_engine_initialized(self) -> None: ...

        def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                total[0] += counted(scheduler_stats)

    class Engine(AsyncLLM):  # type: ignore[misc]
        """Is shut below; vLLM's finalizer would do it again where half the interpreter is gone, and fail."""

        def __del__(self) -> None: ...

    engine = Engine.from_engine_args(AsyncEngineArgs(**plan.arguments), stat_loggers=[Counter])
    try:
        for method in plan.methods:
            count = max(plan.levels)
            warming = partial(_answer, engine, method, tokens=min(_WARM, plan.tokens), stops=[])
            await _serve(warming, plan.prompts[:count], count)
        laps = []
        for level in plan.levels:
            for method in plan.methods:
                prompts = plan.prompts[: requests(level, plan.least)]
                await asyncio.sleep(_SETTLES)
                total[0] = Counts()
                began = time.perf_counter()
                one = partial(_answer, engine, method, tokens=plan.tokens, stops=plan.stops)
                said = await _serve(one, prompts, level)
                seconds = time.perf_counter() - began
                answers = [each() for each in said]
                await asyncio.sleep(_SETTLES)
                laps.append(Lap(method.name, level, seconds, answers, total[0]))
                speed = sum(len(each.tokens) for each in answers) / seconds
                _say(f"{method.name}, {level} at once: {speed:.1f} tokens/s")
        return laps
    finally:
        engine.shutdown()


async def _serve(
    answer: Callable[[list[int]], Awaitable[_Read]], prompts: Sequence[list[int]], level: int
) -> list[_Read]:
    """Answers to all prompts, `level` of them in flight."""
    free = asyncio.Semaphore(level)

    async def one(prompt: list[int]) -> _Read:
        async with free:
            return await answer(prompt)

    return list(await asyncio.gather(*map(one, prompts)))


async def _answer(engine: Any, method: Method, prompt: list[int], *, tokens: int, stops: list[int]) -> _Read:
    """Have a prompt answered; what was decided is read when no other answer waits."""
    from vllm import SamplingParams  # noqa: PLC0415 - only in the process that serves
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415 - likewise

    traced = bool(method.extra.get(TRACED))
    sampling = SamplingParams(
        temperature=0,
        max_tokens=tokens,
        ignore_eos=True,  # whatever a checkpoint says ends it, all engines get the same
        stop_token_ids=stops,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        logprobs=COLUMNS - 1 if traced else None,
        flat_logprobs=traced,
        extra_args=dict(method.extra),
    )
    given: dict[str, Any] = {"prompt_token_ids": prompt}
    if method.salt is not None:
        given["cache_salt"] = method.salt
    said: list[int] = []
    arrivals: list[float] = []
    columns: list[tuple[Sequence[int], Sequence[float]]] = []
    began = time.perf_counter()
    stream = engine.generate(given, sampling, f"request-{next(_names)}")
    async with contextlib.aclosing(stream) as outputs:
        async for output in outputs:
            part = output.outputs[0]
            said += part.token_ids
            if part.token_ids:
                arrivals.append(time.perf_counter())
            if traced:
                flat = part.logprobs
                columns += [
                    (flat.token_ids[start:end], flat.logprobs[start:end])
                    for start, end in zip(flat.start_indices, flat.end_indices, strict=True)
                ]
    return partial(decided, columns, began, arrivals, method, said)


def main() -> None:
    """Read a plan, serve it, and write the laps."""
    from delegate_llm.pairs.vllm_engine import environment  # noqa: PLC0415 - only in the process that serves

    source, target = map(Path, sys.argv[1:])
    plan = Plan.of(json.loads(source.read_text()))
    with environment():
        laps = asyncio.run(load(plan))
    target.write_text(json.dumps([asdict(each) for each in laps]))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
