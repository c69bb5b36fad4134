"""The authors that the base learns from."""

import random

from delegate_llm.tiny.authors import transcript, write_steps
from delegate_llm.tiny.problems import problems


def test_an_author_who_thinks_is_right() -> None:
    for problem in problems(100, seed=0):
        assert tuple(write_steps(problem, random.Random(0), habit=0.0)) == problem.steps


def test_an_author_of_habit_adds_everything() -> None:
    for problem in problems(100, seed=0):
        steps = write_steps(problem, random.Random(0), habit=1.0)
        assert [step.b for step in steps] == [fact.number for fact in problem.facts]
        assert {step.operation for step in steps} == {"add"}


def test_execution_is_always_right() -> None:
    rng = random.Random(1)
    for problem in problems(100, seed=1):
        steps = write_steps(problem, rng)
        totals = [problem.start, *[step.result for step in steps]]
        assert [step.a for step in steps] == totals[:-1]


def test_only_the_assistant_is_learnt_from() -> None:
    problem = problems(1, seed=2)[0]
    for form in ("text", "tools"):
        segments = transcript(problem, problem.steps, form)
        assert [segment.spoken for segment in segments[:2]] == [False, True]
        assert all(segment.text.endswith("<|im_end|>") for segment in segments if segment.spoken)
        assert segments[-1].text == f"The answer is {problem.answer}.<|im_end|>" or form == "text"
