"""What a prompt may be, and what each model makes of it."""

from __future__ import annotations

import copy
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from models import SIZE, random_model, tokenizer
from scripts import POLICY

from delegate_llm import LoadError, Pair, PromptError, RequestError, load_pair
from delegate_llm.pairs import PLAIN_CHAT
from delegate_llm.pairs.prompts import Rendered
from delegate_llm.pairs.scripted import scripted_pair

GO = [{"role": "user", "content": "go"}]
ADD = {"type": "function", "function": {"name": "add", "parameters": {}}}


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
    rendered = two.prompter.render([{"role": "user", "content": "go"}])
    assert tokenizer().decode(rendered.base) == "go"
    assert tokenizer().decode(rendered.reasoner) == "go. think"
    assert two.base.model is two.reasoner.model
    usage = two.generate([{"role": "user", "content": "go"}], policy=POLICY, max_tokens=4).usage
    assert usage.reasoner_prompt_tokens > usage.prompt_tokens


def test_a_template_is_borrowed_or_missed() -> None:
    models = [(random_model("llama", seed), tokenizer()) for seed in (1, 2)]
    messages = [{"role": "user", "content": "go"}]
    borrowed = load_pair(*models, reasoner_template="{{ messages[0].content }}!".replace("!", "."))
    rendered = borrowed.prompter.render(messages)
    assert rendered.base == rendered.reasoner
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


# --- Rendered once ---


def thinker() -> Pair:
    """A base that answers at once, and a reasoner that thinks first."""
    own = (random_model("llama", 1), tokenizer())
    return load_pair(
        own,
        own,
        base_template="{{ messages[0].content }}",
        reasoner_template="{{ messages[0].content }}{% if think %}<think>\n{% endif %}",
        reasoner_template_kwargs={"think": True},
    )


def test_a_prompt_may_be_rendered_once() -> None:
    pair = thinker()
    rendered = pair.prompter.render(GO)
    assert pair.prompter.render(rendered) is rendered
    settings = {"policy": POLICY, "max_tokens": 6}
    assert pair.generate(rendered, **settings) == pair.generate(GO, **settings)
    both = pair.generate_batch([rendered, GO], **settings)
    assert both[0].token_ids == both[1].token_ids == pair.generate(GO, **settings).token_ids
    assert pair.score(rendered, "then", policy=POLICY) == pair.score(GO, "then", policy=POLICY)


def test_each_side_says_whether_it_thinks() -> None:
    prompter = thinker().prompter
    rendered = prompter.render(GO)
    assert (rendered.thinking, rendered.reasoner_thinking) == (False, True)
    assert len(rendered.reasoner) > len(rendered.base)
    for plain in ("go<think>", tokenizer()("go<think>").input_ids):
        assert not prompter.render(plain).reasoner_thinking


def test_one_model_alone_reads_its_own() -> None:
    pair = thinker()
    rendered = pair.prompter.render(GO)
    for who, ids, thinks in (("base", rendered.base, False), ("reasoner", rendered.reasoner, True)):
        alone = pair.alone(who)
        expected = Rendered(ids, ids, thinks, thinks)
        assert alone.prompter.render(GO) == expected
        assert alone.prompter.render(rendered) == expected
        assert alone.prompter.render(expected) == expected
        assert alone.alone("base").prompter.render(rendered) == expected
        assert alone.generate(rendered, max_tokens=4) == alone.generate(GO, max_tokens=4)


@pytest.mark.parametrize(
    ("rendered", "said"),
    [
        (Rendered((), (1,)), "empty"),
        (Rendered((1,), (SIZE,)), "token id"),
        (Rendered((-1,), (1,)), "-1"),
        (Rendered((1,), cast("Any", None)), "NoneType is no list of token ids"),
    ],
)
def test_what_was_rendered_is_checked(pair: Pair, rendered: Rendered, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        pair.generate(rendered)


# --- Templates by name, and none at all ---


def test_a_template_for_tools_is_taken_where_there_are_some() -> None:
    own = copy.copy(tokenizer())
    own.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools | length }}"}
    prompter = load_pair((random_model("llama", 1), own), (random_model("llama", 2), own)).prompter
    assert own.decode(prompter.render(GO).base) == "go"
    assert own.decode(prompter.render(GO, tools=[ADD]).base) == "1"
    own.chat_template = {"only": "{{ messages[0].content }}."}
    prompter = load_pair((random_model("llama", 1), own), (random_model("llama", 2), own)).prompter
    assert own.decode(prompter.render(GO).base) == "go."


def test_a_fallback_is_used_where_neither_has_a_template() -> None:
    models = [(random_model("llama", seed), tokenizer()) for seed in (1, 2)]
    fallback = "{% set stops = ['.', 'x'] %}{{ messages[0].content }}."
    pair = load_pair(*models, fallback_template=fallback)
    assert tokenizer().decode(pair.prompter.render(GO).base) == "go."
    assert pair.prompter.stops == pair.alone("base").prompter.stops == (".", "x")
    pair = load_pair(*models, fallback_template=fallback, reasoner_template="{{ messages[0].content }}")
    assert tokenizer().decode(pair.prompter.render(GO).base) == "go"
    assert pair.prompter.stops == ()
    assert load_pair(*models).prompter.stops == ()
    assert load_pair(*models, fallback_template=PLAIN_CHAT).prompter.stops == ("\n\nUser:",)
    with pytest.raises(LoadError, match=r"none\.jinja"):
        load_pair(*models, fallback_template=Path("none.jinja"))
    with pytest.raises(RequestError, match="template: 7"):
        load_pair(*models, fallback_template=7)


# --- Scripted pairs ---


def played(template: str | None) -> Pair:
    pieces = ["<end>", "<think>", *string.printable]
    return scripted_pair(lambda seen: [1.0] * 102, lambda seen: [1.0] * 102, pieces, chat_template=template)


def spelled(pair: Pair, rendered: Rendered) -> str:
    return "".join(pair.vocabulary.piece(each) for each in rendered.base)


def test_scripted_pairs_play_templates() -> None:
    pair = played(PLAIN_CHAT.read_text())
    assert pair.prompter.stops == ("\n\nUser:",)
    messages = [{"role": "system", "content": "Be kind."}, *GO, {"role": "assistant", "content": " on "}]
    rendered = pair.prompter.render([*messages, *GO])
    assert spelled(pair, rendered) == "Be kind.\n\nUser: go\n\nAssistant: on\n\nUser: go\n\nAssistant:"
    assert pair.prompter.render(rendered) is rendered
    assert '<tools>\n{"type"' in spelled(pair, pair.prompter.render(GO, tools=[ADD]))
    thinking = played("{{ messages[0].content }}<end>{% if add_generation_prompt %}<think>\n{% endif %}")
    rendered = thinking.prompter.render(GO)
    assert rendered.base[2:4] == (0, 1)
    assert rendered.thinking
    assert rendered.reasoner_thinking
    assert not thinking.prompter.render("go<think>").thinking


def test_scripted_pairs_without_a_template_join_contents() -> None:
    pair = played(None)
    assert spelled(pair, pair.prompter.render([*GO, *GO], tools=[ADD])) == "gogo"
    assert pair.prompter.stops == ()
    with pytest.raises(PromptError, match="empty"):
        pair.prompter.render([])


# --- What a model cannot read ---


def test_tokens_that_a_model_has_no_row_for_are_named() -> None:
    """A tokenizer of a larger sibling, say."""
    short = (random_model("llama", 1, rows=SIZE - 10), tokenizer())
    whole = (random_model("llama", 2), tokenizer())
    chat = {"base_template": "{{ messages[0].content }}"}
    ids = [each for each in range(SIZE) if each >= SIZE - 10]
    text = tokenizer().decode(ids[:2])
    for pair in (load_pair(short, whole, **chat), load_pair(whole, short, **chat)):
        for prompt in (text, [{"role": "user", "content": text}]):
            with pytest.raises(PromptError, match=f"id {ids[0]} .* below {SIZE - 10}"):
                pair.generate(prompt, policy=POLICY)
        with pytest.raises(PromptError, match="completion"):
            pair.score("a", text)
        assert pair.generate("a", policy=POLICY, max_tokens=2).token_ids


@pytest.mark.parametrize("tools", [5, [5], "x", {"a": 1}, b"x", [len]])
def test_tools_that_are_none(pair: Pair, tools: Any) -> None:
    with pytest.raises(PromptError, match="tools: "):
        pair.generate("ok", tools=tools)


@pytest.mark.parametrize("completion", [None, 5, b"x", [SIZE], [-1], ["a"], "", []])
def test_completions_that_are_none(pair: Pair, completion: Any) -> None:
    with pytest.raises(PromptError, match="completion: "):
        pair.score("ok", completion)


def test_ids_of_numpy_are_ids(pair: Pair) -> None:
    ids = tokenizer()("the cat").input_ids
    settings = {"policy": POLICY, "max_tokens": 4}
    assert pair.generate(list(np.array(ids)), **settings) == pair.generate(ids, **settings)


def test_a_template_in_plain_words_ends_answers_to_messages() -> None:
    pieces = ["4", "\n\n", "User:", " more", "Assistant:", "User: ", "hi", "<eos>"]
    chat, said = [{"role": "user", "content": "hi"}], [0, 1, 2, 3, 7]
    start = len(played_of(pieces).prompter.render(chat).base)

    def script(seen: Sequence[int]) -> list[float]:
        return [9.0 if at == said[min(len(seen) - start, 4)] else 0.0 for at in range(len(pieces))]

    pair = played_of(pieces, script)
    assert pair.generate(chat).text == "4"
    assert [each.text for each in pair.generate_batch([chat, pair.prompter.render(chat)])] == ["4", "4"]
    assert list(pair.stream(chat))[-1] == pair.generate(chat)
    ids = list(pair.prompter.render(chat).base)
    assert pair.generate(ids).text.startswith("4\n\nUser:"), "ids are read as they stand"


def played_of(pieces: list[str], script: Any = lambda seen: [1.0] * 8) -> Any:
    return scripted_pair(script, script, pieces, eos=7, chat_template=PLAIN_CHAT.read_text())


def test_a_batch_of_very_unlike_lengths_says_what_each_says_alone() -> None:
    models = random_model("llama", 1, scale=6.0), random_model("llama", 2, scale=6.0)
    pair = load_pair(*((each, tokenizer()) for each in models))
    prompts = [[3, 5, 7], [3 + at % 9 for at in range(300)], [4], [6, 8] * 90]
    settings: dict[str, Any] = {"policy": POLICY, "max_tokens": 12, "trace": "full", "ignore_eos": True}
    made = pair.generate_batch(prompts, temperature=0.8, seed=[1, 2, 3, 4], **settings)
    for at, prompt in enumerate(prompts):
        alone = pair.generate(prompt, temperature=0.8, seed=at + 1, **settings)
        assert (made[at].token_ids, made[at].trace.summary) == (alone.token_ids, alone.trace.summary)
    scored = pair.score_batch(prompts, [each.token_ids for each in made], policy=POLICY)
    assert [[each.token_id for each in trace.decisions] for trace in scored] == [
        list(each.token_ids) for each in made
    ]
