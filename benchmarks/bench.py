"""Speed beside the peers, in one run: `python -m benchmarks.bench --help`, or `make bench`.

For each pair and dtype: calibrate a policy for each share, check that drafts give lock-step's very tokens,
let all methods take turns, and compare. Nothing here is a test; what a machine reaches, it reaches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers.utils import logging as transformers_logging

from benchmarks import machine, memory, show, subjects
from benchmarks.claims import Claim, claims
from benchmarks.methods import batched_methods, single_methods
from benchmarks.subjects import SHARES, Subject
from benchmarks.timing import Row, take_turns

_CHECKED: Final = 32  # tokens of each prompt that are compared before anything is timed


@dataclass
class Result:
    """All that was measured on one pair in one dtype."""

    pair: str
    dtype: str
    tokens: int
    thresholds: dict[float, float]
    single: list[Row]
    batched: list[Row]
    equal: dict[float, float]
    """For each share, the fraction of prompts for which drafts and lock-step gave the same tokens."""
    equal_batched: float
    """The same for a batch of drafts and drafts one by one."""
    memory: list[dict[str, Any]]
    claims: list[Claim] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain data, without the answers themselves."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("single", "batched", "claims")},
            "single": [_plain(row) for row in self.single],
            "batched": [_plain(row) for row in self.batched],
            "claims": [{**vars(each), "holds": each.holds} for each in self.claims],
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    header, results = machine.describe(), []
    show.header(header)
    for name in subjects.PAIRS if given.pair == "all" else (given.pair,):
        for dtype in given.dtype.split(","):
            results.append(measure(name, dtype, given))
            show.result(results[-1])
    if given.json:
        report = {"machine": header, "results": [each.as_json() for each in results]}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    if given.plot:
        show.plot(results, header, given.plot)


def measure(name: str, dtype: str, given: argparse.Namespace) -> Result:
    """Measure one pair in one dtype."""
    _say(f"{name} {dtype}: loading and calibrating")
    count = max(given.prompts, given.batch)
    subject = subjects.load(name, dtype=dtype, device=given.device, prompts=count, tokens=given.tokens)
    prompts = [[each] for each in subject.prompts[: given.prompts]]
    if dtype == "float32":
        _check(subject, prompts)
    single = take_turns(subject.pair, single_methods(subject), prompts, subject.tokens, given.repeats)
    batched = take_turns(
        subject.pair,
        batched_methods(subject),
        [subject.prompts[: given.batch]],
        min(subject.tokens, given.batch_tokens),
        given.batch_repeats,
    )
    result = Result(
        pair=name,
        dtype=dtype,
        tokens=subject.tokens,
        thresholds={share: policy.threshold for share, policy in subject.policies.items()},
        single=single,
        batched=batched,
        equal={share: _equal(single, f"draft {share:.2f}", f"lockstep {share:.2f}") for share in SHARES},
        equal_batched=_equal(batched, "draft batched", "draft one by one"),
        memory=[] if given.no_memory else _memory(name, dtype, given),
    )
    if name == "smollm2":  # the claims are about models of that size
        result.claims = claims(result.single, result.batched, dtype)
    return result


def _memory(name: str, dtype: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    return memory.growth(
        name, dtype=dtype, device=given.device, tokens=given.batch_tokens, threads=given.threads
    )


def _check(subject: Subject, calls: list[list[list[int]]]) -> None:
    """Stop with an error unless drafts give lock-step's tokens, before a speed is worth anything."""
    methods = {each.name: each for each in single_methods(subject)}
    for share in SHARES:
        _say(f"checking that drafts equal lock-step at share {share}")
        for prompts in calls:
            fast, reference = (
                methods[f"{schedule} {share:.2f}"].run(prompts, min(_CHECKED, subject.tokens))
                for schedule in ("draft", "lockstep")
            )
            if fast != reference:
                msg = (
                    f"draft differs from lockstep at share {share}, prompt {prompts[0]}:\n{fast}\n{reference}"
                )
                raise SystemExit(msg)


def _equal(rows: list[Row], fast: str, reference: str) -> float:
    """The fraction of prompts on which two methods gave the same tokens."""
    found = {row.name: row.answers for row in rows}
    same = [a == b for a, b in zip(found[fast], found[reference], strict=True)]
    return sum(same) / len(same)


def _plain(row: Row) -> dict[str, Any]:
    return {
        **{key: value for key, value in vars(row).items() if key != "answers"},
        "tokens_per_second": row.speed,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pair", choices=(*subjects.PAIRS, "all"), default="all")
    parser.add_argument("--dtype", default="float32,bfloat16", help="comma-separated")
    parser.add_argument("--device", help='such as "cuda"; the best there is by default')
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="generated for each prompt")
    parser.add_argument("--prompts", type=int, default=8, help="answered one at a time")
    parser.add_argument("--repeats", type=int, default=2, help="of which the median counts")
    parser.add_argument("--batch", type=int, default=16, help="prompts in a batch")
    parser.add_argument("--batch-tokens", type=int, default=64, help="generated for each of them")
    parser.add_argument("--batch-repeats", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of batches")
    parser.add_argument("--quick", action="store_true", help="32 tokens, 2 prompts, once: a try, no result")
    parser.add_argument("--json", type=Path, help="file for everything that was measured")
    parser.add_argument("--plot", type=Path, help="PNG file for the picture")
    given = parser.parse_args(arguments)
    if given.quick:
        given.tokens, given.prompts, given.batch_tokens = 32, 2, 16
        given.repeats, given.batch_repeats, given.no_memory = 1, 1, True
    return given


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
