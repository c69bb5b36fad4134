"""Attention over few tokens on a CPU, where query heads share keys.

transformers repeats shared keys and values once per query head before every masked call, and torch's CPU
kernel works head by head, a few tokens each; drafts and batches are read a few tokens at a time. Here the
heads that share keys become more tokens of one head, which copies nothing and gives the kernel fewer and
larger pieces of work; the result is the same. On other devices, and over long blocks, everything stays as
transformers does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ("GroupedAttention", "dispatches")

_NAME: Final = "delegate_llm_grouped_sdpa"
# Where a configuration keeps its choice; the property over it does more than is needed twice a forward.
_FIELD: Final = "_attn_implementation_internal"
_SHORT: Final = 16  # tokens; over longer blocks the kernel is as fast without


def _grouped_sdpa(  # noqa: PLR0917 - as transformers calls it
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of `[rows, heads, tokens, head_dim]` over fewer key heads; see `AttentionInterface`."""
    rows, heads, tokens, size = query.shape
    shared = key.shape[1]
    short = tokens == 1 or (attention_mask is not None and tokens <= _SHORT)
    by_head = attention_mask is not None and attention_mask.shape[1] != 1
    if heads == shared or not short or by_head or kwargs.get("position_bias") is not None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    group = heads // shared
    if attention_mask is not None and tokens > 1:
        # Each query head of a group sees what its token sees.
        attention_mask = attention_mask.expand(-1, group, -1, -1).flatten(1, 2).unsqueeze(1)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, shared, group * tokens, size),
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
    )
    return attended.reshape(rows, heads, tokens, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _grouped_sdpa)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def dispatches(model: PreTrainedModel) -> bool:
    """Whether a model looks its attention up by name; older ones know two, and take any other for eager."""
    return bool(getattr(model, "_supports_attention_backend", False))


class GroupedAttention:
    """A context in which a model uses the grouped form of torch's attention.

    Nothing else may run the model meanwhile.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Look at the model once; where it is not on a CPU or attends in another way, do nothing."""
        self._fields = model.config.get_text_config(decoder=True).__dict__
        self._applies = (
            self._fields.get(_FIELD) == "sdpa"
            and dispatches(model)
            and model.get_input_embeddings().weight.device.type == "cpu"
        )

    def __enter__(self) -> None:
        if self._applies:
            self._fields[_FIELD] = _NAME

    def __exit__(self, *_: object) -> None:
        if self._applies:
            self._fields[_FIELD] = "sdpa"
