"""`load_pair`: two checkpoints to a `Pair`, with everything checked that could go wrong later."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import find_adapter_config_file

from delegate_llm._checks import flag
from delegate_llm.errors import LoadError, RequestError, require
from delegate_llm.pairs.checkpoints import LOADING, Checkpoint, LoadOptions, Source, load_checkpoint
from delegate_llm.pairs.pair import Pair
from delegate_llm.pairs.prompts import ModelPrompter, TemplatePrompter
from delegate_llm.pairs.sources import POLICY_FILE, resolve
from delegate_llm.pairs.transformers import TransformersReader
from delegate_llm.pairs.vocabulary import shared_vocabulary
from delegate_llm.policy import DelegationPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

__all__ = ("POLICY_FILE", "load_transformers_pair", "policy_of", "prompters")

logger = logging.getLogger(__name__)

_readers: Final[WeakSet[TransformersReader]] = WeakSet()
"""Of all pairs that are alive, those of models without an adapter of ours."""
_ADAPTED: Final = "_delegate_llm_adapted"
"""What a model is marked with that has one."""


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
    adapter = _adapter_folder(reasoner, reasoner_revision, options)
    # An adapter is put into the base's own layers, so that copy is nobody else's.
    low = load_checkpoint(base, "base", revision, options, shared=adapter is None)
    if adapter is not None:
        _claim(low)
        readers = _adapter_readers(low, adapter)
        tokenizer = _adapter_tokenizer(low, adapter, options)
        high = Checkpoint(low.model, tokenizer, str(reasoner), adapter, low.lock)
    else:
        high = load_checkpoint(reasoner, "reasoner", reasoner_revision, options)
        readers = (_reader(low), _reader(high))
    vocabulary = shared_vocabulary(
        (low.tokenizer, high.tokenizer),
        (low.model, high.model),
        rows=min(reader.rows for reader in readers),
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
    return Pair(*readers, vocabulary, prompter, policy=policy_of(policy, high.folder))


def _reader(loaded: Checkpoint) -> TransformersReader:
    if hasattr(loaded.model, _ADAPTED):
        msg = f"{loaded.name}: this model holds the adapter of another pair; give a copy without it"
        raise LoadError(msg)
    reader = TransformersReader(loaded.model, name=loaded.name, lock=loaded.lock)
    _readers.add(reader)
    return reader


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


# --- A reasoner that is an adapter of the base ---


def _adapter_folder(source: Source, revision: str | None, options: LoadOptions) -> Path | None:
    """The local folder of a PEFT adapter, or None if the source is no adapter."""
    if not isinstance(source, str | Path):
        return None
    name, folder = resolve(source, "reasoner")
    if folder is None:
        try:
            found = find_adapter_config_file(name, revision=revision)
        except (OSError, ValueError):
            return None  # loading it as a model will say what is wrong
        if found is None:
            return None
        folder = _download_adapter(name, revision)
    elif not (folder / "adapter_config.json").is_file():
        return None
    if options.use_safetensors and not (folder / "adapter_model.safetensors").is_file():
        msg = (
            f"reasoner: {str(source)!r} is an adapter without adapter_model.safetensors; only "
            "safetensors weights are loaded unless you pass use_safetensors=False"
        )
        raise LoadError(msg)
    return folder


def _download_adapter(source: str, revision: str | None) -> Path:
    hub = require("huggingface_hub", "peft")
    wanted = ["adapter_*", "tokenizer*", "special_tokens_map.json", "*.jinja", POLICY_FILE]
    return Path(hub.snapshot_download(source, revision=revision, allow_patterns=wanted))


def _claim(low: Checkpoint) -> None:
    """Have a base for one adapter alone, which changes its layers for everybody.

    Raises:
        LoadError: If somebody uses it already, or it holds one.
    """
    tuner_layer = require("peft.tuners.tuners_utils", "peft").BaseTunerLayer
    if any(each.model is low.model for each in _readers) or any(
        isinstance(each, tuner_layer) for each in low.model.modules()
    ):
        msg = (
            "reasoner: an adapter is put into the layers of the base, and that model is used by another "
            "pair, or holds an adapter already; give the base by its name or folder, or give a copy"
        )
        raise LoadError(msg)
    setattr(low.model, _ADAPTED, True)


def _adapter_readers(low: Checkpoint, folder: Path) -> tuple[TransformersReader, TransformersReader]:
    """Two readers of one set of weights: the adapter is switched off for the base, on for the reasoner."""
    peft = require("peft", "peft")
    try:
        with LOADING:
            wrapped = peft.PeftModel.from_pretrained(low.model, str(folder), is_trainable=False).eval()
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
        said = (str(error).strip() or repr(error)).splitlines()[0]
        msg = f"reasoner: the adapter in {folder.name!r} does not fit the base {low.name!r}: {said}"
        raise LoadError(msg) from error
    tuner = wrapped.base_model
    if not hasattr(tuner, "disable_adapter_layers"):
        msg = "reasoner: prompt-learning adapters cannot be switched per forward; use a LoRA-like one"
        raise LoadError(msg)
    switched_on: list[bool | None] = [None]

    @contextmanager
    def role(*, on: bool) -> Iterator[None]:
        if switched_on[0] is not on:
            switched_on[0] = None  # an interrupt half-way must not leave a wrong memory
            (tuner.enable_adapter_layers if on else tuner.disable_adapter_layers)()
            switched_on[0] = on
        yield

    return (
        TransformersReader(low.model, name=low.name, lock=low.lock, role=lambda: role(on=False)),
        TransformersReader(low.model, name=str(folder), lock=low.lock, role=lambda: role(on=True)),
    )


def _adapter_tokenizer(low: Checkpoint, folder: Path, options: LoadOptions) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer_config.json").is_file():
        return low.tokenizer
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=options.trust_remote_code
    )
    return tokenizer


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
