"""`delegate-llm evaluate`: what delegation gains on one's own tasks, beside its controls, and its cost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
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
    saved_policy,
)
from delegate_llm.cli.run_tables import print_run
from delegate_llm.cli.tables import progress
from delegate_llm.cli.task_options import (
    BatchOption,
    CheckerOption,
    MaxTokensOption,
    ProblemsOption,
    SeedOption,
    SystemOption,
    TasksOption,
    chosen_tasks,
    held_out,
    models_named,
    own_checker,
    repeated,
)
from delegate_llm.cli.terminal import console, friendly, inline, json_text, remarks
from delegate_llm.errors import DelegateError, RequestError

if TYPE_CHECKING:
    from delegate_llm.evaluation.arms import Arm
    from delegate_llm.evaluation.evaluating import Plan
    from delegate_llm.evaluation.tasks import Task
    from delegate_llm.policy import DelegationPolicy

__all__ = ("evaluate",)

_TASKS: Final = "Tasks"
_ARMS: Final = "Arms"
_ANSWERS: Final = "Answers"
_KINDS: Final = 3
"""Of controls."""
_CHOICES: Final = 5


@friendly
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Folder of the run; one that was broken off goes on.", show_default=True)
    ] = Path("evaluation"),
    *,
    tasks: TasksOption = "tiny",
    problems: ProblemsOption = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Other tasks, whose prompts set the thresholds: a JSONL file, or `tiny`; by default the "
            "generator's own calibration split, or, where there is a threshold to set, the last third of the "
            "file of tasks, which is then not evaluated.",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    calibrate_on: Annotated[
        int | None,
        typer.Option(
            help="How many of those; 200 of the generator, all of a file.", min=1, rich_help_panel=_TASKS
        ),
    ] = None,
    checker: CheckerOption = None,
    system: SystemOption = None,
    shares: Annotated[
        str, typer.Option(help="Nominal shares of takeovers, one arm each.", rich_help_panel=_ARMS)
    ] = "0.02,0.04,0.08",
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="A saved policy as one more arm; may be repeated.", rich_help_panel=_ARMS),
    ] = None,
    controls: Annotated[
        bool, typer.Option(help="Also random, early and entropy-only takeovers.", rich_help_panel=_ARMS)
    ] = True,
    divergence: Annotated[
        str, typer.Option(help="How the two are compared.", rich_help_panel=_ARMS)
    ] = "cross_entropy",
    spike: Annotated[
        bool, typer.Option(help="Whether policies have a spike factor, too.", rich_help_panel=_ARMS)
    ] = True,
    spike_window: Annotated[
        int | None,
        typer.Option(help="Scores it is compared with; by default what suits.", min=1, rich_help_panel=_ARMS),
    ] = None,
    samples: Annotated[int, typer.Option(help="Answers to each task.", min=1, rich_help_panel=_ANSWERS)] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 is greedy, the default for one answer; 0.7 for several.", rich_help_panel=_ANSWERS
        ),
    ] = None,
    top_p: Annotated[float, typer.Option(help="Mass sampled from.", rich_help_panel=_ANSWERS)] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens sampled from; 0: all.", rich_help_panel=_ANSWERS)] = 0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    batch: BatchOption = 16,
    trace: Annotated[
        Literal["full", "takeovers", "off"],
        typer.Option(help="Decisions kept of delegated answers, for reports.", rich_help_panel=_ANSWERS),
    ] = "full",
    choices: Annotated[
        int | None,
        typer.Option(
            help="Most probable tokens of each model that such a trace keeps where the two part; by "
            "default 5, and none on an engine, which reads an answer twice for it, as slowly as it writes.",
            min=0,
            max=20,
            rich_help_panel=_ANSWERS,
        ),
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
    """Answer tasks by the base, the reasoner, delegation at several shares, and controls at the same shares.

    Every answer is kept as soon as it is there. A run that was broken off goes on with the same command.
    """
    _check_before(temperature=temperature, top_p=top_p, top_k=top_k)
    wanted = _shares(shares)
    chosen, others = _tasks(
        (tasks, problems),
        (calibration, calibrate_on),
        needed=bool(wanted) or controls,
        seed=seed,
        checker=checker,
        system=system,
    )
    if spike_window is not None and not spike:
        msg = f"spike_window: {spike_window} is of no use without a spike; leave it out"
        raise RequestError(msg)
    if again := repeated(chosen, others):
        what = f"warning: {again} of the tasks are among those that set the thresholds"
        remarks().print(Text(what, "bold yellow"))
    sampled = (0.0 if samples == 1 else 0.7) if temperature is None else temperature
    if samples > 1 and sampled == 0:
        msg = (
            f"samples: {samples} greedy answers to a task are one and the same; give a --temperature above 0"
        )
        raise RequestError(msg)
    plan = _plan(
        models=models_named(*carried(base, reasoner, backend), backend=backend, dtype=dtype, options=options),
        tasks=chosen,
        calibration=others,
        shares=wanted,
        policies=_policies(policy or ()),
        controls=controls,
        divergence=divergence,
        spike=spike,
        spike_window=spike_window,
        samples=samples,
        seed=seed,
        batch=batch,
        trace=trace,
        checker=checker,
        choices=(_CHOICES if backend == "transformers" else 0) if choices is None else choices,
        settings={"max_tokens": max_tokens, "temperature": sampled, "top_p": top_p, "top_k": top_k},
    )

    def load() -> Any:
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

    arms = _run(run, plan, load, own_checker(checker))

    from delegate_llm.evaluation.run_summary import summarise  # noqa: PLC0415 - brings numpy

    found = summarise(run, plan, arms)
    if as_json:
        typer.echo(json_text(json.dumps(found.document)))
    else:
        print_run(console(), run, found)


def _run(folder: Path, plan: Plan, load: Any, checker: Any) -> list[Arm]:
    """Run it with a bar, and say what was kept if it breaks off."""
    from delegate_llm.evaluation.evaluating import evaluate as run  # noqa: PLC0415 - brings pydantic
    from delegate_llm.evaluation.run_folder import answered  # noqa: PLC0415 - needed here only
    from delegate_llm.evaluation.run_summary import check_pictures  # noqa: PLC0415 - brings numpy

    check_pictures()
    delegated = len(plan.shares) + len(plan.policies)
    count = 2 + delegated * (1 + _KINDS * plan.controls)
    steps = len(plan.calibration) + count * len(plan.tasks) * plan.samples
    names: dict[str, None] = {}
    with progress(steps, count + 1) as (step, tell):

        def done(name: str) -> None:
            if name not in names:
                tell(len(names))
                names[name] = None
            step()

        try:
            return run(folder, plan, load, checker=checker, done=done)
        except (DelegateError, KeyboardInterrupt):
            if answered(folder):
                kept = f"What was finished is kept in {str(folder)!r}"
                remarks().print(Text(f"{kept}; the same settings go on from there."))
            raise


# --- What was asked for ---


def _check_before(**settings: Any) -> None:
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic
    from delegate_llm.request import Request  # noqa: PLC0415 - brings pydantic

    given = {name: value for name, value in settings.items() if value is not None}
    Request.check(policy=DelegationPolicy(), **given)


def _plan(**parts: Any) -> Plan:
    from delegate_llm.evaluation.evaluating import Plan  # noqa: PLC0415 - brings pydantic
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic

    DelegationPolicy(divergence=parts["divergence"])
    return Plan(**parts)


def _tasks(
    source: tuple[str, int | None],
    calibration: tuple[str | None, int | None],
    *,
    needed: bool,
    **how: Any,
) -> tuple[list[Task], list[Task]]:
    """The tasks, and those to calibrate on, if any are named or needed; of each, from where and how many."""
    from delegate_llm.evaluation.tasks import SHIPPED  # noqa: PLC0415 - brings the generator

    (place, count), (other, least) = source, calibration
    chosen = chosen_tasks(place, count, split="test", answers=True, **how)
    if other is None and needed and place == SHIPPED:
        other = SHIPPED
    if other is not None:
        return chosen, chosen_tasks(other, least, split="calibration", **how)
    return held_out(chosen, least, place, "calibrate-on", "--calibration") if needed else (chosen, [])


def _shares(text: str) -> list[float]:
    found = []
    for word in text.split(",") if text.strip() else ():
        try:
            share = float(word)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            msg = f"shares: {word.strip()!r} in {text!r} is no share in (0, 1); give some such as 0.02,0.08"
            raise RequestError(msg)
        found.append(share)
    return list(dict.fromkeys(found))


def _policies(files: Sequence[Path]) -> dict[str, DelegationPolicy]:
    found: dict[str, DelegationPolicy] = {}
    for file in files:
        name = inline(file.stem)
        if name in found:
            msg = f"policy: two files are called {name!r}; the name is the arm's, so rename one"
            raise RequestError(msg)
        found[name] = saved_policy(file)
    return found
