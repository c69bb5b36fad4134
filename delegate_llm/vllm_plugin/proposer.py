"""The base as vLLM's draft model: draws by (seed, position), and keeps what it said for the judgement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.forward_context import set_forward_context
from vllm.v1.spec_decode.draft_model import DraftModelProposer

from delegate_llm.vllm_plugin.attention import of_next_tokens

if TYPE_CHECKING:
    from vllm.v1.attention.backend import CommonAttentionMetadata

    from delegate_llm.vllm_plugin.seats import Seats
    from delegate_llm.vllm_plugin.stopping import Stopping

__all__ = ("DelegatingProposer",)


class DelegatingProposer(DraftModelProposer):  # type: ignore[misc]
    """Drafts one position more than vLLM schedules: the reasoner's forward over a draft scores it as well."""

    seats: Seats
    stopping: Stopping | None
    """None where drafts have their full length."""
    lengths: list[int] | None
    """Tokens of each draft that are worth reading; None for all."""
    said: list[Tensor] | None
    """The base's raw logits of the last draft, `[B, V]` for each of up to `K + 1` positions."""
    drafted: Tensor | None
    """What was drawn from them, `[B, P]`."""
    whole: Tensor | None
    """Whether the last position of a row's draft is to be trusted `[B]`; see `propose`."""
    caught_up: bool
    """Whether the base has read all that stands before the batch's next tokens."""
    runner: Any

    def adopt(self, runner: Any, seats: Seats) -> None:
        """Take over from vLLM's own proposer, whose object this is.

        Args:
            runner: The model runner.
            seats: Of the answers that are being written.
        """
        self.runner, self.seats, self.stopping, self.lengths = runner, seats, None, None
        self.said = self.drafted = self.whole = None
        self.caught_up = False
        self._logits: list[Tensor] = []

    def propose(self, num_speculative_tokens: int, **given: Any) -> Tensor:
        """Draft for every row of the batch.

        Args:
            num_speculative_tokens: `K`, how many the reasoner will read.
            **given: As vLLM's, which hands them over by name.

        Returns:
            Drafts `[B, K]`, or shorter ones.
        """
        self._logits, self.lengths = [], None
        count, self.num_speculative_tokens = num_speculative_tokens + 1, num_speculative_tokens
        if self.caught_up and self.eplb_state is None and not self.supports_mm_inputs:
            drafted = self._go_on(
                count,
                given["next_token_ids"],
                given["common_attn_metadata"],
                given["num_rejected_tokens_gpu"],
            )
        else:
            drafted = super().propose(count, **given)
            self.num_speculative_tokens = num_speculative_tokens
        self.caught_up = False
        self.said, self._logits = self._logits, []
        self.drafted = drafted
        self.whole = self._has_place(len(drafted))
        return drafted[:, :-1]

    def _go_on(
        self, count: int, tokens: Tensor, attention: CommonAttentionMetadata, rejected: Tensor | None
    ) -> Tensor:
        """Draft from the next tokens on, one token a row and forward.

        vLLM begins a draft by having the whole last block read again, with what was rejected as padding. The
        base knows it: it has drafted it, and what was said instead of a draft is the next token.

        Args:
            count: How many.
            tokens: The next ones `[B]`.
            attention: Of the reasoner's forward.
            rejected: How many of each row's tokens in it do not stand `[B]`; None if all do.

        Returns:
            Drafts `[B, count]`, or shorter ones.
        """
        rows = attention.batch_size()
        attention = of_next_tokens(attention, rejected, self.arange)
        mode, padded, across = self._determine_batch_execution_and_padding(rows)
        positions, drafted = attention.seq_lens.long() - 1, []
        if self.stopping is not None:
            self.stopping.begin()
        for at in range(count):
            positions = self._update_positions_dependent_metadata(
                positions, attention, rows, padded, self.block_size
            )
            _, by_layer = self.build_per_group_and_layer_attn_metadata(attention, draft_index=at + 1)
            self.input_ids[:rows] = tokens
            with set_forward_context(
                by_layer,
                self.vllm_config,
                num_tokens=padded,
                num_tokens_across_dp=across,
                cudagraph_runtime_mode=mode,
                slot_mapping=self._get_slot_mapping(padded),
            ):
                hidden = self.model(
                    input_ids=self.input_ids[:padded],
                    positions=self._get_positions(padded),
                    inputs_embeds=None,
                )
            tokens, _ = self._sample_draft_tokens(hidden[:rows], None)
            drafted.append(tokens)
            if self.stopping is not None and self.stopping.is_time(self._logits[-1], tokens):
                break
        if self.stopping is not None:
            self.lengths = self.stopping.lengths()
        return torch.stack(drafted, 1)

    def read(self, token_ids: Tensor, positions: Tensor, attention: CommonAttentionMetadata) -> Tensor:
        """Let the base read what the reasoner has just read, where it has not drafted yet.

        Args:
            token_ids: `[T]`.
            positions: `[T]`.
            attention: Of these tokens.

        Returns:
            Hidden states `[T, H]`.
        """
        count = len(token_ids)
        self.input_ids[:count] = token_ids
        self._set_positions(count, positions)
        _, attention_by_layer = self.build_per_group_and_layer_attn_metadata(attention)
        mode, padded, across = self._determine_batch_execution_and_padding(count)
        with set_forward_context(
            attention_by_layer,
            self.vllm_config,
            num_tokens=padded,
            num_tokens_across_dp=across,
            cudagraph_runtime_mode=mode,
            slot_mapping=self._get_slot_mapping(padded, attention.slot_mapping[:count]),
        ):
            hidden: Tensor = self.model(
                input_ids=self.input_ids[:padded], positions=self._get_positions(padded), inputs_embeds=None
            )
        return hidden[:count]

    def _sample_draft_tokens(self, hidden_states: Tensor, sampling_metadata: Any) -> tuple[Tensor, None]:
        """Draw the next position of every row."""
        del sampling_metadata
        logits = self.model.compute_logits(hidden_states)
        drawn = self.seats.draw_next(logits, ahead=len(self._logits))
        self._logits.append(logits)
        return drawn, None

    def _has_place(self, count: int) -> Tensor:
        """Whether what a row's last position was computed with lies in blocks of its own.

        vLLM reserves for `K` positions; one more mostly fits into the last block, and where it does not, it
        was written to nobody's.
        """
        table = self.runner.input_batch.block_table[self.kv_cache_gid]
        held: Tensor = torch.from_numpy(table.num_blocks_per_row[:count].copy()).to(
            self.device, non_blocking=True
        )
        at: Tensor = self.positions[:count]
        fits: Tensor = (at // self.block_size < held) & (at < self.max_model_len)
        return fits
