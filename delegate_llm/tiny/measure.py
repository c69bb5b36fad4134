"""How often a model is right on fresh problems: `python -m delegate_llm.tiny.measure`.

Weights are loaded as they ship, rounded to bfloat16, and run in float32.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformers.utils import logging

from delegate_llm.tiny import path
from delegate_llm.tiny.authors import FORMATS
from delegate_llm.tiny.checkpoint import load
from delegate_llm.tiny.problems import problems
from delegate_llm.tiny.rollout import attempt

__all__ = ["accuracies"]


def accuracies(folder: Path, n: int, *, seed: int) -> dict[str, float]:
    """The share of `n` test problems solved, by format and way of decoding, each from 0 to 1."""
    model, tokenizer = load(folder)
    asked = problems(n, seed=seed, split="test")
    scores = {}
    for form in FORMATS:
        for decoding, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            tried = attempt(model, tokenizer, asked, form, temperature=temperature, seed=seed)
            scores[f"{form} {decoding}"] = sum(answer.correct for answer in tried) / n
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of accuracies."""
    parser = argparse.ArgumentParser(description="Measures models on fresh test problems.")
    parser.add_argument("folders", type=Path, nargs="*", help="default: the two that ship")
    parser.add_argument("-n", type=int, default=500, help="problems in each format")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    for folder in options.folders or [path("base"), path("reasoner")]:
        scores = accuracies(folder, options.n, seed=options.seed)
        print(folder.name, *(f"{name} {score:.1%}" for name, score in scores.items()), sep="  ")


if __name__ == "__main__":
    main()
