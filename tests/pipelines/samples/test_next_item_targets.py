"""Next-item samples of a full log: what is a target, what it sees, and where negatives are from."""

from dataclasses import replace
from datetime import UTC, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipelines.samples.small_run import DAY, FIRST, LAST, ORIGIN, request_for, rows
from uic.models.training.metrics import auc
from uic.pipelines.samples.next_item import NextItemTargets
from uic.pipelines.samples.publish import NoSamplesError
from uic.pipelines.samples.run import DaysError, is_published, make_samples

CLICK, CART, BUY = 0, 1, 3
HOUR = DAY // 24
ALL_TARGETS = NextItemTargets()
NO_IMPRESSIONS = pa.table(
    {
        **{name: pa.array([], pa.int64()) for name in ("user_id", "item_id", "category_id")},
        "event_time": pa.array([], pa.timestamp("ms")),
        "clicked": pa.array([], pa.bool_()),
    }
)


def behaviors(events):
    """Rows (user, item, behaviour, time in ms since FIRST, and for a late one its log time)."""
    times = [event[3] for event in events]
    logged = [event[4] if len(event) > 4 else event[3] for event in events]
    return pa.table(
        {
            "user_id": pa.array([event[0] for event in events], pa.int64()),
            "item_id": pa.array([event[1] for event in events], pa.int64()),
            "category_id": pa.array([event[1] % 7 for event in events], pa.int64()),
            "behavior": pa.array([event[2] for event in events], pa.int8()),
            "event_time": pa.array([ORIGIN + time for time in times], pa.timestamp("ms")),
            "log_time": pa.array([ORIGIN + time for time in logged], pa.timestamp("ms")),
        }
    )


def pairs(table):
    """(user, target, negative, time, history that it saw) of each target, sorted."""
    found = []
    for group in table.to_pylist():
        shown = list(
            zip(
                group["event_times"], group["labels"], group["item_ids"],
                group["history_lengths"], strict=True,
            )
        )  # fmt: skip
        for time in sorted(set(group["event_times"])):
            at = round(time.replace(tzinfo=UTC).timestamp() * 1000)
            targets = [row for row in shown if row[0] == time and row[1]]
            others = sorted(row[2] for row in shown if row[0] == time and not row[1])
            history = tuple(group["history_item_ids"][: targets[0][3]])
            found.append((group["user_id"], sorted(r[2] for r in targets), others, at, history))
    return sorted(found)


def made(oracle, root, events, targets=ALL_TARGETS, shown=NO_IMPRESSIONS, **asked):
    log = oracle.write_log(root / "log", behaviors(events), shown)
    request = replace(request_for(log, **asked), next_item=targets)
    return request, make_samples(request)


def test_a_purchase_is_predicted_beside_an_item_of_its_day(oracle, tmp_path):
    _, manifest = made(
        oracle,
        tmp_path,
        [
            (1, 10, CLICK, -HOUR),
            (1, 11, CLICK, HOUR),
            (1, 12, BUY, 2 * HOUR),
            (1, 13, CLICK, 3 * HOUR),
            (2, 14, CLICK, 4 * HOUR),  # the only item of the day that is not the buyer's
            (2, 15, CLICK, 30 * HOUR),
            (3, 16, BUY, 29 * HOUR),  # with nothing before it
        ],
        NextItemTargets((BUY,)),
    )
    (user, targets, negatives, _, history), *more = pairs(rows(tmp_path / "samples" / "s"))
    assert (user, targets, negatives, history) == (1, [12], [14], (10, 11))
    assert more == []
    counts = {"found": 2, "too_few_events": 1, "no_negative": 0, "late": 0}
    assert manifest["left_out"]["targets"] == counts
    assert manifest["protocol"]["behaviors"] == [BUY]


def test_what_is_left_out_is_counted_by_its_reason(oracle, tmp_path):
    _, manifest = made(
        oracle,
        tmp_path,
        [
            (1, 11, CLICK, -HOUR),
            (1, 12, BUY, HOUR),  # nobody else did anything on this day: no negative
            (2, 13, BUY, 25 * HOUR),  # nothing before it
            (2, 14, BUY, 26 * HOUR, 50 * HOUR),  # a day late
            (2, 15, BUY, 51 * HOUR),
            (3, 16, CLICK, 52 * HOUR),
        ],
        NextItemTargets((BUY,)),
    )
    counts = {"found": 4, "too_few_events": 1, "no_negative": 1, "late": 1}
    assert manifest["left_out"]["targets"] == counts
    assert [pair[:3] for pair in pairs(rows(tmp_path / "samples" / "s"))] == [(2, [15], [16])]


EVENTS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.integers(0, 9),
        st.sampled_from([CLICK, CART, BUY]),
        st.integers(-20, 71).map(lambda hours: hours * HOUR),
        st.sampled_from([0, 0, 0, -HOUR // 12, 26 * HOUR]),
    ),
    min_size=25,
    max_size=60,
)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=EVENTS, seed=st.integers(0, 3), within=st.sampled_from([0, 1]))
def test_no_sample_knows_its_future(oracle, tmp_path_factory, events, seed, within):
    """From the log itself: what a target saw, that it is one, and of when its negative is."""
    root = tmp_path_factory.mktemp("log")
    timed = [(user, item, kind, time, time + late) for user, item, kind, time, late in events]
    timed.sort(key=lambda event: event[4])
    try:
        made(oracle, root, timed, NextItemTargets((CLICK, BUY), 1, within, seed), window_days=30)
    except (DaysError, NoSamplesError):
        return  # nothing to predict in this log
    for user, targets, negatives, time, history in pairs(rows(root / "samples" / "s")):
        at = time - ORIGIN
        mine = [event for event in timed if event[0] == user]
        assert history == tuple(event[1] for event in mine if event[4] < at)[-len(history) :]
        assert len(history) >= 1
        of_now = [e[1] for e in mine if min(e[3:]) == at and e[2] != CART]
        assert set(targets) <= set(of_now)
        day = at // DAY
        of_day = {event[1] for event in mine if event[4] // DAY == day}
        around = {event[1] for event in timed if abs(event[4] // DAY - day) <= within}
        assert set(negatives) <= around - of_day
        assert len(negatives) == len(targets)


def random_events(count=3000, users=60, items=300, seed=4):
    draw = np.random.default_rng(seed)
    times = np.sort(draw.integers(-3 * DAY, 3 * DAY, count)).tolist()
    kinds = draw.choice([CLICK, CART, BUY], count).tolist()
    ids = (draw.integers(0, users, count).tolist(), draw.integers(0, items, count).tolist())
    return list(zip(*ids, kinds, times, strict=True))


def test_a_days_samples_depend_on_no_other_day_nor_on_buckets(oracle, tmp_path):
    events = random_events()
    made(oracle, tmp_path / "whole", events, last=LAST)
    until = [event for event in events if event[3] < 2 * DAY]
    for name, chosen, asked in (
        ("day", events, {"first": FIRST + timedelta(1), "last": FIRST + timedelta(1)}),
        ("log", until, {"first": FIRST + timedelta(1), "last": FIRST + timedelta(1)}),
        ("buckets", events, {"first": FIRST, "last": LAST, "buckets": 5}),
    ):
        made(oracle, tmp_path / name, chosen, **asked)
        part = rows(tmp_path / name / "samples" / "s")
        of_part = [day for day in set(part["dt"].to_pylist()) if name == "buckets" or day > FIRST]
        whole = rows(tmp_path / "whole" / "samples" / "s").to_pylist()
        assert part.to_pylist() == [row for row in whole if row["dt"] in of_part]


def test_the_seed_and_the_targets_are_part_of_what_is_published(oracle, tmp_path):
    request, _ = made(oracle, tmp_path, random_events(400))
    before = rows(request.output)
    assert is_published(request)
    for other in (NextItemTargets(seed=1), NextItemTargets((BUY,)), None):
        if other is not None:
            assert not is_published(replace(request, next_item=other))
    make_samples(replace(request, next_item=NextItemTargets(seed=1)))
    after = rows(request.output)
    assert before["history_item_ids"].equals(after["history_item_ids"])
    assert not before["item_ids"].equals(after["item_ids"])
    assert [path.name for path in request.output.glob("pools-*")] == []


def test_items_of_the_impression_log_are_negatives_too(oracle, tmp_path):
    shown = pa.table(
        {
            "user_id": [9],
            "item_id": [77],
            "category_id": [5],
            "event_time": pa.array([ORIGIN + HOUR], pa.timestamp("ms")),
            "clicked": [False],
        }
    )
    events = [(1, 10, CLICK, -HOUR), (1, 11, CLICK, 2 * HOUR)]
    made(oracle, tmp_path, events, shown=shown)
    assert [pair[:3] for pair in pairs(rows(tmp_path / "samples" / "s"))] == [(1, [11], [77])]


def news(days=12, users=300, a_day=12, new_items=30):
    """Clicks on articles that live for about a day; a few of each day draw most of the clicks."""
    draw = np.random.default_rng(5)
    events = []
    for day in range(-days + 3, 3):
        for time in np.sort(draw.integers(0, DAY, users * a_day // 4)).tolist():
            born = day - int(draw.random() < 0.3)
            rank = min(int(draw.exponential(5)), new_items - 1)
            item = (born + days + 1) * new_items + rank
            events.append((int(draw.integers(users)), item, CLICK, day * DAY + time))
    return events


def popularity_auc(table, counts):
    """AUC of ranking by the clicks that an item had before the days of the samples."""
    items = table["item_ids"].combine_chunks().flatten().to_numpy()
    labels = table["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return auc(counts[items].astype(float), labels)


def test_popularity_ranks_items_that_live_short_no_worse_than_a_coin(oracle, tmp_path):
    events = news()
    counts = np.bincount([e[1] for e in events if e[3] < 2 * DAY], minlength=2000)
    asked = {"first": LAST, "last": LAST, "window_days": 30}
    made(oracle, tmp_path / "same", events, **asked)
    same = popularity_auc(rows(tmp_path / "same" / "samples" / "s"), counts)
    assert same > 0.49
    # From all days, as an import draws them, popular means old.
    everything = NextItemTargets(window_days=100)
    made(oracle, tmp_path / "all", events, everything, **asked)
    assert popularity_auc(rows(tmp_path / "all" / "samples" / "s"), counts) < 0.4


def test_a_log_without_behaviours_on_these_days_is_refused(oracle, tmp_path):
    with pytest.raises(DaysError, match="no behaviours from 2025-03-08 to 2025-03-10; it has them"):
        made(oracle, tmp_path, [(1, 10, CLICK, -HOUR)])
