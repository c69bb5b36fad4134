"""LangChain's standard tests, all of them, on a scripted pair: nothing here depends on what a model knows.

Skipped are the tests of pictures, sound and PDF, which the models cannot read, and the one of serialization,
which LangChain keeps for classes of its own.
"""

from __future__ import annotations

from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests.chat_models import magic_function
from langchain_tests.unit_tests import ChatModelUnitTests
from scripted_chat import conversing
from standard import Delegated

from delegate_llm import DelegatedChatModel


class _Scripted(Delegated):
    @property
    def chat_model_params(self):
        return {"pair": conversing()}


def test_the_reasoner_puts_the_base_right():
    model = DelegatedChatModel(pair=conversing()).bind_tools([magic_function])
    delegated, alone = (
        model.invoke("What is magic_function(3)?", model=arm) for arm in ("delegated", "base")
    )
    assert [each.tool_calls[0]["args"] for each in (delegated, alone)] == [{"input": 3}, {"input": 8}]
    assert delegated.response_metadata["delegation"]["summary"]["changed"] == 1


class TestUnit(_Scripted, ChatModelUnitTests):
    pass


class TestIntegration(_Scripted, ChatModelIntegrationTests):
    pass
