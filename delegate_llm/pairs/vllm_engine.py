"""vLLM in the background of this process: answers go in from any thread, decisions come out as they fall.

vLLM's asynchronous engine wants one event loop. It runs in a thread of its own here; the models run in
vLLM's own processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Final

from delegate_llm._loops import run
from delegate_llm.errors import DelegateError, EngineError, GrammarError, LoadError, RequestError
from delegate_llm.gates import BoundaryGate, TurnGate
from delegate_llm.pairs.telling import Answer
from delegate_llm.sampling import as_int64
from delegate_llm.vllm_plugin.wire import (
    BRIEF,
    COLUMNS,
    FORCED,
    IDLE,
    KEY,
    SALT,
    SEED,
    TEMPERATURE,
    TRACED,
    Told,
    is_silent,
    to_wire,
    told,
)

__all__ = ("VllmEngine", "alternatives_of", "environment", "sampling_of", "write")

logger = logging.getLogger(__name__)

_names: Final = itertools.count()
_HOTTEST: Final = 2.0
"""The highest temperature that vLLM takes."""
_MOST_TOP: Final = (1 << 31) - 1
"""More tokens than any vocabulary has."""


class VllmEngine:
    """An engine that delegates. It starts when it is made, and again after it has died."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Start.

        Args:
            arguments: Of vLLM's `AsyncEngineArgs`.

        Raises:
            LoadError: If vLLM does not take them, or cannot load the models.
        """
        self._arguments = dict(arguments)
        self._starting = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._held: dict[str, Any] = {}  # the engine, where the finalizer finds it
        thread = threading.Thread(target=run, args=(self._loop,), name="delegate-llm-vllm", daemon=True)
        thread.start()
        self._closed = weakref.finalize(self, _stop, self._loop, self._held)
        try:
            self._living()
        except BaseException:
            self._closed()
            raise

    def write(self, answer: Answer, tell: Callable[[list[Told]], bool]) -> Future[None]:
        """Begin an answer; see `delegate_llm.pairs.telling.Engine`.

        Raises:
            PolicyError: If a gate is a plain callable, which no other process can be told.
            EngineError: If the engine is closed.
        """
        engine = self._living()
        scheduler = engine.vllm_config.scheduler_config
        sampling = sampling_of(answer, synchronous=not scheduler.async_scheduling)
        return asyncio.run_coroutine_threadsafe(write(engine, answer, sampling, tell), self._loop)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence that it takes."""
        config = self._living().vllm_config
        both = config.model_config, config.speculative_config.draft_model_config
        return min(int(each.max_model_len) for each in both)

    @property
    def alternatives(self) -> int:
        """Most log-probabilities that a token may come with."""
        return alternatives_of(self._living().vllm_config.model_config)

    def close(self) -> None:
        """Stop the models and free their memory; calls that are under way end with an error."""
        self._closed()

    def _living(self) -> Any:
        """The engine; a new one if the last has died."""
        if not self._closed.alive:
            msg = "the vLLM engine of this pair is closed; load the pair again"
            raise EngineError(msg)
        with self._starting:
            engine = self._held.get("engine")
            if engine is not None and not engine.errored:
                return engine
            if engine is not None:
                logger.warning("the vLLM engine has died and is started again")
                self._loop.call_soon_threadsafe(_shut, engine)
            started = asyncio.run_coroutine_threadsafe(_start(self._arguments), self._loop).result()
            self._held["engine"] = started
            return started


def alternatives_of(model: Any) -> int:
    """Log-probabilities that a token may come with at most, by vLLM's settings of a model."""
    most: int = model.max_logprobs
    return max(0, (model.get_vocab_size() if most < 0 else most) - COLUMNS)


def sampling_of(answer: Answer, *, synchronous: bool) -> Any:
    """What vLLM has to be told of an answer.

    Args:
        answer: The answer.
        synchronous: Whether the engine schedules a step only when the last is known.

    Raises:
        PolicyError: If a gate is a plain callable, which no other process can be told.
        RequestError: If one reads the text, which an engine that schedules ahead does not know in time, or
            the temperature is too high.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    request = answer.request
    reads = [each for each in answer.policy.gates if isinstance(each, BoundaryGate | TurnGate)]
    if reads and not synchronous:
        msg = (
            f"policy: the gate {reads[0].kind!r} reads the text, which vLLM does not know in time when "
            "it schedules ahead; start it with engine_args={'async_scheduling': False}, a server with "
            "--no-async-scheduling"
        )
        raise RequestError(msg)
    if request.sampling.temperature > _HOTTEST:
        msg = f"temperature: {request.sampling.temperature!r} is more than vLLM takes, which is {_HOTTEST:g}"
        raise RequestError(msg)
    extra = {KEY: to_wire(answer.policy), SEED: as_int64(answer.seed), TRACED: 1}
    if answer.forced is not None:
        extra[FORCED] = answer.forced
    elif is_silent(answer.policy):
        extra |= {IDLE: 1, **({BRIEF: 1} if answer.brief else {})}
    sampling = SamplingParams(
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        top_k=min(request.sampling.top_k, _MOST_TOP) or -1,
        max_tokens=answer.room,
        stop_token_ids=[] if request.ignore_eos else list(answer.eos),
        ignore_eos=request.ignore_eos,
        logprobs=COLUMNS - 1 + (request.logprobs or 0),
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=None
        if answer.grammar is None
        else StructuredOutputsParams(grammar=answer.grammar),
        extra_args=extra,
    )
    if sampling.temperature != request.sampling.temperature:  # vLLM lifts low ones, here and in its process
        extra[TEMPERATURE] = request.sampling.temperature
    return sampling


async def _start(arguments: Mapping[str, Any]) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        with environment():
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except TypeError as error:
        msg = f"engine_args: vLLM does not take them: {error}"
        raise LoadError(msg) from error
    except Exception as error:  # what a checkpoint, a device or a setting does to vLLM has no common type
        said = " ".join(str(error).split()) or repr(error)
        msg = f"vLLM cannot start with these models and engine_args: {said:.400}"
        raise LoadError(msg) from error


async def write(
    engine: Any,
    answer: Answer,
    sampling: Any,
    tell: Callable[[list[Told]], bool],
    *,
    next_: str = "the next call starts it again",
) -> None:
    """Write one answer, in the engine's own loop.

    Args:
        engine: vLLM's client.
        answer: What to write.
        sampling: As `sampling_of` says.
        tell: Called with what was decided; False ends the answer.
        next_: What becomes of an engine that died.

    Raises:
        EngineError: If the engine dies, is too busy, or breaks the answer off.
        RequestError: If vLLM does not take the request.
        GrammarError: If its grammar cannot be followed any further.
        NumericsError: If a model returns NaN.
    """
    from vllm.exceptions import VLLMClientError, VLLMError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    name = f"delegate-llm-{next(_names)}"
    prompt: dict[str, Any] = {"prompt_token_ids": answer.prompt}
    if IDLE in sampling.extra_args:
        prompt["cache_salt"] = SALT
    stream = engine.generate(prompt, sampling, name)
    try:
        async with contextlib.aclosing(stream) as outputs:
            async for output in outputs:
                said = output.outputs[0]
                if not tell(_told(said)):
                    break
                _check_end(said.finish_reason, answer)
    except DelegateError:
        raise
    except EngineGenerateError as error:
        msg = f"the vLLM engine failed while it wrote this answer: {error.__cause__ or error}"
        raise EngineError(msg) from error
    except EngineDeadError as error:
        msg = f"the vLLM engine has died while it wrote this answer; {next_}"
        raise EngineError(msg) from error
    except (ValueError, VLLMClientError) as error:
        msg = f"vLLM does not take this request: {error}"
        raise RequestError(msg) from error
    except VLLMError as error:
        msg = f"vLLM did not write this answer: {error}"
        raise EngineError(msg) from error


def _check_end(reason: str | None, answer: Answer) -> None:
    """Make sure that an answer which goes on for us was not given up by vLLM."""
    if reason == "error" and answer.grammar is not None:
        msg = "grammar: vLLM cannot follow it any further; simplify the schema or grammar"
        raise GrammarError(msg)
    if reason in {"error", "abort"}:
        msg = f"vLLM broke this answer off; it says why in its log: {reason}"
        raise EngineError(msg)


def _told(output: Any) -> list[Told]:
    flat = output.logprobs
    if flat is None:
        return []
    return [
        told(flat.token_ids[start:end], flat.logprobs[start:end])
        for start, end in zip(flat.start_indices, flat.end_indices, strict=True)
    ]


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """What vLLM reads from the environment when it starts, set for that long."""
    ours = {
        # The second model runner is the default where Triton is; the worker knows the first.
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        # On a CPU it lets the worker share the engine's process, when the executor is "uni".
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _shut(engine: Any) -> None:
    with contextlib.suppress(Exception):  # whatever is left of it is going anyway
        engine.shutdown()


def _stop(loop: asyncio.AbstractEventLoop, held: dict[str, Any]) -> None:
    """Stop the engine and its loop; at the end of the process too, so that no process of vLLM's stays."""
    engine = held.pop("engine", None)
    if engine is not None:
        done = threading.Event()

        def shut() -> None:
            _shut(engine)
            done.set()

        loop.call_soon_threadsafe(shut)
        done.wait(30)
    loop.call_soon_threadsafe(loop.stop)
