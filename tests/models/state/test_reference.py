"""Each kind against plain Python that keeps every event, and at the ends of what fits."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.state.logs import BEGIN_MS, DAY_MS, HOUR_MS, asked_at, events_of, state_of, told
from uic.models.records.positions import EventBatch
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked

MANY = {"size": 64, "fingerprint_bits": 64}


def log(seed: int, most: int = 60) -> EventBatch:
    """One user's events at rising times, of few keys."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, most))
    ids = draw.integers(0, 20, count)
    return EventBatch(
        user_index=np.zeros(count, np.int64),
        item_ids=ids,
        category_ids=ids % 5,
        behaviors=draw.integers(0, 4, count).astype(np.int8),
        event_times_ms=np.zeros(count, np.int64),
        log_times_ms=BEGIN_MS + np.sort(draw.integers(0, 20 * DAY_MS, count)),
        epochs=np.ones(count, np.int64),
        partitions=np.zeros(count, np.int64),
        offsets=np.arange(count),
        columns={"price": np.where(draw.random(count) < 0.2, np.nan, draw.random(count) * 50)},
    )


def ask(seed: int) -> tuple[int, int]:
    """A time after the log, and an item."""
    draw = np.random.default_rng(seed + 1)
    return BEGIN_MS + 20 * DAY_MS + int(draw.integers(0, 9 * DAY_MS)), int(draw.integers(0, 20))


def said(state: StateDefinition, events: EventBatch, now: int, item: int) -> dict[str, float]:
    column = np.array([0])
    [row] = told(state, events, Asked(column, column + now, column + item, column + item % 5))
    return row


COUNTS = state_of(
    items={"kind": "counts", "half_lives": ["1d", "7d"], **MANY},
    buys={"kind": "counts", "by": "category", "behaviors": ["buy"], **MANY},
)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_dictionary(seed) -> None:
    events, (now, item) = log(seed), ask(seed)
    count: dict[int, int] = defaultdict(int)
    bought: dict[int, int] = defaultdict(int)
    times: dict[int, list[int]] = defaultdict(list)
    for one, what, at in zip(
        events.item_ids.tolist(),
        events.behaviors.tolist(),
        events.log_times_ms.tolist(),
        strict=True,
    ):
        count[one] += 1
        times[one].append(at)
        bought[one % 5] += what == 3
    row = said(COUNTS, events, now, item)
    assert row["items.count"] == count[item]
    assert row["items.distinct"] == len(times)
    assert row["items.evictions"] == 0
    assert row["buys.count"] == bought[item % 5]
    for name, length in (("1d", DAY_MS), ("7d", 7 * DAY_MS)):
        exact = sum(2 ** (-(now - at) / length) for at in times[item])
        # Half an hour of 24, more or less, and a code's step for each event.
        slack = 2 ** (HOUR_MS / length) * 1.0005 ** len(times[item])
        assert exact / slack - 0.01 <= row[f"items.decayed_{name}"] <= exact * slack + 0.01
    if times[item]:
        assert abs(row["items.age"] - (now - times[item][-1]) / HOUR_MS) < 1
    else:
        assert math.isnan(row["items.age"])


RATES = state_of(
    user={"kind": "rates", "prior": 0.2, "prior_weight": 5.0},
    items={"kind": "rates", "by": "item", "half_life": "7d", **MANY},
)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_rates_are_buys_over_clicks(seed) -> None:
    events, (now, item) = log(seed), ask(seed)
    clicks, buys = events.behaviors == 0, events.behaviors == 3
    row = said(RATES, events, now, item)
    assert row["user.exposures"] == clicks.sum()
    assert row["user.rate"] == pytest.approx((buys.sum() + 1) / (clicks.sum() + 5), rel=1e-6)
    mine = events.item_ids == item
    left = 2.0 ** (-(now // HOUR_MS - events.log_times_ms // HOUR_MS) / (7 * 24))
    exposed, done = left[mine & clicks].sum(), left[mine & buys].sum()
    assert row["items.exposures"] == pytest.approx(exposed, rel=1e-5)
    assert row["items.rate"] == pytest.approx((done + 1) / (exposed + 10), rel=1e-5)


ALL = ["count", "sum", "mean", "min", "max", "variance", "first", "last"]
WINDOWS = state_of(
    spent={"kind": "aggregate", "of": "price", "functions": ALL, "windows": ["1d", "10d"],
           "tile": "6h"},
    met={"kind": "aggregate", "functions": ["count", "distinct"], "windows": ["10d"],
         "tile": "6h", "distinct_bits": 512},
)  # fmt: skip


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_windows_are_those_of_a_list_that_reach_back_to_a_whole_tile(seed) -> None:
    events, (now, item) = log(seed, 200), ask(seed)
    now -= 9 * DAY_MS
    events = events.select(events.log_times_ms < now)
    row = said(WINDOWS, events, now, item)
    for name, length in (("1d", DAY_MS), ("10d", 10 * DAY_MS)):
        begin = (now - length) // (6 * HOUR_MS) * 6 * HOUR_MS
        inside = events.select(events.log_times_ms >= begin)
        assert begin > now - length - 6 * HOUR_MS  # the error is at most one tile
        prices = [x for x in inside.columns["price"].tolist() if not math.isnan(x)]
        assert row[f"spent.count_{name}"] == len(prices)
        assert row[f"spent.sum_{name}"] == pytest.approx(sum(prices), rel=1e-6)
        exact = [np.mean, np.min, np.max, np.var, lambda x: x[0], lambda x: x[-1]]
        for function, reckon in zip(ALL[2:], exact, strict=True):
            value = row[f"spent.{function}_{name}"]
            if prices:
                assert value == pytest.approx(float(reckon(prices)), rel=1e-4, abs=1e-4)
            else:
                assert math.isnan(value)
        if name == "10d":
            distinct = len(set(inside.item_ids.tolist()))
            assert row["met.count_10d"] == len(inside)
            assert abs(row["met.distinct_10d"] - distinct) <= 2  # of 512 bits and 20 ids


RECENT = state_of(last={"kind": "recent", "size": 8, "pause": "1d"})


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_recent_is_the_end_of_a_list(seed) -> None:
    events, (now, item) = log(seed), ask(seed)
    ids, seconds = events.item_ids.tolist()[-8:][::-1], (events.log_times_ms // 1000)[::-1][:8]
    row = said(RECENT, events, now, item)
    gaps = np.diff(np.r_[now // 1000, seconds]) * -1
    session = next((at for at, gap in enumerate(gaps) if gap > 86_400), len(ids))
    assert row["last.gap"] == pytest.approx(gaps[0] / 3600, rel=1e-6)
    assert row["last.session"] == session
    back = float(ids.index(item) + 1) if item in ids else math.nan
    assert row["last.item_back"] == pytest.approx(back, nan_ok=True)
    same = [one % 5 == item % 5 for one in ids]
    back = float(same.index(True) + 1) if any(same) else math.nan
    assert row["last.category_back"] == pytest.approx(back, nan_ok=True)
    assert row["last.category_share"] == pytest.approx(sum(same) / len(ids))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_count_stays_at_its_most(bits) -> None:
    state = state_of(items={"kind": "counts", "count_bits": bits})
    [row] = told(state, events_of(np.zeros(70_000)), asked_at(1))
    assert row["items.count"] == 2**bits - 1


def test_a_decayed_count_is_within_a_third_up_to_5_900_and_stays_there() -> None:
    state = state_of(items={"kind": "counts", "half_lives": ["365d"], "resolution": "3h"})
    found = {n: told(state, events_of(np.zeros(n)), asked_at(0))[0] for n in (10, 100, 1_000)}
    for count, row in found.items():
        assert row["items.decayed_365d"] == pytest.approx(count, rel=0.03)
    [row] = told(state, events_of(np.zeros(4_000)), asked_at(0))
    assert row["items.decayed_365d"] == pytest.approx(4_000, rel=1 / 3)
    [row] = told(state, events_of(np.zeros(50_000)), asked_at(0))
    assert 5_800 < row["items.decayed_365d"] < 6_000


def test_after_2_to_the_32_events_and_evictions_the_numbers_stay_at_their_most() -> None:
    part = state_of(items={"kind": "counts", "size": 1}).parts[0]
    states = part.fresh()[None].copy()
    part.fold(states, events_of([0]))
    head = states[:, :16].view(np.uint32)
    head[0, 1:3] = 2**32 - 2  # evictions, events
    part.fold(states, events_of([1, 2, 3], [1, 2, 3]))
    assert head[0, 1:].tolist() == [2**32 - 1, 2**32 - 1, 1]
    names = [one.name for one in part.described]
    [row] = part.features(states, asked_at(3, 3)).tolist()
    assert dict(zip(names, row, strict=True)) == {
        "count": 1, "age": 0, "distinct": 1, "evictions": 2**32,  # as float32
    }  # fmt: skip


def test_a_tile_of_2_to_the_31_events_goes_on_and_stays_at_its_most() -> None:
    part = state_of(all={"kind": "aggregate", "windows": ["1d"], "tile": "1d"}).parts[0]
    states = part.fresh()[None].copy()
    part.fold(states, events_of([0]))
    counts = states[:, 8:].view(np.uint32)
    place = int(np.flatnonzero(counts[0])[0])
    for before, after in ((2**31 - 1, 2**31), (2**32 - 1, 2**32 - 1)):
        counts[0, place] = before
        part.fold(states, events_of([0]))
        assert counts[0, place] == after


EVERY = state_of(
    items={"kind": "counts", "half_lives": ["1h"], "resolution": "1s"},
    rate={"kind": "rates", "half_life": "1h", "resolution": "1s"},
    last={"kind": "recent"},
    visits={"kind": "aggregate", "windows": ["1m"], "tile": "1s"},
)


@pytest.mark.parametrize("time_ms", [-(10**12), -1, 0, 2**32 * 1000, 10**15, 2**62])
def test_a_time_before_1970_or_after_2106_is_the_end_of_the_clock(time_ms) -> None:
    events = EventBatch(**{**vars(events_of([0, 0])), "log_times_ms": np.array([time_ms] * 2)})
    row = said(EVERY, events, time_ms, 0)
    assert (row["items.count"], row["items.age"], row["last.gap"]) == (2, 0, 0)
    assert row["items.decayed_1h"] == pytest.approx(2, rel=1e-3)
    assert (row["visits.count_1m"], row["rate.exposures"]) == (2, 2)


@pytest.mark.parametrize("item", [-1, -(2**63) + 1, 2**63 - 1, 0])
def test_any_id_is_an_id(item) -> None:
    events = events_of([0, 1, 2], np.array([item, item, 5]))
    [row] = told(EVERY, events, asked_at(3, item))
    assert (row["items.count"], row["items.distinct"], row["last.item_back"]) == (2, 2, 2)
