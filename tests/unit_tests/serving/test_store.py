"""The store of traces stays within its bounds, and gives each owner its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_llm.serving.store import TraceStore


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_by_owner_and_name():
    store = TraceStore()
    store.put(b"a", "x", b"1")
    store.put(b"b", "x", b"2")
    assert (store.get(b"a", "x"), store.get(b"b", "x")) == (b"1", b"2")
    assert store.get(b"c", "x") is store.get(b"a", "y") is None


def test_the_oldest_go_first():
    store = TraceStore(count=2)
    for name in "xyz":
        store.put(b"", name, b"1")
    assert [store.get(b"", name) for name in "xyz"] == [None, b"1", b"1"]


def test_an_id_that_comes_again_is_the_newest():
    store = TraceStore(count=2)
    for name, text in zip("xyxz", (b"1", b"2", b"3", b"4"), strict=True):
        store.put(b"", name, text)
    assert [store.get(b"", name) for name in "xyz"] == [b"3", None, b"4"]
    assert store.held == 2


def test_age():
    clock = Clock()
    store = TraceStore(age_s=10, clock=clock)
    store.put(b"", "x", b"1")
    clock.now = 9.9
    assert store.get(b"", "x") == b"1"
    clock.now = 10
    assert store.get(b"", "x") is None
    assert len(store) == store.held == 0


@pytest.mark.parametrize("bound", [{"count": 0}, {"size": 3}])
def test_what_has_no_room_is_not_kept(bound):
    store = TraceStore(**bound)
    store.put(b"", "x", b"1234")
    assert store.get(b"", "x") is None


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 40), st.integers(0, 4))),
    st.integers(0, 4),
    st.integers(0, 60),
)
def test_bounds_hold(puts, count, size):
    clock = Clock()
    store = TraceStore(count=count, age_s=8, size=size, clock=clock)
    kept = {}
    for owner, name, width, later in puts:
        clock.now += later
        kept[owner, name] = (b"t" * width, clock.now)
        store.put(owner.encode(), name, b"t" * width)
        assert len(store) <= count
        found = {key: store.get(key[0].encode(), key[1]) for key in kept}
        assert store.held == sum(len(text) for text in found.values() if text) <= size
        for key, text in found.items():
            assert text is None or (text == kept[key][0] and clock.now - kept[key][1] < 8)
