"""`delegate-llm run`: one question, answered while one watches."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from delegate_llm.cli.loading import (
    BASE,
    REASONER,
    BackendOption,
    BaseOption,
    BaseUrlOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    OptionsOption,
    ReasonerOption,
    TrustOption,
    connect,
    prepare,
    saved_policy,
)
from delegate_llm.cli.terminal import console, friendly, json_text, remarks
from delegate_llm.errors import PolicyError, PromptError, RequestError

if TYPE_CHECKING:
    from delegate_llm.pairs.prompts import Prompt
    from delegate_llm.policy import DelegationPolicy
    from delegate_llm.trace import Generation

__all__ = ("run",)

_POLICY = "Delegation"
_TEXT = "Answer"


@friendly
def run(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    *,
    base: BaseOption = BASE,
    reasoner: ReasonerOption = REASONER,
    backend: BackendOption = "transformers",
    base_url: BaseUrlOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    trust_remote_code: TrustOption = False,
    options: OptionsOption = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A saved policy (JSON); by default the calibrated one beside the reasoner. "
            "The options below change single settings of it.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Scores above it call for a takeover, in nats.", rich_help_panel=_POLICY),
    ] = None,
    divergence: Annotated[
        str | None,
        typer.Option(
            help="How the two are compared: cross_entropy, reverse_kl, kl, js, tv, nll_gap; "
            "or a control: random, entropy, top1.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    spike: Annotated[
        float | None,
        typer.Option(
            help="Factor over the recent mean that a score must also exceed; 0 is off.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Takeovers to spend: a count such as 8, or a share of the tokens such as 0.05.",
            rich_help_panel=_POLICY,
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens generated at most.", rich_help_panel=_TEXT)] = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", rich_help_panel=_TEXT)] = 0.0,
    top_p: Annotated[float, typer.Option(help="Mass sampled from.", rich_help_panel=_TEXT)] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens sampled from; 0 means all.", rich_help_panel=_TEXT)] = 0,
    seed: Annotated[
        int | None,
        typer.Option(help="Names the sampled text; drawn afresh by default.", rich_help_panel=_TEXT),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A string that ends the answer; may be repeated.", rich_help_panel=_TEXT),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message before it.", rich_help_panel=_TEXT)
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Text to go on from, not a chat message.", rich_help_panel=_TEXT),
    ] = False,
    schedule: Annotated[
        Literal["draft", "lockstep"], typer.Option(help="Fast, or the reference: one answer.")
    ] = "draft",
    draft: Annotated[int, typer.Option(help="Tokens the base runs ahead at most.")] = 32,
    trace: Annotated[
        Literal["takeovers", "full", "off"], typer.Option(help="Decisions that --json holds.")
    ] = "takeovers",
    as_json: JsonOption = False,
) -> None:
    """Answer a question, word by word; takeovers show in place, with what the base would have said.

    In a pipe there is the answer and nothing else.
    """
    prompt = _prompt(question, system=system, raw=raw)
    changes = _changes(threshold=threshold, divergence=divergence, spike=spike, budget=budget)
    saved = None if policy is None else saved_policy(policy)
    settings: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "stop": stop,
        "schedule": schedule,
        "draft": draft,
        "trace": trace,
    }
    _check(settings)
    prepare(base, reasoner)
    pair = connect(
        base,
        reasoner,
        backend=backend,
        base_url=base_url,
        options=options,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        policy=saved,
    )
    settings["policy"] = _changed(pair.policy, changes)
    if as_json:
        typer.echo(json_text(pair.generate(prompt, **settings).model_dump_json()))
    else:
        # The vocabulary of a server is the server's.
        _stream(pair, prompt, settings, None if backend == "remote" else pair.vocabulary.decode)


def _stream(pair: Any, prompt: Prompt, settings: dict[str, Any], decode: Any) -> None:
    from delegate_llm.cli.stream import show  # noqa: PLC0415 - brings pydantic

    out, screen = console(), remarks()
    started = time.perf_counter()
    done = show(out, pair.stream(prompt, **settings), decode, marked=out.is_terminal)
    if screen.is_terminal:
        screen.print(Text(_summary(done, time.perf_counter() - started), "dim"))


def _summary(done: Generation, seconds: float) -> str:
    said, cost = done.trace.summary, done.usage
    return " · ".join(
        (
            f"{said.tokens} tokens",
            f"{said.takeovers} takeovers ({said.share:.1%})",
            f"reasoner asked at {said.asked}",
            f"ended by {done.finish_reason}",
            f"forwards: base {cost.base_forwards}, reasoner {cost.reasoner_forwards}",
            f"{seconds:.2f} s",
            f"{said.tokens / seconds:.0f} tokens/s",
        )
    )


# --- What was asked for, checked before anything slow begins ---


def _prompt(question: str, *, system: str | None, raw: bool) -> Prompt:
    if question == "-":
        question = _stdin()
    if not question.strip():
        msg = "question: it is empty; give one as an argument, or on stdin with -"
        raise PromptError(msg)
    try:
        (question + (system or "")).encode()
    except UnicodeEncodeError:
        msg = "question: it is not valid UTF-8"
        raise PromptError(msg) from None
    if raw and system is not None:
        msg = "system: --raw takes text as it stands; leave out --system, or --raw"
        raise RequestError(msg)
    if raw:
        return question
    chat = [] if system is None else [{"role": "system", "content": system}]
    return [*chat, {"role": "user", "content": question}]


def _stdin() -> str:
    if sys.stdin is None:
        msg = "question: there is no stdin to read it from; give it as an argument"
        raise PromptError(msg)
    if sys.stdin.isatty() and (screen := remarks()).is_terminal:
        screen.print(Text("Type the question; Ctrl-D on a line of its own ends it.", "dim"))
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        msg = f"question: stdin is not valid text ({error})"
        raise PromptError(msg) from None


def _changes(*, budget: str | None, **settings: Any) -> dict[str, Any]:
    """The fields of the policy that the options name, each one checked."""
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic

    changes = {name: value for name, value in settings.items() if value is not None}
    if budget is not None:
        changes["budget"] = _budget(budget)
    DelegationPolicy(**changes)
    return changes


def _budget(text: str) -> int | float:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    msg = f"budget: {text!r} is neither a count of takeovers such as 8 nor a share such as 0.05"
    raise PolicyError(msg)


def _check(settings: dict[str, Any]) -> None:
    """Raise now what the pair would raise once it is loaded, which can take minutes."""
    from delegate_llm.policy import DelegationPolicy  # noqa: PLC0415 - brings pydantic
    from delegate_llm.request import Request  # noqa: PLC0415 - brings pydantic

    Request.check(policy=DelegationPolicy(), **settings)


def _changed(policy: DelegationPolicy, changes: dict[str, Any]) -> DelegationPolicy:
    """A policy with some fields set anew, as a whole checked again."""
    divergence = changes.get("divergence", policy.divergence)
    if divergence != policy.divergence and "threshold" not in changes:
        msg = (
            f"divergence: the threshold {policy.threshold:g} was set for {policy.divergence} and "
            f"means nothing for {divergence}; give --threshold as well"
        )
        raise PolicyError(msg)
    return policy.changed(**changes)
