"""`delegate-llm demo`: the shipped pair at work in a LangChain chain, in numbers, and as an agent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from delegate_llm.cli.live import solve_by_agent, solve_in_text
from delegate_llm.cli.loading import (
    BASE,
    REASONER,
    BaseOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ReasonerOption,
    TrustOption,
    load,
)
from delegate_llm.cli.tables import Column, percent, print_table, progress
from delegate_llm.cli.terminal import console, friendly, json_text

if TYPE_CHECKING:
    from delegate_llm.evaluation.problems import Arm, Result
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.tiny.problems import Problem

__all__ = ("demo",)

_ARMS: Final = 4
_BUDGET: Final = 4
"""Takeovers that the agent may spend: mostly enough, and few enough to matter."""


@friendly
def demo(
    *,
    problems: Annotated[
        int,
        typer.Option(help="Fresh problems to measure on, half as text, half with tools.", min=2),
    ] = 100,
    live: Annotated[
        int,
        typer.Option(
            help="Problems to solve live: the first at the end, by an agent with tools and a budget, "
            "the others before, in text. None with --json.",
            min=0,
        ),
    ] = 4,
    seed: Annotated[int, typer.Option(help="Names the problems.")] = 0,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Solve word problems live, then compare: base alone, reasoner alone, delegated, at random."""
    pair = load(base, reasoner, device=device, dtype=dtype, trust_remote_code=trust_remote_code)

    from delegate_llm.tiny.problems import problems as drawn  # noqa: PLC0415 - needed here only

    asked = drawn(problems + live, seed=seed, split="test")
    if not as_json:
        _show(console(), pair, asked, problems, seed)
        return
    report = {
        "version": 1,
        "base": base,
        "reasoner": reasoner,
        "problems": problems,
        "seed": seed,
        "policy": pair.policy.to_fields(),
        "results": [asdict(result) for result in _measured(pair, asked[:problems], seed)],
    }
    typer.echo(json_text(json.dumps(report)))


def _show(out: Console, pair: Pair, asked: Sequence[Problem], problems: int, seed: int) -> None:
    """All of it for people: the first problems are measured, the others solved live."""
    from delegate_llm.chat_model import DelegatedChatModel  # noqa: PLC0415 - brings LangChain
    from delegate_llm.tiny.agent import MAX_TOKENS  # noqa: PLC0415 - needed here only

    model = DelegatedChatModel(pair=pair, max_tokens=MAX_TOKENS)
    for number, problem in enumerate(asked[problems + 1 :], 1):
        out.print(Text(f"Problem {number}, in text: ", "bold").append(problem.question, "not bold"))
        solve_in_text(out, model, problem)
    print_table(
        out,
        f"Accuracy on {problems} fresh problems, half in text, half with tools",
        _COLUMNS,
        _measured(pair, asked[:problems], seed),
        bold=lambda result: result.name == "delegated",
    )
    out.print(Text(f"\n{_LEGEND}", "dim"))
    for problem in asked[problems : problems + 1]:
        lead = f"\nAn agent with tools, and {_BUDGET} takeovers to spend: "
        out.print(Text(lead, "bold").append(problem.question, "not bold"))
        solve_by_agent(out, model, problem, budget=_BUDGET)


def _measured(pair: Pair, problems: Sequence[Problem], seed: int) -> list[Result]:
    from delegate_llm.evaluation.problems import compare, results  # noqa: PLC0415 - brings LangChain

    half = (len(problems) + 1) // 2
    with progress(_ARMS * len(problems), _ARMS) as (step, tell):
        arms: list[Arm] = []
        for arm in compare(pair, problems[:half], problems[half:], seed=seed, solved=step):
            arms.append(arm)
            tell(len(arms))
    return results(arms)


_COLUMNS: Final[tuple[Column[Result], ...]] = (
    ("", lambda result: result.name),
    ("text", lambda result: percent(result.accuracy_text)),
    ("tools", lambda result: percent(result.accuracy_tools)),
    ("share", lambda result: percent(result.share)),
    ("recovery", lambda result: percent(result.recovery)),
    ("base\nfwd/tok", lambda result: f"{result.base_forwards_per_token:.2f}"),
    ("reasoner\nfwd/tok", lambda result: f"{result.reasoner_forwards_per_token:.2f}"),
    ("asked\n/tok", lambda result: f"{result.asked_per_token:.2f}"),
    ("seconds", lambda result: f"{result.seconds:.1f}"),
)
_LEGEND: Final = (
    "share: tokens that the reasoner supplied; recovery: how much of the gap between base and "
    "reasoner is closed; fwd/tok: forward passes per token; asked/tok: positions, per token, at "
    "which the reasoner was consulted; random: the control, as many takeovers, but by lot."
)
