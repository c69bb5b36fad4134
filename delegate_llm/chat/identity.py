"""Who a chat model is, said without loading it: names for people, a digest for caches, a profile."""

from __future__ import annotations

import hashlib
import json
import uuid
import weakref
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from langchain_core.language_models import ModelProfile

from delegate_llm.pairs.sources import resolve

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("LOAD_OPTIONS", "digest", "profile_of", "said_of", "source_name")

LOAD_OPTIONS: Final = frozenset(
    {
        "ahead",
        "base_url",
        "engine_args",
        "base_template",
        "base_template_kwargs",
        "check_vocabulary",
        "device",
        "dtype",
        "fallback_template",
        "model_kwargs",
        "reasoner_revision",
        "reasoner_template",
        "reasoner_template_kwargs",
        "revision",
        "trust_remote_code",
        "use_safetensors",
    }
)
"""What `load_pair` takes besides the two models; `policy` is a setting of the calls."""

_PROFILE: Final = ModelProfile(
    text_inputs=True,
    image_inputs=False,
    audio_inputs=False,
    video_inputs=False,
    pdf_inputs=False,
    text_outputs=True,
    image_outputs=False,
    audio_outputs=False,
    video_outputs=False,
    tool_calling=True,
    tool_choice=True,
    tool_call_streaming=False,
    structured_output=True,
    reasoning_output=True,
    temperature=True,
    open_weights=True,
)
# Two loaded models may have one name; each gets another mark, for as long as it lives.
_marks: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def source_name(source: Any) -> str:
    """A name for a model as it was given: a hub id, or the last part of a path, which may be private."""
    if isinstance(source, str | Path):  # told from its form: an event loop is no place to ask the disk
        local = isinstance(source, Path) or source.startswith(("/", ".", "~"))
        return (PurePath(source).name or "here") if local else str(source)
    if isinstance(source, tuple | list) and source:
        config = getattr(source[0], "config", None)
        return source_name(getattr(config, "_name_or_path", "") or type(source[0]).__name__)
    return "none" if source is None else type(source).__name__


def said_of(pair: Pair) -> tuple[str, str]:
    """The names of the two models of a pair."""
    return source_name(pair.base.name), source_name(pair.reasoner.name)


def digest(*parts: Any) -> str:
    """A short text that is the same for models that were loaded alike, and tells nothing else of them."""
    return hashlib.sha256("\n".join(map(_spelled, parts)).encode()).hexdigest()[:12]


def profile_of(pair: Pair | None, base: Any, reasoner: Any) -> ModelProfile:
    """What the two can do; the length of a prompt only where it is known without loading anything."""
    if pair is not None:
        contexts: Iterable[int | None] = (pair.base.context, pair.reasoner.context)
    else:
        contexts = (_context(source) for source in (base, reasoner))
    known = [each for each in contexts if each]
    profile = ModelProfile(**_PROFILE)
    if known:
        profile["max_input_tokens"] = min(known)
    return profile


def _spelled(part: Any) -> str:
    if isinstance(part, dict):
        return json.dumps({str(key): _spelled(value) for key, value in part.items()}, sort_keys=True)
    if isinstance(part, tuple | list):
        return json.dumps([_spelled(each) for each in part])
    if part is None or isinstance(part, str | int | float | bool | Path):
        return repr(part)
    if type(part).__module__ in ("torch", "torch._C"):  # a dtype, a device
        return str(part)
    return _marks.setdefault(part, uuid.uuid4().hex)


def _context(source: Any) -> int | None:
    """The context of a model, from the configuration in its folder."""
    if isinstance(source, tuple | list) and source:
        return getattr(getattr(source[0], "config", None), "max_position_embeddings", None)
    if not isinstance(source, str | Path):
        return None
    try:
        folder = resolve(source, "model")[1]
        known = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else None
    except (OSError, ValueError):
        return None
    context = known.get("max_position_embeddings") if isinstance(known, dict) else None
    return context if isinstance(context, int) else None
