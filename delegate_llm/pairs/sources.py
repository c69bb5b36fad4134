"""Where checkpoints come from, and what tells one load from another. Nothing here brings torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Final

from delegate_llm import tiny
from delegate_llm.errors import LoadError

__all__ = ("POLICY_FILE", "identity", "resolve", "stamp")

POLICY_FILE: Final = "delegation_policy.json"
"""A calibrated policy in the reasoner's folder under this name becomes the pair's own."""

_SHIPPED: Final = {"delegate-llm/tiny-base": "base", "delegate-llm/tiny-reasoner": "reasoner"}
# Of a checkpoint's folder: weights, settings, tokenizer, code. Logs beside them may grow.
_FILES: Final = frozenset({".bin", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"})


def resolve(source: str | Path, who: str) -> tuple[str, Path | None]:
    """What to hand to transformers, and the local folder if it is one."""
    if str(source) in _SHIPPED:
        folder = tiny.path(_SHIPPED[str(source)])
        return str(folder), folder
    found = _folder(source)
    if found is not None:
        return str(found), found
    if str(source).startswith("delegate-llm/"):
        msg = f"{who}: {source!r} does not ship; there are {' and '.join(map(repr, _SHIPPED))}"
        raise LoadError(msg)
    if isinstance(source, Path) or str(source).startswith(("/", ".", "~")) or not str(source).strip():
        msg = f"{who}: there is no folder {str(source)!r}; give a checkpoint's folder or a hub id"
        raise LoadError(msg)
    return str(source), None


def _folder(source: str | Path) -> Path | None:
    """The folder that is meant, if there is one."""
    try:
        folder = Path(source).expanduser()
        return folder if str(source).strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name that no file can have; the home of nobody
        return None


def stamp(path: Path | None) -> Hashable:
    """The state of a file, or of a checkpoint's files in a folder: it changes when one is written.

    The policy beside a checkpoint is no part of it.
    """
    if path is None:
        return None
    folder = _folder(path)
    files = [path]
    if folder is not None:
        files = sorted(
            each for each in folder.iterdir() if each.suffix in _FILES and each.name != POLICY_FILE
        )
    return tuple((each.name, *_state(each)) for each in files)


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.expanduser().stat()
    except (OSError, RuntimeError, ValueError):  # as for a folder
        return -1, -1
    return found.st_mtime_ns, found.st_size


def identity(value: Any) -> Hashable:
    """A key for an argument: by value where it has one, by identity where it is an object.

    The key holds the object, so that no other can come to have its identity.
    """
    if isinstance(value, Mapping):
        return Mapping, frozenset((key, identity(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple, tuple(map(identity, value))
    try:
        hash(value)
    except TypeError:
        return type(value), repr(value)
    return type(value), value
