"""`load_pair`: two checkpoints to a `Pair`, with everything checked that could go wrong later."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from delegate_llm._checks import flag
from delegate_llm.errors import LoadError, RequestError
from delegate_llm.pairs.adapters import adapted_readers, adapter_folder, adapter_tokenizer, plain_reader
from delegate_llm.pairs.checkpoints import Checkpoint, LoadOptions, Source, load_checkpoint
from delegate_llm.pairs.pair import Pair
from delegate_llm.pairs.prompts import ModelPrompter, TemplatePrompter
from delegate_llm.pairs.sources import POLICY_FILE
from delegate_llm.pairs.transformers import logit_rows
from delegate_llm.pairs.vocabulary import shared_vocabulary
from delegate_llm.policy import DelegationPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("POLICY_FILE", "load_transformers_pair", "policy_of", "prompters")

logger = logging.getLogger(__name__)


def load_transformers_pair(
    base: Source,
    reasoner: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    reasoner_revision: str | None = None,
    trust_remote_code: bool = False,
    use_safetensors: bool = True,
    check_vocabulary: bool = True,
    base_template: str | Path | None = None,
    reasoner_template: str | Path | None = None,
    fallback_template: str | Path | None = None,
    base_template_kwargs: Mapping[str, Any] | None = None,
    reasoner_template_kwargs: Mapping[str, Any] | None = None,
    policy: DelegationPolicy | Mapping[str, Any] | str | Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Pair:
    """Load two transformers models as a pair; see `delegate_llm.load_pair`."""
    if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
        msg = f"model_kwargs: {model_kwargs!r:.80} is no mapping, such as {{'attn_implementation': 'eager'}}"
        raise RequestError(msg)
    flag("trust_remote_code", trust_remote_code)
    flag("use_safetensors", use_safetensors)
    flag("check_vocabulary", check_vocabulary)
    device = _device(device)
    options = LoadOptions(
        device=device,
        dtype=_dtype(dtype, device),
        trust_remote_code=trust_remote_code,
        use_safetensors=use_safetensors,
        model_kwargs=dict(model_kwargs or {}),
    )
    adapter = adapter_folder(reasoner, reasoner_revision, options)
    # An adapter is put into the base's own layers, so that copy is nobody else's.
    low = load_checkpoint(base, "base", revision, options, shared=adapter is None)
    if adapter is None:
        high = load_checkpoint(reasoner, "reasoner", reasoner_revision, options)
    else:
        tokenizer = adapter_tokenizer(low, adapter, options)
        high = Checkpoint(low.model, tokenizer, str(reasoner), adapter, low.lock)
    vocabulary = shared_vocabulary(
        (low.tokenizer, high.tokenizer),
        (low.model, high.model),
        rows=min(logit_rows(low.model), logit_rows(high.model)),
        check=check_vocabulary,
    )
    prompter = TemplatePrompter(
        *prompters(
            (low.tokenizer, high.tokenizer),
            (base_template, reasoner_template),
            (base_template_kwargs, reasoner_template_kwargs),
            fallback=fallback_template,
        ),
        size=vocabulary.size,
        rows=(_rows(low), _rows(high)),
    )
    own = policy_of(policy, high.folder)
    # Last, for it changes a model that was given.
    readers = (plain_reader(low), plain_reader(high)) if adapter is None else adapted_readers(low, adapter)
    return Pair(*readers, vocabulary, prompter, policy=own)


def _rows(loaded: Checkpoint) -> int:
    """Ids that a model can read."""
    return len(loaded.model.get_input_embeddings().weight)


def _device(device: str | torch.device | None) -> str:
    """The device as a name that works here; the best there is for None."""
    if device is None:
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        # With its number, so that "cuda" and "cuda:0" are one place.
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).splitlines()[0]
        msg = f"device: {device!r} cannot be used ({said}); without it, the best there is is used"
        raise RequestError(msg) from None
    if found.type == "meta":
        msg = "device: 'meta' holds no weights; without a device, the best there is is used"
        raise RequestError(msg)
    return str(found)


def _dtype(dtype: str | torch.dtype | None, device: str) -> Any:
    """`None` means exact on a CPU, and the checkpoint's own dtype on an accelerator."""
    if dtype is None:
        return torch.float32 if device.startswith("cpu") else "auto"
    if dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        msg = f"dtype: {dtype!r} is unknown; use 'auto', 'float32', 'bfloat16' or 'float16'"
        raise RequestError(msg)
    return named


# --- Prompts and policy ---


def prompters(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
    templates: tuple[str | Path | None, str | Path | None],
    kwargs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    *,
    fallback: str | Path | None,
) -> tuple[ModelPrompter, ModelPrompter]:
    """One prompter a model; a model without a chat template borrows the other's, or takes the fallback."""
    own = [
        _template(given) or getattr(each, "chat_template", None)
        for given, each in zip(templates, tokenizers, strict=True)
    ]
    spare = _template(fallback)
    for at, who in enumerate(("base", "reasoner")):
        if not own[at] and own[1 - at]:
            logger.info("the %s has no chat template and borrows the other's", who)
    if not any(own) and spare:
        logger.info("neither model has a chat template: the fallback is used")
    base, reasoner = (
        ModelPrompter(each, own[at] or own[1 - at] or spare, _settings(kwargs[at]))
        for at, each in enumerate(tokenizers)
    )
    return base, reasoner


def _template(given: str | Path | None) -> str | None:
    if isinstance(given, str) and given and not any(each in given for each in "{\n"):
        given = Path(given)  # a template without a brace would say the same to every conversation
    if isinstance(given, Path):
        try:
            return given.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or error
            msg = f"template: cannot read {str(given)!r}: {said}"
            raise LoadError(msg) from error
    if given is not None and not isinstance(given, str):
        msg = f"template: {given!r:.80} is neither Jinja text nor a Path to a file of it"
        raise RequestError(msg)
    return given


def _settings(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        msg = f"template_kwargs: {given!r:.80} is not a mapping, such as {{'enable_thinking': True}}"
        raise RequestError(msg)
    return given or {}


def policy_of(
    given: DelegationPolicy | Mapping[str, Any] | str | Path | None, folder: Path | None
) -> DelegationPolicy | None:
    """The policy given, or the calibrated one beside the reasoner's weights."""
    if given is None:
        path = folder / POLICY_FILE if folder else None
        if path is None or not path.is_file():
            return None
    elif isinstance(given, str | Path):
        path = Path(given)
    else:
        return DelegationPolicy.of(given)
    return DelegationPolicy.read(path)
