"""A run: every task answered in every way, as often as asked for, and each answer kept when it is there.

Some ways to answer follow from others: thresholds from the base's answers to calibration tasks, controls
from the share that delegation came to. All of it follows from the plan and from what the folder holds, so a
run that was broken off goes on as if it had not been.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from delegate_llm._files import write_file
from delegate_llm.calibration import policy_for
from delegate_llm.errors import RequestError
from delegate_llm.evaluation.arms import CONTROLS, Arm, control
from delegate_llm.evaluation.grading import Checker, grade
from delegate_llm.evaluation.listening import Listening, digest, scored
from delegate_llm.evaluation.rollouts import (
    Job,
    Rollout,
    batches,
    check_prompts,
    jobs,
    rollouts,
    with_choices,
)
from delegate_llm.evaluation.run_folder import CALIBRATION, PLAN, SAMPLES, Lines, Record, held, start
from delegate_llm.evaluation.tasks import Task
from delegate_llm.policy import DelegationPolicy, DivergenceName
from delegate_llm.trace import Trace, TraceLevel, Usage

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("Plan", "Run", "evaluate", "of_plan")


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides what a run finds, but for the models themselves."""

    models: Mapping[str, Any]
    """How they were named."""
    tasks: Sequence[Task]
    calibration: Sequence[Task] = ()
    """Other tasks, for the thresholds; not needed without shares."""
    shares: Sequence[float] = ()
    """Nominal ones."""
    policies: Mapping[str, DelegationPolicy] = field(default_factory=dict)
    """More arms, by name."""
    controls: bool = True
    """Whether takeovers at as many positions chosen otherwise are set beside each delegated arm."""
    divergence: DivergenceName = "cross_entropy"
    spike: bool = True
    spike_window: int | None = None
    """None for what the calibration finds best."""
    samples: int = 1
    seed: int = 0
    batch: int = 16
    trace: TraceLevel = "full"
    """Of delegated answers."""
    checker: str | None = None
    """Names the function of the user's that grades all tasks, if there is one."""
    choices: int = 0
    """How many of each model's most probable tokens such a trace keeps where the two part; the answers are
    read once more for it, which counts in no cost."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Others of `Pair.generate`."""

    def document(self) -> Record:
        """The plan as JSON; the tasks stand in a file of their own."""
        return {
            "version": 1,
            "models": dict(self.models),
            "tasks": digest(self.tasks),
            "calibration": digest(self.calibration),
            "shares": list(self.shares),
            "policies": {name: policy.to_fields() for name, policy in self.policies.items()},
            **{
                name: getattr(self, name)
                for name in (
                    "controls",
                    "divergence",
                    "spike",
                    "spike_window",
                    "samples",
                    "seed",
                    "batch",
                    "trace",
                    "choices",
                    "checker",
                )
            },
            "settings": dict(self.settings),
        }


class Run:
    """A run in its folder. Make one, and `finish` it; what is there already is not done again."""

    def __init__(
        self, folder: Path, plan: Plan, *, checker: Checker | None = None, done: Callable[[str], object]
    ) -> None:
        """Take up the folder.

        Args:
            folder: Of this run, or for it.
            plan: What is to be run.
            checker: Grades all tasks in place of their own.
            done: Called with the name of the arm after every answer, those that were there included.

        Raises:
            RequestError: As `start` does.
        """
        start(folder, plan.document(), map(asdict, plan.tasks))
        self._folder, self._plan, self._checker, self._done = folder, plan, checker, done
        self._samples = Lines(folder / SAMPLES, without="trace")
        self._samples.records = of_plan(self._samples.records, plan, folder / SAMPLES)

    def finish(self, load: Callable[[], Pair]) -> list[Arm]:
        """Do what is left.

        Args:
            load: Loads the pair; called only if there is something left.

        Returns:
            The arms.

        Raises:
            DelegateError: Whatever goes wrong; what was finished by then is kept.
        """
        pair = _once(load, self._plan.tasks)
        scores, entropies = self._calibrated(pair)
        arms = [Arm("base", "base"), Arm("reasoner", "reasoner")]
        arms += [Arm(f"policy {name}", "delegated", policy) for name, policy in self._plan.policies.items()]
        for share in self._plan.shares:
            policy = policy_for(
                scores,
                share,
                spike=self._plan.spike,
                spike_window=self._plan.spike_window,
                divergence=self._plan.divergence,
            )
            arms.append(Arm(f"delegated {share}", "delegated", policy, share))
        for arm in arms:
            self._answer(arm, pair)
        for arm in [each for each in arms if each.kind == "delegated"] if self._plan.controls else ():
            for one in self._controls(arm, entropies):
                self._answer(one, pair)
                arms.append(one)
        document = {**self._plan.document(), "arms": [_told(arm) for arm in arms]}
        write_file(self._folder / PLAN, json.dumps(document, indent=2) + "\n")
        return arms

    def _calibrated(self, pair: Callable[[], Pair]) -> tuple[list[list[float]], list[float]]:
        """Scores by answer, and all base entropies, of the base's own answers to the calibration tasks."""
        if not self._plan.calibration:
            return [], []
        how = Listening(
            divergence=self._plan.divergence,
            seed=self._plan.seed,
            batch=self._plan.batch,
            settings=self._plan.settings,
        )
        lines = Lines(self._folder / CALIBRATION)
        found = scored(pair, self._plan.calibration, how, lines, done=self._done_with_calibration)
        return [each.scores for each in found], [unsure for each in found for unsure in each.entropies]

    def _done_with_calibration(self, count: int) -> None:
        for _ in range(count):
            self._done("calibration")

    def _answer(self, arm: Arm, pair: Callable[[], Pair]) -> None:
        """All answers of an arm."""
        work = jobs(self._plan.tasks, samples=self._plan.samples, seed=self._plan.seed)
        trace: TraceLevel = (
            self._plan.trace if arm.kind == "delegated" else "takeovers" if arm.policy else "off"
        )
        own = [each for each in self._samples.records if each["arm"] == arm.name]

        def writer() -> Pair:
            return pair() if arm.policy else pair().alone("base" if arm.kind == "base" else "reasoner")

        for made in self._missing(arm.name, work, own, writer, arm.policy, trace=trace):
            traces = [each.generation.trace for each in made]
            if self._plan.choices and trace == "full":
                traces = with_choices(pair(), made, self._plan.choices)
            self._samples.add(self._sample(arm, *each) for each in zip(made, traces, strict=True))

    def _missing(
        self,
        name: str,
        work: Sequence[Job],
        there: Sequence[Record],
        pair: Callable[[], Pair],
        policy: DelegationPolicy | None,
        *,
        trace: TraceLevel,
    ) -> Iterator[list[Rollout]]:
        """The answers that are not there yet, by whole batches: a batch is what makes an answer's cost."""
        finished = {(each["task"], each["sample"]) for each in there}
        left = []
        for batch in batches(work, self._plan.batch):
            if all(job.key in finished for job in batch):
                for _ in batch:
                    self._done(name)
            else:
                left.append(batch)
        if not left:
            return
        settings = {**self._plan.settings, "trace": trace}
        for made in rollouts(pair(), left, policy=policy, settings=settings):
            yield [each for each in made if each.job.key not in finished]
            for _ in made:
                self._done(name)

    def _controls(self, of: Arm, entropies: Sequence[float]) -> Iterator[Arm]:
        """The controls of an arm, at the share that it has come to."""
        takeovers, tokens = self._spent(of.name)
        share = sum(takeovers) / max(1, sum(tokens))
        # Takeovers change what the base is unsure of, so along these answers it tells more.
        entropies = self._entropies(of.name) or entropies
        # What steers little writes answers as long as the base's own.
        _, alone = self._spent("base")
        for kind in CONTROLS:
            policy = control(kind, share=share, tokens=sum(alone) / max(1, len(alone)), entropies=entropies)
            if policy is not None:
                yield Arm(f"{kind} for {of.name}", kind, policy, of.nominal, of.name)

    def _entropies(self, name: str) -> list[float]:
        """Of the base, along the answers of an arm; none where traces were not kept whole."""
        found: list[float] = []
        with (self._folder / SAMPLES).open("rb") as lines:
            for record in map(json.loads, lines):
                if record["arm"] == name:
                    if (record.get("trace") or {}).get("level") != "full":
                        return []
                    found += (each["base_entropy"] for each in record["trace"]["decisions"])
        return [] if None in found else found

    def _spent(self, name: str) -> tuple[list[int], list[int]]:
        """Takeovers and tokens of every answer of an arm."""
        said = [each["summary"] for each in self._samples.records if each["arm"] == name]
        return [each["takeovers"] for each in said], [each["tokens"] for each in said]

    def _sample(self, arm: Arm, made: Rollout, trace: Trace) -> Record:
        """One line."""
        job, written = made.job, made.generation
        assert job.task.answer is not None
        found = grade(written.text, job.task.answer, self._checker or job.task.checker)
        return {
            "arm": arm.name,
            "task": job.task.id,
            "sample": job.sample,
            "seed": job.seed,
            "text": written.text,
            "correct": found.correct,
            "parsed": found.read,
            "finish_reason": written.finish_reason,
            "summary": written.trace.summary.model_dump(mode="json"),
            "usage": _usage(arm, written.usage),
            "seconds": round(made.seconds, 4),
            "trace": None if arm.policy is None else trace.to_fields(),
        }


def evaluate(
    folder: Path,
    plan: Plan,
    load: Callable[[], Pair],
    *,
    checker: Checker | None = None,
    done: Callable[[str], object] = lambda _: None,
) -> list[Arm]:
    """Run a plan to its end, from wherever it stands; arguments as for `Run`.

    Raises:
        RequestError: If the folder holds another run, another process is at it, or it cannot be written.
        DelegateError: As the pair does.
    """
    with held(folder):
        return Run(folder, plan, checker=checker, done=done).finish(load)


def _once(load: Callable[[], Pair], tasks: Sequence[Task]) -> Callable[[], Pair]:
    """The pair, loaded when it is first needed; every prompt is checked then, and not for each arm."""
    loaded: list[Pair] = []

    def get() -> Pair:
        if not loaded:
            pair = load()
            check_prompts(pair, tasks)
            loaded.append(pair)
        return loaded[0]

    return get


_FIELDS: Final = {
    "arm": str,
    "task": str,
    "sample": int,
    "text": str,
    "correct": bool,
    "summary": Mapping,
    "usage": Mapping,
    "seconds": int | float,
}


def of_plan(records: Sequence[Record], plan: Plan, file: Path) -> list[Record]:
    """The samples of a run, each once: somebody may have mended the file.

    Args:
        records: All lines.
        plan: Of the run.
        file: Where they stand, for errors.

    Raises:
        RequestError: Naming a line that is none of them.
    """
    tasks = {each.id for each in plan.tasks}
    known: dict[tuple[Any, ...], Record] = {}
    for number, each in enumerate(records, 1):
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(each.get(name), kind)]
        if not wrong and not (each["task"] in tasks and 0 <= each["sample"] < plan.samples):
            wrong = ["task", "sample"]
        if wrong:
            msg = (
                f"{str(file)!r}, line {number}: it is no answer of this run, by its {' and '.join(wrong)}; "
                "remove the line to run it again"
            )
            raise RequestError(msg)
        known.setdefault((each["arm"], each["task"], each["sample"]), each)
    return list(known.values())


def _usage(arm: Arm, usage: Usage) -> Record:
    """The cost by model; a model alone counts as the base of its own pair, so the reasoner's is put right."""
    counted = usage.model_dump(mode="json")
    if arm.kind != "reasoner":
        return counted
    for part in ("forwards", "tokens", "flops"):
        counted[f"base_{part}"], counted[f"reasoner_{part}"] = 0, counted[f"base_{part}"]
    return counted


def _told(arm: Arm) -> Record:
    policy = None if arm.policy is None else arm.policy.to_fields()
    return {**asdict(arm), "policy": policy}
