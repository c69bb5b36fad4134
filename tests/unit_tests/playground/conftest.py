"""What the tests of the playground share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from models import random_model, tokenizer
from played import Played, offer_of, playing

from delegate_llm import Pair, load_pair


@pytest.fixture(scope="session")
def tiny() -> Pair:
    """The pair that ships."""
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


@pytest.fixture(scope="module")
def played(tiny: Pair) -> Iterator[Played]:
    with playing(offer_of(lambda: tiny)) as found:
        yield found


@pytest.fixture(scope="module")
def endless() -> Pair:
    """Two random models that hardly ever end an answer."""
    template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    models = ((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2))
    return load_pair(*models, fallback_template=template)
