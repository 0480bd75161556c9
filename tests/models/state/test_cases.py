"""What users of other engines ran into with counters and windows, each with its right value."""

import numpy as np
import pytest

from tests.models.state.logs import BEGIN_MS, asked_at, events_of, state_of, told
from uic.models.records.positions import EventBatch
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked, StateFileError
from uic.pipelines.state.asof import events_before

DAY = 24


def joined(*batches: EventBatch) -> EventBatch:
    """One user's batches one after the other in the log."""
    names = [name for name in vars(batches[0]) if name not in ("columns", "offsets")]
    fields = {name: np.concatenate([getattr(b, name) for b in batches]) for name in names}
    return EventBatch(**fields, offsets=np.arange(len(fields["user_index"])))


def seen_by(events: EventBatch, asked: Asked) -> list[int]:
    return events_before(events, asked.owners, asked.now_ms).tolist()


def test_an_event_at_the_very_moment_of_a_question_is_not_before_it() -> None:
    state = state_of(items={"kind": "counts"})
    events, asked = events_of([10]), asked_at(10)
    assert seen_by(events, asked) == [0]
    assert state.as_of(events, asked, np.array([0]))[0, 0] == 0
    assert seen_by(events, asked_at(10 + 1 / 3_600_000)) == [1]


def test_a_window_that_became_empty_says_0_and_a_decayed_count_went_on_to_decay() -> None:
    state = state_of(
        visits={"kind": "aggregate", "windows": ["1d"], "tile": "1h"},
        items={"kind": "counts", "half_lives": ["1d"]},
    )
    [row] = told(state, events_of([12, 12, 12]), asked_at(12 + 2 * DAY))
    assert row["visits.count_1d"] == 0
    assert row["items.decayed_1d"] == pytest.approx(3 * 2**-2, rel=0.002)
    assert row["items.count"] == 3
    assert row["items.age"] == 48


def test_after_a_silence_of_many_windows_only_the_new_click_counts() -> None:
    state = state_of(visits={"kind": "aggregate", "windows": ["6h"], "tile": "1h"})
    [row] = told(state, events_of([*range(10), 10 + 60]), asked_at(70.5))
    assert row["visits.count_6h"] == 1


def test_windows_that_share_tiles_count_an_event_once_in_each() -> None:
    of = {"kind": "aggregate", "functions": ["count", "sum"], "windows": ["6h", "12h"]}
    state = state_of(spent={**of, "of": "price", "tile": "1h"}, all={**of, "functions": ["count"]})
    [row] = told(state, events_of([5], price=7.5), asked_at(10))
    counts = {f"{part}.count_{window}h": 1 for part in ("spent", "all") for window in (6, 12)}
    assert row == {**counts, "spent.sum_6h": 7.5, "spent.sum_12h": 7.5}


def test_an_event_time_of_the_next_month_moves_no_window() -> None:
    state = state_of(visits={"kind": "aggregate", "windows": ["6h"], "tile": "1h"})
    events = events_of([1, 2, 3])
    ahead = np.array([0, BEGIN_MS + 30 * DAY * 3_600_000, 0])
    moved = EventBatch(**{**vars(events), "event_times_ms": ahead})
    assert told(state, moved, asked_at(4)) == told(state, events, asked_at(4))
    assert told(state, moved, asked_at(4))[0]["visits.count_6h"] == 3


def test_what_came_late_is_not_seen_before_it_came() -> None:
    state = state_of(items={"kind": "counts"})
    events = events_of([10 * DAY])  # it came on day 10, and says that it happened on day 7
    late = EventBatch(**{**vars(events), "event_times_ms": events.log_times_ms - 72 * 3_600_000})
    asked = asked_at(8 * DAY), asked_at(10 * DAY + 1)
    seen = [np.array(seen_by(late, one)) for one in asked]
    counts = [state.as_of(late, one, s)[0, 0] for one, s in zip(asked, seen, strict=True)]
    assert counts == [0, 1]


def test_another_half_life_is_another_definition() -> None:
    of_day, of_week = (
        state_of(items={"kind": "counts", "half_lives": [length]}) for length in ("1d", "7d")
    )
    assert of_day.sha256 != of_week.sha256
    assert of_day.bytes == of_week.bytes  # nothing else would tell the two apart


def test_the_bytes_do_not_depend_on_how_the_log_was_cut() -> None:
    draw = np.random.default_rng(8)
    hours = np.sort(draw.random(2_000) * 300)
    events = events_of(hours, draw.integers(0, 40, 2_000))
    state = state_of(
        items={"kind": "counts", "size": 16, "half_lives": ["1d"]},
        visits={"kind": "aggregate", "windows": ["1h", "1d"], "functions": ["count", "distinct"]},
        rate={"kind": "rates", "half_life": "7d"},
        last={"kind": "recent"},
    )
    found = set()
    for step in (1, 7, 500, 2_000):
        states = state.initial()[None].copy()
        for first in range(0, 2_000, step):
            state.fold(states, events.select(slice(first, first + step)))
        found.add(states.tobytes())
    assert len(found) == 1


def test_a_window_shorter_than_its_tile_is_refused_with_the_tile_that_would_do() -> None:
    with pytest.raises(StateFileError, match="part a: window 5m is shorter than tile 1h; set tile"):
        state_of(a={"kind": "aggregate", "windows": ["5m"], "tile": "1h"})


def test_distinct_of_one_id_many_times_is_1_and_of_none_0() -> None:
    state = state_of(
        items={"kind": "aggregate", "functions": ["count", "distinct"], "windows": ["1d"]},
        shops={"kind": "aggregate", "of": "shop", "functions": ["distinct"], "windows": ["1d"]},
    )
    many = events_of(np.zeros(10_000), 7)
    nothing = np.full(10_000, np.iinfo(np.int64).min)
    [row] = told(state, EventBatch(**{**vars(many), "columns": {"shop": nothing}}), asked_at(1))
    assert row == {"items.count_1d": 10_000, "items.distinct_1d": 1, "shops.distinct_1d": 0}
    nothing[::2] = 5
    [row] = told(state, EventBatch(**{**vars(many), "columns": {"shop": nothing}}), asked_at(1))
    assert row["shops.distinct_1d"] == 1


def test_what_went_out_of_a_full_table_is_counted_and_never_overstated() -> None:
    state = state_of(items={"kind": "counts", "size": 512, "fingerprint_bits": 64})
    every = events_of(np.arange(2_000) / 1_000, np.arange(2_000))
    again = events_of([3], [0])
    [row] = told(state, joined(every, again), asked_at(4, 0))
    assert row["items.count"] == 1  # the truth is 2
    assert row["items.evictions"] == 2_000 - 512 + 1
    assert row["items.distinct"] == 512


def test_where_the_stream_stood_still_a_user_is_told_by_the_age_of_the_last_event() -> None:
    """A record knows nothing of the log's end: `/v1/rank` and the markers know the lag."""
    state: StateDefinition = state_of(
        last={"kind": "recent"}, visits={"kind": "aggregate", "windows": ["1d"], "tile": "1h"}
    )
    [row] = told(state, events_of([1, 2]), asked_at(2 + 2 * DAY))
    assert row["last.gap"] == 48
    assert row["visits.count_1d"] == 0
