"""`delegate-llm analyze`: where two models part, token by token, along the base's own answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from delegate_llm.cli.loading import (
    BASE,
    REASONER,
    BackendOption,
    BaseOption,
    BaseUrlOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    OptionsOption,
    ReasonerOption,
    TrustOption,
    carried,
    connect,
)
from delegate_llm.cli.tables import Column, percent, print_table, progress
from delegate_llm.cli.task_options import (
    BatchOption,
    CheckerOption,
    MaxTokensOption,
    ProblemsOption,
    SeedOption,
    SystemOption,
    TasksOption,
    TemperatureOption,
    answer_settings,
    chosen_tasks,
    models_named,
    own_checker,
    said_if_broken,
)
from delegate_llm.cli.terminal import console, friendly, json_text
from delegate_llm.errors import RequestError, require

if TYPE_CHECKING:
    from delegate_llm.evaluation.listening import Listening, Scored
    from delegate_llm.evaluation.tasks import Task
    from delegate_llm.evaluation.words import Lexicon
    from delegate_llm.pairs.pair import Pair

__all__ = ("analyze",)

_SCORES: Final = "Scores"


@friendly
def analyze(
    *,
    out: Annotated[
        Path, typer.Option(help="Folder to write to; one that was broken off is gone on with.")
    ] = Path("analysis"),
    tasks: TasksOption = "tiny",
    problems: ProblemsOption = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts", help="Score the `completion` of each task, and write nothing.", rich_help_panel="Tasks"
        ),
    ] = False,
    checker: CheckerOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = 0.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    batch: BatchOption = 16,
    divergence: Annotated[
        str, typer.Option(help="How the two are compared.", rich_help_panel=_SCORES)
    ] = "cross_entropy",
    top: Annotated[
        float, typer.Option(help="Share of the tokens that count as the top ones.", rich_help_panel=_SCORES)
    ] = 0.1,
    lexicon: Annotated[
        Path | None,
        typer.Option(help="Which words plan, in place of the lexicon that ships.", rich_help_panel=_SCORES),
    ] = None,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    backend: BackendOption = "transformers",
    base_url: BaseUrlOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    options: OptionsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every token of the base's answers with both models, and show what disagreement goes with.

    Writes every token as Parquet, the summary as JSON, and pictures.
    """
    words = _check_before(top, lexicon)
    how = _listening(
        divergence, seed, batch, answer_settings(temperature=temperature, max_tokens=max_tokens), given=texts
    )
    chosen = chosen_tasks(
        tasks,
        problems,
        split="test",
        seed=seed,
        checker=checker,
        system=system,
        completions=texts,
    )

    def load() -> Pair:
        return connect(
            base,
            reasoner,
            backend=backend,
            base_url=base_url,
            options=options,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )

    models = models_named(*carried(base, reasoner, backend), backend=backend, dtype=dtype, options=options)
    report = _run(out, _Asked(models, chosen, how, words, top, checker), load)
    if as_json:
        typer.echo(json_text(json.dumps(report)))
    else:
        _print(console(), report, str(out))


class _Asked(NamedTuple):
    """What is to be analysed, and how."""

    models: Mapping[str, Any]
    tasks: Sequence[Task]
    how: Listening
    lexicon: Lexicon
    top: float
    checker: str | None

    def plan(self) -> dict[str, Any]:
        """All that decides what the models are asked."""
        from delegate_llm.evaluation.analysis_folder import KIND  # noqa: PLC0415 - needed here only
        from delegate_llm.evaluation.listening import digest, listening_policy  # noqa: PLC0415 - brings torch

        policy = listening_policy(self.how.divergence)
        return {
            "version": 1,
            "kind": KIND,
            "models": dict(self.models),
            "tasks": digest(self.tasks),
            "checker": self.checker,
            "arms": [{"name": "base", "policy": policy.to_fields()}],
            "divergence": self.how.divergence,
            "given": self.how.given,
            "seed": self.how.seed,
            "batch": self.how.batch,
            "settings": dict(self.how.settings),
        }


def _check_before(top: float, lexicon: Path | None) -> Lexicon:
    """Say what is wrong before the models run."""
    from delegate_llm.evaluation.words import read_lexicon  # noqa: PLC0415 - brings pydantic

    if not 0 < top < 1:
        msg = f"top: {top!r} is outside (0, 1); give a share of the tokens, such as 0.1"
        raise RequestError(msg)
    for module in ("pyarrow.parquet", "matplotlib.figure"):
        require(module, "evaluate")
    return read_lexicon(lexicon)


def _listening(
    divergence: str, seed: int, batch: int, settings: Mapping[str, Any], *, given: bool
) -> Listening:
    from delegate_llm.evaluation.listening import Listening  # noqa: PLC0415 - brings torch
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic

    known = DelegationPolicy.of({"divergence": divergence}).divergence
    return Listening(divergence=known, seed=seed, batch=batch, given=given, settings=settings)


def _run(folder: Path, asked: _Asked, load: Callable[[], Pair]) -> dict[str, Any]:
    """Score, and write down what was found."""
    from delegate_llm.evaluation.analysis_folder import take_up  # noqa: PLC0415 - brings numpy
    from delegate_llm.evaluation.listening import scored  # noqa: PLC0415 - brings torch
    from delegate_llm.evaluation.run_folder import held  # noqa: PLC0415 - needed here only

    loaded: list[Pair] = []
    own = own_checker(asked.checker)

    def pair() -> Pair:
        if not loaded:
            loaded.append(load())
        return loaded[0]

    with held(folder), progress(len(asked.tasks), 1) as (step, _):

        def done(more: int) -> None:
            for _ in range(more):
                step()

        lines = take_up(folder, asked.plan(), asked.tasks, pair)
        if not lines.records:
            pair()
        with said_if_broken(f"What was finished is kept in {str(folder)!r}; the same command goes on."):
            answers = scored(pair, asked.tasks, asked.how, lines, checker=own, done=done)
            return _written(folder, asked, answers)


def _written(folder: Path, asked: _Asked, answers: Sequence[Scored]) -> dict[str, Any]:
    """The table, the pictures, and last the summary."""
    from delegate_llm._files import write_file  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation import analysis_folder as files  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation.analysis import summarize  # noqa: PLC0415 - brings numpy
    from delegate_llm.evaluation.analysis_plots import (  # noqa: PLC0415 - brings numpy
        plot_analysis,
        plot_answer,
        typical,
    )
    from delegate_llm.evaluation.tokens import token_table, write_tokens  # noqa: PLC0415 - brings numpy
    from delegate_llm.policy import unit_of  # noqa: PLC0415 - brings pydantic

    table = token_table(answers, asked.lexicon, asked.top)
    run = {**asked.plan(), "top": asked.top, "lexicon": asked.lexicon.digest()}
    summary = summarize(table, asked.top)
    write_tokens(table, folder / files.TOKENS, run)
    named = f"{asked.models['base']} and {asked.models['reasoner']}"
    unit = unit_of(asked.how.divergence)
    plot_analysis(table, summary, f"{named}: {len(table):,} tokens", folder / files.PICTURE, unit=unit)
    one = typical(table)
    question = next(each.question for each in asked.tasks if each.id == one.task)
    plot_answer(one, question, summary["top"]["least"], folder / files.ANSWER, unit=unit)
    report = {"version": 1, "run": run, **summary}
    write_file(folder / files.SUMMARY, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


# --- For people ---

_Row = tuple[str, str, str]

_COLUMNS: Final[tuple[Column[_Row], ...]] = (
    ("", lambda row: row[0]),
    ("value", lambda row: row[1]),
    ("95 % CI", lambda row: row[2]),
)
_LEGEND: Final = (
    "score: how far the two models' next-token distributions are apart; top: the {top} of all tokens with "
    "the highest scores; over-represented: how many times as frequent among those as among all tokens; "
    "overlap: intersection over union of the top by score and the top by the base's entropy, of which "
    "cross-entropy contains a part by definition; AUROC: how often a wrong answer's top tenth of tokens has "
    "a higher mean than a right one's. Intervals are of a bootstrap over answers."
)


def _row(name: str, found: Mapping[str, Any] | None, told: Callable[[float], str]) -> _Row:
    if found is None or found["value"] is None:
        return name, "-", ""
    ends = [found["low"], found["high"]]
    return name, told(found["value"]), "" if None in ends else " to ".join(map(told, ends))


def _rows(report: Mapping[str, Any]) -> list[_Row]:
    """The main numbers in words."""
    share = report["top"]["share"]
    top = f"top {100 * share:g} %"

    def times(value: float) -> str:
        return f"{value:.2f}x"

    def plain(value: float) -> str:
        return f"{value:.3f}"

    near = min(report["overlap"], key=lambda each: abs(each["share"] - share))
    words, starts, said = report["words"], report["sentence_start"], report["wrong_answers"]
    early = {
        name: percent(sum(each["sum"] for each in tenths[:3])) for name, tenths in report["position"].items()
    }
    carried = [
        _row(f"tokens that carry {each['fraction']:.0%} of the score", each["tokens"], percent)
        for each in report["carriers"]
    ]
    return [
        ("mean score", plain(report["score"]["mean"]), ""),
        ("median score", f"{report['score']['quantiles']['0.5']:.2g}", ""),
        _row("Gini coefficient of the score", report["gini"], plain),
        *carried,
        ("score in the first 30 % of an answer (30 % if even)", early["answer"], ""),
        ("score in the first 30 % of a sentence (likewise)", early["sentence"], ""),
        _row(
            f"planning words, over-represented in the {top}", words["planning"]["over_representation"], times
        ),
        _row("numbers and signs, over-represented there", words["execution"]["over_representation"], times),
        _row("planning : numbers and signs", words["planning_to_execution"], times),
        _row("words that open a sentence : later ones", starts["opening_to_later"], times),
        _row(f"overlap with base entropy, top {100 * near['share']:g} %", near["iou"], plain),
        ("  the same by chance", plain(near["chance"]), ""),
        _row("AUROC of wrong answers, by score", said["score"], plain),
        _row("  the same by base entropy", said["entropy"], plain),
        _row("  score ahead of entropy by", said["difference"], plain),
    ]


def _print(out: Console, report: Mapping[str, Any], folder: str) -> None:
    counts, run = report["counts"], report["run"]
    graded = f", {counts['correct']} of {counts['graded']} right" if counts["graded"] else ""
    what = "given texts" if run["given"] else "answers of the base"
    title = f"{counts['answers']} {what}, {counts['tokens']} tokens{graded}; {run['divergence']}"
    print_table(out, title, _COLUMNS, _rows(report))
    if reason := report["wrong_answers"]["reason"]:
        out.print(Text(f"\nNo AUROC: {reason}."))
    if caveat := report["wrong_answers"]["caveat"]:
        out.print(Text(f"\nAUROC: {caveat}."))
    out.print(Text(f"\n{_LEGEND.format(top=percent(report['top']['share']))}", "dim"))
    out.print(Text(f"\nEvery token, the summary and the pictures are in {folder!r}."))
