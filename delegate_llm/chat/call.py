"""One call of the chat model: its settings gathered from the model and the call, checked, told to a pair."""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from langchain_core.utils.function_calling import convert_to_json_schema

from delegate_llm._checks import integer, seconds
from delegate_llm.chat.forms import NOT_CONVERTED, openai_tool
from delegate_llm.errors import CancelledError, DeadlineError, GrammarError, RequestError
from delegate_llm.gates import Turn, TurnGate
from delegate_llm.grammar import Grammar
from delegate_llm.policy import DelegationPolicy
from delegate_llm.request import Request

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = (
    "ARMS",
    "SETTINGS",
    "Arm",
    "Call",
    "arm_of",
    "chosen_tools",
    "formatted",
    "grammar_of",
    "unknown_setting",
)

logger = logging.getLogger(__name__)

Arm = Literal["delegated", "base", "reasoner"]
ARMS: Final[tuple[str, ...]] = get_args(Arm)

_POLICY: Final = ("threshold", "budget", "divergence")
_PAIR: Final[tuple[str, ...]] = ("max_tokens", "temperature", "top_p", "top_k", "schedule", "draft", "trace")
_OTHER: Final = ("policy", "stop", "seed", "n", "logprobs", "top_logprobs", "timeout", "arm")
_CAPS: Final = {"max_takeovers": "limit", "max_asks": "asks"}
"""What a call may spend at most, whatever the policy's budget: an agent run hands each call its part."""
_CALL_ONLY: Final = (
    *_CAPS,
    *("model", "tools", "tool_choice", "parallel_tool_calls", "response_format", "grammar"),
    *("strict", "stream"),  # said by callers who talk to any provider; a grammar is always strict
)
SETTINGS: Final = frozenset((*_POLICY, *_PAIR, *_OTHER))
"""What may be set on the model and in each call."""


def unknown_setting(name: str, known: Sequence[str]) -> str:
    """What to say of a setting that is none of those known."""
    if name in _CALL_ONLY:
        return f"{name}: a setting of single calls; give it to `invoke` and the like, or to all by `bind`"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"
    return f"unknown setting {name!r}; {hint}"


@dataclass(slots=True)
class Call:
    """What one call asks of a pair."""

    arm: Arm
    policy: DelegationPolicy | Mapping[str, Any] | None
    """As given; None is the pair's own."""
    changes: dict[str, Any]
    """Fields of the policy that are set one by one."""
    caps: dict[str, int]
    """Fields of the policy's budget that this call may not exceed."""
    turns: TurnGate | None
    """What it may spend by the kind of answer it turns out to be."""
    settings: dict[str, Any]
    """For the pair."""
    seeds: list[int | None]
    """One an answer."""
    tools: list[dict[str, Any]] | None
    """Told to the models."""
    timeout: float | None
    """Seconds."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Any],
        given: Mapping[str, Any],
        stop: Sequence[str] | None,
        *,
        names: Mapping[str, str],
    ) -> Call:
        """The call that the model's fields and a call's own settings make.

        Args:
            fields: The model's, those of `SETTINGS`.
            given: The call's; they replace the model's.
            stop: The call's stop strings, if any; likewise.
            names: The arms that the names of models stand for.

        Raises:
            RequestError: If a setting is unknown or out of range.
            PolicyError: If one of the policy is.
            GrammarError: If a schema is none.
        """
        for name in given.keys() - SETTINGS - set(_CALL_ONLY):
            raise RequestError(unknown_setting(name, (*SETTINGS, *_CALL_ONLY)))
        said = {name: value for name, value in given.items() if value is not None}
        if stop is not None:
            said["stop"] = stop
        merged = {name: value for name, value in fields.items() if value is not None} | said
        tools, grammar = _form(said)
        settings = {name: merged[name] for name in (*_PAIR, "stop") if name in merged}
        call = cls(
            arm=arm_of(said.get("model"), said.get("arm", fields.get("arm")), names),
            policy=merged.get("policy"),
            # A policy given with the call stands as it is, but for what the call itself changes.
            changes={name: (said if "policy" in said else merged).get(name) for name in _POLICY},
            turns=_turns(said.get("max_takeovers")),
            caps=_caps(said),
            settings={**settings, "grammar": grammar, "logprobs": _alternatives(merged)},
            seeds=[],
            tools=tools,
            timeout=seconds("timeout", merged["timeout"]) if "timeout" in merged else None,
        )
        call.changes = {name: value for name, value in call.changes.items() if value is not None}
        checked = Request.check(
            policy=call.policy_for(DelegationPolicy()), seed=merged.get("seed"), **call.settings
        )
        call.seeds = _seeds(checked, integer("n", merged.get("n", 1), low=1))
        return call

    def policy_for(self, own: DelegationPolicy) -> DelegationPolicy:
        """The policy of this call on a pair whose own is `own`."""
        if self.arm != "delegated":
            return DelegationPolicy(budget=0)
        start = own if self.policy is None else DelegationPolicy.of(self.policy)
        changed = start.changed(**self.changes) if self.changes else start
        gates = (*changed.gates, self.turns) if self.turns else changed.gates
        return changed.model_copy(update={"budget": changed.budget.capped(**self.caps), "gates": gates})

    def warn_of(self, own: DelegationPolicy, policy: DelegationPolicy) -> None:
        """Log it if a threshold is left that was meant for another divergence."""
        start = own if self.policy is None else DelegationPolicy.of(self.policy)
        if (
            self.arm == "delegated"
            and policy.divergence != start.divergence
            and "threshold" not in self.changes
        ):
            logger.warning(
                "divergence: %r has other units than %r, whose threshold %g is left; give threshold too",
                policy.divergence,
                start.divergence,
                start.threshold,
            )

    def pair_for(self, pair: Pair) -> Pair:
        """The pair, or the one of its models that this call wants alone."""
        return pair if self.arm == "delegated" else pair.alone(self.arm)

    def clock(self) -> Callable[[], None]:
        """For `on_step`: raises once the call is cancelled or has run out of time, which starts now."""
        timeout, cancelled = self.timeout, self.cancelled
        end = None if timeout is None else time.monotonic() + timeout

        def check() -> None:
            if cancelled.is_set():
                msg = "the call was cancelled"
                raise CancelledError(msg)
            if end is not None and time.monotonic() > end:
                msg = f"timeout: no answer within {timeout:g} s; allow more, or fewer max_tokens"
                raise DeadlineError(msg)

        return check


def arm_of(model: Any, arm: Any, names: Mapping[str, str]) -> Arm:
    """Who is to write.

    Args:
        model: An arm or the name of a model; None for what `arm` says.
        arm: The arm otherwise.
        names: The arms that the names of models stand for.
    """
    chosen = names.get(model, model) if isinstance(model, str) else arm if model is None else model
    if chosen not in ARMS:
        msg = (
            f"{'arm' if model is None else 'model'}: {chosen!r} is unknown; choose one of "
            f"{', '.join(map(repr, ARMS))}{', or ' if names else ''}{', '.join(map(repr, names))}"
        )
        raise RequestError(msg)
    return cast("Arm", chosen)


def formatted(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Tools in OpenAI's form, from whatever LangChain takes for one.

    Raises:
        RequestError: If one is none, or one that only some provider's server could run.
    """
    if not isinstance(tools, Iterable):
        msg = f"tools: {tools!r:.80} is not a list of tools"
        raise RequestError(msg)
    made = []
    for each in tools:
        try:
            tool = openai_tool(each)
        except NOT_CONVERTED as error:
            msg = f"tools: {each!r:.80} is no tool: {str(error).splitlines()[0]}"
            raise RequestError(msg) from error
        if not isinstance(tool.get("function"), Mapping):
            msg = (
                f"tools: {each!r:.80} runs on some provider's server; here there are only functions of yours"
            )
            raise RequestError(msg)
        made.append(tool)
    return made


def chosen_tools(tools: Sequence[Mapping[str, Any]], choice: Any) -> list[dict[str, Any]] | None:
    """The tools among which a call is demanded; None if none is.

    Args:
        tools: OpenAI's form.
        choice: None, "auto", "none"; "any", "required" or True; the name of a tool, or OpenAI's dict of one.

    Raises:
        RequestError: If it names no tool.
    """
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, Mapping) else choice.get("type")
    if choice in (None, False, "auto", "none"):
        return None
    every = [dict(each) for each in tools]
    if not every:
        msg = f"tool_choice: {choice!r} demands a call, and there are no tools"
        raise RequestError(msg)
    if choice in (True, "any", "required"):
        return every
    found = [each for each in every if each["function"]["name"] == choice]
    if not found:
        names = ", ".join(repr(each["function"]["name"]) for each in every)
        msg = f"tool_choice: {choice!r} is neither 'auto', 'none', 'any' nor one of the tools {names}"
        raise RequestError(msg)
    return found


def _form(said: Mapping[str, Any]) -> tuple[list[dict[str, Any]] | None, Grammar | None]:
    """The tools that the models are told of, and the form that the answer must have."""
    tools = formatted(said.get("tools") or ())
    choice = said.get("tool_choice")
    demanded = chosen_tools(tools, choice)
    wanted, many = grammar_of(said.get("response_format")), bool(said.get("parallel_tool_calls", True))
    asked = [name for name in ("grammar", "response_format") if said.get(name) is not None]
    if len(asked) > 1 or (demanded and asked and asked != ["response_format"]):
        named = [*asked, "tool_choice"] if demanded else asked
        msg = f"{' and '.join(named)}: an answer has one form; give one of them"
        raise RequestError(msg)
    shown = None if choice == "none" or not tools else tools
    if demanded is not None:
        return shown, Grammar.calls(demanded, many=many and (choice in (True, "any", "required")))
    if wanted is not None and shown:
        return shown, Grammar.calls(shown, many=many, otherwise=wanted)
    return shown, wanted or Grammar.of(said.get("grammar"))


def grammar_of(response_format: Any) -> Grammar | None:
    """The grammar that a `response_format` means.

    Args:
        response_format: OpenAI's: `{"type": "json_schema", "json_schema": {"schema": ...}}`,
            `{"type": "json_object"}`, `{"type": "text"}`; or a pydantic class, a TypedDict or a JSON schema.

    Raises:
        GrammarError: If it is none of these.
    """
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Grammar.json({"type": "object"})
    if kind == "json_schema":
        inner = response_format.get("json_schema")
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            return Grammar.json(inner["schema"])
    elif isinstance(response_format, type | Mapping):
        try:
            return Grammar.json(convert_to_json_schema(openai_tool(response_format)))
        except NOT_CONVERTED:  # as of a JSON schema without a name
            if isinstance(response_format, Mapping) and response_format:
                return Grammar.json(response_format)
    msg = (
        f"response_format: {response_format!r:.80} is none; give a JSON schema, a pydantic class, "
        "{'type': 'json_object'} or {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}"
    )
    raise GrammarError(msg)


def _alternatives(merged: Mapping[str, Any]) -> int | None:
    """How many alternatives to report beside each token; None for no log-probabilities at all."""
    top = merged.get("top_logprobs")
    wanted = merged.get("logprobs")
    if not isinstance(wanted, bool | None):
        msg = f"logprobs: {wanted!r} is neither True nor False; top_logprobs says how many alternatives"
        raise RequestError(msg)
    if not wanted and (top is None or wanted is False):
        return None
    return top if top is not None else 0


def _caps(said: Mapping[str, Any]) -> dict[str, int]:
    given = {name: said[name] for name in _CAPS if name in said}
    if isinstance(given.get("max_takeovers"), Mapping):
        del given["max_takeovers"]
    return {_CAPS[name]: integer(name, value, low=0) for name, value in given.items()}


def _turns(limits: Any) -> TurnGate | None:
    if not isinstance(limits, Mapping):
        return None
    if not limits or limits.keys() - set(get_args(Turn)):
        msg = (
            f"max_takeovers: {limits!r:.80} is no limit by the kind of answer, such as "
            "{'tool_call': 2, 'final': 0}; one number is for both"
        )
        raise RequestError(msg)
    return TurnGate(
        limits={kind: integer(f"max_takeovers: {kind}", each, low=0) for kind, each in limits.items()}
    )


def _seeds(request: Request, count: int) -> list[int | None]:
    """A seed for each answer: the one asked for and those after it, or drawn afresh."""
    first = request.seed  # greedy answers have one, too: the random control fires by it
    return [None if first is None else first + at for at in range(count)]
