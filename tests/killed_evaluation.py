"""A run of `evaluate` that is killed again and again: `python killed_evaluation.py FOLDER KILLS SEED`.

Each child takes the run up and is killed after a random while; the last one may finish. Prints how many
were killed before they were done. With KILLS of 0 it runs through.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from delegate_llm.cli.loading import BASE, REASONER
from delegate_llm.evaluation.evaluating import Plan, evaluate
from delegate_llm.evaluation.run_summary import summarise
from delegate_llm.evaluation.tasks import shipped_tasks
from delegate_llm.pairs.loading import load_transformers_pair

PLAN = Plan(
    models={"base": BASE, "reasoner": REASONER},
    tasks=shipped_tasks(18),
    calibration=shipped_tasks(16, split="calibration"),
    shares=[0.05],
    samples=2,
    batch=3,
    settings={"max_tokens": 96, "temperature": 0.7},
)


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    arms = evaluate(folder, PLAN, lambda: load_transformers_pair(BASE, REASONER))
    summarise(folder, PLAN, arms)


def killed(folder: Path, after: float) -> bool:
    """Whether a child that takes the run up was killed before it was done."""
    child = os.fork()
    if not child:
        run(folder)
        os._exit(0)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    count = sum(killed(folder, random.uniform(0.1, 1.2)) for _ in range(kills))
    sys.stdout.write(f"{count}\n")
    run(folder)


if __name__ == "__main__":
    main()
