"""`delegate-llm compare-agents`: an agent with tools at several budgets, beside each model alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

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
    prepare,
)
from delegate_llm.cli.tables import Column, percent, print_table, progress
from delegate_llm.cli.terminal import console, friendly, json_text
from delegate_llm.errors import PolicyError
from delegate_llm.evaluation.places import PLACES, Place

if TYPE_CHECKING:
    from delegate_llm.evaluation.agents import AgentArm, AgentResult
    from delegate_llm.graph.allocation import DelegationContext
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.tiny.problems import Problem

__all__ = ("compare_agents",)


@friendly
def compare_agents(
    *,
    problems: Annotated[int, typer.Option(help="Fresh problems that each agent gets.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Names the problems.")] = 0,
    budgets: Annotated[
        str, typer.Option(help="Takeovers that a task may spend: one or more counts, one agent each.")
    ] = "1,2,4,8",
    strategy: Annotated[
        str | None,
        typer.Option(
            help="How the calls of a task divide them: all (first come, first served; the default), "
            "even, front-loaded or adaptive."
        ),
    ] = None,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    plot: Annotated[
        Path | None, typer.Option(help="Picture to write, such as agents.png; needs matplotlib.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Solve word problems with tools under several budgets, and with the base or the reasoner alone."""
    prepare(base, reasoner)
    contexts = _contexts(budgets, strategy)
    if plot is not None:
        from delegate_llm.evaluation.plots import check_plot  # noqa: PLC0415 - needed here only

        check_plot(plot)
    pair = load(base, reasoner, device=device, dtype=dtype, trust_remote_code=trust_remote_code)

    from delegate_llm.evaluation.agents import agent_results  # noqa: PLC0415 - brings torch
    from delegate_llm.tiny.problems import problems as drawn  # noqa: PLC0415 - needed here only

    found = agent_results(_measured(pair, drawn(problems, seed=seed, split="test"), contexts))
    if as_json:
        report = {
            "version": 1,
            "base": base,
            "reasoner": reasoner,
            "problems": problems,
            "seed": seed,
            "strategy": strategy or "all",
            "policy": pair.policy.to_fields(),
            "results": [asdict(result) for result in found],
        }
        typer.echo(json_text(json.dumps(report)))
    else:
        _print(console(), found, f"{problems} fresh problems")
    if plot is not None:
        from delegate_llm.evaluation.plots import plot_agents  # noqa: PLC0415 - needed here only

        plot_agents(found, f"A ReAct agent on {problems} fresh problems: {base}, {reasoner}", plot)


def _contexts(budgets: str, strategy: str | None) -> list[DelegationContext]:
    """The settings of the delegated agents, by budget."""
    from delegate_llm.graph.allocation import DelegationContext  # noqa: PLC0415 - brings LangGraph

    counts = [each.strip() for each in budgets.split(",")]
    if not all(each.isdecimal() for each in counts):
        msg = f"budgets: {budgets!r} is no list of counts of takeovers; give some such as 1,2,4,8"
        raise PolicyError(msg)
    return [DelegationContext(total=each, strategy=strategy) for each in sorted(set(map(int, counts)))]


def _measured(
    pair: Pair, problems: Sequence[Problem], contexts: Sequence[DelegationContext]
) -> list[AgentArm]:
    from delegate_llm.evaluation.agents import compare_agents as compared  # noqa: PLC0415 - brings torch

    count = len(contexts) + 2
    with progress(count * len(problems), count) as (step, tell):
        arms = []
        for arm in compared(pair, problems, contexts, done=step):
            arms.append(arm)
            tell(len(arms))
    return arms


# --- For people ---


def _place(place: Place) -> Callable[[AgentResult], str]:
    def read(result: AgentResult) -> str:
        count = (result.places or {}).get(place, 0)
        whole = result.takeovers or 0
        return f"{count} ({percent(count / whole if whole else 0.0)})"

    return read


_MAIN: Final[tuple[Column[AgentResult], ...]] = (
    ("", lambda result: result.name),
    ("success", lambda result: percent(result.success)),
    ("95%\nCI", lambda result: "-".join(f"{100 * each:.0f}" for each in result.interval)),
    ("gap\nkept", lambda result: percent(result.gap_kept)),
    ("takeovers\n/task", lambda result: _number(result.takeovers_per_task, 1)),
    ("share", lambda result: percent(result.share)),
    ("reasoner\ntok/task", lambda result: _number(result.reasoner_tokens_per_task, 0)),
    ("reasoner\nfwd/task", lambda result: _number(result.reasoner_forwards_per_task, 1)),
    ("s\n/task", lambda result: _number(result.seconds_per_task, 2)),
)
_WHERE: Final[tuple[Column[AgentResult], ...]] = (
    ("", lambda result: result.name),
    ("takeovers", lambda result: str(result.takeovers)),
    *((name, _place(place)) for place, name in PLACES.items()),
)
_LEGEND: Final = (
    "gap kept: of the success by which the reasoner alone is ahead of the base alone; share: tokens that the "
    "reasoner supplied; reasoner tok and fwd: tokens that it processed, prompts included, and its forward "
    "passes; prose: all that is no call, and the choice to call at all."
)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _print(out: Console, found: Sequence[AgentResult], asked: str) -> None:
    print_table(out, f"An agent with tools on {asked}, by budget of takeovers a task", _MAIN, found)
    out.print()
    print_table(out, "Where takeovers fell", _WHERE, [each for each in found if each.budget is not None])
    for each in found:
        if each.errors:
            broken = ", ".join(f"{count} by {name}" for name, count in each.errors.items())
            out.print(Text(f"{each.name}: runs that broke off, counted as failed: {broken}"))
    out.print(Text(f"\n{_LEGEND}", "dim"))
