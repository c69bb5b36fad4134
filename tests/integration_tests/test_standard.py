"""LangChain's standard tests, all of them, on the pair that ships.

Its models were trained on one thing, word problems with three calculating tools. They pass every test of
form; of the tests that ask for a content, each that they cannot answer is marked here and must fail.
"""

from __future__ import annotations

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from standard import Delegated


class _Shipped(Delegated):
    @property
    def chat_model_params(self):
        return {"base": "delegate-llm/tiny-base", "reasoner": "delegate-llm/tiny-reasoner"}


class TestUnit(_Shipped, ChatModelUnitTests):
    pass


class TestIntegration(_Shipped, ChatModelIntegrationTests):
    @pytest.mark.xfail(
        reason="the call is well-formed, but its input is not the 3 of the question: no word problem",
        raises=AssertionError,
        strict=True,
    )
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_tool_calling(self, model):
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason="as test_tool_calling", raises=AssertionError, strict=True)
    async def test_tool_calling_async(self, model):
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(
        reason="nothing demands a call here, and of themselves the models make none about the weather",
        raises=AssertionError,
        strict=True,
    )
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_agent_loop(self, model):
        super().test_agent_loop(model)

    @pytest.mark.xfail(
        reason="any object is allowed, and the models write none with the keys that the question names",
        raises=OutputParserException,
        strict=True,
    )
    def test_json_mode(self, model):
        super().test_json_mode(model)

    @pytest.mark.xfail(
        reason="the models know no such names, and repeat a word in their place until the answer is cut off",
        raises=AssertionError,
        strict=True,
    )
    def test_unicode_tool_call_integration(self, model):
        super().test_unicode_tool_call_integration(model)
