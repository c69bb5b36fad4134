"""One engine for all tests of a run: starting it takes a while."""

import pytest

from delegate_llm import Pair, load_pair

BASE, REASONER = "delegate-llm/tiny-base", "delegate-llm/tiny-reasoner"


@pytest.fixture(scope="session")
def reference() -> Pair:
    return load_pair(BASE, REASONER)


@pytest.fixture(scope="session")
def hosted():
    pair = load_pair(BASE, REASONER, backend="vllm", ahead=5)
    yield pair
    pair.close()


def pytest_collection_modifyitems(items):
    """vLLM leaves sockets of an engine that was killed to the garbage collector."""
    for item in items:
        if "vllm_tests" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
