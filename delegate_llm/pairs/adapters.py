"""A reasoner that is a PEFT adapter of the base: put onto the base's weights, and switched per forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import find_adapter_config_file

from delegate_llm.errors import LoadError, require
from delegate_llm.pairs.checkpoints import LOADING, Checkpoint, LoadOptions, Source
from delegate_llm.pairs.costs import Costs
from delegate_llm.pairs.sources import POLICY_FILE, resolve
from delegate_llm.pairs.transformers import TransformersReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("adapted_readers", "adapter_folder", "adapter_tokenizer", "plain_reader")

_readers: Final[WeakSet[TransformersReader]] = WeakSet()
"""Of all pairs that are alive, those of models without an adapter of ours."""
_adapted: Final[WeakSet[PreTrainedModel]] = WeakSet()
"""Models that have one, for good."""
_HARMLESS: Final = frozenset({"gaussian", "eva", "orthogonal"})
"""Ways to begin an adapter that leave the base's weights alone."""
_PROBE: Final = 8
"""Tokens read to see whether the base is still what it was."""


def adapter_folder(source: Source, revision: str | None, options: LoadOptions) -> Path | None:
    """The local folder of a PEFT adapter, or None if the source is no adapter.

    Raises:
        LoadError: If its weights are no safetensors.
    """
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
        folder = _download(name, revision)
    elif not (folder / "adapter_config.json").is_file():
        return None
    if options.use_safetensors and not (folder / "adapter_model.safetensors").is_file():
        msg = (
            f"reasoner: {str(source)!r} is an adapter without adapter_model.safetensors; only "
            "safetensors weights are loaded unless you pass use_safetensors=False"
        )
        raise LoadError(msg)
    return folder


def adapter_tokenizer(low: Checkpoint, folder: Path, options: LoadOptions) -> PreTrainedTokenizerBase:
    """The adapter's own tokenizer, or the base's."""
    if not (folder / "tokenizer_config.json").is_file():
        return low.tokenizer
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=options.trust_remote_code
    )
    return tokenizer


def plain_reader(loaded: Checkpoint) -> TransformersReader:
    """A reader of a model as it was loaded.

    Raises:
        LoadError: If an adapter was put into it since.
    """
    if loaded.model in _adapted:
        msg = f"{loaded.name}: this model holds the adapter of another pair; give a copy without it"
        raise LoadError(msg)
    reader = TransformersReader(loaded.model, name=loaded.name, lock=loaded.lock)
    _readers.add(reader)
    return reader


def adapted_readers(low: Checkpoint, folder: Path) -> tuple[TransformersReader, TransformersReader]:
    """Two readers of one set of weights: the adapter is switched off for the base, on for the reasoner.

    Raises:
        LoadError: If the adapter does not fit or would change the base itself, or if somebody else uses
            that model. The model is then as it was.
    """
    with LOADING:
        _check_free(low.model)
        before, own = _probe(low.model), Costs.of(low.model)
        try:
            role = _put(low, folder)
            with role(on=False):
                _check_same(before, _probe(low.model), folder)
        except BaseException:
            _take_out(low.model)
            raise
        _adapted.add(low.model)
    base = TransformersReader(low.model, name=low.name, lock=low.lock, role=lambda: role(on=False))
    base.costs = own  # what was put into its layers since costs only the reasoner
    with role(on=True):  # whose head may be another
        reasoner = TransformersReader(low.model, name=str(folder), lock=low.lock, role=lambda: role(on=True))
    return base, reasoner


def _download(source: str, revision: str | None) -> Path:
    hub = require("huggingface_hub", "peft")
    wanted = ["adapter_*", "tokenizer*", "special_tokens_map.json", "*.jinja", POLICY_FILE]
    return Path(hub.snapshot_download(source, revision=revision, allow_patterns=wanted))


def _check_free(model: PreTrainedModel) -> None:
    """An adapter changes a model's layers for everybody, so nobody else may use it."""
    layer = require("peft.tuners.tuners_utils", "peft").BaseTunerLayer
    if (
        model in _adapted
        or any(each.model is model for each in _readers)
        or any(isinstance(each, layer) for each in model.modules())
    ):
        msg = (
            "reasoner: an adapter is put into the layers of the base, and that model is used by another "
            "pair, or holds an adapter already; give the base by its name or folder, or give a copy"
        )
        raise LoadError(msg)


def _probe(model: PreTrainedModel) -> torch.Tensor:
    """What a model says of a few tokens."""
    weight = model.get_input_embeddings().weight
    ids = torch.arange(min(_PROBE, len(weight)), device=weight.device).unsqueeze(0)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits.nan_to_num()


def _put(low: Checkpoint, folder: Path) -> Callable[..., AbstractContextManager[None]]:
    """Put an adapter into a model's layers; how it is switched on and off."""
    peft = require("peft", "peft")
    try:
        _check_settings(peft.PeftConfig.from_pretrained(str(folder)), folder)
        wrapped = peft.PeftModel.from_pretrained(low.model, str(folder), is_trainable=False).eval()
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        if isinstance(error, LoadError):
            raise
        said = (str(error).strip() or repr(error)).splitlines()[0]
        msg = f"reasoner: the adapter in {folder.name!r} does not fit the base {low.name!r}: {said}"
        raise LoadError(msg) from error
    tuner = wrapped.base_model
    if not hasattr(tuner, "disable_adapter_layers"):
        msg = "reasoner: prompt-learning adapters cannot be switched per forward; use a LoRA-like one"
        raise LoadError(msg)
    _check_weights(peft, wrapped, folder)
    switched_on: list[bool | None] = [None]

    @contextmanager
    def role(*, on: bool) -> Iterator[None]:
        if switched_on[0] is not on:
            switched_on[0] = None  # an interrupt half-way must not leave a wrong memory
            (tuner.enable_adapter_layers if on else tuner.disable_adapter_layers)()
            switched_on[0] = on
        yield

    return role


def _check_settings(config: Any, folder: Path) -> None:
    """Refuse adapters that rewrite the base's own weights as they are put in, before they do."""
    how = getattr(config, "init_lora_weights", None)
    rewrites = {
        "bias": getattr(config, "bias", "none") != "none",
        "layer_replication": bool(getattr(config, "layer_replication", None)),
        "init_lora_weights": isinstance(how, str) and how.lower() not in _HARMLESS,
    }
    for setting, found in rewrites.items():
        if found:
            raise _changes_base(folder, f"{setting} {getattr(config, setting)!r}")


def _check_same(before: torch.Tensor, after: torch.Tensor, folder: Path) -> None:
    if not torch.equal(before, after):
        raise _changes_base(folder, "something")


def _changes_base(folder: Path, setting: str) -> LoadError:
    return LoadError(
        f"reasoner: the adapter in {folder.name!r} has {setting} that changes the base itself, where it is "
        "switched off too; merge it into a checkpoint of its own (peft: merge_and_unload) and give that"
    )


def _check_weights(peft: Any, wrapped: Any, folder: Path) -> None:
    """Refuse adapters that lack weights, or have some without a place: nobody else says a word."""
    wanted = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False).keys()
    given = peft.utils.load_peft_weights(str(folder), device="cpu").keys()
    prefix = getattr(wrapped.base_model, "prefix", "lora_")
    missing = sorted(wanted - given)
    spare = sorted(each for each in given - wanted if prefix in each)
    if missing or spare:
        first, *others = missing or spare
        which = f"{first!r} and {len(others)} more" if others else repr(first)
        what = f"lacks {which}" if missing else f"has no place for {which}"
        who = "the adapter" if missing else "the base"
        msg = f"reasoner: the adapter in {folder.name!r} does not fit the base: {who} {what}"
        raise LoadError(msg)


def _take_out(model: PreTrainedModel) -> None:
    """Put a model's own layers back."""
    layers = require("peft.tuners.tuners_utils", "peft").BaseTunerLayer
    saved = require("peft.utils.other", "peft").AuxiliaryTrainingWrapper
    for name, module in list(model.named_modules()):
        if isinstance(module, layers):
            own = module.get_base_layer()
        elif isinstance(module, saved):
            own = module.original_module
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, own)
