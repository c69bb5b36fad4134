"""`delegate-llm calibrate`: a policy for a share of takeovers, made on some prompts and checked on others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
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
    models_named,
    own_checker,
    prompts,
    repeated,
    said_if_broken,
)
from delegate_llm.cli.terminal import console, friendly, json_text, remarks
from delegate_llm.errors import RequestError

if TYPE_CHECKING:
    from delegate_llm.cli.task_options import Prompts
    from delegate_llm.evaluation.calibrating import Rule
    from delegate_llm.evaluation.checking import Audit, Check
    from delegate_llm.evaluation.listening import Scored
    from delegate_llm.evaluation.run_folder import Lines
    from delegate_llm.pairs.pair import Pair
    from delegate_llm.policy import DelegationPolicy

__all__ = ("calibrate",)

_POLICY: Final = "Policy"
_AUDITED: Final = 200


@friendly
def calibrate(
    *,
    out: Annotated[Path, typer.Option(help="The policy to write.")] = Path("policy.json"),
    share: Annotated[
        float, typer.Option(help="Tokens that the reasoner should supply.", rich_help_panel=_POLICY)
    ] = 0.08,
    divergence: Annotated[
        str, typer.Option(help="How the two are compared.", rich_help_panel=_POLICY)
    ] = "cross_entropy",
    spike: Annotated[
        bool, typer.Option(help="Whether scores must also stand out.", rich_help_panel=_POLICY)
    ] = True,
    spike_window: Annotated[
        int | None,
        typer.Option(help="From how many scores; by default what suits.", min=1, rich_help_panel=_POLICY),
    ] = None,
    entropy_only: Annotated[
        bool,
        typer.Option(
            "--entropy-only",
            help="Ask the reasoner only where the base is unsure, and audit what that misses; no spike.",
            rich_help_panel=_POLICY,
        ),
    ] = False,
    keep: Annotated[
        float | None,
        typer.Option(
            help="Scores above the threshold where that gate is open; 0.95 by default.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    audit: Annotated[
        int | None,
        typer.Option(
            help="Positions behind that gate to score after all; 200 by default.",
            min=1,
            rich_help_panel=_POLICY,
        ),
    ] = None,
    tasks: TasksOption = "tiny",
    problems: ProblemsOption = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="Other prompts, to check on: a JSONL file, `tiny`, or how many. By default as many of the "
            "generator's test split, or the last third of the file of tasks.",
            rich_help_panel="Tasks",
        ),
    ] = None,
    checker: CheckerOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = 0.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    batch: BatchOption = 16,
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
    """Set threshold and spike by the source paper's rule, and see whether other prompts bear them out.

    The policy is what `load_pair`, the chat model and the server take. It is written before the check.
    """
    asked = _Asked(
        models=models_named(*carried(base, reasoner, backend), backend=backend, dtype=dtype, options=options),
        prompts=prompts(tasks, problems, check, seed=seed, checker=checker, system=system),
        rule=_rule(
            share=share,
            divergence=divergence,
            spike=spike,
            spike_window=spike_window,
            entropy_only=entropy_only,
            keep=keep,
            audit=audit,
        ),
        audit=_AUDITED if audit is None else audit,
        checker=own_checker(checker),
        seed=seed,
        batch=batch,
        settings=answer_settings(temperature=temperature, max_tokens=max_tokens),
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

    report = _run(out, asked, load)
    for warning in report["warnings"]:
        remarks().print(Text.assemble(("warning: ", "bold yellow"), warning))
    if as_json:
        typer.echo(json_text(json.dumps(report, allow_nan=False)))
    else:
        _print(console(), report)


class _Asked(NamedTuple):
    """What is to be calibrated, on what."""

    models: Mapping[str, Any]
    prompts: Prompts
    rule: Rule
    audit: int
    checker: Any
    seed: int
    batch: int
    settings: Mapping[str, Any]

    def plan(self) -> dict[str, Any]:
        """All that decides what the base is asked before the policy."""
        from delegate_llm.evaluation.listening import digest  # noqa: PLC0415 - brings torch

        return {
            "version": 1,
            "models": dict(self.models),
            "tasks": digest(self.prompts.calibration),
            "divergence": self.rule.divergence,
            "seed": self.seed,
            "batch": self.batch,
            "settings": dict(self.settings),
        }


def _rule(*, keep: float | None, audit: int | None, **wanted: Any) -> Rule:
    from delegate_llm.evaluation.calibrating import Rule  # noqa: PLC0415 - brings pydantic

    gate = {name: value for name, value in (("keep", keep), ("audit", audit)) if value is not None}
    if gate and not wanted["entropy_only"]:
        msg = f"{next(iter(gate))}: it is about the gate of --entropy-only; give that, too, or leave it out"
        raise RequestError(msg)
    if keep is not None:
        wanted["keep"] = keep
    return Rule(**wanted)


def _run(out: Path, asked: _Asked, load: Callable[[], Pair]) -> dict[str, Any]:
    """Calibrate, keep the policy, check it; finished answers lie beside it meanwhile."""
    from delegate_llm.evaluation import run_folder as files  # noqa: PLC0415 - needed here only

    part = _part(out)
    with files.held(part):
        files.start(part, asked.plan(), map(asdict, asked.prompts.calibration))
        try:
            lines = files.Lines(part / files.SAMPLES)
            report = _calibrated(out, asked, load(), lines, part)
        except BaseException:
            if not files.answered(part):
                files.discard(part)
            raise
        files.discard(part)
    return report


def _calibrated(out: Path, asked: _Asked, pair: Pair, lines: Lines, part: Path) -> dict[str, Any]:
    from delegate_llm._files import write_file  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation.listening import Listening, scored  # noqa: PLC0415 - brings torch

    fresh = asked.prompts.fresh
    steps = len(asked.prompts.calibration) + len(fresh) + sum(each.answer is not None for each in fresh)
    with progress(steps, 1) as (step, _):

        def done(more: int) -> None:
            for _ in range(more):
                step()

        with said_if_broken(f"What was finished is kept in {str(part)!r}; the same command goes on."):
            how = Listening(asked.rule.divergence, asked.seed, asked.batch, settings=asked.settings)
            answers = scored(
                lambda: pair, asked.prompts.calibration, how, lines, checker=asked.checker, done=done
            )
        with said_if_broken(
            f"The answers are kept in {str(part)!r}, for another share; for other prompts, remove it first."
        ):
            policy = asked.rule.policy(answers)
        write_file(out, policy.to_json(indent=2) + "\n")
        with said_if_broken(f"The policy is in {str(out)!r}, unchecked."):
            checked = _checked(pair, asked, policy, done)
    return _report(out, asked, policy, answers, checked)


def _checked(
    pair: Pair, asked: _Asked, policy: DelegationPolicy, done: Callable[[int], object]
) -> tuple[Check, Audit | None]:
    from delegate_llm.evaluation.checking import audit, check  # noqa: PLC0415 - brings torch

    how: dict[str, Any] = {"seed": asked.seed, "batch": asked.batch}
    found, made = check(
        pair,
        asked.prompts.fresh,
        policy,
        settings=asked.settings,
        checker=asked.checker,
        done=done,
        **how,
    )
    return found, audit(pair, made, policy, count=asked.audit, **how) if asked.rule.entropy_only else None


def _part(out: Path) -> Path:
    """Folder in which finished answers are kept meanwhile."""
    odd = out.exists() and not out.is_file()
    if odd or not os.access(out.parent, os.W_OK):
        why = f"has no folder {str(out.parent)!r} to be written to"
        if odd:
            why = "is a folder" if out.is_dir() else "is no file"
        msg = f"out: {str(out)!r} {why}; name a file, such as policy.json"
        raise RequestError(msg)
    return out.with_name(f"{out.name}.part")


def _report(
    out: Path,
    asked: _Asked,
    policy: DelegationPolicy,
    answers: Sequence[Scored],
    checked: tuple[Check, Audit | None],
) -> dict[str, Any]:
    """All of it as JSON."""
    found, audited = checked
    from delegate_llm.calibration import let_through  # noqa: PLC0415 - brings pydantic
    from delegate_llm.evaluation.calibrating import gate_keeps  # noqa: PLC0415 - brings torch
    from delegate_llm.evaluation.checking import parts  # noqa: PLC0415 - brings torch

    again = repeated(asked.prompts.fresh, asked.prompts.calibration)
    warnings = [f"{again} of the prompts to check on were calibrated on, too"] if again else []
    if (apart := parts(asked.rule.share, found.share)) is not None:
        warnings.append(apart)
    return {
        "version": 1,
        "run": {**asked.plan(), "rule": asdict(asked.rule), "checked_on": asked.prompts.source},
        "policy": policy.to_fields(),
        "file": str(out),
        "calibration": {
            "answers": len(answers),
            "tokens": sum(len(each.decisions) for each in answers),
            "fires": let_through(policy, [each.scores for each in answers]),
            "gate_keeps": gate_keeps(answers, policy),
        },
        "check": _plain(asdict(found)),
        "audit": None if audited is None else _plain(asdict(audited)),
        "warnings": warnings,
    }


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """With estimates by name, and nothing where there is no number."""
    from delegate_llm.evaluation.analysis import estimate  # noqa: PLC0415 - brings numpy
    from delegate_llm.evaluation.statistics import Estimate  # noqa: PLC0415 - brings numpy

    return {name: estimate(each) if isinstance(each, Estimate) else each for name, each in found.items()}


# --- For people ---

_Row = tuple[str, str, str]

_COLUMNS: Final[tuple[Column[_Row], ...]] = (
    ("", lambda row: row[0]),
    ("value", lambda row: row[1]),
    ("95 % CI", lambda row: row[2]),
)
_LEGEND: Final = (
    "share: tokens that the reasoner supplied; fires: where the policy would have handed over along the "
    "base's own answers; asked: positions at which the reasoner was consulted. Intervals are of a bootstrap "
    "over answers; those of the audit are Wilson's."
)


def _estimated(name: str, found: Mapping[str, Any], told: Callable[[float | None], str]) -> _Row:
    ends = [found["low"], found["high"]]
    return name, told(found["value"]), "" if None in ends else " to ".join(map(told, ends))


def _rows(report: Mapping[str, Any]) -> list[_Row]:
    made, check, audit = report["calibration"], report["check"], report["audit"]
    rows = [
        ("nominal share", percent(report["run"]["rule"]["share"]), ""),
        ("fires on the base's own answers", percent(made["fires"]), ""),
        _estimated("realised share", check["share"], percent),
        _estimated("asked", check["asked"], percent),
    ]
    for name, right in (("delegated", check["correct"]), ("base alone", check["base_correct"])):
        if right is not None:
            rows.append((f"right, {name}", f"{right} of {check['graded']}", ""))
    if audit is not None:
        rows += [
            ("takeovers that the gate kept in calibration", percent(made["gate_keeps"]), ""),
            ("positions skipped", str(audit["skipped"]), ""),
            ("of them audited, and missed", f"{audit['audited']}, {audit['missed']}", ""),
            _estimated("missed in 1,000 tokens", audit["missed_per_thousand"], _number),
            _estimated("share of takeovers missed", audit["missed_share"], percent),
        ]
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _print(out: Console, report: Mapping[str, Any]) -> None:
    policy, made, check = report["policy"], report["calibration"], report["check"]
    rule = f"threshold {policy['threshold']:g}"
    if policy["spike"]:
        rule += f", spike {policy['spike']:g} over {policy['spike_window']} scores"
    rule += "".join(f", asked above an entropy of {each['above']:g}" for each in policy["gates"])
    title = f"{policy['divergence']}: {rule}; from {made['answers']} answers, {made['tokens']} tokens"
    print_table(out, title, _COLUMNS, _rows(report))
    said = f"Checked on {check['answers']} other prompts: {report['run']['checked_on']}."
    out.print(Text(f"\n{said}\n{_LEGEND}", "dim"))
    out.print(Text(f"\nThe policy is in {report['file']!r}."))
