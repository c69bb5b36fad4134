"""One answer in the making: what is decided, what is drafted, and how a decision is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from delegate_llm.foresight import Foresight
from delegate_llm.gates import GateView
from delegate_llm.policy import Referee, Standing
from delegate_llm.repetition import is_repetition
from delegate_llm.text import AnswerText
from delegate_llm.trace import Decision, Logprob, Summary, TokenLogprobs, Trace

if TYPE_CHECKING:
    from torch import Tensor

    from delegate_llm.grammar import Grammars, Guide
    from delegate_llm.request import Request

__all__ = ("Heard", "Likelihood", "Proposal", "Row", "Vocabulary")

FinishReason = Literal["stop", "length", "repetition"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the two models share: token ids, their text, and which of them end an answer."""

    size: int
    """Ids below it are tokens and may be drawn; rows above are padding."""
    rows: int
    """Logit rows that both models have, over which they are compared."""
    eos: frozenset[int]
    """End-of-sequence ids of either model."""
    decode: Callable[[Sequence[int]], str]
    """Ids to text, without special tokens."""
    piece: Callable[[int], str]
    """Text of a single id, special tokens included."""
    holes: tuple[int, ...] = ()
    """Ids below `size` that are no tokens either."""
    grammars: Grammars | None = None
    """Compiles grammars for these tokens; None where none can be followed."""


class Likelihood(NamedTuple):
    """How probable a token was to the model that said it."""

    logprob: float
    """In nats."""
    top: list[tuple[int, float]]
    """The most probable tokens there, with theirs."""


class Heard(NamedTuple):
    """What the reasoner says at a position."""

    token: int
    score: float
    """The divergence of the two distributions there."""
    likelihood: Likelihood | None
    """None unless it was asked for."""


@dataclass(slots=True)
class Proposal:
    """What the base says at a position that is not decided yet."""

    token: int
    entropy: float | None
    """Nats; None where nothing needs it."""
    said: Tensor | None
    """The base's distribution `[V]`, as the divergence takes it; None where nothing needs it."""
    score: float | None
    """The score, if the base alone decides it."""
    asked: bool
    """Whether the reasoner is consulted here if nothing is taken over before."""
    opens: bool
    """Whether the gates open here."""
    allowed: Tensor | None
    """Which ids the grammar allows here, a bool an id; None without a grammar."""
    likelihood: Likelihood | None
    """None unless it was asked for."""


@dataclass(eq=False, slots=True)
class Row:
    """One prompt and its growing answer."""

    base_prompt: list[int]
    reasoner_prompt: list[int]
    request: Request
    referee: Referee
    vocabulary: Vocabulary
    seed: int
    room: int
    """Tokens that may be generated: `max_tokens`, or less where a context ends before."""
    guide: Guide | None = None
    """Follows the grammar, if the answer has one."""
    form: str | None = None
    """The grammar as text, where somebody else follows it."""
    streaming: bool = False
    """Whether every decision is wanted, whatever the trace keeps."""

    tokens: list[int] = field(default_factory=list)
    draft: list[Proposal] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: FinishReason | None = None
    changed: int = 0
    hint: list[int] = field(default_factory=list)
    """What the base may well say from the head on; forgotten once it says something else."""
    foresight: Foresight = field(init=False)
    text: AnswerText = field(init=False)
    standing: Standing = field(init=False)
    ahead: Standing = field(init=False)
    _ahead_text: AnswerText | None = None
    _ahead_read: int = 0

    def __post_init__(self) -> None:
        """Start at the first token, with a full budget."""
        self.text = AnswerText(self.vocabulary.decode, self.request.stop)
        self.standing = self.ahead = self.referee.start()
        self.foresight = Foresight(on_entropy=self.referee.policy.divergence == "cross_entropy")

    @property
    def head(self) -> int:
        """The first position for which there is no proposal yet."""
        return len(self.tokens) + len(self.draft)

    @property
    def listening(self) -> bool:
        """Whether the reasoner may still be heard at the head of the draft."""
        return not self.referee.is_over(self.ahead, self.head)

    @property
    def traced(self) -> bool:
        """Whether every position is recorded."""
        return self.streaming or self.request.trace == "full"

    def base_sequence(self) -> list[int]:
        """What the base reads to speak at the head of the draft."""
        return [*self.base_prompt, *self.tokens, *[each.token for each in self.draft]]

    def reasoner_sequence(self, proposals: int) -> list[int]:
        """What the reasoner reads to score the first `proposals` of the draft."""
        drafted = [each.token for each in self.draft[: proposals - 1]]
        return [*self.reasoner_prompt, *self.tokens, *drafted]

    def answer_ahead(self) -> list[int]:
        """The answer's tokens up to the head of the draft."""
        return [*self.tokens, *[each.token for each in self.draft]]

    def propose(
        self,
        token: int,
        entropy: float | None,
        said: Tensor | None,
        score: float | None,
        *,
        allowed: Tensor | None = None,
        likelihood: Likelihood | None = None,
    ) -> None:
        """Add the base's word on the position at the head of the draft.

        Args:
            token: What the base draws there.
            entropy: Its entropy, in nats; may be None once the reasoner is out for good.
            said: Its distribution `[V]`: probabilities for the divergences in `WEIGHED`, else
                log-probabilities; likewise.
            score: The score, if the base alone decides it.
            allowed: Which ids the grammar allows there.
            likelihood: How probable the token is to the base, if asked for.
        """
        opens = entropy is not None and self._opens(self.ahead, self.head, entropy)
        asked = opens and self.referee.asks(self.ahead, score)
        self.ahead = self.referee.after(
            self.ahead, score=score if opens else None, asked=asked, takeover=False
        )
        if asked and entropy is not None and self.referee.can_spend(self.ahead):
            self.foresight.expect(entropy, self.referee.bar(self.ahead))
        self.draft.append(Proposal(token, entropy, said, score, asked, opens, allowed, likelihood))
        self.hint = self.hint[1:] if self.hint[:1] == [token] else []

    def settle_unasked(self) -> None:
        """Decide the leading proposals at which the reasoner is not consulted: they stand."""
        count = 0
        for proposal in self.draft:
            if proposal.asked or self.reason is not None:
                break
            self._decide(proposal, None)
            count += 1
        if count:
            self._drop(count)

    def settle(self, heard: Sequence[Heard]) -> bool:
        """Decide the draft in order, up to the first token that differs from it.

        Args:
            heard: The reasoner's word on each leading proposal that it has read.

        Returns:
            Whether the whole draft stands.
        """
        spent, dropped, stands = self.standing.spent, 0, False
        hint, self.hint = self.hint, []
        for index, proposal in enumerate(self.draft):
            # Only a takeover makes the standing differ from the one the proposal was made with.
            if self.standing.spent != spent:
                # It may close gates and so leave asks that the draft took for spent: of the positions drafted
                # without hope of being asked nothing is known, and they are drafted again.
                if proposal.entropy is None and not self.referee.is_over(self.standing, len(self.tokens)):
                    break
                self._reopen(proposal)
            read = index < len(heard)
            if self.reason is not None or (proposal.asked and not read):
                break
            if self._decide(proposal, heard[index] if read else None) != proposal.token:
                dropped = len(self.draft) - index - 1
                self.hint = [*(each.token for each in self.draft[index + 1 :]), *hint]
                break
        else:
            self.hint, stands = hint, True
        self.foresight.settled(dropped)
        self._drop(len(self.draft))
        return stands

    def _drop(self, count: int) -> None:
        """Forget the first `count` proposals, decided or not."""
        del self.draft[:count]
        self._ahead_text = None
        if self.reason is not None:
            self.draft.clear()
        if not self.draft:
            self.ahead = self.standing
            self.foresight.begin()

    def trace(self) -> Trace:
        """The decisions so far, as the request wants them kept."""
        count, spent = len(self.tokens), self.standing.spent
        level = self.request.trace
        kept = {
            "full": self.decisions,
            "takeovers": [each for each in self.decisions if each.takeover],
            "off": [],
        }[level]
        summary = Summary(
            tokens=count,
            takeovers=spent,
            changed=self.changed,
            asked=self.standing.asked,
            share=spent / count if count else 0.0,
        )
        return Trace(level=level, decisions=tuple(kept), summary=summary)

    def _reopen(self, proposal: Proposal) -> None:
        """Ask again whether a proposal's position is open, now that a takeover was spent."""
        entropy = proposal.entropy
        proposal.opens = entropy is not None and self._opens(
            self.standing, len(self.tokens), entropy, decided=True
        )
        proposal.asked = proposal.opens and self.referee.asks(self.standing, proposal.score)

    def _opens(self, standing: Standing, position: int, entropy: float, *, decided: bool = False) -> bool:
        view = GateView(
            position=position,
            base_entropy=entropy,
            budget=self.referee.budget(standing),
            spent=standing.spent,
            read_text=(lambda: self.text.text) if decided else self._text_ahead,
        )
        return self.referee.opens(standing, view)

    def _text_ahead(self) -> str:
        """The text up to the head of the draft."""
        if not self.draft:
            return self.text.text
        if self._ahead_text is None:
            self._ahead_text, self._ahead_read = self.text.fork(), 0
        for proposal in self.draft[self._ahead_read :]:
            self._ahead_text.push(proposal.token)
        self._ahead_read = len(self.draft)
        return self._ahead_text.text

    def _decide(self, proposal: Proposal, heard: Heard | None) -> int:
        """Decide one position and return its token."""
        asked = proposal.asked
        heard = heard if asked else None
        if proposal.score is not None:
            score, takeover = (proposal.score if proposal.opens else None), asked
        else:
            score = heard.score if heard else None
            takeover = score is not None and self.referee.fires(self.standing, score)
        speaks = heard if takeover else None
        token = speaks.token if speaks else proposal.token
        if score is not None and proposal.entropy is not None:
            changed = token != proposal.token
            self.foresight.learn(proposal.entropy, score, takeover=takeover, changed=changed)
        self.take(
            token,
            asked=asked,
            takeover=takeover,
            score=score,
            entropy=proposal.entropy,
            base=proposal.token,
            reasoner=heard.token if heard else None,
            likelihood=(speaks or proposal).likelihood,
            standing=self.referee.after(self.standing, score=score, asked=asked, takeover=takeover),
        )
        return token

    def take(
        self,
        token: int,
        *,
        asked: bool,
        takeover: bool,
        score: float | None,
        entropy: float | None,
        base: int,
        reasoner: int | None,
        likelihood: Likelihood | None = None,
        standing: Standing | None = None,
    ) -> None:
        """Add a position that is decided.

        Args:
            token: What was said.
            asked: Whether the reasoner was consulted.
            takeover: Whether it was heard.
            score: Where one counted.
            entropy: Of the base, in nats.
            base: What the base would have said.
            reasoner: What the reasoner would have said; None where it was not asked.
            likelihood: Of the token, if it was asked for.
            standing: Behind the position; without it, only what is spent and asked is counted on.
        """
        self.changed += token != base
        if self.traced or (takeover and self.request.trace != "off"):
            piece = self.vocabulary.piece
            self.decisions.append(
                Decision(
                    position=len(self.tokens),
                    token_id=token,
                    token=piece(token),
                    asked=asked,
                    takeover=takeover,
                    changed=token != base,
                    score=score,
                    base_entropy=entropy,
                    base_token_id=base,
                    base_token=piece(base),
                    reasoner_token_id=reasoner,
                    reasoner_token=None if reasoner is None else piece(reasoner),
                )
            )
        if self.request.logprobs is not None:
            self._remember(token, likelihood)
        if standing is None:
            spent, consulted = self.standing.spent + takeover, self.standing.asked + asked
            standing = replace(self.standing, spent=spent, asked=consulted)
        self.standing = standing
        self._append(token)

    def _remember(self, token: int, likelihood: Likelihood | None) -> None:
        """Keep how probable a token was to whoever said it."""
        assert likelihood is not None
        piece = self.vocabulary.piece
        self.logprobs.append(
            TokenLogprobs(
                token_id=token,
                token=piece(token),
                logprob=likelihood.logprob,
                top=tuple(
                    Logprob(token_id=each, token=piece(each), logprob=logprob)
                    for each, logprob in likelihood.top
                ),
            )
        )

    def _append(self, token: int) -> None:
        """Add a decided token, and end the answer where it ends."""
        self.tokens.append(token)
        self.text.push(token)
        if (token in self.vocabulary.eos and not self.request.ignore_eos) or self.text.stopped:
            self.reason = "stop"
        elif len(self.tokens) >= self.room:
            self.reason = "length"
        elif self.request.grammar is None and not self.request.ignore_eos and is_repetition(self.tokens):
            self.reason = "repetition"
        if self.reason is not None:
            self.text.finish()
