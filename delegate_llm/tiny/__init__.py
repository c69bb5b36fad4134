"""The pair that ships: two language models of under a million parameters, a base and a reasoner.

A fresh machine has no checkpoints and tests may not download any, so the package carries a real
pair, trained the way real pairs are: a base on text of mixed quality, and a reasoner made from that
base by learning from its own verified successes. Both solve the word problems of
`delegate_llm.tiny.problems`, in plain text and as a tool-calling agent. They demonstrate; they are
no useful assistants.

`python -m delegate_llm.tiny.recipe` makes the weights again from nothing.
"""

from pathlib import Path

__all__ = ["path"]


def path(name: str) -> Path:
    """Where a shipped checkpoint lies.

    Args:
        name: "base" or "reasoner".

    Returns:
        A folder that transformers' `from_pretrained` loads, model and tokenizer alike.

    Raises:
        ValueError: If `name` is neither.
    """
    if name not in ("base", "reasoner"):
        msg = f"No shipped model is called {name!r}: ask for 'base' or 'reasoner'."
        raise ValueError(msg)
    return Path(__file__).parent / "weights" / name
