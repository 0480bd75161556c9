"""The bounded cache of memories."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uic.jobs.stream.fold.memory_cache import MemoryCache


def _records(*values: int) -> np.ndarray:
    return np.array([[value, value] for value in values], np.uint8).reshape(-1, 2)


def _get(cache: MemoryCache, *users: int) -> list[int | None]:
    records = np.zeros((len(users), 2), np.uint8)
    known = cache.get(np.array(users, np.int64), records)
    return [int(record[0]) if there else None for record, there in zip(records, known, strict=True)]


def test_it_returns_what_was_put():
    cache = MemoryCache(10, 2)
    cache.put(np.array([5, 7]), _records(50, 70))
    assert _get(cache, 7, 6, 5) == [70, None, 50]


def test_the_newest_record_stays():
    cache = MemoryCache(10, 2)
    cache.put(np.array([5]), _records(50))
    cache.put(np.array([5]), _records(51))
    assert _get(cache, 5) == [51]
    assert len(cache) == 1


def test_what_was_not_used_for_longest_leaves_first():
    cache = MemoryCache(4, 2)
    for user in (1, 2, 3, 4):
        cache.put(np.array([user]), _records(user))
    _get(cache, 1)
    cache.put(np.array([5]), _records(5))
    assert _get(cache, 1, 2, 5) == [1, None, 5]


def test_a_dropped_user_is_unknown():
    cache = MemoryCache(4, 2)
    cache.put(np.array([1, 2]), _records(1, 2))
    cache.drop(np.array([1, 9]))
    assert _get(cache, 1, 2) == [None, 2]


def test_capacity_zero_keeps_nothing():
    cache = MemoryCache(0, 2)
    cache.put(np.array([1]), _records(1))
    assert _get(cache, 1) == [None]


@given(
    capacity=st.integers(1, 8),
    batches=st.lists(st.lists(st.integers(0, 12), unique=True, max_size=10), max_size=12),
)
def test_it_never_holds_more_than_its_capacity_nor_a_wrong_record(capacity, batches):
    cache = MemoryCache(capacity, 2)
    latest = {}
    for turn, users in enumerate(batches):
        cache.put(np.array(users, np.int64), _records(*([turn] * len(users))))
        latest.update(dict.fromkeys(users, turn))
        assert len(cache) <= capacity
        # The last ones of a batch always fit.
        for user in users[-capacity:]:
            assert _get(cache, user) == [turn]
        for user in range(13):
            assert _get(cache, user)[0] in (None, latest.get(user))
