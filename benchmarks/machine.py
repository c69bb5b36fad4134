"""What a figure was measured on: without it, a figure says nothing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from delegate_llm import __version__

__all__ = ("describe",)


def describe() -> dict[str, str]:
    """Machine, versions and date, as they stand in the header of every result."""
    facts = {
        "cpu": f"{_cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": (
            f"delegate-llm {__version__}, Python {platform.python_version()}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        ),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
