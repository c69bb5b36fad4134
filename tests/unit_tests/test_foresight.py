"""How far to draft: it learns, and it only ever changes the cost."""

from __future__ import annotations

import pytest

from delegate_llm.foresight import Foresight, patience

EQUAL = patience(1.0, 1.0)


def test_a_dearer_reasoner_is_worth_more_patience() -> None:
    assert 0 < EQUAL < patience(0.4, 1.0) < patience(0.1, 1.0) < 1


def test_sure_positions_are_drafted_and_doubtful_ones_read() -> None:
    sight = Foresight(on_entropy=True)
    for _ in range(5):
        sight.expect(0.1, 4.0)
    assert not sight.is_ripe(5, EQUAL)
    sight.expect(4.5, 4.0)
    assert sight.is_ripe(6, EQUAL)
    sight.begin()
    assert not sight.is_ripe(0, EQUAL)


def test_it_learns_that_takeovers_agree() -> None:
    """Where takeovers never change the token, drafting past them costs nothing."""
    sight = Foresight(on_entropy=True)
    for _ in range(60):
        sight.learn(4.5, 4.6, takeover=True, changed=False)
    sight.expect(4.5, 4.0)
    assert not sight.is_ripe(1, EQUAL)


def test_surprises_shorten_drafts_and_quiet_lengthens_them() -> None:
    sight = Foresight(on_entropy=True)
    assert not sight.is_ripe(16, EQUAL)
    sight.settled(12)
    assert sight.is_ripe(9, EQUAL)
    for _ in range(10):
        sight.settled(0)
    assert not sight.is_ripe(40, EQUAL)


@pytest.mark.parametrize("on_entropy", [True, False])
def test_a_base_without_doubt_is_no_division_by_zero(on_entropy: bool) -> None:
    sight = Foresight(on_entropy=on_entropy)
    sight.learn(0.0, 0.0, takeover=False, changed=False)
    sight.expect(0.0, 1.0)
    assert not sight.is_ripe(1, EQUAL)
