"""Groups of one bucket: laws on random logs, and the cases that decide what a history is."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.samples.schema import SAMPLES
from uic.pipelines.log.positions import LogOrderError
from uic.pipelines.samples.build import group_bucket
from uic.pipelines.samples.order import BEHAVIOR_COLUMNS, IMPRESSION_COLUMNS

HOUR = 3_600_000
# A clock change in New York is on the second day.
FIRST, LAST = date(2025, 3, 8), date(2025, 3, 10)
ORIGIN = round(datetime(2025, 3, 5, tzinfo=UTC).timestamp() * 1000)


def behaviors(rows):
    """Rows (user, epoch, offset, log_time, event_time) in hours as a table; items count up."""
    return pa.table(
        {
            "user_id": [row[0] for row in rows],
            "item_id": list(range(len(rows))),
            "category_id": [at % 7 for at in range(len(rows))],
            "behavior": [at % 4 for at in range(len(rows))],
            "event_time": [ORIGIN + row[4] * HOUR for row in rows],
            "log_time": [ORIGIN + row[3] * HOUR for row in rows],
            "epoch": [row[1] for row in rows],
            "offset": [row[2] for row in rows],
        },
        schema=pa.schema([(f.name, pa.int64()) for f in BEHAVIOR_COLUMNS]),
    ).cast(BEHAVIOR_COLUMNS)


def impressions(rows):
    """Rows (user, hour, clicked) as a table in log order."""
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "item_id": pa.array([1000 + at for at in range(len(rows))], pa.int64()),
            "category_id": pa.array([at % 5 for at in range(len(rows))], pa.int64()),
            "event_time": pa.array([ORIGIN + row[1] * HOUR for row in rows], pa.int64()).cast(
                pa.timestamp("ms")
            ),
            "clicked": pa.array([row[2] for row in rows], pa.bool_()),
            "sequence": pa.array(range(len(rows)), pa.int64()),
        }
    ).cast(IMPRESSION_COLUMNS)


@st.composite
def logs(draw):
    """A behaviour table: late and early event times, two epochs, ties, in any order of rows."""
    rows = []
    for user in range(draw(st.integers(1, 3))):
        hour, offset = 0, 0
        for epoch in (1, 3):
            offset = draw(st.integers(0, 3)) if epoch == 3 else 0
            for step in draw(st.lists(st.integers(0, 30), max_size=8)):
                hour += step
                skew = draw(st.sampled_from([0, 0, -1, -70, 1]))
                rows.append((user, epoch, offset, hour, hour + skew))
                offset += draw(st.integers(1, 3))
    return behaviors(draw(st.permutations(rows)))


@st.composite
def plans(draw, oracle_plan):
    """Any plan over the three days."""
    first = draw(st.sampled_from([FIRST, LAST]))
    return oracle_plan(
        first,
        LAST,
        zone=draw(st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"])),
        sale=draw(st.sets(st.sampled_from([FIRST - timedelta(1), FIRST, LAST]), max_size=2)),
        keep_behaviors=draw(st.booleans()),
        keep_impressions=draw(st.booleans()),
        window_days=draw(st.integers(1, 4)),
        history_cap=draw(st.sampled_from([1, 3, 1000])),
        cut=draw(st.sampled_from(["impression", "day_start"])),
        max_events_per_day=draw(st.sampled_from([1, 3, 5000])),
    )


SHOWN = st.lists(
    st.tuples(st.integers(0, 3), st.integers(70, 150), st.booleans()), max_size=12
).map(impressions)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), events=logs(), shown=SHOWN)
def test_any_log_gives_what_the_reference_gives(oracle, data, events, shown):
    plan = data.draw(plans(oracle.plan))
    expected = oracle.reference(events, shown, plan)
    table = group_bucket(events, shown, plan).table()
    assert table.schema == SAMPLES
    oracle.assert_same(table, expected)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), events=logs(), shown=SHOWN)
def test_histories_keep_the_promises(oracle, data, events, shown):
    """The laws one by one, from the log itself and not from the reference."""
    plan = data.draw(plans(oracle.plan))
    grouped = group_bucket(events, shown, plan)
    log_times = dict(
        zip(
            events["item_id"].to_pylist(),
            events["log_time"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    )
    users = dict(zip(events["item_id"].to_pylist(), events["user_id"].to_pylist(), strict=True))
    sale = plan.dropped_behaviors
    seen_items = []
    for row in grouped.table().to_pylist():
        times = [round(t.replace(tzinfo=UTC).timestamp() * 1000) for t in row["event_times"]]
        history = [log_times[item] for item in row["history_item_ids"]]
        assert {users[item] for item in row["history_item_ids"]} <= {row["user_id"]}
        assert len(set(row["history_item_ids"])) == len(history)
        assert times == sorted(times)
        assert all(time >= times[0] - plan.window_ms for time in history)
        assert not any(sale.covers(np.array(history, dtype=np.int64)))
        for time, length in zip(times, row["history_lengths"], strict=True):
            cut = plan.days.bounds_ms[plan.days.index_of(np.array([time]))[0]]
            limit = cut if plan.cuts_at_day_start else time
            assert all(before < limit for before in history[:length])
            assert all(after >= limit for after in history[length:])
        assert row["history_lengths"][0] <= plan.samples.history_cap
        assert max(row["history_lengths"]) == len(history)
        seen_items += row["item_ids"]
    assert len(set(seen_items)) == len(seen_items)
    facts = grouped.facts
    in_run = plan.days.index_of(shown["event_time"].cast(pa.int64()).to_numpy())
    of_run = np.count_nonzero((in_run >= 0) & (in_run < plan.days.count))
    assert len(seen_items) == facts.impressions_by_day.sum()
    assert of_run == len(seen_items) + facts.sale_impressions + facts.inhuman_impressions


@settings(max_examples=100, deadline=None)
@given(data=st.data(), events=logs(), shown=SHOWN)
def test_a_run_of_many_days_is_the_runs_of_each_day(oracle, data, events, shown):
    from dataclasses import replace

    plan = data.draw(plans(oracle.plan))
    whole = group_bucket(events, shown, plan).table()
    days = [plan.first + timedelta(n) for n in range((plan.last - plan.first).days + 1)]
    by_day = [
        group_bucket(events, shown, replace(plan, first=day, last=day)).table() for day in days
    ]
    assert pa.concat_tables(by_day).equals(whole)


def test_an_event_in_the_same_millisecond_is_not_seen(oracle):
    events = behaviors([(1, 1, 0, 80, 80), (1, 1, 1, 81, 81)])
    table = group_bucket(events, impressions([(1, 81, True)]), oracle.plan(FIRST, LAST)).table()
    assert table["history_item_ids"].to_pylist() == [[0]]


def test_log_time_decides_and_event_time_is_only_carried(oracle):
    """Logged after the impression, though it says that it happened before: it was not known."""
    events = behaviors([(1, 1, 0, 80, 80), (1, 1, 1, 90, 60)])
    shown = impressions([(1, 85, True), (1, 91, False)])
    table = group_bucket(events, shown, oracle.plan(FIRST, LAST)).table()
    assert table["history_lengths"].to_pylist() == [[1, 2]]
    assert table["history_item_ids"].to_pylist() == [[0, 1]]


def test_the_cap_keeps_the_newest_before_the_first_impression_and_all_after(oracle):
    events = behaviors([(1, 1, at, 70 + at, 70 + at) for at in range(20)])
    shown = impressions([(1, 80, True), (1, 85, True)])
    table = group_bucket(events, shown, oracle.plan(FIRST, LAST, history_cap=3)).table()
    assert table["history_item_ids"].to_pylist() == [[7, 8, 9, 10, 11, 12, 13, 14]]
    assert table["history_lengths"].to_pylist() == [[3, 8]]


def test_an_older_epoch_comes_first_whatever_its_offsets(oracle):
    events = behaviors([(1, 2, 0, 80, 80), (1, 1, 900, 80, 80)])
    table = group_bucket(events, impressions([(1, 81, True)]), oracle.plan(FIRST, LAST)).table()
    assert table["history_item_ids"].to_pylist() == [[1, 0]]


def test_positions_that_do_not_fit_one_integer_are_ordered_too(oracle):
    events = behaviors([(1, 2, 0, 81, 81), (1, 1, 2**62, 80, 80), (2, 1, 0, 79, 79)])
    shown = impressions([(1, 82, True), (2, 82, True)])
    table = group_bucket(events, shown, oracle.plan(FIRST, LAST)).table()
    assert table["history_item_ids"].to_pylist() == [[1, 0], [2]]


def test_impressions_of_one_moment_keep_the_order_of_their_log(oracle):
    shown = impressions([(1, 80, True), (1, 80, False), (1, 80, True)])
    table = group_bucket(behaviors([]), shown.take([2, 0, 1]), oracle.plan(FIRST, LAST)).table()
    assert table["item_ids"].to_pylist() == [[1000, 1001, 1002]]
    assert table["history_item_ids"].to_pylist() == [[]]


def test_a_machine_is_left_out_from_its_busy_day_on_and_while_the_window_sees_it(oracle):
    # Hour 72 is 2025-03-08 UTC: four events on that day.
    events = behaviors([(1, 1, at, 73 + at, 73 + at) for at in range(4)])
    shown = impressions([(1, 80, True), (1, 100, True), (1, 125, True), (2, 80, True)])
    plan = oracle.plan(FIRST, LAST, window_days=1, max_events_per_day=3)
    grouped = group_bucket(events, shown, plan)
    assert grouped.table().select(["user_id", "dt"]).to_pylist() == [
        {"user_id": 2, "dt": date(2025, 3, 8)},
        {"user_id": 1, "dt": date(2025, 3, 10)},
    ]
    assert grouped.facts.inhuman_users.tolist() == [1]
    assert grouped.facts.inhuman_impressions == 2


def test_a_busy_day_to_come_leaves_nothing_out(oracle):
    # Hour 96 is 2025-03-09 UTC: four events on that day, the first at its very begin.
    events = behaviors([(1, 1, at, 96 + at, 96 + at) for at in range(4)])
    shown = impressions([(1, 95, True), (1, 100, True)])
    plan = oracle.plan(FIRST, LAST, window_days=1, max_events_per_day=3)
    table = group_bucket(events, shown, plan).table()
    assert table["dt"].to_pylist() == [date(2025, 3, 8)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(5, 1, 3, 80, 80), (5, 1, 4, 79, 79)], "user 5.*epoch 1, offset 4 has an earlier"),
        ([(5, 1, 3, 80, 80), (5, 1, 3, 80, 80)], "user 5.*epoch 1, offset 3 is there twice"),
        ([(5, 1, 3, 80, 80), (5, 2, 0, 79, 79)], "user 5.*epoch 2, offset 0 has an earlier"),
    ],
)
def test_a_log_that_contradicts_itself_is_refused(oracle, rows, says):
    with pytest.raises(LogOrderError, match=says):
        group_bucket(behaviors(rows), impressions([(5, 90, True)]), oracle.plan(FIRST, LAST))


def test_large_groups_are_gathered_in_several_tables(oracle, monkeypatch):
    monkeypatch.setattr("uic.pipelines.samples.build.GATHERED_EVENTS", 5)
    events = behaviors([(user, 1, at, at, at) for user in range(4) for at in range(3)])
    shown = impressions([(user, 80, True) for user in range(4)])
    grouped = group_bucket(events, shown, oracle.plan(FIRST, LAST))
    tables = list(grouped.tables())
    assert [table.num_rows for table in tables] == [1, 1, 1, 1]
    assert [table.num_rows for table in grouped.tables(1, 3)] == [1, 1]
    assert len(grouped.table()) == 4
