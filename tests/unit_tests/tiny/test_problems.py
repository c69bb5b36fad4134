"""The problems: right, reproducible, and never in two splits."""

import re

import pytest

from delegate_llm.tiny.problems import Problem, grade, messages, problems

SPLITS = ("train", "calibration", "test")
SEVEN = next(problem for problem in problems(500, seed=0) if problem.answer == 7)


def read(question: str) -> int:
    """Solves a question from its words alone, without the package's own account of it."""
    first, *others, ask = re.findall(r"[^.?]+[.?]", question)
    numbers = [int(n) for n in re.findall(r"\d+", first)]
    total = numbers[0] * numbers[1] if "each" in first else numbers[0]
    thing = re.search(r"How many (\w+)", ask).group(1)
    for sentence in others:
        number = int(re.search(r"\d+", sentence).group())
        if "times as many" in sentence:
            total *= number
        elif re.search(r"\b(sells|loses|gives|break)\b", sentence):
            total -= number
        elif re.search(r"\bmore\b", sentence) or thing in sentence:
            total += number
    return total


@pytest.mark.parametrize("split", SPLITS)
def test_answers_follow_from_the_words(split: str) -> None:
    for problem in problems(80, seed=3, split=split):
        assert problem.answer == read(problem.question), problem.question


def test_adding_every_number_is_always_wrong() -> None:
    for problem in problems(300, seed=4):
        everything = problem.start + sum(fact.number for fact in problem.facts)
        assert everything != problem.answer
        assert 1 <= problem.decisions <= 3


def test_numbers_stay_small() -> None:
    results = [step.result for problem in problems(300, seed=5) for step in problem.steps]
    assert min(results) >= 1
    assert max(results) <= 99


def test_two_to_four_steps_of_every_operation() -> None:
    drawn = problems(300, seed=6)
    assert {len(problem.steps) for problem in drawn} == {2, 3, 4}
    operations = {step.operation for problem in drawn for step in problem.steps}
    assert operations == {"add", "subtract", "multiply"}


def test_a_seed_names_one_sequence() -> None:
    assert problems(20, seed=7) == problems(30, seed=7)[:20]
    assert problems(20, seed=7) != problems(20, seed=8)


def test_splits_share_no_question() -> None:
    train, calibration, test = (
        {problem.question for seed in range(3) for problem in problems(80, seed=seed, split=split)}
        for split in SPLITS
    )
    assert not train & calibration
    assert not train & test
    assert not calibration & test


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is 7.", True),
        ("The answer is 6. No: The answer is 7.", True),
        ("The answer is 7. No: The answer is 6.", False),
        ("The answer is 77.", False),
        ("The answer is -7.", False),
        ("7", False),
        ("", False),
    ],
)
def test_the_last_answer_counts(text: str, right: bool) -> None:
    assert grade(SEVEN, text) is right


def test_the_chat_is_the_question() -> None:
    problem: Problem = problems(1, seed=0)[0]
    assert messages(problem) == [{"role": "user", "content": problem.question}]
