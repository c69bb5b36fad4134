"""The recipe, far too short to teach anything: every stage runs, and none runs twice."""

import random
from pathlib import Path

import pytest

from delegate_llm.tiny.problems import problems

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from delegate_llm.tiny import harvest  # noqa: E402 (needs torch)
from delegate_llm.tiny.authors import FORMATS, transcript, write_steps  # noqa: E402
from delegate_llm.tiny.checkpoint import load  # noqa: E402
from delegate_llm.tiny.recipe import Plan, Run  # noqa: E402
from delegate_llm.tiny.training import encode, fit, new_model  # noqa: E402

PLAN = Plan(pool=40, base_steps=2, textbooks=range(1), rounds=((2, 1),), tested=1, tries=1)


def test_every_stage_runs_once(tmp_path: Path) -> None:
    lines: list[str] = []
    run = Run(tmp_path, seed=0, plan=PLAN, say=lines.append)
    tokenizer = run.tokenizer()
    # A model this poor solves nothing: give the round what a better one would have found.
    for form in FORMATS:
        chats = [transcript(p, p.steps, form) for p in problems(4, seed=0)]
        harvest.write(encode(tokenizer, chats), tmp_path / f"harvest-1-{form}.json")
    run.reasoner()
    assert [line.split(":")[0] for line in lines] == ["base", "base", "round 1"]
    before, after = (load(tmp_path / name)[0].state_dict() for name in ("base", "reasoner"))
    assert any(not torch.equal(before[key], after[key]) for key in before)
    lines.clear()
    run.reasoner()
    assert lines == []


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=0, plan=PLAN, say=lambda line: None)
    tokenizer = run.tokenizer()
    rng = random.Random(0)
    pool = encode(tokenizer, [transcript(p, write_steps(p, rng), "text") for p in problems(40, seed=0)])

    def train(interrupt: bool) -> dict[str, torch.Tensor]:
        """Four steps, of which the second may be the last before a cut."""
        model, state = new_model(tokenizer, seed=1), tmp_path / "state.pt"

        def say(line: str) -> None:
            if interrupt and line.startswith("step 2/"):
                raise KeyboardInterrupt

        arguments = {"steps": 4, "rate": 1e-3, "seed": 0, "state": state, "every": 2}
        draw = lambda form, n, rng, step: rng.choices(pool, k=n)  # noqa: E731 (a fixture of one line)
        if interrupt:
            with pytest.raises(KeyboardInterrupt):
                fit(model, tokenizer, draw, say=say, **arguments)
            interrupt, model = False, new_model(tokenizer, seed=2)
        fit(model, tokenizer, draw, say=say, **arguments)
        return model.state_dict()

    whole, cut = train(interrupt=False), train(interrupt=True)
    for key, tensor in whole.items():
        torch.testing.assert_close(cut[key], tensor)
