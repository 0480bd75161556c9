"""The packed ring of a user's last events."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.memory_examples import events
from uic.models.records.record import header_view
from uic.models.records.sequence_ring import RingFormatError, SequenceRing

RING = SequenceRing(capacity=5)


def stored(rings):
    """Item ids by user."""
    read = RING.read(rings)
    return [part.tolist() for part in np.split(read.item_ids, read.offsets[1:-1])]


def test_a_ring_keeps_the_last_events_oldest_first():
    rings = RING.append(RING.empty(2), events([0, 1, 0], [10, 20, 11], [0, 1, 2]))
    assert stored(rings) == [[10, 11], [20]]
    rings = RING.append(rings, events([0] * 5, [12, 13, 14, 15, 16], [3, 4, 5, 6, 7]))
    assert stored(rings) == [[12, 13, 14, 15, 16], [20]]
    assert RING.header(rings)["appended"].tolist() == [7, 1]


def test_a_thousand_events_cost_17032_bytes():
    assert SequenceRing().empty(1).shape == (1, 17_032)


@settings(max_examples=100, deadline=None)
@given(
    users=st.lists(st.integers(0, 3), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
)
def test_any_batches_give_the_last_events_of_the_log(users: list[int], cuts: list[int]):
    log = events(users, np.arange(len(users)) + 100, np.arange(len(users)))
    rings = RING.empty(4)
    bounds = [0, *sorted(min(cut, len(users)) for cut in cuts), len(users)]
    for first, last in itertools.pairwise(bounds):
        part = events(users[first:last], log.item_ids[first:last], log.offsets[first:last])
        rings = RING.append(rings, part)
    for user in range(4):
        expected = [100 + at for at, owner in enumerate(users) if owner == user][-5:]
        assert stored(rings)[user] == expected
    np.testing.assert_array_equal(RING.append(rings, log), rings)  # again changes nothing


def test_all_columns_come_back():
    batch = events([0], [2**62], [9])
    read = RING.read(RING.append(RING.empty(1), batch))
    assert read.item_ids.tolist() == [2**62]
    assert read.category_ids.tolist() == [0]
    assert read.behaviors.tolist() == [0]
    assert read.event_times_ms.tolist() == [1_700_000_000_000]


def test_what_is_not_a_ring_is_refused():
    with pytest.raises(RingFormatError, match="5 events"):
        RING.check(SequenceRing(5).empty(1) * 0, "here")
    with pytest.raises(RingFormatError, match="expected 117"):
        RING.check(SequenceRing(6).empty(1), "here")
    assert header_view(RING.empty(1))["magic"] == b"US"  # and so no memory record either


def test_a_category_that_does_not_fit_is_refused():
    batch = events([0], [1], [0])
    batch.category_ids[:] = 2**31
    with pytest.raises(RingFormatError, match="2147483648"):
        RING.append(RING.empty(1), batch)
