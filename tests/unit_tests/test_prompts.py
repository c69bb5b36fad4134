"""What a prompt may be, and what each model makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from models import SIZE, random_model, tokenizer
from scripts import POLICY

from delegate_llm import Pair, PromptError, load_pair


def test_text_and_ids_are_the_same_prompt(pair: Pair) -> None:
    ids = tokenizer()("the cat").input_ids
    settings = {"policy": POLICY, "max_tokens": 12}
    assert pair.generate("the cat", **settings) == pair.generate(ids, **settings)
    assert pair.generate("the cat", **settings).usage.prompt_tokens == len(ids)


def test_each_model_has_its_own_prompt_for_the_shared_answer() -> None:
    model = random_model("llama", 1)
    two = load_pair(
        (model, tokenizer()),
        (model, tokenizer()),
        base_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        reasoner_template="{% for m in messages %}{{ m.content }}{% endfor %}{{ hint }}",
        reasoner_template_kwargs={"hint": ". think"},
    )
    base, reasoner = two.prompter.ids([{"role": "user", "content": "go"}])
    assert tokenizer().decode(base) == "go"
    assert tokenizer().decode(reasoner) == "go. think"
    assert two.base.model is two.reasoner.model
    usage = two.generate([{"role": "user", "content": "go"}], policy=POLICY, max_tokens=4).usage
    assert usage.reasoner_prompt_tokens > usage.prompt_tokens


def test_a_template_is_borrowed_or_missed() -> None:
    models = [(random_model("llama", seed), tokenizer()) for seed in (1, 2)]
    messages = [{"role": "user", "content": "go"}]
    borrowed = load_pair(*models, reasoner_template="{{ messages[0].content }}!".replace("!", "."))
    base, reasoner = borrowed.prompter.ids(messages)
    assert base == reasoner
    with pytest.raises(PromptError, match=r"chat template.*base_template"):
        load_pair(*models).generate(messages)
    broken = load_pair(*models, base_template="{{ raise_exception('no') }}")
    with pytest.raises(PromptError, match="cannot render"):
        broken.generate(messages)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "empty"),
        ([], "empty"),
        ([SIZE], "token id"),
        ([-1], "token id"),
        ([1.5], "token id"),
        ([{"role": "user", "content": "a"}, 3], "token id|message"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        (7, "int"),
        ("a\ud800b", r"ud800.*character 1"),
        ([{"content": "a"}], "'role'"),
        ([{"role": 3, "content": "a"}], "'role'"),
        ("a" * 512, "512"),
        ("a" * 600, "600.*context is 512"),
    ],
)
def test_bad_prompts(pair: Pair, prompt: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        pair.generate(prompt, policy=POLICY)
    with pytest.raises(PromptError, match=said):
        pair.stream(prompt, policy=POLICY)
    assert pair.generate("ok", policy=POLICY, max_tokens=2).text is not None
