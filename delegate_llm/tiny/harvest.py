"""A model's own successes: what the reasoner learns from.

Each problem is attempted, by sampling, until it is solved or the tries run out; what the checker
found right is kept. Trying again gives hard problems their part in the harvest, which would else be
nearly all easy ones.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from delegate_llm.tiny.authors import Format
from delegate_llm.tiny.checkpoint import Model, Tokenizer
from delegate_llm.tiny.problems import Problem
from delegate_llm.tiny.rollout import attempt
from delegate_llm.tiny.training import Example

__all__ = ["harvest", "read", "write"]


def harvest(
    model: Model,
    tokenizer: Tokenizer,
    asked: Sequence[Problem],
    form: Format,
    *,
    tries: int,
    seed: int,
) -> list[Example]:
    """Verified answers, at most one for each problem.

    Args:
        model: Who answers.
        tokenizer: Its tokenizer.
        asked: The problems.
        form: Text or tools.
        tries: How often a problem is attempted at most.
        seed: Names the draws.
    """
    kept: list[Example] = []
    open_problems = list(asked)
    for turn in range(tries):
        attempts = attempt(model, tokenizer, open_problems, form, temperature=1.0, seed=seed * tries + turn)
        kept += [tried.example for tried in attempts if tried.correct]
        open_problems = [tried.problem for tried in attempts if not tried.correct]
    return kept


def write(examples: Sequence[Example], file: Path) -> None:
    """Keeps examples for a later run."""
    file.write_text(json.dumps(examples))


def read(file: Path) -> list[Example]:
    """What `write` kept."""
    return [Example(*example) for example in json.loads(file.read_text())]
