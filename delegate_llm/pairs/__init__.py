"""Who can carry two models. `load_pair` picks the backend; all give the same `Pair`."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from delegate_llm.errors import RequestError

if TYPE_CHECKING:
    from delegate_llm.pairs.pair import Pair

__all__ = ("PLAIN_CHAT", "load_pair")

PLAIN_CHAT: Final = Path(__file__).with_name("plain_chat.jinja")
"""A chat template in plain words (`User: ...`), for `fallback_template`."""

_BACKENDS: Final = {
    "remote": ("remote", "load_remote_pair"),
    "transformers": ("loading", "load_transformers_pair"),
    "vllm": ("vllm", "load_vllm_pair"),
}
"""Where each is loaded; they bring torch, so not before they are wanted."""


def load_pair(
    base: Any = None, reasoner: Any = None, *, backend: str = "transformers", **options: Any
) -> Pair:
    """Load a base and a reasoner that share a vocabulary.

    A checkpoint that a living pair has loaded already, with the same options, is not loaded again: the
    two pairs share it, and so do the two models of a pair, if they are one. If its files have changed
    since, it is loaded afresh. The base of a PEFT adapter is shared with no other pair, since the adapter
    is put into its layers.

    Args:
        base: The cheap model: a hub id, a local path, a tuple `(model, tokenizer)`, or
            `"delegate-llm/tiny-base"`, which ships.
        reasoner: The model that is asked: likewise, or a PEFT adapter of the base, which is loaded onto
            the base's weights and switched per forward; `"delegate-llm/tiny-reasoner"` ships.
        backend: Who runs the models: `"transformers"`, in this process; `"vllm"`, which writes many
            answers at once and scales to several GPUs; or `"remote"`, a server that `delegate-llm serve`
            has started, and whose models need not be named.
        **options: For `"transformers"`:

            - `device`: such as `"cuda"` or `"cpu"`; the best there is by default.
            - `dtype`: `"auto"`, `"float32"`, `"bfloat16"`, ...; by default float32 on a CPU, and the
              checkpoint's own elsewhere.
            - `revision`, `reasoner_revision`: hub revisions.
            - `trust_remote_code`: run code that comes with a checkpoint; False by default.
            - `use_safetensors`: False also loads pickled weights, which can run code.
            - `check_vocabulary`: False accepts tokenizers that differ.
            - `base_template`, `reasoner_template`: Jinja chat templates, as text or as the path of a file.
            - `fallback_template`: likewise, used where neither model has one; `PLAIN_CHAT` ships. The
              strings that end an answer under it stand in it: `{% set stops = ["..."] %}`.
            - `base_template_kwargs`, `reasoner_template_kwargs`: passed to them, such as
              `{"enable_thinking": True}`.
            - `policy`: the pair's own `DelegationPolicy`, its fields, or a file of one; by default the
              `delegation_policy.json` in the reasoner's folder, if there is one.
            - `model_kwargs`: passed on to `from_pretrained`.

            For `"vllm"`, those of the above that are no matter of transformers (not `device` and
            `model_kwargs`; models only by name or path), and:

            - `engine_args`: of vLLM's engine, such as `{"tensor_parallel_size": 2}`.
            - `ahead`: tokens that the base drafts before the reasoner reads them; 8 by default.

            For `"remote"`:

            - `base_url`: such as `"http://127.0.0.1:8000"`.
            - `api_key`: by default what `DELEGATE_LLM_API_KEY` says.
            - `timeout`: seconds without a sign of life; 600 by default.
            - `max_retries`: how often a request that was lost is sent again; 2 by default.
            - `policy`: the pair's own; the server's by default.

    Returns:
        The pair, checked: same token mapping, vocabulary rows, caches, chat templates.

    Raises:
        LoadError: If a checkpoint is missing or does not fit.
        VocabularyMismatchError: If the tokenizers differ.
        RequestError: If an option is unknown.
    """
    if backend not in _BACKENDS:
        msg = f"backend: {backend!r} is unknown; choose one of {', '.join(map(repr, _BACKENDS))}"
        raise RequestError(msg)
    for who, source in (("base", base), ("reasoner", reasoner)):
        if source is None and backend != "remote":
            msg = f"{who}: there is none; name a hub id or a folder, such as 'delegate-llm/tiny-{who}'"
            raise RequestError(msg)
    module, name = _BACKENDS[backend]
    load = getattr(importlib.import_module(f"delegate_llm.pairs.{module}"), name)
    known = inspect.signature(load).parameters.keys() - {"base", "reasoner"}
    for option in options.keys() - known:
        msg = f"unknown option {option!r}; the backend {backend!r} has {', '.join(sorted(known))}"
        raise RequestError(msg)
    return cast("Pair", load(base, reasoner, **options))
