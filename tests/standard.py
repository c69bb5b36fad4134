"""What both runs of LangChain's standard tests say of `DelegatedChatModel`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from delegate_llm import DelegatedChatModel


class Delegated:
    """For the left of a class of `langchain_tests`."""

    @property
    def chat_model_class(self):
        return DelegatedChatModel

    @property
    def init_from_env_params(self):
        named = {"base": "delegate-llm/tiny-base", "reasoner": "delegate-llm/tiny-reasoner"}
        return {f"DELEGATE_LLM_{each.upper()}": name for each, name in named.items()}, {}, named

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def model_override_value(self):
        return "base"

    @property
    def enable_vcr_tests(self):
        return True

    @pytest.fixture
    def vcr(self):
        """As if everything had been recorded: there is no HTTP."""
        return SimpleNamespace(responses=["none"])
