"""A key-value cache whose rows have lengths of their own and can be rolled back for free.

transformers' `DynamicCache` grows by concatenation and crops all rows alike. Delegation needs more: every
row of a batch accepts its own length of draft. Here a row's keys lie in slots 0 to its length of one
buffer; rolling back is setting a length, and a forward writes each row's new keys behind its old ones. A
mask tells the model which slots are a row's own. Buffers grow geometrically, so a token copies nothing.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from delegate_llm.errors import LoadError

__all__ = ("RowCache", "cache_argument")

_ROUND = 64  # slots; buffers come in multiples
# In transformers 5.24, in those before it, and in recurrent models with a cache of their own.
_ARGUMENTS: Final = ("cache", "past_key_values", "cache_params")


def cache_argument(model: torch.nn.Module) -> str:
    """What the `forward` of a model calls its cache.

    Raises:
        LoadError: If it takes none.
    """
    accepted = inspect.signature(model.forward).parameters
    found = next((name for name in _ARGUMENTS if name in accepted), None)
    if found is None:
        msg = f"{type(model).__name__} takes no cache of what it has read; choose another model"
        raise LoadError(msg)
    return found


@dataclass(slots=True)
class _Plan:
    """Where the next forward writes."""

    end: int
    """Slots in use afterwards, over all rows."""
    start: int | None
    """First slot written, where it is the same for every row."""
    rows: Tensor | None = None
    slots: Tensor | None = None
    columns: Tensor | None = None
    """Else: token `columns[i]` of row `rows[i]` goes to slot `slots[i]`."""


class _RowLayer(DynamicLayer):  # type: ignore[misc] # transformers is not typed
    """One layer's keys and values, `[rows, heads, slots, head_dim]` each."""

    def __init__(self, cache: RowCache, *, sliding: bool) -> None:
        super().__init__()
        self.cache = cache
        # Only tells transformers which mask this layer gets: every key is kept, the mask forgets.
        self.is_sliding = sliding

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self.cache.plan
        if self.keys.shape[2] < plan.end:
            self.keys, self.values = _grown(self.keys, plan.end), _grown(self.values, plan.end)
        if plan.start is not None:
            self.keys[:, :, plan.start : plan.end] = key_states
            self.values[:, :, plan.start : plan.end] = value_states
        else:
            rows, slots, columns = (
                index.to(self.device) for index in (plan.rows, plan.slots, plan.columns) if index is not None
            )
            self.keys[rows, :, slots] = key_states[rows, :, columns]
            self.values[rows, :, slots] = value_states[rows, :, columns]
        return self.keys[:, :, : plan.end], self.values[:, :, : plan.end]

    def get_seq_length(self) -> int:
        return max(self.cache.lengths)

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        # Before transformers 5.4 it is the positions themselves.
        length = query_length if isinstance(query_length, int) else len(query_length)
        return self.get_seq_length() + length, 0


class RowCache(DynamicCache):  # type: ignore[misc] # transformers is not typed
    """The cache of a session; `plan_next` before a forward, `commit` after it."""

    def __init__(self, rows: int, sliding: list[bool]) -> None:
        """An empty cache.

        Args:
            rows: Sequences side by side.
            sliding: For each layer, whether it attends through a sliding window.
        """
        super().__init__()
        self.layer_class_to_replicate = None
        self.lengths = [0] * rows
        """Valid slots of each row."""
        self.layers = [_RowLayer(self, sliding=each) for each in sliding]
        self.plan = _Plan(0, 0)

    def plan_next(self, counts: list[int], width: int, device: torch.device) -> Tensor | None:
        """Say where the next forward writes, and which slots it may see.

        Args:
            counts: New tokens of each row, right-aligned in the block.
            width: Columns of the block; at least the largest count.
            device: Where the mask is wanted.

        Returns:
            None where the model's own causal mask is right (all rows alike), else a mask
            `[rows, 1, width, slots]`, True where a token may look.
        """
        lengths = self.lengths
        end = max(length + count for length, count in zip(lengths, counts, strict=True))
        if all(count == width for count in counts) and len(set(lengths)) == 1:
            self.plan = _Plan(end, lengths[0])
            return None
        have, new = torch.tensor(lengths, device=device), torch.tensor(counts, device=device)
        # Slot of every column; columns left of a row's new tokens get slots it already has, or -1.
        slots = torch.arange(width, device=device) - (width - new - have).unsqueeze(1)
        fresh = slots >= have.unsqueeze(1)
        rows, columns = fresh.nonzero(as_tuple=True)
        self.plan = _Plan(end, None, rows, slots[fresh], columns)
        return (torch.arange(end, device=device) <= slots.unsqueeze(-1)).unsqueeze(1)

    def commit(self, counts: list[int]) -> None:
        """Count the tokens of the forward that just ended as read."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def retain(self, rows: list[int]) -> None:
        """Keep only these rows."""
        self.lengths = [self.lengths[row] for row in rows]
        used = max(self.lengths)
        for layer in self.layers:
            if layer.is_initialized:
                index = torch.tensor(rows, device=layer.keys.device)
                layer.keys = layer.keys[:, :, :used].index_select(0, index)
                layer.values = layer.values[:, :, :used].index_select(0, index)


def _grown(buffer: Tensor, slots: int) -> Tensor:
    """A copy with room for `slots` and half as many more; zeros, since garbage may be NaN."""
    room = -(-(slots + slots // 2) // _ROUND) * _ROUND
    new = buffer.new_zeros((*buffer.shape[:2], room, buffer.shape[3]))
    new[:, :, : buffer.shape[2]] = buffer
    return new
