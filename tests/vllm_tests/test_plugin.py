"""What the server allows, and what it leaves off; servers that run are in the other files."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from delegate_llm.errors import EngineError
from delegate_llm.serving.pair_routes import _wanted
from delegate_llm.serving.plugin import _limits


@pytest.mark.parametrize(("base", "context"), [(128, 128), (4096, 256)])
def test_the_context_is_what_both_models_can_read(base, context):
    config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=256, max_logprobs=30, logits_processors=None),
        speculative_config=SimpleNamespace(
            method="draft_model",
            num_speculative_tokens=8,
            draft_model_config=SimpleNamespace(max_model_len=base),
        ),
        structured_outputs_config=SimpleNamespace(backend="guidance"),
        scheduler_config=SimpleNamespace(async_scheduling=True),
    )
    assert _limits(config, {}, None).context == context


def test_work_ends_when_its_client_leaves():
    looks, ended = [], []

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def has_left():
        looks.append(True)
        return len(looks) > 2

    async def ask():
        return await _wanted(long(), has_left), await _wanted(asyncio.sleep(0), has_left)

    assert asyncio.run(ask()) == (False, True)
    assert ended == [True]
    assert len(looks) == 3


def test_work_that_fails_fails():
    async def failing():
        msg = "no"
        raise EngineError(msg)

    with pytest.raises(EngineError, match="no"):
        asyncio.run(_wanted(failing(), None))
