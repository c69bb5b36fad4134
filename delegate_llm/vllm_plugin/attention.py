"""vLLM's attention metadata of a step, for what the base reads of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from delegate_llm.vllm_plugin.drafts import Ints, on

if TYPE_CHECKING:
    from vllm.v1.attention.backend import CommonAttentionMetadata

__all__ = ("of_answers", "of_next_tokens", "tokens_of")

_PER_ANSWER = (
    "seq_lens",
    "block_table_tensor",
    "dcp_local_seq_lens",
    "dcp_local_seq_lens_cpu_upper_bound",
    "is_prefilling",
    "seq_lens_cpu_upper_bound",
    "req_idx",
    "rswa_prefix_lens",
    "replayssm_decode_base_cpu",
)
_PER_TOKEN = ("slot_mapping", "positions")


def tokens_of(answers: Ints, bounds: Ints) -> Ints:
    """Where the tokens of some answers lie among those of the step `[T]`.

    Args:
        answers: Their places in the batch, ascending, `[A]`.
        bounds: Where each answer of the batch begins, and the end `[B + 1]`.
    """
    lengths = (bounds[answers + 1] - bounds[answers]).astype(np.int64)
    starts = np.repeat(bounds[answers] - (np.cumsum(lengths) - lengths), lengths)
    found: Ints = np.arange(len(starts)) + starts
    return found


def of_answers(
    attention: CommonAttentionMetadata, answers: Ints, tokens: Ints, bounds: Ints
) -> CommonAttentionMetadata:
    """As if only some answers of the batch were in it.

    Args:
        attention: Of the batch.
        answers: As for `tokens_of`.
        tokens: What that says.
        bounds: As for `tokens_of`.
    """
    lengths = bounds[answers + 1] - bounds[answers]
    begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    device = attention.query_start_loc.device
    chosen = {name: _some(getattr(attention, name), answers) for name in _PER_ANSWER}
    chosen |= {name: _some(getattr(attention, name), tokens) for name in _PER_TOKEN}
    if isinstance(attention.causal, Tensor):
        chosen["causal"] = _some(attention.causal, answers)
    return attention.replace(
        **chosen,
        query_start_loc=on(begins, device),
        query_start_loc_cpu=torch.from_numpy(begins),
        num_reqs=len(answers),
        num_actual_tokens=len(tokens),
        max_query_len=int(lengths.max()),
        _num_computed_tokens_cache=None,
        _token_to_req_indices_cache=None,
    )


def of_next_tokens(
    attention: CommonAttentionMetadata, rejected: Tensor | None, counting: Tensor
) -> CommonAttentionMetadata:
    """As if each answer had one token in the step, the one that follows what stands of it.

    Args:
        attention: Of the batch.
        rejected: How many of each answer's tokens do not stand `[B]`; None if all do.
        counting: 0, 1, 2 and so on, at least to `B`, int32.
    """
    answers = attention.batch_size()
    bound = attention.seq_lens_cpu_upper_bound
    return attention.replace(
        seq_lens=attention.seq_lens.clone() if rejected is None else attention.seq_lens - rejected,
        seq_lens_cpu_upper_bound=None if bound is None else bound.clone(),
        num_actual_tokens=answers,
        max_query_len=1,
        query_start_loc=counting[: answers + 1],
        query_start_loc_cpu=torch.arange(answers + 1, dtype=torch.int32),
        _num_computed_tokens_cache=None,
        _token_to_req_indices_cache=None,
    )


def _some(values: Any, places: Ints) -> Any:
    """Of a tensor or an array by answer or token, those at some places."""
    if isinstance(values, Tensor):
        return values.index_select(0, on(places, values.device))
    return None if values is None else values[places]
