"""Peak memory of a batch, each size in a process of its own, for a peak never comes down again."""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import subjects
from benchmarks.methods import MIDDLE

__all__ = ("SIZES", "growth")

SIZES: Final = (4, 8, 16)
_MIB: Final = 1 << 20


def growth(name: str, *, dtype: str, device: str | None, tokens: int, threads: int) -> list[dict[str, Any]]:
    """What batches of growing size need on top of the loaded models.

    Returns:
        For each size: `batch`, `tokens` (prompts included), `mib` at the peak.
    """
    command = [sys.executable, "-m", "benchmarks.memory", name, "--dtype", dtype]
    command += ["--tokens", str(tokens), "--threads", str(threads)]
    command += ["--device", device] if device else []
    found = []
    for size in SIZES:
        print(f"memory of a batch of {size}", file=sys.stderr, flush=True)
        done = subprocess.run([*command, "--batch", str(size)], check=True, stdout=subprocess.PIPE)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    """Measure one batch, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", choices=subjects.PAIRS)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    subject = subjects.load(
        given.pair, dtype=given.dtype, device=given.device, prompts=given.batch, tokens=given.tokens
    )
    settings: dict[str, Any] = {"policy": subject.policies[MIDDLE], "ignore_eos": True}
    subject.pair.generate(subject.prompts[0], max_tokens=8, **settings)  # what only the first call needs
    before = _start()
    subject.pair.generate_batch(subject.prompts, max_tokens=subject.tokens, **settings)
    tokens = sum(map(len, subject.prompts)) + given.batch * subject.tokens
    print(json.dumps({"batch": given.batch, "tokens": tokens, "mib": (_peak() - before) / _MIB}))


def _start() -> int:
    """Forget the peak so far; bytes in use now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        # What the allocator holds from before would hide what small batches need.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)
        refs.write_text("5")
    return _status("VmRSS") or _peak()


def _peak() -> int:
    """Bytes in use at the peak."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # getrusage would count the parent's peak as this process's own on Linux, where VmHWM does not.
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    """A size of this process in bytes, on Linux."""
    status = Path("/proc/self/status")
    match = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(match[1]) * 1024 if match else None


if __name__ == "__main__":
    main()
