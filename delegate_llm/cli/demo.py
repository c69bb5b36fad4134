"""`delegate-llm demo`: the shipped pair at work in a LangChain chain, then in numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

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
)
from delegate_llm.cli.terminal import console, friendly, inline, json_text, remarks

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from delegate_llm.chat_model import DelegatedChatModel
    from delegate_llm.demo import Result
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.tiny.problems import Problem

__all__ = ("demo",)

_ARMS: Final = 4
_TURNS: Final = 8
"""Calls of tools, or rounds of them, that a problem may take."""

Counts = tuple[int, int, int]
"""Takeovers, those that changed the token, and tokens."""


@friendly
def demo(
    *,
    problems: Annotated[
        int,
        typer.Option(help="Fresh problems to measure on, half as text, half with tools.", min=2),
    ] = 100,
    live: Annotated[int, typer.Option(help="Problems to answer live first; none with --json.", min=0)] = 4,
    seed: Annotated[int, typer.Option(help="Names the problems.")] = 0,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Solve word problems live, then compare: base alone, reasoner alone, delegated, at random."""
    options = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
    pair = load(base, reasoner, **options)

    from delegate_llm.demo import results  # noqa: PLC0415 - brings pydantic
    from delegate_llm.tiny.problems import problems as drawn  # noqa: PLC0415 - needed here only

    asked = drawn(problems + live, seed=seed, split="test")
    if live and not as_json:
        _answer_live(console(), pair, asked[problems:])
    found = results(_measured(pair, asked[:problems], seed))
    if as_json:
        report = {
            "version": 1,
            "base": base,
            "reasoner": reasoner,
            "problems": problems,
            "seed": seed,
            "policy": pair.policy.model_dump(mode="json"),
            "results": [asdict(result) for result in found],
        }
        typer.echo(json_text(json.dumps(report)))
    else:
        _print_table(console(), found, problems)


# --- Live ---


def _answer_live(out: Console, pair: Pair, problems: Sequence[Problem]) -> None:
    """Solve problems before one's eyes, in text and with tools in turn, by chains as one writes them."""
    from delegate_llm.chat_model import DelegatedChatModel  # noqa: PLC0415 - brings LangChain
    from delegate_llm.demo import MAX_TOKENS  # noqa: PLC0415 - brings pydantic

    model = DelegatedChatModel(pair=pair, max_tokens=MAX_TOKENS)
    for number, problem in enumerate(problems):
        form = "with tools" if number % 2 else "in text"
        out.print(Text(f"Problem {number + 1}, {form}: ", "bold").append(problem.question, "not bold"))
        right, said = (_solve_with_tools if number % 2 else _solve_in_text)(out, model, problem)
        takeovers, changed, tokens = (sum(column) for column in zip(*said, strict=True))
        verdict = ("right", "bold green") if right else (f"wrong, it is {problem.answer}", "bold red")
        plural = "" if takeovers == 1 else "s"
        counts = f"; {takeovers} takeover{plural} in {tokens} tokens, {changed} of them changed the token"
        out.print(Text.assemble("→ ", verdict, (counts, "dim"), "\n"))


def _solve_in_text(out: Console, model: DelegatedChatModel, problem: Problem) -> tuple[bool, list[Counts]]:
    from langchain_core.prompts import ChatPromptTemplate  # noqa: PLC0415 - slow

    from delegate_llm.tiny.problems import grade  # noqa: PLC0415 - needed here only

    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model
    message = _say(out, model, chain, {"question": problem.question})
    return grade(problem, message.text), [_counts(message)]


def _solve_with_tools(out: Console, model: DelegatedChatModel, problem: Problem) -> tuple[bool, list[Counts]]:
    from langchain_core.messages import HumanMessage, ToolMessage  # noqa: PLC0415 - slow

    from delegate_llm.tiny.agent import TOOLS, execute  # noqa: PLC0415 - needed here only
    from delegate_llm.tiny.problems import grade  # noqa: PLC0415 - needed here only

    agent, counts = model.bind_tools(TOOLS), []
    history: list[BaseMessage] = [HumanMessage(problem.question)]
    for _ in range(_TURNS):
        message = _say(out, model, agent, history)
        counts.append(_counts(message))
        if message.invalid_tool_calls:
            return False, counts
        if not message.tool_calls:
            return grade(problem, message.text), counts
        history.append(message)
        for call in message.tool_calls:
            try:
                result = str(execute(call["name"], call["args"]))
            except ValueError as error:
                result = str(error)
            out.print(Text("tool: ", "dim").append(inline(result)))
            history.append(ToolMessage(result, tool_call_id=call["id"]))
    return False, counts


def _say(out: Console, model: DelegatedChatModel, chain: Runnable[Any, AIMessage], said: Any) -> AIMessage:
    """The answer of a chain, written as it is decided, with its takeovers in place."""
    from delegate_llm.cli.stream import Highlighter  # noqa: PLC0415 - brings pydantic
    from delegate_llm.watching import watch_pieces  # noqa: PLC0415 - brings pydantic

    highlighter = Highlighter(model.load().vocabulary.decode)
    with watch_pieces(lambda piece: out.print(highlighter.feed(piece), end="")):
        message = chain.invoke(said)
    out.print(highlighter.finish())
    return message


def _counts(message: AIMessage) -> Counts:
    summary = message.response_metadata["delegation"]["summary"]
    return summary["takeovers"], summary["changed"], summary["tokens"]


# --- In numbers ---


def _measured(pair: Pair, problems: Sequence[Problem], seed: int) -> list[Any]:
    from delegate_llm.demo import compare  # noqa: PLC0415 - brings pydantic

    half = (len(problems) + 1) // 2
    with _progress(_ARMS * len(problems)) as (step, tell):
        arms = []
        for arm in compare(pair, problems[:half], problems[half:], seed=seed, solved=step):
            arms.append(arm)
            tell(len(arms))
    return arms


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """A bar on a terminal, nothing elsewhere: gives what advances it, and what names the arm."""
    from rich.progress import Progress  # noqa: PLC0415 - slow

    screen = remarks()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(f"Measuring, 1 of {_ARMS}", total=total)
        yield (
            lambda: bar.advance(task),
            lambda done: bar.update(task, description=f"Measuring, {min(done + 1, _ARMS)} of {_ARMS}"),
        )


_COLUMNS: Final[tuple[tuple[str, Callable[[Result], str]], ...]] = (
    ("", lambda result: result.name),
    ("text", lambda result: _percent(result.accuracy_text)),
    ("tools", lambda result: _percent(result.accuracy_tools)),
    ("share", lambda result: _percent(result.share)),
    ("recovery", lambda result: _percent(result.recovery)),
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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _print_table(out: Console, found: Sequence[Result], problems: int) -> None:
    """What was found: a drawn table on a terminal, aligned columns in a pipe."""
    title = f"Accuracy on {problems} fresh problems, half in text, half with tools"
    rows = [[read(result) for _, read in _COLUMNS] for result in found]
    (_draw_table if out.is_terminal else _align_table)(out, title, rows)
    out.print(Text(f"\n{_LEGEND}", "dim"))


def _align_table(out: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    table = [[name.replace("\n", " ") for name, _ in _COLUMNS], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    out.print(Text(f"{title}\n"))
    for first, *rest in table:
        cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
        out.print(Text("  ".join(cells)))


def _draw_table(out: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - slow
    from rich.table import Table  # noqa: PLC0415 - slow

    # Without sides and with names on two lines, it fits 80 columns.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for at, (name, _) in enumerate(_COLUMNS):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if row[0] == "delegated" else None)
    out.print(table, soft_wrap=False)
