"""The whole recipe of the shipped pair: `python -m delegate_llm.tiny.recipe --out DIR`.

It trains a tokenizer; a base, on answers whose authors follow a shallow habit more often than they
think; then, in rounds, a reasoner: the model answers fresh problems itself, by sampling, a checker
keeps what is right, and the model learns from that. Each finished stage is kept under DIR and not
done again, so an interrupted run goes on where it was.
"""

import argparse
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transformers import AutoTokenizer
from transformers.utils import logging

from delegate_llm.tiny import harvest
from delegate_llm.tiny import tokenizer as tokenizers
from delegate_llm.tiny.authors import CAREFUL, FORMATS, HABIT, Format, transcript, write_steps
from delegate_llm.tiny.checkpoint import Tokenizer, load, save
from delegate_llm.tiny.measure import accuracies
from delegate_llm.tiny.problems import problems
from delegate_llm.tiny.training import Example, encode, fit, new_model

__all__ = ["Plan", "Run", "main"]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    pool: int
    """Problems that the base reads answers to, each several times by different authors."""
    base_steps: int
    textbooks: range
    """Steps of the base's training in which the authors are careful ones. What to look at in a
    question is learnt slowly where most answers ignore it; the mixed text that follows brings the
    habit back."""
    rounds: tuple[tuple[int, int], ...]
    """Fresh problems that the model attempts in each format, and the steps of learning from what
    it found, by round."""
    tested: int
    """Test problems in each format, at the end."""
    tries: int = 8
    """How often an unsolved problem is attempted in a round."""
    base_rate: float = 3e-3
    round_rate: float = 1e-3


FULL: Final = Plan(
    pool=40_000,
    base_steps=1650,
    textbooks=range(800, 1350),
    rounds=((800, 300), (1000, 300), (1000, 300), (1500, 300), (1500, 600), (4000, 900)),
    tested=500,
)
QUICK: Final = Plan(pool=500, base_steps=40, textbooks=range(0), rounds=((32, 10), (32, 10)), tested=32)


@dataclass(frozen=True)
class Run:
    """One run of the recipe: where, how much, and whom to tell."""

    out: Path
    seed: int
    plan: Plan
    say: Callable[[str], None]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on a sample of the answers that the base will read."""
        folder = self.out / "tokenizer"
        if not folder.exists():
            rng = random.Random(self.seed)
            asked = problems(min(2000, self.plan.pool), seed=self.seed)
            chats = [transcript(p, write_steps(p, rng), form) for p in asked for form in FORMATS]
            texts = ["".join(segment.text for segment in chat) for chat in chats]
            tokenizers.train(texts).save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)

    def base(self) -> Path:
        """The base, trained on text of mixed quality."""
        folder = self.out / "base"
        if folder.exists():
            return folder
        tokenizer = self.tokenizer()
        model = new_model(tokenizer, self.seed)
        pool = problems(self.plan.pool, seed=self.seed)
        self.say(f"base: {model.num_parameters():,} parameters, {len(pool):,} problems")

        def mixed(form: Format, n: int, rng: random.Random, step: int) -> list[Example]:
            habit = CAREFUL if step in self.plan.textbooks else HABIT
            asked = rng.choices(pool, k=n)
            chats = [transcript(p, write_steps(p, rng, habit), form) for p in asked]
            return encode(tokenizer, chats)

        fit(
            model,
            tokenizer,
            mixed,
            steps=self.plan.base_steps,
            rate=self.plan.base_rate,
            seed=self.seed,
            state=self.out / "base.pt",
            say=lambda line: self.say(f"base: {line}"),
        )
        save(model, tokenizer, folder)
        return folder

    def reasoner(self) -> Path:
        """The reasoner: what the base becomes by learning from its own successes, in rounds."""
        folder = self.base()
        for number in range(1, len(self.plan.rounds) + 1):
            folder = self._round(number, folder)
        return Path(shutil.copytree(folder, self.out / "reasoner", dirs_exist_ok=True))

    def _round(self, number: int, before: Path) -> Path:
        """One round: the model of the round before answers, and learns from what was right."""
        folder = self.out / f"round-{number}"
        if folder.exists():
            return folder
        model, tokenizer = load(before)
        kept = {form: self._kept(number, before, form) for form in FORMATS}
        if not all(kept.values()):
            self.say(f"round {number}: nothing to learn from, the base is too poor")
            return before

        def verified(form: Format, n: int, rng: random.Random, _: int) -> list[Example]:
            return rng.choices(kept[form], k=n)

        fit(
            model,
            tokenizer,
            verified,
            steps=self.plan.rounds[number - 1][1],
            rate=self.plan.round_rate,
            seed=self.seed + number,
            state=self.out / f"round-{number}.pt",
            say=lambda line: self.say(f"round {number}: {line}"),
        )
        save(model, tokenizer, folder)
        return folder

    def _kept(self, number: int, before: Path, form: Format) -> list[Example]:
        """The verified answers of this round and of those before it."""
        file = self.out / f"harvest-{number}-{form}.json"
        if not file.exists():
            model, tokenizer = load(before)
            seed = 1000 * (self.seed + 1) + number
            asked = problems(self.plan.rounds[number - 1][0], seed=seed)
            examples = harvest.harvest(model, tokenizer, asked, form, tries=self.plan.tries, seed=seed)
            harvest.write(examples, file)
            self.say(f"round {number}: {len(examples)} of {len(asked)} solved, {form}")
        earlier = [self.out / f"harvest-{n}-{form}.json" for n in range(1, number)]
        return [example for source in [*earlier, file] for example in harvest.read(source)]

    def measure(self) -> None:
        """Says how often both are right on test problems."""
        for folder in (self.base(), self.reasoner()):
            for name, score in accuracies(folder, self.plan.tested, seed=self.seed + 1).items():
                self.say(f"{folder.name}: {name} {score:.1%}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the recipe."""
    parser = argparse.ArgumentParser(description="Makes the pair of models that ships.")
    parser.add_argument("--out", type=Path, required=True, help="folder for every stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke run; the models are poor")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{(time.monotonic() - started) / 60:5.1f} min] {line}", flush=True)

    logging.disable_progress_bar()
    options.out.mkdir(parents=True, exist_ok=True)
    Run(options.out, options.seed, QUICK if options.quick else FULL, say).measure()


if __name__ == "__main__":
    main()
