"""A base and a reasoner that share a vocabulary, and what one can ask of the two."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

import torch

from delegate_llm._checks import hook
from delegate_llm.decoding import SCHEDULES
from delegate_llm.errors import GrammarError, PromptError, RequestError
from delegate_llm.grammar import Grammar, Guide
from delegate_llm.pairs.batches import alike, check_batch, check_texts, check_top
from delegate_llm.pairs.pieces import Piece, generation_of, piece_of
from delegate_llm.pairs.prompts import Prompt, Prompter, Rendered, Tools, Who
from delegate_llm.pairs.seam import Meter, Reader
from delegate_llm.policy import DelegationPolicy, Referee
from delegate_llm.request import Request
from delegate_llm.rows import Row, Vocabulary
from delegate_llm.scoring import Given, score
from delegate_llm.trace import Generation, Trace

__all__ = ("OnStep", "Pair", "Piece")

logger = logging.getLogger(__name__)

OnStep = Callable[[], object]
"""Called between steps, so that a caller can stop a generation by raising."""

_SETTINGS: Final = frozenset(inspect.signature(Request.check).parameters) - {"policy"}


class Pair:
    """Two models that write one answer; make one with `load_pair`. Threads may share it."""

    def __init__(
        self,
        base: Reader,
        reasoner: Reader,
        vocabulary: Vocabulary,
        prompter: Prompter,
        *,
        policy: DelegationPolicy | None = None,
    ) -> None:
        """Put a pair together from its parts.

        Args:
            base: Reads for the cheap model.
            reasoner: Reads for the model that is asked.
            vocabulary: What the two share.
            prompter: Renders prompts for each of them.
            policy: Used by calls that give none.
        """
        self.base = base
        self.reasoner = reasoner
        self.vocabulary = vocabulary
        self.prompter = prompter
        self.policy = policy or DelegationPolicy()
        self._told = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.base.name} + {self.reasoner.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs elsewhere: an engine, connections. Models in here go when nobody has them."""

    def generate(
        self,
        prompt: Prompt,
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        schedule: str = "draft",
        trace: str = "takeovers",
        draft: int = 32,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        grammar: Grammar | Mapping[str, Any] | None = None,
        tools: Tools = None,
        on_step: OnStep | None = None,
    ) -> Generation:
        """Write one answer.

        Args:
            prompt: Text (read as it stands), a list of role/content messages (rendered by each model's
                own chat template), or token ids.
            policy: When the reasoner takes over, or the fields of such a policy; the pair's own by default.
            max_tokens: Tokens generated at most.
            temperature: 0 is greedy.
            top_p: Mass of the nucleus sampled from, in (0, 1].
            top_k: How many tokens are sampled from; 0 means all.
            seed: Names the sampled text, whatever the schedule or batch; drawn afresh if None.
            stop: Strings that end the answer and are cut off it.
            schedule: `"draft"` (fast) or `"lockstep"` (the reference); the answer is the same.
            trace: Which decisions to keep: `"takeovers"`, `"full"` or `"off"`.
            draft: Tokens the base runs ahead at most; changes the cost, never the answer.
            ignore_eos: Go on after end-of-sequence tokens and loops, to `max_tokens`.
            logprobs: Also return the log-probability of every token, and of this many alternatives.
            grammar: The form that the answer must have, such as `{"json": schema}`; see `Grammar`. It
                holds for both models, and they are compared over what it allows.
            tools: JSON schemas of tools for the chat templates to put into the prompt.
            on_step: Called before every step of the models; what it raises ends the call there.

        Returns:
            The answer with its trace and what it cost.

        Raises:
            RequestError: If a setting is out of range.
            GrammarError: If the grammar is none, or too complex.
            PolicyError: If one of the policy is.
            PromptError: If the prompt is empty, too long or of a wrong type.
            GateError: If a gate of the policy raises.
            NumericsError: If a model returns NaN.
        """
        hook("on_step", on_step)
        request = self._request(
            policy,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            stop=stop,
            schedule=schedule,
            trace=trace,
            draft=draft,
            ignore_eos=ignore_eos,
            logprobs=logprobs,
            grammar=grammar,
        )
        return self._run([self._row(prompt, request, tools)], on_step)[0]

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> list[Generation]:
        """Write one answer to each prompt, rows of like lengths in one forward.

        Args:
            prompts: As for `generate`.
            policy: As for `generate`.
            tools: As for `generate`.
            on_step: As for `generate`.
            **settings: As for `generate`; `seed` may also be a list with one seed a prompt.

        Returns:
            The answers in order, each what `generate` would have returned.
        """
        hook("on_step", on_step)
        seeds = check_batch(prompts, settings.pop("seed", None))
        request = self._request(policy, **settings)
        rows = [self._row(prompt, request, tools) for prompt in prompts]
        for row, seed in zip(rows, seeds, strict=True):
            row.seed = request.seed_of(seed)
        return self._run(rows, on_step)

    def stream(
        self,
        prompt: Prompt,
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        on_step: OnStep | None = None,
        **settings: Any,
    ) -> Iterator[Piece | Generation]:
        """Write one answer piece by piece; settings as for `generate`.

        Nothing runs in the background: the models compute when the next piece is asked for, and an
        abandoned iterator costs nothing more.

        Yields:
            A `Piece` for every stretch of text that is decided, whatever `trace` keeps; last, the
            `Generation` that `generate` would have returned.
        """
        hook("on_step", on_step)
        row = self._row(prompt, self._request(policy, **settings), tools, streaming=True)
        return self._pieces(row, on_step)

    def score(
        self,
        prompt: Prompt,
        completion: str | Sequence[int],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        top: int = 0,
    ) -> Trace:
        """Read a given text with both models, and say at every position what each would have said.

        Args:
            prompt: As for `generate`.
            completion: The text, or its token ids.
            policy: The divergence, and what `takeover` says: whether this policy would have handed the
                position to the reasoner, `random` by the lot of seed 0. Here `token` is the text's own and
                both models are asked everywhere.
            tools: As for `generate`.
            top: How many of each model's most probable tokens to keep at every position, as `base_top`
                and `reasoner_top`.

        Returns:
            A full trace with a score at every position.

        Raises:
            PromptError: If the two together are too long for a context, or the completion is empty.
            RequestError: If `top` is no count, or more than an engine tells, which is 20.
        """
        return self.score_batch([prompt], [completion], policy=policy, tools=tools, top=top)[0]

    def score_batch(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str | Sequence[int]],
        *,
        policy: DelegationPolicy | Mapping[str, Any] | None = None,
        tools: Tools = None,
        top: int = 0,
    ) -> list[Trace]:
        """As `score`, for many texts: one completion behind each prompt, like lengths together."""
        check_texts(prompts, completions)
        policy, top = self._request(policy).policy, check_top(top)
        rows = [self._given(*each, tools) for each in zip(prompts, completions, strict=True)]
        traces: dict[int, Trace] = {}
        for group in self._groups([max(map(len, each[:2])) + len(each.completion) for each in rows]):
            sessions = self.base.open(len(group)), self.reasoner.open(len(group))
            scored = score([rows[at] for at in group], sessions, self.vocabulary, policy, top=top)
            traces.update(zip(group, scored, strict=True))
        return [traces[at] for at in range(len(rows))]

    def alone(self, who: Who) -> Pair:
        """One of the two writing by itself: a baseline without a second copy of the weights.

        Its usage is counted as the base's, since it is the model that writes.

        Args:
            who: `"base"` or `"reasoner"`.
        """
        if who not in ("base", "reasoner"):
            msg = f"who: {who!r} is unknown; choose 'base' or 'reasoner'"
            raise RequestError(msg)
        reader = self.base if who == "base" else self.reasoner
        return Pair(
            reader, reader, self.vocabulary, self.prompter.alone(who), policy=DelegationPolicy(budget=0)
        )

    def _request(self, policy: DelegationPolicy | Mapping[str, Any] | None, **settings: Any) -> Request:
        for name in settings.keys() - _SETTINGS:
            msg = f"unknown setting {name!r}; there are {', '.join(sorted(_SETTINGS))}"
            raise RequestError(msg)
        return Request.check(policy=self.policy if policy is None else policy, **settings)

    def check_prompt(self, prompt: Prompt, *, tools: Tools = None) -> None:
        """Raise what `generate` would raise about a prompt, without writing anything.

        Raises:
            PromptError: If there is something wrong with it, or it is longer than a model's context.
        """
        self._row(prompt, self._request(None), tools)

    def _row(self, prompt: Prompt, request: Request, tools: Tools, *, streaming: bool = False) -> Row:
        rendered = self.prompter.render(prompt, tools=tools)
        base, reasoner = prompts = list(rendered.base), list(rendered.reasoner)
        if rendered.stops and request.grammar is None:
            request = replace(request, stop=(*request.stop, *rendered.stops))
        return Row(
            base_prompt=base,
            reasoner_prompt=reasoner,
            request=request,
            referee=Referee(request.policy),
            vocabulary=self.vocabulary,
            seed=request.seed or 0,
            room=min(request.max_tokens, self._room(prompts)),
            guide=self._guide(request.grammar, rendered),
            streaming=streaming,
        )

    def _given(self, prompt: Prompt, completion: str | Sequence[int], tools: Tools) -> Given:
        """A text that is to be scored, behind its prompts."""
        ids = self.prompter.completion_ids(completion)
        rendered = self.prompter.render(prompt, tools=tools)
        prompts = list(rendered.base), list(rendered.reasoner)
        free = self._room(prompts)
        if len(ids) > free:
            msg = f"completion: {len(ids)} tokens do not fit behind the prompt, where {free} are left"
            raise PromptError(msg)
        return Given(*prompts, ids)

    def _guide(self, grammar: Grammar | None, rendered: Rendered) -> Guide | None:
        if grammar is None:
            return None
        if self.vocabulary.grammars is None:
            msg = "grammar: the tokenizers of this pair cannot follow one; load fast tokenizers"
            raise GrammarError(msg)
        return self.vocabulary.grammars.guide(grammar, thinking=rendered.thinking)

    def _room(self, prompts: tuple[list[int], list[int]]) -> int:
        """Tokens that fit behind both prompts."""
        readers = (("base", self.base), ("reasoner", self.reasoner))
        return min(
            _left(who, prompt, reader.context) for (who, reader), prompt in zip(readers, prompts, strict=True)
        )

    def _steps(self, rows: list[Row]) -> tuple[list[tuple[Meter, Meter]], Iterator[None]]:
        """The meters of rows, and the iterator that decides them."""
        base, reasoner = self.base.open(len(rows)), self.reasoner.open(len(rows))
        meters = list(zip(base.meters, reasoner.meters, strict=True))
        return meters, SCHEDULES[self._schedule(rows[0].request)](rows, base, reasoner)

    def _schedule(self, request: Request) -> str:
        if request.schedule == "draft":
            for who, reader in (("base", self.base), ("reasoner", self.reasoner)):
                if not reader.rewinds:
                    log = logger.debug if self._told else logger.warning
                    self._told = True
                    log(
                        "lock-step instead of drafts: the cache of the %s %s cannot be rolled back",
                        who,
                        reader.name,
                    )
                    return "lockstep"
        return request.schedule

    def _run(self, rows: list[Row], on_step: OnStep | None) -> list[Generation]:
        done: dict[int, Generation] = {}
        lengths = [max(len(row.base_prompt), len(row.reasoner_prompt)) for row in rows]
        for group in self._groups(lengths):
            together = [rows[at] for at in group]
            meters, steps = self._steps(together)
            with torch.inference_mode():
                if on_step is not None:
                    on_step()
                for _ in steps:
                    if on_step is not None:
                        on_step()
            finished = [generation_of(row, *meter) for row, meter in zip(together, meters, strict=True)]
            done.update(zip(group, finished, strict=True))
        return [done[at] for at in range(len(rows))]

    def _groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which rows of so many tokens run together."""
        if self.base.batches and self.reasoner.batches:
            return alike(lengths)
        return [[at] for at in range(len(lengths))]

    def _pieces(self, row: Row, on_step: OnStep | None) -> Iterator[Piece | Generation]:
        meters, steps = self._steps([row])
        shown = told = 0
        while _advance(steps, on_step):
            safe = row.text.safe()
            if safe > shown:
                yield piece_of(row, shown, safe, told)
                shown, told = safe, len(row.decisions)
        if shown < len(row.text.text) or told < len(row.decisions):
            yield piece_of(row, shown, len(row.text.text), told)
        yield generation_of(row, *meters[0])


def _advance(steps: Iterator[None], on_step: OnStep | None) -> bool:
    """Take one step, if there is one. The mode is the thread's, so none is held from step to step."""
    if on_step is not None:
        on_step()
    with torch.inference_mode():
        return next(steps, steps) is None


def _left(who: str, prompt: list[int], context: int | None) -> int:
    """Tokens left behind a prompt; raises `PromptError` if there are none."""
    if context is None:
        return 1 << 62
    if len(prompt) >= context:
        msg = (
            f"prompt: {len(prompt)} tokens for the {who}, whose context is {context} and has to hold "
            "the answer too; shorten the prompt, or load a model with a longer context"
        )
        raise PromptError(msg)
    return context - len(prompt)
