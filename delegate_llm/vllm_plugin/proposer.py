"""The base as vLLM's draft model: draws by (seed, position), and keeps what it said for the judgement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.config import CUDAGraphMode
from vllm.forward_context import set_forward_context
from vllm.v1.spec_decode.draft_model import DraftModelProposer

if TYPE_CHECKING:
    from vllm.v1.attention.backend import CommonAttentionMetadata

    from delegate_llm.vllm_plugin.seats import Seats

__all__ = ("DelegatingProposer",)


class DelegatingProposer(DraftModelProposer):  # type: ignore[misc]
    """Drafts one position more than vLLM schedules: the reasoner's forward over a draft scores it as well."""

    seats: Seats
    said: Tensor | None
    """The base's raw logits `[B, K + 1, V]` of the last draft."""
    drafted: Tensor | None
    """What was drawn from them, `[B, K + 1]`."""
    whole: Tensor | None
    """Whether the last position of a row's draft is to be trusted `[B]`; see `propose`."""
    runner: Any

    def adopt(self, runner: Any, seats: Seats) -> None:
        """Take over from vLLM's own proposer, whose object this is.

        Args:
            runner: The model runner.
            seats: Of the answers that are being written.
        """
        self.runner, self.seats = runner, seats
        self.said = self.drafted = self.whole = None
        self._logits: list[Tensor] = []

    def propose(self, num_speculative_tokens: int, *args: Any, **kwargs: Any) -> Tensor:
        """Draft for every row of the batch.

        Args:
            num_speculative_tokens: `K`, how many the reasoner will read.
            *args: As vLLM's.
            **kwargs: As vLLM's.

        Returns:
            Drafts `[B, K]`.
        """
        self._logits = []
        drafted: Tensor = super().propose(num_speculative_tokens + 1, *args, **kwargs)
        self.num_speculative_tokens = num_speculative_tokens
        self.said = torch.stack(self._logits, 1)
        self._logits = []
        self.drafted = drafted
        self.whole = self._has_place(len(drafted)) if num_speculative_tokens else None
        return drafted[:, :num_speculative_tokens]

    def read(self, token_ids: Tensor, positions: Tensor, attention: CommonAttentionMetadata) -> Tensor:
        """Let the base read what the reasoner has just read, where it has not drafted yet.

        Args:
            token_ids: `[T]`, of the whole batch.
            positions: `[T]`.
            attention: Of the batch.

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
            cudagraph_runtime_mode=mode if mode is not None else CUDAGraphMode.NONE,
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
