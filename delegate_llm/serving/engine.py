"""vLLM's engine as its handlers see it: requests are fitted to delegation, decisions taken out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import Any, Final

import numpy as np
from prometheus_client import Counter
from vllm.exceptions import VLLMValidationError
from vllm.renderers.inputs.preprocess import extract_prompt_len
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists

from delegate_llm.errors import PolicyError, RequestError
from delegate_llm.serving.admission import Admitted, Limits, admit
from delegate_llm.serving.answers import Log, Record
from delegate_llm.vllm_plugin.wire import SALT, TRACED, Told, told

__all__ = ("CURRENT", "DelegatingEngine", "count", "end_together", "spare_decoding")

CURRENT: Final[ContextVar[Record | None]] = ContextVar("delegate_llm_record", default=None)
"""Of the HTTP request that is being answered, where one is kept."""

_COUNTERS: Final = {
    "tokens": Counter("delegate_llm:tokens", "Tokens generated."),
    "takeovers": Counter("delegate_llm:takeovers", "Tokens that the reasoner supplied."),
    "asked": Counter("delegate_llm:asked", "Positions at which the reasoner was consulted."),
}


def count(said: Told) -> None:
    """Add a token to what `/metrics` tells."""
    _COUNTERS["tokens"].inc()
    if said.takeover:
        _COUNTERS["takeovers"].inc()
    if said.asked:
        _COUNTERS["asked"].inc()


class DelegatingEngine:
    """Stands before vLLM's engine client; whatever is not about generating is the client's own."""

    def __init__(self, engine: Any, limits: Limits, piece: Callable[[int], str]) -> None:
        """Stand before an engine client.

        Args:
            engine: vLLM's.
            limits: What requests are checked against.
            piece: Text of a single token id.
        """
        self._engine, self._limits, self._piece = engine, limits, piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """As the client's.

        Not a generator itself: a request that cannot be is refused before an answer begins, while HTTP
        still has a status to say so with.

        Raises:
            VLLMValidationError: If the request is refused.
        """
        record = CURRENT.get() or Record()
        try:
            length = extract_prompt_len(self._engine.model_config, prompt)
            admitted = admit(sampling_params, length, self._limits, temperature=record.temperature)
        except (RequestError, PolicyError) as error:
            raise VLLMValidationError(str(error)) from error
        record.told = admitted.told
        logs = [Log(admitted.level, self._piece, seed=seed) for seed in admitted.seeds]
        record.logs += logs  # a completion of many prompts counts its choices on
        if admitted.silent:
            # What the reasoner does not read must not be found in the cache by those whom it has to read.
            prompt = {**prompt, "cache_salt": f"{SALT} {prompt.get('cache_salt') or ''}"}
        outputs = self._engine.generate(prompt, admitted.sampling, request_id, **options)
        return self._decoded(outputs, admitted, logs)

    async def _decoded(
        self, outputs: AsyncGenerator[Any, None], admitted: Admitted, logs: list[Log]
    ) -> AsyncGenerator[Any, None]:
        tokenizer = self._engine.renderer.tokenizer
        columns = [_Columns(admitted, log, tokenizer) for log in logs]
        # Closed with us: a client that leaves must not keep the engine at work.
        async with aclosing(outputs):
            async for output in outputs:
                for each in output.outputs:
                    columns[each.index].take_out(each)
                yield output


class _Columns:
    """Takes what was decided out of a choice's log-probabilities, and leaves those asked for."""

    def __init__(self, admitted: Admitted, log: Log, tokenizer: Any) -> None:
        self._log, self._delta = log, admitted.sampling.output_kind == RequestOutputKind.DELTA
        self._read = 0
        self._own: LogprobsProcessor | None = None
        if admitted.logprobs is not None:
            self._own = LogprobsProcessor(
                tokenizer=tokenizer,
                logprobs=[],
                prompt_logprobs=None,
                cumulative_logprob=0.0,
                num_logprobs=admitted.logprobs,
                num_prompt_logprobs=None,
            )

    def take_out(self, output: Any) -> None:
        """Leave an output as it would be without delegation."""
        flat, count = output.logprobs, len(output.token_ids)
        fresh = 0
        if flat is not None:
            for at in range(0 if self._delta else self._read, min(count, len(flat))):
                start, end = flat.start_indices[at], flat.end_indices[at]
                self._take(told(flat.token_ids[start:end], flat.logprobs[start:end]))
                fresh += 1
        self._read += fresh
        own = None if self._own is None else self._own.logprobs
        if own is not None and self._delta:
            own = own[len(own) - fresh :]
        output.logprobs = own
        output.cumulative_logprob = None if self._own is None else self._own.cumulative_logprob

    def _take(self, said: Told) -> None:
        self._log.add(said)
        count(said)
        if self._own is not None:
            ids = [said.token, *(each for each, _ in said.top)]
            values = [said.logprob, *(each for _, each in said.top)]
            rank = 1 + sum(value > said.logprob for value in values[1:])
            # vLLM's own way from here, so that texts of tokens and their order are what clients know.
            self._own._update_sample_logprobs(  # noqa: SLF001
                LogprobsLists(np.array([ids]), np.array([values]), np.array([rank]))
            )


def end_together(engine: Any) -> None:
    """Have answers under way end in an error when the engine is shut down.

    vLLM kills its process at once, before it has told of the answers that it breaks off; whoever waits for
    one would wait for good, and the server for them.

    Args:
        engine: vLLM's client, in whose loop this is called; it is changed.
    """
    shutdown, loop = engine.shutdown, asyncio.get_running_loop()

    def ended(timeout: float | None = None) -> None:
        shutdown(timeout=timeout)
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(engine.output_processor.propagate_error, EngineDeadError())

    engine.shutdown = ended


def spare_decoding(engine: Any) -> None:
    """Keep vLLM from decoding the columns: they are no tokens, and some tokenizers fail on such ids.

    Args:
        engine: vLLM's client; it is changed.
    """
    processor = engine.output_processor
    add = processor.add_request

    def add_request(request: Any, *args: Any, **kwargs: Any) -> None:
        add(request, *args, **kwargs)
        sampling, state = request.sampling_params, processor.request_states.get(request.request_id)
        if state is not None and sampling is not None and (sampling.extra_args or {}).get(TRACED):
            state.logprobs_processor.tokenizer = None

    processor.add_request = add_request
