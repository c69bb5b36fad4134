"""vLLM's model runner with delegation in place of its acceptance of drafts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors, SamplerOutput

from delegate_llm.vllm_plugin.acceptance import NOTHING, Block, Verdicts, judge
from delegate_llm.vllm_plugin.attention import of_answers, tokens_of
from delegate_llm.vllm_plugin.drafts import NONE, Draft, Fresh, Ints, Layout, on, recalled, tokens_recalled
from delegate_llm.vllm_plugin.hearing import Heard, hear, overheard
from delegate_llm.vllm_plugin.proposer import DelegatingProposer
from delegate_llm.vllm_plugin.seats import Seats
from delegate_llm.vllm_plugin.stopping import Stopping
from delegate_llm.vllm_plugin.wire import ASKED, COLUMNS, DRAFTED, RAN, STEP, STRIDE, TAKEOVER

__all__ = ("DelegatingRunner",)


class DelegatingRunner:
    """Mixed into the model runner that the worker made."""

    seats: Seats
    drafter: DelegatingProposer
    _step: Any
    _masked: bool
    _resting: bool
    """Whether the reasoner does not run in this step."""
    _draft: Draft | None
    _can_idle: bool

    def adopt(self, seats: Seats) -> None:
        """Start delegating; the runner is vLLM's own until then.

        Args:
            seats: Of the answers that will be written.
        """
        self.seats = seats
        self._step = self._draft = None
        self._masked = self._resting = False
        # Where workers wait for each other in the middle of a forward, none may leave it out.
        self._can_idle = (
            self.parallel_config.pipeline_parallel_size == 1  # type: ignore[attr-defined]
            and not self.supports_mm_inputs  # type: ignore[attr-defined]
        )

    def _update_states(self, scheduler_output: Any) -> Any:
        self.seats.leave(scheduler_output.finished_req_ids)
        if self._draft is not None:
            # Preempted and begun again within a step: the base has to read them anew, whatever it drafted.
            self._draft.forget(scheduler_output.scheduled_cached_reqs.resumed_req_ids)
        return super()._update_states(scheduler_output)  # type: ignore[misc]

    def _model_forward(self, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, unless nobody in the batch will ever listen to the reasoner: then it does not run."""
        self._resting = self._is_idle()
        if not self._resting:
            return super()._model_forward(input_ids, *args, **kwargs)  # type: ignore[misc]
        config = self.model_config  # type: ignore[attr-defined]
        size = (len(input_ids), config.get_hidden_size())
        return torch.zeros(size, dtype=config.dtype, device=self.device)  # type: ignore[attr-defined]

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """As vLLM's; the output layer rests with the rest of the reasoner, and drafts learn where to stop."""
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        model = self.model  # type: ignore[attr-defined]
        # Workers side by side would have to stop at the same position, and their clocks differ.
        if self.device.type == "cpu" and self.parallel_config.world_size == 1:  # type: ignore[attr-defined]
            self.drafter.stopping = Stopping(self.seats)
        compute_logits, rows = model.compute_logits, self.model_config.get_vocab_size()  # type: ignore[attr-defined]

        def logits(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._resting:
                # One zero that stands for all, unless a grammar is going to forbid some.
                shape = len(hidden), rows
                return hidden.new_zeros(shape) if self._guided() else hidden.new_zeros(()).expand(shape)
            return compute_logits(hidden, *args, **kwargs)

        model.compute_logits = logits

    def _is_idle(self) -> bool:
        batch = self.input_batch  # type: ignore[attr-defined]
        names = batch.req_ids[: batch.num_reqs]
        if not names or not self._can_idle:
            return False
        self.seats.arrange(names, self.requests)  # type: ignore[attr-defined]
        return all(seat.idle for seat in self.seats.batch)

    def _guided(self) -> bool:
        batch = self.input_batch  # type: ignore[attr-defined]
        parameters = (self.requests[name].sampling_params for name in batch.req_ids[: batch.num_reqs])  # type: ignore[attr-defined]
        return any(each is None or each.structured_outputs is not None for each in parameters)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """As vLLM's; keeps what `_sample` has to know of the step."""
        self.drafter.lengths = None
        self._step, self._masked = self.execute_model_state, grammar_output is not None  # type: ignore[attr-defined]
        try:
            output = super().sample_tokens(grammar_output)  # type: ignore[misc]
        finally:
            self._step = None
        return output

    def propose_draft_token_ids(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's; keeps what the base said."""
        batch, drafter = self.input_batch, self.drafter  # type: ignore[attr-defined]
        drafted = super().propose_draft_token_ids(*args, **kwargs)  # type: ignore[misc]
        reading = self.discard_request_mask.np[: batch.num_reqs]  # type: ignore[attr-defined]
        rows = {name: at for at, name in enumerate(batch.req_ids) if not reading[at]}
        assert drafter.said is not None
        assert drafter.drafted is not None
        assert drafter.whole is not None
        self._draft = Draft(drafter.said, drafter.drafted, drafter.whole, rows)
        drafter.said = drafter.drafted = drafter.whole = None
        return drafted

    def take_draft_token_ids(self) -> Any:
        """As vLLM's, without what is drafted behind the end of an answer."""
        taken, lengths = super().take_draft_token_ids(), self.drafter.lengths  # type: ignore[misc]
        if taken is not None and lengths is not None:
            for tokens, length in zip(taken.draft_token_ids, lengths, strict=True):
                del tokens[length:]
        return taken

    def _sample(self, logits: Tensor | None, spec_decode_metadata: Any) -> Any:
        if logits is None or self._step is None:
            return super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        batch = self.input_batch  # type: ignore[attr-defined]
        batch.update_async_output_token_ids()
        names = batch.req_ids[: batch.num_reqs]
        self.seats.arrange(names, self.requests)  # type: ignore[attr-defined]
        draft, self._draft = self._draft, None
        counts = [0] * len(names) if spec_decode_metadata is None else spec_decode_metadata.num_draft_tokens
        layout = Layout.of(counts)
        drafted = torch.full((len(names), layout.width), NOTHING, dtype=torch.int64, device=logits.device)
        rows = on(layout.rows, logits.device)
        columns = on(layout.columns, logits.device)
        if spec_decode_metadata is not None and any(counts):
            read = on(np.flatnonzero(layout.columns < np.asarray(counts)[layout.rows]), logits.device)
            drafted[rows[read], columns[read]] = spec_decode_metadata.draft_token_ids.long()
        held, starting, exists = self._standing(names, layout, draft)
        ahead = (held >= 0) * (0 if draft is None else len(draft.said))
        reading = self.discard_request_mask.np[: len(names)]  # type: ignore[attr-defined]
        self.drafter.caught_up = bool(len(starting)) or not reading.any()
        fresh = self._read(starting, reading, layout) if len(starting) else None
        positions = self.seats.positions[rows] + columns
        standings = self.seats.standings
        forced = self.seats.forced(layout.width)
        places = None if draft is None else draft.places(held, layout)
        if self._resting and not self._masked and all(seat.brief for seat in self.seats.batch):
            drawn = None
            if fresh is not None:
                usable = self.seats.drawing.within(fresh.logits.float())
                drawn = self.seats.draw(usable, rows[fresh.starts], positions[fresh.starts])
            heard = overheard(*tokens_recalled(draft, places, fresh, drawn, rows))
        else:
            base, drawn = recalled(draft, places, fresh, logits)
            heard = hear(
                self.seats,
                base,
                logits,
                rows=rows,
                positions=positions,
                drawn=None if self._masked or forced is not None else drawn,
                masked=self._masked,
                silent=self._resting,
                top=self._alternatives(),
            )

        def table(values: Tensor) -> Tensor:
            filled = values.new_zeros((len(names), layout.width))
            filled[rows, columns] = values
            return filled

        block = Block(
            exists=exists,
            draft=drafted,
            base=table(heard.base),
            reasoner=table(heard.reasoner),
            score=table(heard.score),
            entropy=table(heard.entropy),
            limit=self._limits(names, layout),
            forced=forced,
        )
        verdicts, self.seats.standings = judge(self.seats.rules, standings, block)
        if self.drafter.stopping is not None:
            self.drafter.stopping.learn(block, verdicts)
        tokens = verdicts.token.to(torch.int32)
        # A prompt that is not read to its end yet gets a token that vLLM throws away.
        tokens[:, 0].clamp_(min=0)
        return SamplerOutput(
            sampled_token_ids=tokens,
            logprobs_tensors=None
            if batch.sampling_metadata.max_num_logprobs is None
            else self._columns(heard, verdicts, block, rows, columns, (counts, ahead)),
        )

    def _standing(self, names: list[str], layout: Layout, draft: Draft | None) -> tuple[Ints, Ints, Tensor]:
        """Where each answer stands.

        Returns:
            Its row in the draft `[B]`, `NONE` without one; the answers whose next position the base has not
            read yet `[F]`; and which positions exist `[B, P]`.
        """
        reading = self.discard_request_mask.np[: len(names)]  # type: ignore[attr-defined]
        held = np.array([NONE if draft is None else draft.rows.get(name, NONE) for name in names])
        known = (held >= 0) & ~reading
        fresh = np.flatnonzero((held < 0) & ~reading)
        # Of an answer that starts, or whose draft is lost, only the next position is known.
        counts = np.where(known, np.asarray(layout.counts), 0)
        exists = (np.arange(layout.width) <= counts[:, None]) & ~reading[:, None]
        device = self.device  # type: ignore[attr-defined]
        there = on(exists, device)
        if draft is not None:
            last = on(np.maximum(held, 0), device)
            ends = torch.arange(layout.width, device=device) == len(draft.said) - 1
            there &= draft.whole[last].unsqueeze(1) | ~ends | on(~known, device).unsqueeze(1)
        return held, fresh, there

    def _read(self, starting: Ints, reading: np.ndarray[Any, Any], layout: Layout) -> Fresh:
        """Let the base read what the reasoner has just read, where it has drafted nothing.

        vLLM lets its draft model read a prompt once the first token is known; this is before, for the first
        token is decided like any other. Of other answers the base knows all that it has drafted.

        Args:
            starting: Answers whose next position it has not read yet `[F]`.
            reading: Whether an answer is at its prompt still, behind this step too `[B]`.
            layout: Of the step.
        """
        attention, drafter = self._step.spec_decode_common_attn_metadata, self.drafter
        bounds = self.query_start_loc.np[: len(layout.counts) + 1]  # type: ignore[attr-defined]
        answers = np.union1d(starting, np.flatnonzero(reading))
        tokens = tokens_of(answers, bounds)
        places = on(tokens, attention.slot_mapping.device)
        hidden = drafter.read(
            self.input_ids.gpu[places],  # type: ignore[attr-defined]
            self._get_positions(places),  # type: ignore[attr-defined]
            of_answers(attention, answers, tokens, bounds),
        )
        ends = np.searchsorted(tokens, bounds[starting + 1] - 1 - np.asarray(layout.counts)[starting])
        logits = drafter.model.compute_logits(hidden[on(ends, hidden.device)])
        begins = np.flatnonzero((layout.columns == 0) & np.isin(layout.rows, starting))
        return Fresh(on(begins, hidden.device), logits)

    def _limits(self, names: list[str], layout: Layout) -> Tensor | None:
        """What gates that read the text allow `[B, P]`; None if there are none."""
        if not any(seat.text is not None for seat in self.seats.batch):
            return None
        scheduled = self._step.scheduler_output.scheduled_spec_decode_tokens
        table = []
        for name, seat in zip(names, self.seats.batch, strict=True):
            tokens = self.requests[name].output_token_ids  # type: ignore[attr-defined]
            found = seat.limits(tokens, scheduled.get(name, ()))
            table.append((found + [0.0] * layout.width)[: layout.width])
        return torch.tensor(table, dtype=torch.float64, device=self.device)  # type: ignore[attr-defined]

    def _alternatives(self) -> int:
        """How many of the most probable tokens any request of the batch wants to know of."""
        wanted = self._most_logprobs() - 1
        if all(seat.traced for seat in self.seats.batch):
            return wanted + 1 - COLUMNS
        return wanted

    def _most_logprobs(self) -> int:
        """Columns that any request of the batch wants."""
        return 1 + (self.input_batch.sampling_metadata.max_num_logprobs or 0)  # type: ignore[attr-defined]

    def _columns(  # noqa: PLR0917 - all of a step
        self,
        heard: Heard,
        verdicts: Verdicts,
        block: Block,
        rows: Tensor,
        columns: Tensor,
        sizes: tuple[list[int], Ints],
    ) -> LogprobsTensors:
        """What was decided, a row for each of `B * P` positions; see `wire`.

        Of each answer, `sizes` are the drafted tokens that the reasoner read, and all that the base drafted.
        """
        width = self._most_logprobs()
        traced = [seat.traced for seat in self.seats.batch]
        size = verdicts.token.numel()
        takeover = verdicts.takeover.flatten()
        place = rows * verdicts.token.shape[1] + columns

        def flat(values: Tensor) -> Tensor:
            filled = values.new_zeros((size, *values.shape[1:]))
            filled[place] = values
            return filled

        token = verdicts.token.flatten().clamp_min(0)
        speaks = takeover.unsqueeze(1)
        chosen = torch.where(takeover, flat(heard.reasoner_logprob), flat(heard.base_logprob))
        step = on((np.asarray(sizes[0]) + 1) * STEP + sizes[1] * DRAFTED, token.device)
        first = torch.arange(verdicts.token.shape[1], device=token.device) == 0
        ran = 0 if self._resting else RAN
        steps = torch.where(first, (step + ran).unsqueeze(1), 0)
        flags = verdicts.asked.flatten() * ASKED + takeover * TAKEOVER + steps.flatten()
        score = block.score.flatten().masked_fill(~verdicts.opens.flatten(), torch.nan)
        wide = COLUMNS + (0 if heard.top is None else heard.top.base[0].shape[1])
        ids = token.new_zeros((size, wide))
        numbers = torch.zeros((size, wide), dtype=torch.float32, device=token.device)
        ids[:, 0], ids[:, 1], ids[:, 2] = token, block.base.flatten(), block.reasoner.flatten()
        ids += torch.arange(ids.shape[1], device=ids.device).clamp(max=COLUMNS) * STRIDE
        for at, values in enumerate((chosen, flags, score, block.entropy.flatten())):
            numbers[:, at] = values
        if heard.top is not None:
            best, best_ids = (
                torch.where(speaks, flat(theirs), flat(ours))
                for ours, theirs in zip(heard.top.base, heard.top.reasoner, strict=True)
            )
            ids[:, COLUMNS:], numbers[:, COLUMNS:] = best_ids + COLUMNS * STRIDE, best
        if not all(traced):  # as vLLM's own: the token, then the most probable ones
            plain = ~torch.tensor(traced, device=token.device).repeat_interleave(verdicts.token.shape[1])
            shift = ids.shape[1] - COLUMNS
            ids[:, 1 : 1 + shift] = torch.where(
                plain.unsqueeze(1), ids[:, COLUMNS:] - COLUMNS * STRIDE, ids[:, 1 : 1 + shift]
            )
            numbers[:, 1 : 1 + shift] = torch.where(
                plain.unsqueeze(1), numbers[:, COLUMNS:], numbers[:, 1 : 1 + shift]
            )
        return LogprobsTensors(
            ids[:, :width].to(torch.int32), numbers[:, :width].contiguous(), token.new_zeros(size)
        )
