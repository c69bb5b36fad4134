"""Checkpoints in memory. One is loaded once in a process, and whoever names it again shares its weights.

Nothing is kept alive here: weights go when the last pair that holds them does. Forwards of one model run
under one lock, whoever asks for them, so the lock belongs to the model and not to a pair.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from delegate_llm.errors import LoadError
from delegate_llm.pairs.sources import identity, resolve, stamp

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("LOADING", "Checkpoint", "LoadOptions", "Source", "load_checkpoint")

Source = str | Path | tuple["PreTrainedModel", "PreTrainedTokenizerBase"]


@dataclass(slots=True)
class Checkpoint:
    """A model with its tokenizer, ready to run."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    folder: Path | None
    """None if it was given, or came from the hub."""
    lock: threading.RLock
    """Held around each forward."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How checkpoints are loaded."""

    device: str
    dtype: Any
    trust_remote_code: bool
    use_safetensors: bool
    model_kwargs: Mapping[str, Any]


LOADING: Final = threading.RLock()
"""Held while weights are loaded: meanwhile transformers changes torch's default dtype and methods of its own
classes for the whole process, and two loads at a time would leave each other's behind."""

_models: WeakValueDictionary[Hashable, PreTrainedModel] = WeakValueDictionary()
_tokenizers: WeakKeyDictionary[PreTrainedModel, PreTrainedTokenizerBase] = WeakKeyDictionary()
_locks: WeakKeyDictionary[PreTrainedModel, threading.RLock] = WeakKeyDictionary()


def load_checkpoint(
    source: Source, who: str, revision: str | None, options: LoadOptions, *, shared: bool = True
) -> Checkpoint:
    """Load a checkpoint, or find it loaded.

    Args:
        source: A hub id, a folder, or a tuple `(model, tokenizer)`.
        who: "base" or "reasoner", for error messages.
        revision: Hub revision.
        options: How to load.
        shared: False for a copy that nobody else has or will get, to be changed in place.

    Returns:
        The model with its tokenizer.

    Raises:
        LoadError: If there is none, or none of use.
    """
    if isinstance(source, tuple | list):
        return _given(source, who)
    if not isinstance(source, str | Path):
        msg = f"{who}: {source!r:.80} is neither a hub id nor a path nor a (model, tokenizer) tuple"
        raise LoadError(msg)
    if revision is not None and not isinstance(revision, str):
        msg = f"{who}: the revision {revision!r:.80} is not text; give a branch, a tag or a commit"
        raise LoadError(msg)
    where, folder = resolve(source, who)
    # The files' state before they are read: a change meanwhile makes the next load a new one.
    key = (str(folder.resolve()) if folder else where, stamp(folder), revision, *_identities(options))
    with LOADING:
        model = _models.get(key) if shared else None
        if model is None:
            model, tokenizer = _load(where, source, who, revision, options)
            if shared:
                _models[key], _tokenizers[model] = model, tokenizer
        else:
            tokenizer = _tokenizers[model]
    return Checkpoint(model, tokenizer, str(source), folder, _lock_of(model))


def _identities(options: LoadOptions) -> tuple[Hashable, ...]:
    return tuple(identity(getattr(options, name)) for name in options.__slots__)


def _lock_of(model: PreTrainedModel) -> threading.RLock:
    with LOADING:
        return _locks.setdefault(model, threading.RLock())


def _load(
    where: str, source: str | Path, who: str, revision: str | None, options: LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    common = {"revision": revision, "trust_remote_code": options.trust_remote_code}
    try:
        with _quiet_in_pipes():
            tokenizer = AutoTokenizer.from_pretrained(where, **common)
    except Exception as error:  # tokenizers raises nothing more particular
        raise LoadError(_why(who, source, error, options)) from error
    try:
        with _quiet_in_pipes():
            model, found = AutoModelForCausalLM.from_pretrained(
                where,
                **common,
                dtype=options.dtype,
                use_safetensors=options.use_safetensors or None,  # None: whatever there is
                output_loading_info=True,
                **options.model_kwargs,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise LoadError(_why(who, source, error, options)) from error
    if lacking := sorted(found["missing_keys"]):
        msg = (
            f"{who}: {str(source)!r} lacks {len(lacking)} weights that a {type(model).__name__} of its "
            f"config.json has, such as {lacking[0]}; they would be random numbers"
        )
        raise LoadError(msg)
    if "device_map" not in options.model_kwargs:
        model.to(options.device)
    return _checked(model, who), tokenizer


@contextmanager
def _quiet_in_pipes() -> Iterator[None]:
    """Keep transformers' bars to terminals; in a log they are noise."""
    if not logging.is_progress_bar_enabled() or (sys.stderr is not None and sys.stderr.isatty()):
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _given(source: Sequence[Any], who: str) -> Checkpoint:
    wanted = ("forward", "get_vocab")
    if len(source) != len(wanted) or not all(map(hasattr, source, wanted)):
        msg = f"{who}: a loaded model is given as a tuple (model, tokenizer)"
        raise LoadError(msg)
    model, tokenizer = source
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Checkpoint(_checked(model, who), tokenizer, name, None, _lock_of(model))


def _checked(model: Any, who: str) -> PreTrainedModel:
    if getattr(model.config, "is_encoder_decoder", False):
        msg = f"{who}: {type(model).__name__} is an encoder-decoder; a causal language model is needed"
        raise LoadError(msg)
    checked: PreTrainedModel = model.eval()
    return checked


def _why(who: str, source: str | Path, error: Exception, options: LoadOptions) -> str:
    """One line on a checkpoint that did not load, with the cure where it is known."""
    said = (str(error).strip() or repr(error)).splitlines()[0]
    cure = "look at its config.json, and at model_kwargs if you gave any"
    if isinstance(error, OSError):
        cure = "check the name, and the network or a local path"
    if "safetensors" in str(error) and options.use_safetensors:
        cure = "only safetensors weights are loaded unless you pass use_safetensors=False"
    elif "trust_remote_code" in str(error):
        cure = "its own code runs only if you pass trust_remote_code=True; read that code first"
    return f"{who}: cannot load {str(source)!r}: {said} ({cure})"
