"""vLLM's model runner with delegation in place of its acceptance of drafts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors, SamplerOutput

from delegate_llm.vllm_plugin.acceptance import NOTHING, Block, Verdicts, judge
from delegate_llm.vllm_plugin.hearing import Heard, hear
from delegate_llm.vllm_plugin.proposer import DelegatingProposer
from delegate_llm.vllm_plugin.seats import Seats
from delegate_llm.vllm_plugin.wire import ASKED, COLUMNS, RAN, STEP, STRIDE, TAKEOVER

__all__ = ("DelegatingRunner",)

_NONE: Final = -1


@dataclass(frozen=True)
class _Draft:
    """What the base drafted in the last step."""

    said: Tensor
    """`[R, K + 1, V]`."""
    drawn: Tensor
    """What was drawn from it `[R, K + 1]`."""
    whole: Tensor
    """`[R]`: whether the last position may be used."""
    rows: dict[str, int]
    """By request; without those that were still reading their prompt."""


class _Layout(NamedTuple):
    """Where the rows of this step's logits belong: `N` of them, of `B` answers at `P` positions."""

    counts: list[int]
    """Drafted tokens that the reasoner read, by answer."""
    width: int
    """`P`."""
    rows: np.ndarray[Any, np.dtype[np.int64]]
    """Answer of each `[N]`."""
    columns: np.ndarray[Any, np.dtype[np.int64]]
    """Position in its block `[N]`."""

    @classmethod
    def of(cls, counts: list[int]) -> _Layout:
        sizes = np.asarray(counts) + 1
        rows = np.repeat(np.arange(len(counts)), sizes)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cls(counts, int(sizes.max()), rows, np.arange(len(rows)) - starts)


class DelegatingRunner:
    """Mixed into the model runner that the worker made."""

    seats: Seats
    drafter: DelegatingProposer
    _step: Any
    _masked: bool
    _resting: bool
    """Whether the reasoner does not run in this step."""
    _draft: _Draft | None
    _can_idle: bool

    def adopt(self, seats: Seats) -> None:
        """Start delegating; the runner is vLLM's own until then.

        Args:
            seats: Of the answers that will be written.
        """
        self.seats = seats
        self._step = self._draft = None
        self._masked = self._resting = False
        parallel, model = self.parallel_config, self.model_config  # type: ignore[attr-defined]
        # Where workers wait for each other in the middle of a forward, none may leave it out.
        self._can_idle = (
            parallel.pipeline_parallel_size == 1
            and not (parallel.data_parallel_size > 1 and model.is_moe)
            and not self.supports_mm_inputs  # type: ignore[attr-defined]
            and not self.enable_prompt_embeds  # type: ignore[attr-defined]
        )

    def _update_states(self, scheduler_output: Any) -> Any:
        self.seats.leave(scheduler_output.finished_req_ids)
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
        """As vLLM's; the output layer rests with the rest of the reasoner."""
        super().load_model(*args, **kwargs)  # type: ignore[misc]
        model = self.model  # type: ignore[attr-defined]
        compute_logits, rows = model.compute_logits, self.model_config.get_vocab_size()  # type: ignore[attr-defined]

        def logits(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._resting:
                return hidden.new_zeros((len(hidden), rows))
            return compute_logits(hidden, *args, **kwargs)

        model.compute_logits = logits

    def _is_idle(self) -> bool:
        batch = self.input_batch  # type: ignore[attr-defined]
        names = batch.req_ids[: batch.num_reqs]
        if not names or not self._can_idle:
            return False
        self.seats.arrange(names, self.requests)  # type: ignore[attr-defined]
        return all(seat.idle for seat in self.seats.batch)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """As vLLM's; keeps what `_sample` has to know of the step."""
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
        self._draft = _Draft(drafter.said, drafter.drafted, drafter.whole, rows)
        drafter.said = drafter.drafted = drafter.whole = None
        return drafted

    def _sample(self, logits: Tensor | None, spec_decode_metadata: Any) -> Any:
        if logits is None or self._step is None:
            return super()._sample(logits, spec_decode_metadata)  # type: ignore[misc]
        batch = self.input_batch  # type: ignore[attr-defined]
        batch.update_async_output_token_ids()
        names = batch.req_ids[: batch.num_reqs]
        self.seats.arrange(names, self.requests)  # type: ignore[attr-defined]
        draft, self._draft = self._draft, None
        counts = [0] * len(names) if spec_decode_metadata is None else spec_decode_metadata.num_draft_tokens
        layout = _Layout.of(counts)
        drafted = torch.full((len(names), layout.width), NOTHING, dtype=torch.int64, device=logits.device)
        rows = _on(layout.rows, logits.device)
        columns = _on(layout.columns, logits.device)
        if spec_decode_metadata is not None and any(counts):
            read = _on(np.flatnonzero(layout.columns < np.asarray(counts)[layout.rows]), logits.device)
            drafted[rows[read], columns[read]] = spec_decode_metadata.draft_token_ids.long()
        base, drawn, exists = self._base_logits(names, layout, draft)
        standings = self.seats.standings
        forced = self.seats.forced(layout.width)
        heard = hear(
            self.seats,
            base,
            logits,
            rows=rows,
            positions=self.seats.positions[rows] + columns,
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
        tokens = verdicts.token.to(torch.int32)
        # A prompt that is not read to its end yet gets a token that vLLM throws away.
        tokens[:, 0].clamp_(min=0)
        return SamplerOutput(
            sampled_token_ids=tokens,
            logprobs_tensors=None
            if batch.sampling_metadata.max_num_logprobs is None
            else self._columns(heard, verdicts, block, rows, columns, counts),
        )

    def _base_logits(
        self, names: list[str], layout: _Layout, draft: _Draft | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """What the base said at each of the `N` rows, and there is of each answer.

        Returns:
            Raw logits `[N, V]`; what was drawn from them `[N]`, if that is known of all; and which
            positions exist, as `[B, P]`.
        """
        reading = self.discard_request_mask.np[: len(names)]  # type: ignore[attr-defined]
        held = np.array([_NONE if draft is None else draft.rows.get(name, _NONE) for name in names])
        known = (held >= 0) & ~reading
        fresh = np.flatnonzero((held < 0) & ~reading)
        # Of an answer that starts, or whose draft is lost, only the next position is known.
        counts = np.where(known, np.asarray(layout.counts), 0)
        exists = (np.arange(layout.width) <= counts[:, None]) & ~reading[:, None]
        device = self.device  # type: ignore[attr-defined]
        there = _on(exists, device)
        if draft is not None:
            size = draft.said.shape[1]
            last = _on(np.maximum(held, 0), device)
            ends = torch.arange(layout.width, device=device) == size - 1
            there &= draft.whole[last].unsqueeze(1) | ~ends | _on(~known, device).unsqueeze(1)
        first = self._read(fresh, layout) if len(fresh) else None
        self.drafter.caught_up = first is not None or not reading.any()
        if draft is None:
            assert first is not None or not exists.any()
            some = first if first is not None else self._step.logits
            logits = some.new_zeros((len(layout.rows), some.shape[1]))
            drawn = None
        else:
            place = np.where(held >= 0, held, 0)[layout.rows] * size + np.minimum(layout.columns, size - 1)
            logits = _rows(draft.said.flatten(0, 1), place)
            drawn = _rows(draft.drawn.flatten(), place) if first is None else None
        if first is not None:
            starts = np.flatnonzero((layout.columns == 0) & np.isin(layout.rows, fresh))
            logits = logits.index_copy(0, _on(starts, device), first.to(logits.dtype))
        return logits, drawn, there

    def _read(self, fresh: np.ndarray[Any, Any], layout: _Layout) -> Tensor:
        """What the base says where it has drafted nothing yet: `[F, V]`.

        It reads what the reasoner has just read. vLLM lets its draft model read a prompt once the first
        token is known; this is before, for the first token is decided like any other.
        """
        step, drafter = self._step, self.drafter
        count = step.scheduler_output.total_num_scheduled_tokens
        hidden = drafter.read(
            self.input_ids.gpu[:count],  # type: ignore[attr-defined]
            self._get_positions(count),  # type: ignore[attr-defined]
            step.spec_decode_common_attn_metadata,
        )
        starts = self.query_start_loc.np[1 : len(layout.counts) + 1]  # type: ignore[attr-defined]
        ends = (starts - 1 - np.asarray(layout.counts))[fresh].astype(np.int64)
        logits: Tensor = drafter.model.compute_logits(hidden[_on(ends, hidden.device)])
        return logits

    def _limits(self, names: list[str], layout: _Layout) -> Tensor | None:
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
        counts: list[int],
    ) -> LogprobsTensors:
        """What was decided, a row for each of `B * P` positions; see `wire`."""
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
        sizes = _on(np.asarray(counts) + 1, token.device)
        first = torch.arange(verdicts.token.shape[1], device=token.device) == 0
        ran = 0 if self._resting else RAN
        steps = torch.where(first, (sizes * STEP + ran).unsqueeze(1), 0)
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


def _rows(table: Tensor, place: np.ndarray[Any, Any]) -> Tensor:
    """Rows of a table; the table itself if those are all of them in order."""
    if len(place) == len(table) and (place == np.arange(len(table))).all():
        return table
    return table.index_select(0, _on(place.astype(np.int64), table.device))


def _on(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """A copy on a device, without waiting for it."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
