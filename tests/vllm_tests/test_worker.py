"""What the worker refuses before anything is loaded; engines that start are in the other files."""

from types import SimpleNamespace

import pytest

from delegate_llm.errors import LoadError

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from vllm.v1.spec_decode.draft_model import DraftModelProposer

from delegate_llm.vllm_plugin import worker as module
from delegate_llm.vllm_plugin.worker import DelegatingWorker


@pytest.fixture
def worker(monkeypatch):
    """Up to where vLLM would have made the model runner."""
    drafter = object.__new__(DraftModelProposer)

    def made(self):
        self.model_runner = SimpleNamespace(drafter=drafter, device="cpu")

    monkeypatch.setattr(module._Worker, "init_device", made)
    made_of = object.__new__(DelegatingWorker)
    made_of.use_v2_model_runner = False
    made_of.vllm_config = SimpleNamespace(
        parallel_config=SimpleNamespace(data_parallel_size=1), additional_config=None
    )
    return made_of


def test_copies_of_a_mixture_of_experts_are_refused(worker):
    worker.vllm_config.parallel_config.data_parallel_size = 2
    with pytest.raises(LoadError, match="a server for each"):
        worker.init_device()


def test_the_second_model_runner_is_refused(worker):
    worker.use_v2_model_runner = True
    with pytest.raises(LoadError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        worker.init_device()


def test_prompts_given_as_embeddings_are_refused(worker, monkeypatch):
    made = SimpleNamespace(drafter=object.__new__(DraftModelProposer), enable_prompt_embeds=True)
    monkeypatch.setattr(module._Worker, "init_device", lambda self: setattr(self, "model_runner", made))
    with pytest.raises(LoadError, match="enable_prompt_embeds"):
        worker.init_device()


@pytest.mark.parametrize("other", [None, object()])
def test_a_worker_without_a_draft_model_says_what_it_needs(worker, monkeypatch, other):
    monkeypatch.setattr(
        module._Worker,
        "init_device",
        lambda self: setattr(self, "model_runner", SimpleNamespace(drafter=other)),
    )
    with pytest.raises(LoadError, match='"method": "draft_model"'):
        worker.init_device()
