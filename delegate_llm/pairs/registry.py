"""Pairs by name: whoever asks for the same pair in one process gets the same pair.

Chat models, agents and graphs are made anew all the time, in many places; weights should not be.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from delegate_llm.pairs import load_pair
from delegate_llm.pairs.sources import POLICY_FILE, identity, resolve, stamp

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("forget_pairs", "shared_pair")

_loading: Final = threading.RLock()
_pairs: Final[dict[Hashable, tuple[Hashable, Pair]]] = {}


def shared_pair(
    base: Any = None, reasoner: Any = None, *, backend: str = "transformers", **options: Any
) -> Pair:
    """The pair that these arguments name, loaded when it is first asked for.

    It is kept until `forget_pairs`. Threads may ask at once. A pair whose files have changed on disk, its
    policy included, is loaded again, and takes the place of the old one.

    Args:
        base: As for `load_pair`; loaded models are told apart by identity.
        reasoner: Likewise.
        backend: As for `load_pair`.
        **options: As for `load_pair`; all of them count.

    Returns:
        The pair. Others may hold it too: leave its parts as they are.

    Raises:
        DelegateError: As `load_pair` does; the next call tries again.
    """
    sources = {"base": base, "reasoner": reasoner}
    places = {who: _place(source, who) for who, source in sources.items()}
    key = identity((backend, places, options))
    files = _files(places, options)
    found = _found(key, files)
    if found is None:
        with _loading:
            found = _found(key, files) or load_pair(base, reasoner, backend=backend, **options)
            _pairs[key] = files, found
    return found


def forget_pairs() -> None:
    """Let go of every pair; weights that nobody else holds are freed."""
    with _loading:
        _pairs.clear()


def _found(key: Hashable, files: Hashable) -> Pair | None:
    then, pair = _pairs.get(key, (None, None))
    return pair if then == files else None


def _place(source: Any, who: str) -> Any:
    """A source by what it means, however it is written."""
    if not isinstance(source, str | Path):
        return source
    where, folder = resolve(source, who)
    return folder.resolve() if folder else where


def _files(places: Mapping[str, Any], options: Mapping[str, Any]) -> Hashable:
    """The state of all files that the pair is loaded from."""
    folders = [each for each in places.values() if isinstance(each, Path)]
    policy = options.get("policy")
    given = [each for each in options.values() if isinstance(each, Path)]
    return tuple(
        stamp(each)
        for each in (
            *folders,
            *(folder / POLICY_FILE for folder in folders),
            *given,
            *([Path(policy)] if isinstance(policy, str) else []),
        )
    )
