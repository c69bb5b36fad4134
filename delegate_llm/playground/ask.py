"""A question as the browser sends it, and its answers as the events that go back.

One question may be answered by up to three arms, one after the other: by the pair under the policy, by the
base alone, and by the reasoner alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from delegate_llm.errors import DelegateError, PromptError, RequestError
from delegate_llm.policy import DelegationPolicy
from delegate_llm.report.answers import Causes, Shown, chunk, columns
from delegate_llm.report.reasons import Replay, Verdict
from delegate_llm.trace import Decision, Generation, Trace

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import OnStep, Pair

__all__ = ("Arm", "Event", "Question", "answers")

Arm = Literal["delegated", "base", "reasoner"]
"""`delegated`: the pair under the policy. `base`: no takeovers. `reasoner`: it writes every token."""
Event = dict[str, Any]
"""Something that happened; `event` names what: `start`, `piece`, `end` and `choices`, each of one `arm`."""

_SETTINGS: Final = ("max_tokens", "temperature", "top_p", "seed")
_POLICY: Final = ("divergence", "threshold", "spike", "budget")
_KNOWN: Final = {"pair", "question", "system", "policy", "arms", *_SETTINGS}
_MOST_TOKENS: Final = 32_768
_TOP: Final = 5
"""Most probable tokens of each model that are shown at a position."""
_SILENT: Final = DelegationPolicy(budget=0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, checked at the door."""

    messages: list[dict[str, str]]
    settings: dict[str, Any]
    """For the pair."""
    policy: dict[str, Any]
    """Fields of the policy that differ from the pair's own."""
    arms: tuple[Arm, ...]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Question:
        """The question that a request asks.

        Raises:
            RequestError: Naming the setting, the value, and what would do.
            PolicyError: The same for a setting of the policy.
            PromptError: If there is nothing to answer.
        """
        for name in body.keys() - _KNOWN:
            msg = f"unknown setting {name!r:.80}; there are {', '.join(sorted(_KNOWN))}"
            raise RequestError(msg)
        settings = {name: body[name] for name in _SETTINGS if body.get(name) is not None}
        question = cls(_messages(body), settings, _policy(body.get("policy")), _arms(body.get("arms")))
        question.check()
        return question

    @property
    def text(self) -> str:
        """What the user asks."""
        return self.messages[-1]["content"]

    def check(self) -> None:
        """Raise now what the pair would raise once it is loaded, which can take minutes."""
        from delegate_llm.request import Request  # noqa: PLC0415 - brings pydantic

        asked = Request.check(policy=DelegationPolicy(**self.policy), **self.settings)
        if asked.max_tokens > _MOST_TOKENS:
            msg = (
                f"max_tokens: {asked.max_tokens} is more than {_MOST_TOKENS}, the most that may be asked for"
            )
            raise RequestError(msg)


def answers(pair: Pair, question: Question, on_step: OnStep) -> Iterator[Event]:
    """Answer a question, arm by arm.

    Args:
        pair: Of the two models.
        question: What is asked.
        on_step: As for `Pair.generate`.

    Yields:
        For each arm: `start` with the data of its view, a `piece` for every stretch that is decided, with a
        chunk of that data or, of who writes alone, its text; `end` with the text, the summary and the cost;
        and behind the delegated answer, where the backend tells them, `choices`: a chunk of both models' most
        probable tokens.
    """
    policy = pair.policy.changed(**question.policy)
    for arm in question.arms:
        writer = pair.alone("reasoner") if arm == "reasoner" else pair
        yield from _answer(writer, question, arm, policy if arm == "delegated" else _SILENT, on_step)


def _answer(
    pair: Pair, question: Question, arm: Arm, policy: DelegationPolicy, on_step: OnStep
) -> Iterator[Event]:
    live = _Live(policy)
    shown = Shown(id=arm, title=question.text, trace=Trace(), policy=policy)
    yield {"event": "start", "arm": arm, "data": columns(shown)}
    begun = time.perf_counter()
    for item in pair.stream(
        question.messages, policy=policy, trace="off", on_step=on_step, **question.settings
    ):
        if isinstance(item, Generation):
            yield _end(arm, item, time.perf_counter() - begun)
            if arm == "delegated":
                yield from _choices(pair, question, arm, item.token_ids, on_step)
        elif arm == "delegated":
            yield {"event": "piece", "arm": arm, "chunk": live.chunk(item.decisions)}
        else:
            yield {"event": "piece", "arm": arm, "text": item.text}


def _choices(
    pair: Pair, question: Question, arm: Arm, tokens: Sequence[int], on_step: OnStep
) -> Iterator[Event]:
    """What each model held most probable at every position, by reading the answer once more.

    It is for those who look, and no part of what the answer cost.
    """
    if not tokens:
        return
    on_step()
    try:
        (read,) = pair.score_batch([question.messages], [tokens], top=_TOP)
    except DelegateError:  # the answer stands without
        return
    on_step()
    told = chunk(read.decisions, [Verdict()] * len(tokens), {})
    yield {
        "event": "choices",
        "arm": arm,
        "tops": {name: told[name] for name in ("base_top", "reasoner_top")},
    }


class _Live:
    """The columns of an answer while it grows."""

    def __init__(self, policy: DelegationPolicy) -> None:
        self._replay = Replay(policy)
        self._causes: Causes = {}
        self._told = 0

    def chunk(self, decisions: Sequence[Decision]) -> dict[str, Any]:
        judged = [self._replay.step(each) for each in decisions]
        start, self._told = self._told, self._told + len(decisions)
        return chunk(decisions, judged, self._causes, start=start)


def _end(arm: Arm, done: Generation, seconds: float) -> Event:
    usage, summary = done.usage, done.trace.summary
    base, reasoner = usage.base_forwards, usage.reasoner_forwards
    if arm == "reasoner":  # a pair of it alone counts it as the base
        base, reasoner = reasoner, base
    return {
        "event": "end",
        "arm": arm,
        "text": done.text,
        "finish_reason": done.finish_reason,
        "seed": done.seed,
        "summary": summary.model_dump(),
        "cost": {
            "tokens": summary.tokens,
            "takeovers": summary.takeovers if arm == "delegated" else None,
            "base_forwards": base,
            "reasoner_forwards": reasoner,
            "flops": usage.base_flops + usage.reasoner_flops,
            "seconds": seconds,
        },
    }


# --- The parts of a request ---


def _messages(body: Mapping[str, Any]) -> list[dict[str, str]]:
    question, system = (_text(name, body.get(name) or "") for name in ("question", "system"))
    if not question.strip():
        msg = "question: it is empty; type one"
        raise PromptError(msg)
    chat = [{"role": "system", "content": system}] if system.strip() else []
    return [*chat, {"role": "user", "content": question}]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{name}: {value!r:.80} is no text"
        raise PromptError(msg)
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = f"{name}: it holds half a character, which no model can read; take it out"
        raise PromptError(msg) from None
    return value


def _policy(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        msg = f"policy: {given!r:.80} is not an object of its fields"
        raise RequestError(msg)
    for name in given.keys() - set(_POLICY):
        msg = f"policy: {name!r:.80} cannot be set here; there are {', '.join(_POLICY)}"
        raise RequestError(msg)
    return given


def _arms(given: Any) -> tuple[Arm, ...]:
    if given is None:
        return ("delegated",)
    known = get_args(Arm)
    if not isinstance(given, list) or not given or any(each not in known for each in given):
        msg = f"arms: {given!r:.80} is not a list of one or more of {', '.join(known)}"
        raise RequestError(msg)
    return tuple(dict.fromkeys(given))
