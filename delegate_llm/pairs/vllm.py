"""`load_pair(backend="vllm")`: two checkpoints to a pair that vLLM carries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from delegate_llm._checks import flag, integer
from delegate_llm.errors import LoadError, RequestError
from delegate_llm.pairs.costs import Costs
from delegate_llm.pairs.hosted import HostedPair
from delegate_llm.pairs.loading import policy_of, prompters
from delegate_llm.pairs.prompts import TemplatePrompter
from delegate_llm.pairs.sources import resolve
from delegate_llm.pairs.telling import Hosted
from delegate_llm.pairs.vllm_engine import VllmEngine
from delegate_llm.pairs.vocabulary import shared_vocabulary
from delegate_llm.policy import DelegationPolicy
from delegate_llm.rows import Vocabulary
from delegate_llm.vllm_plugin.defaults import AHEAD, ALTERNATIVES, CACHE_BYTES, MOST_AHEAD, WORKER
from delegate_llm.vllm_plugin.versions import check_version
from delegate_llm.vllm_plugin.wire import COLUMNS, room_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ("Outline", "engine_arguments", "hosted_models", "load_vllm_pair", "shared_by")

_DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
_PARALLEL: Final = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


class Outline:
    """A checkpoint without its weights: what an engine does not tell of it."""

    def __init__(
        self, source: Any, who: str, revision: str | None = None, *, trust_remote_code: bool = False
    ) -> None:
        """Read its settings and its tokenizer.

        Args:
            source: A hub id or a folder.
            who: "base" or "reasoner", for error messages.
            revision: Hub revision.
            trust_remote_code: Whether code that comes with it runs.

        Raises:
            LoadError: If it cannot be read.
        """
        if not isinstance(source, str | Path):
            msg = f"{who}: {source!r:.80} is neither a hub id nor a path; vLLM loads checkpoints itself"
            raise LoadError(msg)
        self.name = str(source)
        self.where, self.folder = resolve(source, who)
        self.revision = revision
        common = {"revision": revision, "trust_remote_code": trust_remote_code}
        try:
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.where, **common)
            self.config = AutoConfig.from_pretrained(self.where, **common)
            with torch.device("meta"):
                self.model: PreTrainedModel = AutoModelForCausalLM.from_config(
                    self.config, trust_remote_code=trust_remote_code
                )
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            said = (str(error).strip() or repr(error)).splitlines()[0]
            msg = f"{who}: {self.name!r} cannot be read: {said}"
            raise LoadError(msg) from error
        with suppress(OSError):  # it has none
            self.model.generation_config = GenerationConfig.from_pretrained(self.where, **common)

    @property
    def rows(self) -> int:
        """Vocabulary rows of its logits."""
        return int(self.config.get_text_config(decoder=True).vocab_size)

    @property
    def context(self) -> int | None:
        """Longest sequence it can read, in tokens."""
        found = getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return found if isinstance(found, int) else None


def load_vllm_pair(
    base: Any,
    reasoner: Any,
    *,
    engine_args: Mapping[str, Any] | None = None,
    ahead: int = AHEAD,
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
) -> HostedPair:
    """Start vLLM with two models as a pair; see `delegate_llm.load_pair`."""
    check_version()
    ahead = integer("ahead", ahead, low=1)
    if ahead > MOST_AHEAD:
        msg = f"ahead: {ahead} is more than the {MOST_AHEAD} tokens that a draft may have"
        raise RequestError(msg)
    flag("trust_remote_code", trust_remote_code)
    flag("use_safetensors", use_safetensors)
    flag("check_vocabulary", check_vocabulary)
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in (None, *_DTYPES):
        msg = f"dtype: {dtype!r:.80} is unknown; use {', '.join(map(repr, _DTYPES))}"
        raise RequestError(msg)
    if engine_args is not None and not isinstance(engine_args, Mapping):
        msg = f"engine_args: {engine_args!r:.80} is not a mapping, such as {{'tensor_parallel_size': 2}}"
        raise RequestError(msg)
    low = Outline(base, "base", revision, trust_remote_code=trust_remote_code)
    high = Outline(reasoner, "reasoner", reasoner_revision, trust_remote_code=trust_remote_code)
    own = policy_of(policy, high.folder)
    vocabulary, prompter = shared_by(
        (low, high),
        (base_template, reasoner_template),
        (base_template_kwargs, reasoner_template_kwargs),
        fallback=fallback_template,
        check=check_vocabulary,
    )
    arguments = engine_arguments(
        low.where,
        high.where,
        given=engine_args or {},
        ahead=ahead,
        vocabulary=vocabulary,
        policy=own,
        dtype=dtype,
        revision=revision,
        reasoner_revision=reasoner_revision,
        trust_remote_code=trust_remote_code,
        use_safetensors=use_safetensors,
    )
    contexts = [each for each in (low.context, high.context) if each]
    arguments.setdefault("max_model_len", min(contexts, default=None))
    engine = VllmEngine(arguments)
    length = min(engine.context, *contexts)
    models = hosted_models((low, high), (low.name, high.name), length=length, ahead=ahead)
    return HostedPair(engine, *models, vocabulary, prompter, policy=own, alternatives=engine.alternatives)


def shared_by(
    both: tuple[Outline, Outline],
    templates: tuple[str | Path | None, str | Path | None] = (None, None),
    kwargs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    *,
    fallback: str | Path | None,
    check: bool = True,
) -> tuple[Vocabulary, TemplatePrompter]:
    """What a base and a reasoner share, and what renders their prompts; arguments as for `load_pair`."""
    low, high = both
    tokenizers = low.tokenizer, high.tokenizer
    rows = min(low.rows, high.rows)
    vocabulary = shared_vocabulary(tokenizers, (low.model, high.model), rows=rows, check=check)
    made = prompters(tokenizers, templates, kwargs, fallback=fallback)
    return vocabulary, TemplatePrompter(*made, size=vocabulary.size, rows=(low.rows, high.rows))


def hosted_models(
    both: tuple[Outline, Outline], names: tuple[str, str], *, length: int | None, ahead: int
) -> tuple[Hosted, Hosted]:
    """What a pair knows of two models that an engine runs.

    Args:
        both: The base and the reasoner.
        names: What they are called.
        length: Tokens of the longest sequence that the engine takes; None if unknown.
        ahead: Positions that the base drafts.
    """
    context = None if length is None else room_of(length, ahead)
    low, high = (
        Hosted(name, each.rows, context, Costs.of(each.model).charge)
        for name, each in zip(names, both, strict=True)
    )
    return low, high


def engine_arguments(
    base: str,
    reasoner: str,
    *,
    given: Mapping[str, Any],
    ahead: int,
    vocabulary: Vocabulary | None,
    policy: DelegationPolicy | None,
    dtype: str | None = None,
    revision: str | None = None,
    reasoner_revision: str | None = None,
    trust_remote_code: bool = False,
    use_safetensors: bool = True,
) -> dict[str, Any]:
    """What vLLM has to be started with; `given` has the last word where there is a choice.

    Args:
        base: A folder or hub id.
        reasoner: Likewise.
        given: The user's own.
        ahead: Positions that the base drafts.
        vocabulary: What the two share.
        policy: Of requests that bring none.
        dtype: Of the weights and of what is computed; float32 on a CPU by default.
        revision: Of the base.
        reasoner_revision: Of the reasoner.
        trust_remote_code: Whether code that comes with a checkpoint runs.
        use_safetensors: Whether only such weights are loaded.
    """
    from vllm.platforms import current_platform

    ours = {
        "model": reasoner,
        "revision": reasoner_revision,
        "worker_cls": WORKER,
        "speculative_config": {
            "method": "draft_model",
            "model": base,
            "revision": revision,
            "num_speculative_tokens": ahead,
            **dict(given.get("speculative_config") or {}),
        },
        "additional_config": {
            **dict(given.get("additional_config") or {}),
            "delegation": {
                "policy": policy.to_fields() if policy else None,
                "size": vocabulary.size if vocabulary else None,
                "holes": list(vocabulary.holes) if vocabulary else [],
            },
        },
    }
    chosen: dict[str, Any] = {
        "max_logprobs": ALTERNATIVES + COLUMNS,
        "structured_outputs_config": {"backend": "guidance"},
        "trust_remote_code": trust_remote_code,
        "disable_log_stats": True,
    }
    if use_safetensors:
        chosen["load_format"] = "safetensors"
    if current_platform.is_cpu():
        chosen |= {"dtype": "float32", "enforce_eager": True}
        if not any(given.get(each, 1) > 1 for each in _PARALLEL):
            chosen["distributed_executor_backend"] = "uni"  # one process less to wait for
        if not ({"gpu_memory_utilization", "kv_cache_memory_bytes"} & given.keys()):
            chosen["kv_cache_memory_bytes"] = CACHE_BYTES
    if dtype is not None:
        chosen["dtype"] = dtype
    merged = {**chosen, **given, **ours}
    return {name: value for name, value in merged.items() if value is not None}
