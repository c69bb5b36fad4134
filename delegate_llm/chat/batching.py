"""`batch` and `abatch` of a chat model as true batches, through LangChain's own single calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list, run_in_executor

from delegate_llm.chat.gathering import Gathering, gathered, seated
from delegate_llm.errors import RequestError

__all__ = ("BatchedRoutes",)

_WIDTH: Final = 32
"""Answers written at a time where `max_concurrency` does not say."""
_SEED: Final = "__delegate_llm_seed"
"""Where the config of a call has its seed; LangChain hands the settings of a batch to all its calls alike."""


class BatchedRoutes(BaseChatModel):
    """A chat model whose `batch` and `abatch` bring their jobs together.

    Every input still is a call of its own, with its callbacks, cache and trace. A subclass's `_generate`
    asks `free_seat(self)` whether its call belongs to a batch, and then brings its job there.
    """

    @abstractmethod
    def _run_jobs(self, jobs: Sequence[Any]) -> Sequence[Any]:
        """Run what the calls of one batch brought; the result or the error of each, in order."""

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As in `BaseChatModel`."""
        with seated(self) as seat:
            try:
                return super().invoke(input, config, stop=stop, **kwargs, **_own_seed(config))
            finally:
                if seat is not None:
                    seat.leave()

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As in `BaseChatModel`."""
        with seated(self) as seat:
            try:
                return await super().ainvoke(input, config, stop=stop, **kwargs, **_own_seed(config))
            finally:
                if seat is not None and seat.free:
                    # Leaving last means to run the others' jobs, which must not be done on the loop.
                    await run_in_executor(None, seat.leave)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """As in `BaseChatModel`, as many inputs at a time as `max_concurrency` says (32 by default).

        `seed` may also be a list with one seed an input.

        Raises:
            RequestError: If there are not as many seeds as inputs.
        """
        answers: list[AIMessage] = []
        config, kwargs = _seeded(inputs, config, kwargs)
        for some, configs in _slices(inputs, config):
            with gathered(self, Gathering(len(some), self._run_jobs)):
                answers += super().batch(some, configs, return_exceptions=return_exceptions, **kwargs)
        return answers

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """As `batch`."""
        answers: list[AIMessage] = []
        config, kwargs = _seeded(inputs, config, kwargs)
        for some, configs in _slices(inputs, config):
            with gathered(self, Gathering(len(some), self._run_jobs)):
                answers += await super().abatch(some, configs, return_exceptions=return_exceptions, **kwargs)
        return answers


_Configs = RunnableConfig | list[RunnableConfig] | None


def _seeded(
    inputs: Sequence[LanguageModelInput], config: _Configs, settings: dict[str, Any]
) -> tuple[_Configs, dict[str, Any]]:
    """The configs with a seed each, and the other settings, where a batch is given a list of seeds."""
    seeds = settings.get("seed")
    if not isinstance(seeds, list | tuple):
        return config, settings
    if len(seeds) != len(inputs):
        msg = f"seed: {len(seeds)} seeds for {len(inputs)} inputs; give one, or one an input"
        raise RequestError(msg)
    configs = [
        RunnableConfig(**{**each, "configurable": {**each.get("configurable", {}), _SEED: seed}})
        for each, seed in zip(get_config_list(config, len(inputs)), seeds, strict=True)
    ]
    return configs, {name: value for name, value in settings.items() if name != "seed"}


def _own_seed(config: RunnableConfig | None) -> dict[str, Any]:
    """The seed of a call of a batch, as a setting."""
    held = (config or {}).get("configurable") or {}
    return {"seed": held[_SEED]} if _SEED in held else {}


def _slices(
    inputs: list[LanguageModelInput], config: _Configs
) -> list[tuple[list[LanguageModelInput], list[RunnableConfig]]]:
    """The inputs in slices that run together, with configs that let all of a slice wait for each other."""
    if not inputs:
        return []
    configs = get_config_list(config, len(inputs))
    width = configs[0].get("max_concurrency") or _WIDTH
    return [
        (
            inputs[start : start + width],
            [RunnableConfig(**{**each, "max_concurrency": width}) for each in configs[start : start + width]],
        )
        for start in range(0, len(inputs), width)
    ]
