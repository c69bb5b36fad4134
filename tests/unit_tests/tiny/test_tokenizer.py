"""The tokenizer that ships, and prompts that are to the token those of the training."""

import random
from typing import Any

import pytest
from solving import solve_with_tools

from delegate_llm.tiny import path
from delegate_llm.tiny.agent import TOOLS
from delegate_llm.tiny.authors import FORMATS, Segment, transcript, write_steps
from delegate_llm.tiny.problems import Problem, messages, problems

transformers = pytest.importorskip("transformers")

from delegate_llm.tiny.tokenizer import system_prompt  # noqa: E402 (needs transformers)
from delegate_llm.tiny.training import encode  # noqa: E402 (needs transformers)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(path("base"))


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 3 boxes with 40 pens in each.",
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 22}}\n</tool_call>',
        "<think>\nHm.\n</think>\n\n",
        "Übergröße, 東京, \t tabs\r\n and  spaces ",
    ],
)
def test_text_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_digits_stay_single(tokenizer: Any) -> None:
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    assert not [token for token in tokenizer.get_vocab() if sum(map(str.isdigit, token)) > 1]


def test_tags_are_tokens_but_not_special(tokenizer: Any) -> None:
    for tag in ("tool_call", "tool_response", "think"):
        assert len(tokenizer(f"<{tag}></{tag}>").input_ids) == 2
    ended = tokenizer("<|im_start|>Yes<|im_end|><|endoftext|>").input_ids
    assert tokenizer.decode(ended, skip_special_tokens=True) == "Yes"
    assert tokenizer.eos_token == "<|im_end|>"


def chat_of(segments: list[Segment], problem: Problem) -> list[list[dict[str, Any]]]:
    """The chats before each assistant turn of a transcript with tools, as an agent holds them."""
    turns = iter(s.text.removesuffix("<|im_end|>") for s in segments if s.spoken)
    seen: list[list[dict[str, Any]]] = []

    def chat(history: list[dict[str, Any]], _: object) -> str:
        seen.append(list(history))
        return next(turns)

    solve_with_tools(chat, problem)
    return seen


def test_text_prompts_are_those_of_the_training(tokenizer: Any) -> None:
    for problem in problems(50, seed=1):
        segments = transcript(problem, problem.steps, "text")
        prompt = tokenizer.apply_chat_template(messages(problem), add_generation_prompt=True)
        assert prompt["input_ids"] == encode(tokenizer, [segments[:1]])[0].ids


def test_tool_prompts_are_those_of_the_training(tokenizer: Any) -> None:
    rng = random.Random(0)
    prefix = tokenizer(system_prompt(tokenizer, "tools")).input_ids
    for problem in problems(50, seed=2):
        segments = transcript(problem, write_steps(problem, rng), "tools")
        for turn, chat in enumerate(chat_of(segments, problem)):
            prompt = tokenizer.apply_chat_template(chat, tools=TOOLS, add_generation_prompt=True)
            taught = encode(tokenizer, [segments[: 2 * turn + 1]])[0].ids
            assert prompt["input_ids"] == prefix + taught


def test_segments_encode_like_the_whole(tokenizer: Any) -> None:
    for form in FORMATS:
        for problem in problems(50, seed=3):
            segments = transcript(problem, problem.steps, form)
            whole = "".join(segment.text for segment in segments)
            assert encode(tokenizer, [segments])[0].ids == tokenizer(whole).input_ids


def test_tool_results_that_follow_each_other_share_a_turn(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(
        [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}], tokenize=False
    )
    assert rendered == (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    )


def test_calls_render_with_words_before_them_and_arguments_in_either_form(tokenizer: Any) -> None:
    calls = [
        {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}},
        {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
    ]
    rendered = tokenizer.apply_chat_template(
        [{"role": "assistant", "content": "Well.", "tool_calls": calls}], tokenize=False
    )
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    assert rendered == f"<|im_start|>assistant\nWell.\n{call}\n{call}<|im_end|>\n"


def test_a_system_message_stands_first_with_or_without_tools(tokenizer: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    plain = tokenizer.apply_chat_template(chat, tokenize=False)
    assert plain.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")
    tooled = tokenizer.apply_chat_template(chat, tools=TOOLS, tokenize=False)
    assert tooled.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\n<tools>\n{")
    assert tooled.count("Be brief.") == 1
