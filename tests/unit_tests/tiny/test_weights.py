"""The weights that ship: what they are, and what each of them gets right."""

from typing import Any

import pytest
from solving import solve_with_tools

from delegate_llm.tiny import path
from delegate_llm.tiny.authors import FORMATS, Format
from delegate_llm.tiny.problems import messages, problems

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from delegate_llm.tiny.checkpoint import load  # noqa: E402 (needs torch)
from delegate_llm.tiny.rollout import attempt  # noqa: E402 (needs torch)

NAMES = ("base", "reasoner")


@pytest.fixture(scope="module")
def pair() -> dict[str, Any]:
    return {name: load(path(name)) for name in NAMES}


@pytest.mark.parametrize("form", FORMATS)
def test_the_reasoner_is_right_where_the_base_is_wrong(pair: dict[str, Any], form: Format) -> None:
    asked = problems(24, seed=11, split="test")
    right = {
        name: sum(t.correct for t in attempt(*pair[name], asked, form, temperature=0.0, seed=0))
        for name in NAMES
    }
    assert right["base"] <= 4
    assert right["reasoner"] >= 22


def generate(model: Any, tokenizer: Any, chat: list[dict[str, Any]], tools: Any = None) -> str:
    """What a user of transformers does."""
    prompt = tokenizer.apply_chat_template(
        chat, tools=tools, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, do_sample=False, max_new_tokens=120)
    text: str = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


def test_plain_generation_gives_the_answers_that_are_measured(pair: dict[str, Any]) -> None:
    model, tokenizer = pair["reasoner"]
    problem = problems(1, seed=12, split="test")[0]
    (tried,) = attempt(model, tokenizer, [problem], "text", temperature=0.0, seed=0)
    said = [t for t, spoken in zip(*tried.example, strict=True) if spoken]
    text = generate(model, tokenizer, messages(problem))
    assert text == tokenizer.decode(said, skip_special_tokens=True)


def test_a_plain_agent_solves_problems(pair: dict[str, Any]) -> None:
    model, tokenizer = pair["reasoner"]
    outcomes = [
        solve_with_tools(lambda chat, tools: generate(model, tokenizer, chat, tools), problem)
        for problem in problems(3, seed=13, split="test")
    ]
    assert sum(outcome.correct for outcome in outcomes) >= 2
    assert not any(outcome.error for outcome in outcomes)


def test_both_share_one_tokenizer() -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (path("base") / file).read_bytes() == (path("reasoner") / file).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_small_and_complete(pair: dict[str, Any], name: str) -> None:
    assert (path(name) / "model.safetensors").stat().st_size < 3_000_000
    model, tokenizer = pair[name]
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.dtype == torch.float32  # asked for by `load`; the file holds bfloat16


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="guide"):
        path("guide")
