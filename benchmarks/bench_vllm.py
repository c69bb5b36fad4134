"""Delegation in vLLM beside vLLM itself, in one run: `python -m benchmarks.bench_vllm`, or `make bench-vllm`.

For each pair: calibrate a policy for each share, then serve the same prompts with the reasoner alone, the
base alone, vLLM's lossless speculative decoding and delegation, each engine in a process of its own, and
with the transformers pair. Nothing here is a test; what a machine reaches, it reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import machine, show, vllm_show
from benchmarks.claims import Claim
from benchmarks.subjects import PAIRS, SHARES
from benchmarks.vllm_figures import Lap, Ratio, Row, claims, ratios, rows, same
from benchmarks.vllm_load import Method, Plan
from benchmarks.vllm_pair import ENDING, TRANSFORMERS, Found, Wanted
from delegate_llm import DelegationPolicy
from delegate_llm.vllm_plugin.versions import installed
from delegate_llm.vllm_plugin.wire import BRIEF, IDLE, KEY, SALT, TRACED, to_wire

__all__ = ("Result", "engines", "main")

LOSSLESS: Final = "lossless"
_LEAST: Final = {"tiny": 128}
"""Requests of a lap: where answers end of themselves, the last ones run alone, and more outweigh."""
_FEW: Final = 4
_OPENMP: Final = Path(sys.prefix) / "lib" / "libiomp5.so"


@dataclass
class Result:
    """All that was measured on one pair in one dtype."""

    pair: str
    dtype: str
    tokens: int
    ends: bool
    """Whether answers end where the models end them, and `tokens` are the most."""
    ahead: int
    thresholds: dict[str, float]
    rows: list[Row]
    ratios: list[Ratio]
    claims: list[Claim]
    same: dict[str, dict[int, float]]
    """For two methods and a concurrency, the fraction of prompts with the same tokens and takeovers."""

    @property
    def length(self) -> str:
        """Of answers, in words."""
        return f"up to {self.tokens} tokens" if self.ends else f"{self.tokens} tokens"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self)
        for row, each in zip(plain["rows"], self.rows, strict=True):
            row |= {"tokens_per_second": each.speed, "step_ms": each.step_ms}
        for claim, one in zip(plain["claims"], self.claims, strict=True):
            claim["holds"] = one.holds
        return plain


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    environment = _environment(given)
    header = {**machine.describe(), "vLLM": str(installed()), "set": _told(environment)}
    show.header(header)
    results = []
    for name in PAIRS if given.pair == "all" else (given.pair,):
        for dtype in given.dtype.split(","):
            results.append(measure(name, dtype, given, environment))
            vllm_show.result(results[-1])
    if given.json:
        report = {"machine": header, "results": [each.as_json() for each in results]}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    if given.plot:
        vllm_show.plot(results, header, given.plot)


def measure(name: str, dtype: str, given: argparse.Namespace, environment: Mapping[str, str]) -> Result:
    """Measure one pair in one dtype."""
    middle = given.shares[len(given.shares) // 2]
    load = {
        "tokens": given.tokens,
        "levels": given.concurrency,
        "least": given.least or _LEAST.get(name, _FEW),
    }
    _say(f"{name} {dtype}: loading")
    wanted = Wanted(
        pair=name,
        dtype=dtype,
        device=given.device,
        threads=given.threads,
        shares=given.shares,
        share=middle,
        ahead=given.k,
        ends=name in ENDING,
        engine=given.engine_args,
        repeats=given.repeats,
        **load,
    )
    found = Found(**_run("benchmarks.vllm_pair", asdict(wanted), environment))
    laps = [Lap.of(each) for each in found.laps]
    # Engines take turns, each started anew: they are minutes apart, and machines drift.
    turns = product(range(given.repeats), engines(found, middle).items())
    for repeat, (engine, (settings, methods)) in turns:
        _say(f"{name} {dtype}: starting {engine} ({repeat + 1}/{given.repeats})")
        plan = Plan(arguments=settings, methods=methods, prompts=found.prompts, stops=found.stops, **load)
        laps += [Lap.of(each) for each in _run("benchmarks.vllm_load", asdict(plan), environment)]
    every = rows(laps)
    beside = ratios(every, LOSSLESS, given.k)
    alike = {
        "base and delegation budget 0": ("base", "delegation budget 0"),
        "reasoner and lossless": ("reasoner", LOSSLESS),
        "transformers and vLLM": (f"{TRANSFORMERS} {middle:.2f}", f"delegation {middle:.2f}"),
    }
    return Result(
        pair=name,
        dtype=dtype,
        tokens=given.tokens,
        ends=bool(found.stops),
        ahead=given.k,
        thresholds=found.thresholds,
        rows=every,
        ratios=beside,
        claims=claims(beside),
        same={text: same(laps, *both) for text, both in alike.items()},
    )


def engines(found: Found, middle: float) -> dict[str, tuple[dict[str, Any], list[Method]]]:
    """Each engine's arguments, and the requests that it gets; they differ in nothing else.

    Args:
        found: Of the pair.
        middle: The share at which what is measured at one share only is measured.
    """
    delegating = found.arguments
    lossless = {name: value for name, value in delegating.items() if name != "worker_cls"}
    extra = {k: v for k, v in delegating["additional_config"].items() if k != "delegation"}
    lossless["additional_config"] = extra
    plain = {name: value for name, value in lossless.items() if name != "speculative_config"}

    def asks(policy: DelegationPolicy, **flags: Any) -> dict[str, Any]:
        return {KEY: to_wire(policy), **flags}

    policies = {share: DelegationPolicy(threshold=level) for share, level in found.thresholds.items()}
    ours = [
        *(
            Method(f"delegation {float(share):.2f}", asks(policy, **{TRACED: 1}))
            for share, policy in policies.items()
        ),
        Method(f"delegation {middle:.2f} no trace", asks(policies[str(middle)])),
        # As the package sends requests that never listen to the reasoner.
        Method(
            "delegation budget 0",
            asks(DelegationPolicy(budget=0), **{TRACED: 1, IDLE: 1, BRIEF: 1}),
            salt=SALT,
        ),
    ]
    return {
        "reasoner": (plain, [Method("reasoner", {}, forwards=1)]),
        "base": ({**plain, "model": found.base}, [Method("base", {}, forwards=0)]),
        LOSSLESS: (lossless, [Method(LOSSLESS, {})]),
        "delegation": (delegating, ours),
    }


def _run(module: str, plan: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """What a module makes of a plan, in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work) / "plan.json", Path(work) / "result.json"
        source.write_text(json.dumps(plan))
        done = subprocess.run(
            [sys.executable, "-m", module, str(source), str(target)],
            env={**os.environ, **environment},
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode:
            msg = f"{module} ended with status {done.returncode}; what it said stands above"
            raise SystemExit(msg)
        return json.loads(target.read_text())


def _environment(given: argparse.Namespace) -> dict[str, str]:
    """What is set for all processes alike."""
    found = {"OMP_NUM_THREADS": str(given.threads), "PYTHONWARNINGS": "ignore"}
    if not given.no_preload and not torch.cuda.is_available() and _OPENMP.exists():
        before = os.environ.get("LD_PRELOAD")
        found["LD_PRELOAD"] = f"{_OPENMP}:{before}" if before else str(_OPENMP)
        # As vLLM sets for its workers: the threads wait awake for 5 ms, not for 200.
        found |= {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    return found


def _told(environment: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value.replace(sys.prefix, '...')}" for key, value in environment.items())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pair", default="all", help=f"{', '.join(PAIRS)}, all, or BASE,REASONER")
    parser.add_argument("--dtype", default="float32", help="comma-separated")
    parser.add_argument("--device", help='of the transformers pair, such as "cuda"; the best there is')
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of a CPU")
    parser.add_argument("--k", type=int, default=8, help="positions that the base drafts, for lossless too")
    parser.add_argument("--shares", type=_list_of(float), default=list(SHARES), help="comma-separated")
    parser.add_argument("--concurrency", type=_list_of(int), default=[1, 4, 16, 32], help="comma-separated")
    parser.add_argument(
        "--tokens",
        type=int,
        default=64,
        help="generated for each request; of tiny, whose answers end, at most",
    )
    parser.add_argument(
        "--least",
        type=int,
        help=f"requests of a lap, where fewer are in flight; {_FEW}, of tiny {_LEAST['tiny']}",
    )
    parser.add_argument("--repeats", type=int, default=2, help="of which the median counts")
    parser.add_argument("--engine-args", type=json.loads, default={}, help="JSON, for all engines of vLLM")
    parser.add_argument("--no-preload", action="store_true", help="leave out Intel's OpenMP on a CPU")
    parser.add_argument("--quick", action="store_true", help="16 tokens, 1 and 4 at once, once: no result")
    parser.add_argument("--json", type=Path, help="file for everything that was measured")
    parser.add_argument("--plot", type=Path, help="PNG file for the picture")
    given = parser.parse_args(arguments)
    if given.quick:
        given.tokens, given.concurrency, given.repeats = 16, [1, 4], 1
    return given


def _list_of(kind: type[float]) -> Any:
    """A parser of comma-separated numbers."""
    return lambda text: [kind(each) for each in text.split(",")]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
