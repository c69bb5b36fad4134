"""Reading with a transformers model: blocks of new tokens through the model, its cache kept per session."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from transformers import __version__
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from delegate_llm.errors import LoadError
from delegate_llm.pairs.attention import GroupedAttention, dispatches
from delegate_llm.pairs.cache import RowCache, cache_argument
from delegate_llm.pairs.costs import Costs
from delegate_llm.pairs.products import SlicedProducts
from delegate_llm.pairs.seam import Meter, Session

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ("TransformersReader",)

# Columns of one forward: bounds the memory of activations and masks on long prompts.
_CHUNK: Final = 512
_STATES: Final = (5, 6)  # of transformers: caches say which layers are recurrent


class TransformersReader:
    """One loaded model as a `Reader`.

    Every forward runs in inference mode, under the lock of the model, since some models keep state
    outside the cache; sessions themselves are independent, so threads may share a reader.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        name: str,
        lock: threading.RLock | None = None,
        role: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Wrap a model.

        Args:
            model: A causal language model, ready to run.
            name: What it was loaded from.
            lock: Shared by the readers of one set of weights.
            role: Entered around each forward; switches an adapter on or off.
        """
        self.model = model
        self.name = name
        self.lock = lock or threading.RLock()
        self.role = role
        # A forward that is under way elsewhere has parts of the model changed.
        with self.lock:
            self.attention = GroupedAttention(model)
            self.products = SlicedProducts(model)
            own = model.get_base_model() if hasattr(model, "get_base_model") else model  # what PEFT wraps
            attends = own.config._attn_implementation  # noqa: SLF001 - no public name
            accepts = inspect.signature(own.forward).parameters
        self.costs = Costs.of(model)
        self.device = model.get_input_embeddings().weight.device
        self.rows = logit_rows(model)
        # On a CPU, torch's float32 products over one token are cheap beside those over a few.
        self.block = 0.5 if self.device.type == "cpu" and model.dtype == torch.float32 else 0.2
        text_config = model.config.get_text_config(decoder=True)
        self.context: int | None = getattr(text_config, "max_position_embeddings", None)
        self.border = _border(text_config)
        self.accepts = frozenset(accepts)
        self.slot = _slot(own, name)
        kinds = [type(layer) for layer in DynamicCache(config=model.config).layers]
        self.sliding = [kind is DynamicSlidingWindowLayer for kind in kinds]
        self.rewinds = self.slot != "cache_params" and all(
            kind in (DynamicLayer, DynamicSlidingWindowLayer) for kind in kinds
        )
        if self.rewinds and getattr(own, "_is_stateful", False):
            raise LoadError(_keeps_state(name))
        self.adds_mask = attends == "eager"
        self.batches = (
            self.rewinds
            and not any(self.sliding)
            and self.border is None
            and "position_ids" in self.accepts
            and (attends == "sdpa" or (self.adds_mask and dispatches(own)))
            and not getattr(text_config, "alibi", False)  # makes its biases of masks by token alone
        )

    def open(self, rows: int) -> Session:
        """A fresh session; of one row only where the model's layers cannot be masked by row."""
        return _RowSession(self, rows) if self.rewinds else _StateSession(self)

    def forward(self, ids: Tensor, cache: DynamicCache, keep: int, **inputs: Any) -> Tensor:
        """Run a block `[rows, width]`; raw logits of its last `keep` columns."""
        inputs = {key: value for key, value in inputs.items() if key in self.accepts}
        if "logits_to_keep" in self.accepts:
            inputs["logits_to_keep"] = keep
        # A whole step of decoding is in that mode already; entering it is not free.
        mode = contextlib.nullcontext() if torch.is_inference_mode_enabled() else torch.inference_mode()
        with mode, self.lock, self.role(), self.attention, self.products.over(ids.numel()):
            logits: Tensor = self.model(input_ids=ids, use_cache=True, **{self.slot: cache}, **inputs).logits
            return logits if logits.shape[1] == keep else logits[:, -keep:]


class _RowSession:
    """Full or sliding-window attention: rows of any length, rolled back by shortening."""

    def __init__(self, reader: TransformersReader, rows: int) -> None:
        self.reader = reader
        self.cost = reader.costs.step
        self.block = reader.block
        self.meters = [Meter() for _ in range(rows)]
        self.cache = RowCache(rows, reader.sliding)
        self.held: list[list[int]] = [[] for _ in range(rows)]

    def read(self, sequences: Sequence[Sequence[int] | None], last: int | Sequence[int] = 1) -> Tensor:
        wanted = [last] * len(sequences) if isinstance(last, int) else list(last)
        if self.reader.border is not None and sequences[0] is not None:
            return self._read_by_length(list(sequences[0]), wanted[0], self.reader.border)
        new = [
            [] if sequence is None else self._rewind(row, list(sequence), wanted[row])
            for row, sequence in enumerate(sequences)
        ]
        return self._blocks(new, max(wanted), _CHUNK)

    def _blocks(self, new: list[list[int]], keep: int, first: int) -> Tensor:
        """Forwards over the new tokens of every row, in blocks, the first of so many columns."""
        width = max(map(len, new))
        # The columns whose logits are wanted stay together, in the last block.
        cuts = [0, *range(first, width - keep, _CHUNK), width]
        for start, stop in itertools.pairwise(cuts[:-1]):
            self._forward([_columns(each, width, start, stop) for each in new], 1)
        return self._forward([_columns(each, width, cuts[-2], width) for each in new], keep)

    def _read_by_length(self, sequence: list[int], wanted: int, border: int) -> Tensor:
        """One row of a model that turns its positions by other factors where a text is longer than `border`.

        transformers takes those of the last position in a forward for all positions in it, and leaves what is
        cached as it is. So nothing is read across the border, and what was read on its other side, anew.
        """
        below = min(wanted, border - (len(sequence) - wanted))
        if 0 < below < wanted:
            parts = (sequence[:border], below), (sequence, wanted - below)
            return torch.cat([self._read_by_length(*each, border) for each in parts], 1)
        if (len(self.held[0]) > border) != (len(sequence) > border):
            self.held[0], self.cache.lengths[0] = [], 0
        new = self._rewind(0, sequence, wanted)
        beyond = border + 1 - self.cache.lengths[0] if len(sequence) > border else 0
        return self._blocks([new], wanted, max(_CHUNK, beyond))

    def retain(self, rows: Sequence[int]) -> None:
        self.meters = [self.meters[row] for row in rows]
        self.held = [self.held[row] for row in rows]
        self.cache.retain(list(rows))

    def _rewind(self, row: int, sequence: list[int], wanted: int) -> list[int]:
        """Forget what the sequence does not continue; return what is new in it."""
        held = self.held[row]
        common = min(_common(held, sequence), len(sequence) - wanted)
        del held[common:]
        self.cache.lengths[row] = common
        return sequence[common:]

    def _forward(self, new: list[list[int]], keep: int) -> Tensor:
        """One forward over the new tokens of every row, right-aligned in a block."""
        reader, cache = self.reader, self.cache
        counts = [len(each) for each in new]
        width, starts = max(counts), list(cache.lengths)
        block = [[0] * (width - len(each)) + each for each in new]
        inputs: dict[str, Tensor] = {}
        mask = cache.plan_next(counts, width, reader.device)
        if mask is not None:  # else the model's own mask and positions are right
            firsts = [start + count - width for start, count in zip(starts, counts, strict=True)]
            positions = [[max(0, first + column) for column in range(width)] for first in firsts]
            inputs = {
                "attention_mask": _added(mask, reader.model.dtype) if reader.adds_mask else mask,
                "position_ids": torch.tensor(positions, device=reader.device),
            }
        logits = reader.forward(torch.tensor(block, device=reader.device), cache, keep, **inputs)
        cache.commit(counts)
        for row, each in enumerate(new):
            self.held[row] += each
            reader.costs.charge(self.meters[row], starts[row], len(each), min(keep, len(each)))
        return logits


class _StateSession:
    """Recurrent or linear-attention layers: one row, that only ever moves on."""

    def __init__(self, reader: TransformersReader) -> None:
        self.reader = reader
        self.cost = reader.costs.step
        self.block = reader.block
        self.meters = [Meter()]
        self.cache = DynamicCache(config=reader.model.config)
        self.held: list[int] = []

    def read(self, sequences: Sequence[Sequence[int] | None], last: int | Sequence[int] = 1) -> Tensor:
        keep = last if isinstance(last, int) else last[0]
        sequence = list(sequences[0] or ())
        if _common(self.held, sequence) < len(self.held):
            msg = "this model's cache cannot be rolled back; use lock-step, which never needs it"
            raise RuntimeError(msg)
        new = sequence[len(self.held) :]
        if not self.held:
            return self._forward(new, keep)
        # Several tokens onto an existing state are not safe in every recurrent model; one always is.
        logits = [self._forward([token], 1) for token in new]
        return torch.cat(logits[-keep:], 1)

    def retain(self, rows: Sequence[int]) -> None:
        """One row is all there is."""

    def _forward(self, new: list[int], keep: int) -> Tensor:
        reader, start = self.reader, len(self.held)
        ids = torch.tensor([new], device=reader.device)
        positions = torch.arange(start, start + len(new), device=reader.device).unsqueeze(0)
        logits = reader.forward(ids, self.cache, keep, position_ids=positions)
        self.held += new
        reader.costs.charge(self.meters[0], start, len(new), keep)
        return logits


def _columns(tokens: list[int], width: int, start: int, stop: int) -> list[int]:
    """The tokens of a row, right-aligned in `width` columns, that lie in columns start to stop."""
    shift = width - len(tokens)
    return tokens[max(0, start - shift) : max(0, stop - shift)]


def _common(held: list[int], sequence: list[int]) -> int:
    """Length of the common prefix; nearly always one comparison, since sequences mostly just grow."""
    limit = min(len(held), len(sequence))
    if held == sequence[: len(held)]:
        return limit
    # They differ near the end: halve the distance.
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if held[low:middle] == sequence[low:middle] else (low, middle - 1)
    return low


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of booleans as numbers to add to scores, which attention written out in Python wants."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


def _border(config: Any) -> int | None:
    """Tokens from which on a model turns all its positions by other factors; None for most."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    found = rope.get("original_max_position_embeddings")
    return int(found or config.original_max_position_embeddings)


def _slot(model: PreTrainedModel, name: str) -> str:
    """What the model calls its cache; it has to be one that is handed in, and of the usual kind."""
    slot, usual = cache_argument(model), getattr(model, "_supports_default_dynamic_cache", None)
    if slot != "cache_params" and usual is not None and not usual():
        msg = f"{name}: {type(model).__name__} makes a cache of its own kind; choose another model"
        raise LoadError(msg)
    return slot


def _keeps_state(name: str) -> str:
    if tuple(map(int, __version__.split(".")[:2])) < _STATES:
        return f"{name}: models with recurrent layers need transformers 5.6 or later, not {__version__}"
    return f"{name}: this model keeps its recurrent state in its own layers, so that answers would share it"


def logit_rows(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    weight = head.weight if head is not None else model.get_input_embeddings().weight
    return int(weight.shape[0])
