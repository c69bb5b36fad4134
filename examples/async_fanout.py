"""Many questions: one after the other, side by side with `asyncio.gather`, and in one batch with `abatch`.

Run it with `python examples/async_fanout.py`. The answers are the same on every route. Calls side by side
leave the event loop free, but each still needs forwards of its own; a batch shares every forward.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from langchain_core.messages import AIMessage

from delegate_llm import DelegatedChatModel
from delegate_llm.tiny.problems import grade, problems

# Your own two models go here, and your own questions.
model = DelegatedChatModel("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
stories = problems(16, seed=2026, split="test")
questions = [story.question for story in stories]


async def one_by_one() -> list[AIMessage]:
    """Wait for each answer before asking the next question."""
    return [await model.ainvoke(question) for question in questions]


async def gather() -> list[AIMessage]:
    """Ask everything at once, each call by itself: any of them can be cancelled alone."""
    return await asyncio.gather(*(model.ainvoke(question) for question in questions))


async def abatch() -> list[AIMessage]:
    """Ask everything in one batch; `config={"max_concurrency": 8}` limits how wide it gets."""
    return await model.abatch(questions)


async def timed(route: Callable[[], Awaitable[list[AIMessage]]]) -> list[str]:
    """The answers by one route; prints what it took, how many are right, and the reasoner's share."""
    start = time.perf_counter()
    answers = await route()
    seconds = time.perf_counter() - start
    right = sum(grade(story, answer.text) for story, answer in zip(stories, answers, strict=True))
    counts = [answer.response_metadata["delegation"]["summary"] for answer in answers]
    tokens, heard = (sum(each[name] for each in counts) for name in ("tokens", "takeovers"))
    print(f"{route.__name__:12}{seconds:5.2f} s, {right} of {len(answers)} right, ", end="")
    print(f"{heard} of {tokens} tokens ({heard / tokens:.1%}) by the reasoner")
    return [answer.text for answer in answers]


async def main() -> None:
    """Take all three routes."""
    await asyncio.to_thread(model.load)  # so that the first route is not charged for it
    texts = [await timed(route) for route in (one_by_one, gather, abatch)]
    print("the same answers:", texts[0] == texts[1] == texts[2])


asyncio.run(main())
