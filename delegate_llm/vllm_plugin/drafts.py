"""What the base said in the last step, and where this step's positions lie in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ("NONE", "Draft", "Fresh", "Ints", "Layout", "on", "recalled", "tokens_recalled")

Ints = np.ndarray[Any, np.dtype[np.int64]]

NONE: Final = -1
"""Row of an answer that nothing was drafted for."""


class Layout(NamedTuple):
    """Where the rows of this step's logits belong: `N` of them, of `B` answers at `P` positions."""

    counts: list[int]
    """Drafted tokens that the reasoner read, by answer."""
    width: int
    """`P`."""
    rows: Ints
    """Answer of each `[N]`."""
    columns: Ints
    """Position in its block `[N]`."""

    @classmethod
    def of(cls, counts: list[int]) -> Layout:
        """From the length of each answer's draft."""
        sizes = np.asarray(counts) + 1
        rows = np.repeat(np.arange(len(counts)), sizes)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cls(counts, int(sizes.max()), rows, np.arange(len(rows)) - starts)


@dataclass(frozen=True)
class Draft:
    """What the base drafted in the last step, for `R` answers."""

    said: list[Tensor]
    """Raw logits `[R, V]` of each of `K + 1` positions."""
    drawn: Tensor
    """What was drawn from them `[R, K + 1]`."""
    whole: Tensor
    """`[R]`: whether the last position may be used."""
    rows: dict[str, int]
    """By request; without those that were still reading their prompt."""

    def forget(self, names: Iterable[str]) -> None:
        """Hold nothing for these requests any longer."""
        for name in names:
            self.rows.pop(name, None)

    def places(self, held: Ints, layout: Layout) -> Ints:
        """Where each of this step's `N` rows lies among `R * (K + 1)` positions.

        Args:
            held: The answers' rows here `[B]`; those with `NONE` get any place.
            layout: Of the step.
        """
        size = len(self.said)
        found: Ints = np.maximum(held, 0)[layout.rows] * size + np.minimum(layout.columns, size - 1)
        return found


class Fresh(NamedTuple):
    """What the base says where it had drafted nothing yet, at the next positions of `F` answers."""

    starts: Tensor
    """Which of this step's `N` rows they are `[F]`."""
    logits: Tensor
    """Raw, `[F, V]`."""


def recalled(
    draft: Draft | None, places: Ints | None, fresh: Fresh | None, like: Tensor
) -> tuple[Tensor, Tensor | None]:
    """What the base said at each of the `N` rows.

    Args:
        draft: What it drafted.
        places: Of the rows in it.
        fresh: What it had not drafted.
        like: The reasoner's logits `[N, V]`.

    Returns:
        Raw logits `[N, V]`, and what was drawn from them `[N]`, if that is known of all.
    """
    drawn = None
    if draft is None or places is None:
        logits = (like if fresh is None else fresh.logits).new_zeros(like.shape)
    else:
        logits = _rows(torch.stack(draft.said, 1).flatten(0, 1), places)
        drawn = _rows(draft.drawn.flatten(), places) if fresh is None else None
    if fresh is not None:
        logits = logits.index_copy(0, fresh.starts, fresh.logits.to(logits.dtype))
    return logits, drawn


def tokens_recalled(
    draft: Draft | None, places: Ints | None, fresh: Fresh | None, drawn: Tensor | None, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """What the base has drawn at each of the `N` rows, without a look at the rest of the vocabulary.

    Args:
        draft: As for `recalled`.
        places: Likewise.
        fresh: Likewise.
        drawn: What was drawn there `[F]`.
        rows: Answers of the rows `[N]`.

    Returns:
        Token ids, and their raw logits, `[N]` each.
    """
    if draft is None or places is None:
        tokens, logits = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.float32)
    else:
        said = [part.gather(1, draft.drawn[:, at, None]) for at, part in enumerate(draft.said)]
        tokens = _rows(draft.drawn.flatten(), places)
        logits = _rows(torch.cat(said, 1).flatten(), places).float()
    if fresh is not None and drawn is not None:
        tokens = tokens.index_copy(0, fresh.starts, drawn)
        new = fresh.logits.float().gather(1, drawn.unsqueeze(1)).squeeze(1)
        logits = logits.index_copy(0, fresh.starts, new)
    return tokens, logits


def on(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """A copy on a device, without waiting for it."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def _rows(table: Tensor, places: Ints) -> Tensor:
    """Rows of a table; the table itself if those are all of them in order."""
    if len(places) == len(table) and (places == np.arange(len(table))).all():
        return table
    return table.index_select(0, on(places.astype(np.int64), table.device))
