"""The worker: give it to vLLM as `--worker-cls delegate_llm.vllm_plugin.worker.DelegatingWorker`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vllm.platforms import current_platform

from delegate_llm.errors import LoadError
from delegate_llm.policy import DelegationPolicy
from delegate_llm.vllm_plugin.proposer import DelegatingProposer
from delegate_llm.vllm_plugin.runner import DelegatingRunner
from delegate_llm.vllm_plugin.seats import Drawing, Seats
from delegate_llm.vllm_plugin.versions import check_version

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as _Worker
else:
    from vllm.v1.worker.gpu_worker import Worker as _Worker

__all__ = ("CONFIG", "DelegatingWorker")

CONFIG = "delegation"
"""The key in vLLM's `additional_config`: `policy` of requests that bring none, `size` and `holes` of the
vocabulary."""


class DelegatingWorker(_Worker):  # type: ignore[misc]
    """vLLM's own worker; its model runner and its draft model learn to delegate."""

    def init_device(self) -> None:
        """Make the model runner, and take it over.

        Raises:
            LoadError: If this vLLM is not one that was tested, no base is to draft, copies of a mixture of
                experts are to run side by side, or prompts may be embeddings.
        """
        check_version()
        super().init_device()
        runner = self.model_runner
        drafter: Any = getattr(runner, "drafter", None)
        if getattr(self, "use_v2_model_runner", False):
            msg = "vLLM's second model runner is not supported yet: set VLLM_USE_V2_MODEL_RUNNER=0"
            raise LoadError(msg)
        # vLLM runs copies of other models one by one, and tells their workers of a single one.
        if self.vllm_config.parallel_config.data_parallel_size > 1:
            msg = (
                "copies of a mixture of experts take every forward together, and delegation's differ from "
                "copy to copy: start a server for each in place of data parallel, behind one balancer"
            )
            raise LoadError(msg)
        if getattr(runner, "enable_prompt_embeds", False):
            msg = "delegation does not support prompts given as embeddings; leave enable_prompt_embeds out"
            raise LoadError(msg)
        if type(drafter).__name__ != "DraftModelProposer":
            msg = (
                "delegation needs the base as vLLM's draft model: "
                '{"method": "draft_model", "model": BASE, "num_speculative_tokens": 8} as speculative config'
            )
            raise LoadError(msg)
        config = dict((self.vllm_config.additional_config or {}).get(CONFIG) or {})
        seats = Seats(
            device=runner.device,
            policy=DelegationPolicy.of(config.get("policy") or {}),
            drawing=Drawing(config.get("size"), tuple(config.get("holes") or ())),
            decode=self._decode,
        )
        drafter.__class__ = DelegatingProposer
        drafter.adopt(runner, seats)
        runner.__class__ = type("DelegatingModelRunner", (DelegatingRunner, type(runner)), {})
        runner.adopt(seats)

    def _decode(self) -> Callable[[Sequence[int]], str]:
        from vllm.tokenizers import cached_tokenizer_from_config

        tokenizer: Any = cached_tokenizer_from_config(self.model_config)
        return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True)
