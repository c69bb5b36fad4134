"""What happened: one `Decision` per generated position, and the `Trace` of a whole generation.

Plain data with a version, JSON in and out. Everything downstream (streams, LangSmith, reports) reads these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from delegate_llm._settings import Settings

if TYPE_CHECKING:
    from delegate_llm.policy import DelegationPolicy

__all__ = (
    "COSTS",
    "Decision",
    "Generation",
    "Logprob",
    "Summary",
    "TokenLogprobs",
    "Trace",
    "TraceLevel",
    "Usage",
)

TraceLevel = Literal["takeovers", "full", "off"]
"""Which decisions a trace keeps: the takeovers, every position, or none. The summary is always kept."""

_Count: TypeAlias = Annotated[int, Field(ge=0)]


def _is_empty(value: tuple[object, ...]) -> bool:
    return not value


class Logprob(BaseModel):
    """A token and its log-probability."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    token_id: int
    token: str
    logprob: float
    """Of the raw distribution, whatever the temperature; in nats."""


class Decision(BaseModel):
    """One generated position: what the models would have said, who was heard, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    position: _Count
    """0 for the first generated token."""
    token_id: int
    token: str
    """Text of the token that was said."""
    asked: bool = False
    """Whether the reasoner was consulted here; what reasoning costs, whoever then speaks."""
    takeover: bool = False
    """Whether the reasoner supplied the token."""
    changed: bool = False
    """Whether a takeover's token differs from the base's own."""
    score: float | None = None
    """Divergence of the two distributions, mostly in nats; None where it was not computed."""
    base_entropy: float | None = None
    """Entropy of the base's distribution, in nats; None where nothing needed it."""
    base_token_id: int
    base_token: str
    """What the base would have said here."""
    reasoner_token_id: int | None = None
    reasoner_token: str | None = None
    """What the reasoner would have said here; None where it was not asked."""
    base_top: tuple[Logprob, ...] = Field(default=(), exclude_if=_is_empty)
    """The base's most probable tokens, best first; only where `Pair.score` was asked for them."""
    reasoner_top: tuple[Logprob, ...] = Field(default=(), exclude_if=_is_empty)


class Summary(BaseModel):
    """The counts of one generation."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    tokens: _Count = 0
    """Generated tokens."""
    takeovers: _Count = 0
    """Tokens that the reasoner supplied."""
    changed: _Count = 0
    """Takeovers whose token differs from the base's own."""
    asked: _Count = 0
    """Positions at which the reasoner was consulted."""
    share: float = Field(default=0.0, ge=0, le=1)
    """`takeovers / tokens`."""


class Trace(Settings):
    """The ordered decisions of one generation, as many as `level` keeps, with their summary."""

    version: Literal[1] = 1
    level: TraceLevel = "full"
    decisions: tuple[Decision, ...] = ()
    summary: Summary = Summary()

    @property
    def takeovers(self) -> tuple[Decision, ...]:
        """The decisions whose token the reasoner supplied."""
        return tuple(decision for decision in self.decisions if decision.takeover)

    def to_html(
        self, *, policy: DelegationPolicy | None = None, title: str | None = None, text: str | None = None
    ) -> str:
        """A page that shows these decisions: one file, which needs no network.

        Args:
            policy: With which they were made; without it there are no reasons, thresholds and budgets.
            title: Of the page.
            text: The answer, for a trace that has not every token.
        """
        return _page(self, policy=policy, title=title, text=text)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return _framed(self.to_html())


class TokenLogprobs(Logprob):
    """A generated token as the model that was heard there saw it, over what a grammar allows."""

    top: tuple[Logprob, ...] = ()
    """The most probable tokens there, best first; as many as were asked for."""


COSTS: Final = (
    "base_forwards",
    "reasoner_forwards",
    "base_tokens",
    "reasoner_tokens",
    "base_flops",
    "reasoner_flops",
)
"""Fields of `Usage` that say what each model did."""


class Usage(BaseModel):
    """What one generation cost, by model. Estimated FLOPs count a multiply and an add as two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: _Count = 0
    """Tokens of the base's prompt."""
    reasoner_prompt_tokens: _Count = 0
    """Tokens of the reasoner's prompt, whether or not it was ever run."""
    completion_tokens: _Count = 0
    """Generated tokens."""
    base_forwards: _Count = 0
    """Forward passes of the base in which this generation took part."""
    reasoner_forwards: _Count = 0
    base_tokens: _Count = 0
    """Tokens the base processed: prompt, answer, dropped drafts, wrong guesses, and tokens read again."""
    reasoner_tokens: _Count = 0
    base_flops: float = Field(default=0.0, ge=0)
    reasoner_flops: float = Field(default=0.0, ge=0)


class Generation(Settings):
    """One finished answer."""

    text: str
    """The answer, without its stop string and without special tokens."""
    token_ids: tuple[int, ...]
    """Every generated token, the end-of-sequence token included."""
    finish_reason: Literal["stop", "length", "repetition"]
    """`stop`: end of sequence or a stop string; `length`: `max_tokens` or a full context;
    `repetition`: the answer had run into a loop."""
    trace: Trace
    usage: Usage
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """One a generated token; None if they were not asked for."""
    seed: int | None = None
    """The seed that gives this text again; None for a greedy answer, unless under the control `random`."""

    def to_html(
        self, *, policy: DelegationPolicy | None = None, title: str | None = None, prompt: str | None = None
    ) -> str:
        """A page that shows this answer: one file, which needs no network.

        Args:
            policy: With which it was made; without it there are no reasons, thresholds and budgets.
            title: Of the page.
            prompt: What was asked, to be shown with it.
        """
        return _page(self.trace, policy=policy, title=title, text=self.text, prompt=prompt, seed=self.seed)

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return _framed(self.to_html())


def _page(trace: Trace, **shown: Any) -> str:
    from delegate_llm.report import page_of  # noqa: PLC0415 - it stands above, and only who looks needs it

    return page_of(trace, **shown)


def _framed(page: str) -> str:
    from delegate_llm.report import frame  # noqa: PLC0415 - see above

    return frame(page)
