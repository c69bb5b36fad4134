"""What LangChain costs: the chat model's routes against the pair itself, on answers of two lengths.

The pair is scripted, so that the models take next to nothing and the difference is not lost in their noise;
in lock-step every token is a step and, streamed, a chunk of its own, which is the most that a layer can be
asked to do. From the two lengths follow the cost of a call and the cost of a token.

    python -m benchmarks.layer [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe
from delegate_llm import DelegatedChatModel, DelegationPolicy, Pair
from delegate_llm.pairs.scripted import scripted_pair

LENGTHS: Final = (16, 512)
"""Tokens of an answer."""
GOALS: Final = {"ms a call": 5.0, "ms a token": 0.1}

_PIECES: Final = (*"abcdefgh ", "?", "<end>")
_PROMPT: Final = [{"role": "user", "content": "abc?"}]


def pair() -> Pair:
    """Two scripts that write letters in turn, without end, and disagree at every twentieth."""

    def script(shift: int) -> Callable[[Sequence[int]], Sequence[float]]:
        def say(ids: Sequence[int]) -> Sequence[float]:
            at = len(ids)
            chosen = (at + (shift if at % 20 == 0 else 0)) % 8
            return [9.0 if each == chosen else 0.0 for each in range(len(_PIECES))]

        return say

    return scripted_pair(
        script(0), script(3), _PIECES, eos=len(_PIECES) - 1, policy=DelegationPolicy(threshold=4)
    )


def routes(
    model: DelegatedChatModel, loop: asyncio.AbstractEventLoop
) -> dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]]:
    """Each route into the chat model, with what it is to be compared with."""
    own = model.load()
    settings = {"schedule": "lockstep"}

    def generate(count: int) -> Any:
        return own.generate(_PROMPT, max_tokens=count, **settings)

    def stream(count: int) -> Any:
        return list(own.stream(_PROMPT, max_tokens=count, **settings))

    async def astream(count: int) -> Any:
        return [each async for each in model.astream("abc?", max_tokens=count, **settings)]

    def run(call: Any) -> Any:
        return loop.run_until_complete(call)

    return {
        "invoke": (generate, lambda count: model.invoke("abc?", max_tokens=count, **settings)),
        "ainvoke": (generate, lambda count: run(model.ainvoke("abc?", max_tokens=count, **settings))),
        "stream": (stream, lambda count: list(model.stream("abc?", max_tokens=count, **settings))),
        "astream": (stream, lambda count: run(astream(count))),
    }


def measure(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds that each route takes over the pair: a call, and a token."""
    rows = []
    loop = asyncio.new_event_loop()
    for name, (plain, layered) in routes(DelegatedChatModel(pair=pair()), loop).items():
        over = []
        for count in LENGTHS:
            plain(count), layered(count)  # once to warm up
            pairs = [(_seconds(plain, count), _seconds(layered, count)) for _ in range(repeats)]
            over.append(1e3 * statistics.median(mine - its for its, mine in pairs))
        token = (over[1] - over[0]) / (LENGTHS[1] - LENGTHS[0])
        rows.append({"route": name, "ms a call": over[0] - LENGTHS[0] * token, "ms a token": token})
    loop.close()
    return rows


def _seconds(run: Callable[[int], Any], count: int) -> float:
    started = time.perf_counter()
    run(count)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.repeats)
    print(f"{'route':<10}{'ms a call':>12}{'ms a token':>12}")
    for row in rows:
        print(f"{row['route']:<10}{row['ms a call']:>12.2f}{row['ms a token']:>12.4f}")
    print("goal      " + "".join(f"{'< ' + format(goal, 'g'):>12}" for goal in GOALS.values()))
    if options.json:
        options.json.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
