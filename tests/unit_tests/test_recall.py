"""Guesses at what the base says next: they repeat what was said, and only ever change the cost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm import Budget, DelegationPolicy
from delegate_llm.pairs.scripted import Script, scripted_pair
from delegate_llm.recall import Recall

SONG = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
CHEAP, DEAR = 0.1, 0.5
"""What a block of eight costs more than one token."""


@pytest.mark.parametrize("price", [CHEAP, DEAR])
def test_what_followed_before_is_guessed_again(price: float) -> None:
    said = [*SONG, 90, 1, 2, 3]
    assert Recall(price).guess(said, len(said), 99) == [4, 5, 6, 7, 8, 9, 10]
    assert Recall(price).guess(said, len(said), 2) == [4, 5]


@pytest.mark.parametrize(
    ("said", "most"),
    [([], 5), ([1], 5), ([1, 2], 5), ([1, 2, 3], 5), ([1, 2, 1, 2], 0), ([1, 2, 1, 2], -3)],
)
def test_without_a_precedent_or_room_nothing_is_guessed(said: list[int], most: int) -> None:
    for price in (CHEAP, DEAR):
        assert not Recall(price).guess(said, len(said), most)


def test_the_more_tokens_agree_the_more_is_guessed() -> None:
    for end, cheap, dear in (
        ([90, 3], [4, 5], []),
        ([90, 2, 3], [4, 5, 6], [4, 5, 6, 7, 8, 9, 10]),
        ([1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [4, 5, 6, 7, 8, 9, 10]),
    ):
        said = [*SONG, 91, *end]
        assert list(Recall(CHEAP).guess(said, len(said), 9)) == cheap
        assert list(Recall(DEAR).guess(said, len(said), 9)) == dear


def test_the_latest_precedent_counts() -> None:
    said = [1, 2, 5, 1, 2, 6, 1, 2]
    assert Recall(DEAR).guess(said, len(said), 1) == [6]


def test_drafts_are_guessed_from_but_not_remembered() -> None:
    recall = Recall(DEAR)
    assert not recall.guess([1, 2, 3, 7, 8, 9], 3, 5)
    assert not recall.guess([1, 2, 3, 4, 7, 8], 4, 5)  # 9 after 7, 8 was only drafted
    assert recall.guess([1, 2, 3, 4, 1, 2], 4, 5) == [3, 4, 1, 2]


@pytest.mark.parametrize("price", [CHEAP, DEAR])
def test_wrong_guesses_need_more_tokens_to_agree(price: float) -> None:
    recall = Recall(price)
    said = [*SONG, 91, 2, 3]
    assert recall.guess(said, len(said), 9)
    for _ in range(round(4 / price)):
        recall.learn(0, 7)
    assert not recall.guess(said, len(said), 9)
    longer = [*said, *SONG[:8]]
    assert recall.guess(longer, len(longer), 9) == [9, 10, 11, 12, 91, 2, 3]
    recall.learn(7, 7)
    longer = [*longer, 80, 2, 3]
    assert recall.guess(longer, len(longer), 3) == [4, 5, 6]


@given(
    st.lists(st.integers(0, 3), max_size=60),
    st.integers(0, 9),
    st.sampled_from([(CHEAP, 1), (DEAR, 2)]),
    st.integers(0, 60),
)
def test_a_guess_is_what_stood_behind_the_last_tokens(
    said: list[int], most: int, kind: tuple[float, int], settled: int
) -> None:
    price, alike = kind
    guess = list(Recall(price).guess(said, min(settled, len(said)), most))
    assert len(guess) <= most
    if guess:
        wanted = [*said[-alike:], *guess]
        assert any(said[at : at + len(wanted)] == wanted for at in range(len(said)))


def circle(tokens: Sequence[int]) -> list[float]:
    """Says 0, 1, ..., 9 over and over."""
    return [4.0 if token == (tokens[-1] + 1) % 10 else 0.0 for token in range(10)]


@pytest.mark.parametrize("policy", [DelegationPolicy(budget=0), DelegationPolicy(threshold=99.0)])
def test_repetition_costs_fewer_forwards(policy: DelegationPolicy) -> None:
    pair = scripted_pair(circle, circle, "0123456789")
    settings = {"policy": policy, "max_tokens": 100, "ignore_eos": True}
    fast = pair.generate("012", **settings)
    slow = pair.generate("012", schedule="lockstep", **settings)
    assert fast.text == slow.text == "3456789012" * 10
    assert slow.usage.base_forwards == 100
    assert fast.usage.base_forwards < 35


def test_a_draft_never_grows_beyond_what_was_asked_for() -> None:
    pair = scripted_pair(circle, circle, "0123456789")
    policy = DelegationPolicy(threshold=99.0, budget=Budget(asks=50))
    made = pair.generate("012", policy=policy, max_tokens=50, ignore_eos=True, draft=0)
    assert made.usage.base_forwards == made.usage.reasoner_forwards == 50


LETTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))


def next_letter(tokens: Sequence[int]) -> list[float]:
    """Never repeats itself."""
    return [4.0 if token == (tokens[-1] + 1) % 200 else 0.0 for token in range(200)]


def other_letter(tokens: Sequence[int]) -> list[float]:
    return [4.0 if token == (tokens[-1] + 7) % 200 else 0.0 for token in range(200)]


@pytest.mark.parametrize(("reasoner", "spared"), [(next_letter, 1), (other_letter, 0)])
def test_the_reasoner_s_next_word_is_guessed_too(reasoner: Script, spared: int) -> None:
    pair = scripted_pair(next_letter, reasoner, LETTERS)
    # Bounded drafts, and never a takeover: each is read to its end.
    settings = {"policy": DelegationPolicy(threshold=99.0), "max_tokens": 100, "draft": 4}
    fast = pair.generate(LETTERS[:3], **settings)
    slow = pair.generate(LETTERS[:3], schedule="lockstep", **settings)
    assert fast.token_ids == slow.token_ids == tuple(range(3, 103))
    assert fast.usage.reasoner_forwards == 20
    # One a draft behind the first; what is told of the last one leads nowhere.
    assert fast.usage.base_forwards == 100 - spared * 19
    assert fast.usage.reasoner_tokens == slow.usage.reasoner_tokens + 19


def counting(tokens: Sequence[int]) -> list[float]:
    """Says where it stands, whatever was said before."""
    return [99.0 if token == len(tokens) % 200 else 0.0 for token in range(200)]


def counting_oddly(tokens: Sequence[int]) -> list[float]:
    place = len(tokens) + (len(tokens) % 10 == 7)
    return [99.0 if token == place % 200 else 0.0 for token in range(200)]


def test_what_a_takeover_drops_is_guessed_again() -> None:
    pair = scripted_pair(counting, counting_oddly, LETTERS)
    # The base is sure of itself, so nothing foretells a takeover.
    settings = {"policy": DelegationPolicy(divergence="js", threshold=0.3), "max_tokens": 100}
    fast = pair.generate(LETTERS[:3], **settings)
    slow = pair.generate(LETTERS[:3], schedule="lockstep", **settings)
    assert fast.token_ids == slow.token_ids
    assert fast.trace.summary.changed == 10
    # Takeovers drop what stands behind them, and all of it is said once more.
    assert fast.usage.base_forwards < 120
