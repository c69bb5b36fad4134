"""Draws one run of `plan_execute.py`: `python -m graphs.picture docs/plan-execute.svg`."""

import sys

from delegate_llm.graph import ModelContext, draw_run
from graphs.plan_execute import graph

QUESTION = (
    "Zoe has 4 jars with 9 stones in each. Zoe gives 2 stones to a friend. Zoe finds 3 more stones. "
    "She loses 6 of them. How many stones are there in the end?"
)


def main(path: str = "docs/plan-execute.svg") -> None:
    """Run the graph, and draw what it returned."""
    context = ModelContext(total=4)
    state = graph.invoke({"messages": [("user", QUESTION)]}, context=context)
    draw_run(state, path, context=context)


if __name__ == "__main__":
    main(*sys.argv[1:2])
