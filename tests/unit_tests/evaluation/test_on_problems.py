"""Measuring on the shipped problems, with a scripted model in the pair's place, and with the pair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from delegate_llm import DelegatedChatModel, DelegationPolicy, load_pair
from delegate_llm.chat.record import response_metadata
from delegate_llm.evaluation.problems import Arm, Outcome, answers, compare, evaluate, results
from delegate_llm.parsing import AnswerParser, answer_message, part_chunk
from delegate_llm.tiny.agent import MAX_TOKENS, TOOLS
from delegate_llm.tiny.authors import FORMATS, Format, transcript
from delegate_llm.tiny.problems import Problem, messages, problems
from delegate_llm.trace import Generation, Summary, Trace, Usage

PROBLEMS = problems(20, seed=3, split="test")


def say(text: str) -> AIMessage:
    """A text as a chat model tells it, that took ten tokens."""
    parser = AnswerParser()
    parts = [*parser.push(text), *parser.finish()]
    message = answer_message(reduce(add, [part_chunk(each, at) for at, each in enumerate(parts)]))
    generation = Generation(
        text=text,
        token_ids=(1, 2),
        finish_reason="stop",
        trace=Trace(level="off", summary=Summary(tokens=10, takeovers=1, asked=3, share=0.1)),
        usage=Usage(base_forwards=9, reasoner_forwards=2, reasoner_tokens=30),
    )
    message.response_metadata = response_metadata(
        generation, DelegationPolicy(), model_name="", arm="delegated", called=bool(message.tool_calls)
    )
    return message


class Perfect:
    """Answers as a faultless author would; notes how many chats it was given at once."""

    def __init__(self, asked: Sequence[Problem]) -> None:
        self.asked = {problem.question: problem for problem in asked}
        self.sizes: list[int] = []

    def __call__(self, chats: Sequence[list[Any]], form: Format, /) -> list[AIMessage]:
        self.sizes.append(len(chats))
        return [say(self._turn(chat, form)) for chat in chats]

    def _turn(self, chat: list[Any], form: Format) -> str:
        problem = self.asked[chat[0].content]
        turns = [s.text for s in transcript(problem, problem.steps, form) if s.spoken]
        return turns[sum(each.type == "ai" for each in chat)].removesuffix("<|im_end|>")


def test_text_takes_one_answer_a_problem() -> None:
    model, done = Perfect(PROBLEMS), []
    outcome = evaluate(model, PROBLEMS, "text", batch=8, solved=lambda: done.append(1))
    assert model.sizes == [8, 8, 4]
    assert (outcome.problems, outcome.correct, outcome.accuracy, len(done)) == (20, 20, 1.0, 20)
    assert (outcome.tokens, outcome.takeovers, outcome.asked) == (200, 20, 60)
    assert (outcome.base_forwards, outcome.reasoner_forwards, outcome.share) == (180, 40, 0.1)
    assert outcome.reasoner_tokens == 600


@pytest.mark.parametrize("batch", [1, 8, 100])
def test_tools_advance_turn_by_turn_in_full_batches(batch: int) -> None:
    model = Perfect(PROBLEMS)
    outcome = evaluate(model, PROBLEMS, "tools", batch=batch)
    turns = sum(len(problem.steps) + 1 for problem in PROBLEMS)
    assert outcome.accuracy == 1.0
    assert sum(model.sizes) == turns == outcome.tokens / 10
    assert max(model.sizes) == min(batch, len(PROBLEMS))


@pytest.mark.parametrize(
    "call",
    [
        "<tool_call>{",
        '<tool_call>{"name": "divide", "arguments": {"a": 1, "b": 1}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": true, "b": 1}}</tool_call>',
    ],
)
def test_a_broken_call_is_a_failure_and_ends_the_attempt(call: str) -> None:
    outcome = evaluate(lambda chats, _: [say(call) for _ in chats], PROBLEMS, "tools")
    assert (outcome.correct, outcome.tokens) == (0, 200)


def test_an_agent_without_end_is_cut_off() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 1}}\n</tool_call>'
    outcome = evaluate(lambda chats, _: [say(call) for _ in chats], PROBLEMS[:3], "tools")
    assert (outcome.correct, outcome.tokens) == (0, 3 * 8 * 10)


# --- The pair that ships, through the chat model ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("divergence", ["cross_entropy", "random"])
def test_a_chain_answers_as_the_pair_does(form: Format, divergence: Any) -> None:
    pair = load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    policy = DelegationPolicy(divergence=divergence, threshold=0.9 if divergence == "random" else 3.0)
    asked = PROBLEMS[:4]
    given = pair.generate_batch(
        [messages(each) for each in asked],
        policy=policy,
        tools=TOOLS if form == "tools" else None,
        max_tokens=MAX_TOKENS,
        seed=[5, 6, 7, 8],
    )
    model = DelegatedChatModel(pair=pair, policy=policy, max_tokens=MAX_TOKENS)
    said = answers(model, seed=5)([[HumanMessage(each.question)] for each in asked], form)
    records = [each.response_metadata["delegation"] for each in said]
    assert [each["summary"]["takeovers"] for each in records] == [
        each.trace.summary.takeovers for each in given
    ]
    assert [[at["position"] for at in each["takeovers"]] for each in records] == [
        [at.position for at in each.trace.takeovers] for each in given
    ]
    if divergence == "random":
        assert len({str(each["takeovers"]) for each in records}) == len(records)


def test_the_same_seed_gives_the_same_numbers() -> None:
    pair = load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")

    def numbers() -> list[tuple[Any, ...]]:
        arms = list(compare(pair, PROBLEMS[:1], PROBLEMS[1:2], seed=1))
        return [(arm.name, arm.total.correct, arm.total.tokens, arm.total.takeovers) for arm in arms]

    assert numbers() == numbers()


# --- Numbers ---


def _arm(name: str, correct: int) -> Arm:
    half = Outcome(problems=10, correct=correct, tokens=100, takeovers=4, asked=50)
    return Arm(name, half, half)


def test_recovery_is_the_part_of_the_gap_that_is_closed() -> None:
    found = results([_arm("base alone", 2), _arm("reasoner alone", 10), _arm("delegated", 8)])
    assert [each.recovery for each in found] == [0.0, 1.0, pytest.approx(0.75)]
    assert (found[2].accuracy_text, found[2].share, found[2].asked_per_token) == (0.8, 0.04, 0.5)


def test_no_gap_no_recovery_and_nothing_measured_no_accuracy() -> None:
    found = results([_arm("base alone", 5), _arm("reasoner alone", 5)])
    assert [each.recovery for each in found] == [None, None]
    empty = results([Arm(name, Outcome(), Outcome()) for name in ("a", "b")])
    assert [(each.accuracy, each.share) for each in empty] == [(None, 0.0)] * 2
