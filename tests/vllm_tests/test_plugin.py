"""What the server allows, by what its engine says of itself; servers that run are in the other files."""

from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

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
