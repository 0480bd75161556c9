"""The body of the stream job on a real Redis: what it folds, skips, refuses and waits for."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uic.feature_repo.store.errors import (
    EmptyStoreError,
    StoreFellBehindError,
    StoreUnavailableError,
)
from uic.feature_repo.store.markers import Marker
from uic.jobs.stream.fold.counters import freshness_quantile
from uic.jobs.stream.fold.home import home_of
from uic.models.hashing import murmur2_partition
from uic.pipelines.log.positions import LogGapError

NOW_MS = 1_700_000_000_000  # when all events of these tests were logged
# (user, item, partition): users 0 to 3 are in partition 0, 10 to 13 in partition 1.
EVENTS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, 10, 11, 12, 13]), st.integers(0, 50)),
    min_size=1,
    max_size=40,
)


def _positioned(events: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    following = {0: 0, 1: 0}
    rows = []
    for user, item in events:
        partition = int(user >= 10)
        rows.append((user, item, partition, following[partition]))
        following[partition] += 1
    return rows


def test_an_event_changes_its_users_memory(bench, send, make_payload):
    reasons = send(bench.function(), [(make_payload(1, 5), 0, 0), (make_payload(2, 6), 0, 1)])
    assert reasons == [None, None]
    expected = bench.folded([(1, 5, 0, 0), (2, 6, 0, 1)])
    assert bench.memories([1, 2, 3]) == [expected[1], expected[2], b""]
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 1}


def test_rejected_events_get_reasons_and_the_marker_passes_them(bench, send, make_payload):
    function = bench.function()
    rows = [
        (b"{", 0, 0),
        (make_payload(1, 5), 0, 1),
        (None, 0, 2),
        (make_payload(1, 5, behavior="stare"), 0, 3),
    ]
    assert send(function, rows) == ["malformed", None, "malformed", "unknown_behavior"]
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 3}
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 1)])[1]]
    assert function.counters.totals["rejected_malformed"] == 2
    assert function.counters.totals["folded"] == 1


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.tuples(EVENTS, st.lists(st.integers(0, 40), max_size=5), st.integers(0, 40)))
def test_batches_replays_and_restarts_change_nothing(bench, send, make_payload, data):
    """Any cutting into batches, with a new worker that replays from anywhere earlier."""
    events, cuts, back = data
    bench.forget_everything()
    rows = _positioned(events)
    wire = [(make_payload(user, item), part, offset) for user, item, part, offset in rows]
    expected = bench.folded(rows)
    function = bench.function(cache_users=3)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    for first, last in itertools.pairwise(edges):
        assert send(function, wire[first:last]) == [None] * (last - first)
    # Another worker starts from an earlier event and replays the rest.
    again = wire[min(back, len(wire) - 1) :]
    starting = {part: offset for _, part, offset in reversed(again)}
    send(bench.function(starts=starting), again)
    users = sorted(expected)
    assert bench.memories(users) == [expected[user] for user in users]


def test_without_the_position_check_a_replay_is_folded_twice(bench, send, make_payload):
    """The crash drill's negative control: a check that cannot fail shows nothing."""
    rows = [(make_payload(1, item), 0, item) for item in range(4)]
    function = bench.function(position_check=False)
    send(function, rows[:3])
    send(function, rows[1:])
    expected = bench.folded([(1, item, 0, item) for item in range(4)])
    assert bench.memories([1]) != [expected[1]]


def test_a_user_in_another_partition_is_refused(bench, send, make_payload):
    function = bench.function()
    rows = [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 1, 0), (make_payload(2, 6), 1, 1)]
    assert send(function, rows) == [None, "partition_moved", None]
    assert send(function, [(make_payload(1, 7), 1, 2)]) == ["partition_moved"]
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0)])[1]]


def test_a_user_that_another_worker_has_just_placed_is_refused(bench, send, make_payload):
    """Both workers took the user for new; Redis lets only the first partition in."""
    first, second = bench.function(), bench.function()
    send(first, [(make_payload(1, 5), 0, 0)])
    send(second, [(make_payload(2, 5), 1, 0)])
    second._cache.put(np.array([1]), bench.folder.initial_records(1))
    assert send(second, [(make_payload(1, 6), 1, 1)]) == ["partition_moved"]


def test_of_two_workers_of_one_partition_one_wins(bench, send, make_payload):
    rows = [(make_payload(item % 3, item), 0, item) for item in range(12)]
    zombie, worker = bench.function(), bench.function()
    send(zombie, rows[:3])
    send(worker, rows[:12])
    send(zombie, rows[3:9])
    assert zombie.counters.totals["refused_writes"] == 3
    assert worker.counters.totals["refused_writes"] == 0
    expected = bench.folded([(item % 3, item, 0, item) for item in range(12)])
    assert bench.memories([0, 1, 2]) == [expected[0], expected[1], expected[2]]
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 11}


def test_a_start_beyond_the_marker_is_a_store_that_fell_behind(bench, send, make_payload):
    with pytest.raises(StoreFellBehindError, match="partition 0: the first event is at 7"):
        send(bench.function(), [(make_payload(1, 5), 0, 7)])


def test_a_run_may_start_beyond_the_marker_if_it_was_told_to(bench, send, make_payload):
    assert send(bench.function(starts={0: 7}), [(make_payload(1, 5), 0, 7)]) == [None]


def test_a_store_restored_before_the_first_event_is_noticed(bench, send, make_payload):
    """The start was chosen with the marker at 6; meanwhile the store went back to nothing."""
    function = bench.function(starts={0: 7}, start_markers={0: 6})
    with pytest.raises(StoreFellBehindError):
        send(function, [(make_payload(1, 5), 0, 7)])


def test_a_store_restored_between_batches_is_noticed(bench, send, make_payload):
    function = bench.function()
    send(function, [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 0, 1)])
    bench.set_marker(0, 0)
    with pytest.raises(StoreFellBehindError):
        send(function, [(make_payload(1, 7), 0, 2)])


def test_a_wiped_store_is_not_taken_for_new_users(bench, send, make_payload):
    function = bench.function()
    send(function, [(make_payload(1, 5), 0, 0)])
    bench.client().flushall()
    with pytest.raises(EmptyStoreError, match="wiped"):
        send(function, [(make_payload(1, 6), 0, 1)])


def test_redis_away_is_waited_for(bench, send, make_payload):
    """The server is down at the first try and up again when the worker has slept."""
    function = bench.function(sleep=lambda _: bench.server.start() and None)
    send(function, [(make_payload(1, 5), 0, 0)])
    bench.server.kill()
    assert send(function, [(make_payload(1, 6), 0, 1)]) == [None]
    assert function.counters.totals["retries"] >= 1
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0), (1, 6, 0, 1)])[1]]


def test_redis_away_for_longer_than_the_limit_fails(bench, send, make_payload):
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds

    function = bench.function(retry_seconds=30, sleep=sleep, elapsed=lambda: time[0])
    send(function, [(make_payload(1, 5), 0, 0)])
    bench.server.kill()
    with pytest.raises(StoreUnavailableError):
        send(function, [(make_payload(1, 6), 0, 1)])
    assert time[0] == pytest.approx(30)
    assert function.counters.totals["retries"] < 20


def test_excluded_events_are_passed_over(bench, send, make_payload):
    function = bench.function(exclude=lambda events, log_times: events.item_ids == 6)
    rows = [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 0, 1), (make_payload(1, 7), 0, 2)]
    assert send(function, rows) == [None] * 3
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0), (1, 7, 0, 2)])[1]]
    assert function.counters.totals["excluded"] == 1
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 2}


def test_freshness_is_counted_from_log_time(bench, send, make_payload):
    function = bench.function(clock=lambda: NOW_MS / 1000 + 0.120)
    send(function, [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 0, 1)])
    assert function.counters.totals["freshness_ms_le_150"] == 2
    assert freshness_quantile(function.counters.totals, 0.5) == 150


def test_missing_offsets_are_lost_events(bench, send, make_payload):
    """Retention that overtakes a job makes the broker go on at its earliest offset."""
    function = bench.function()
    send(function, [(make_payload(1, 5), 0, 0)])
    with pytest.raises(LogGapError, match="partition 0: offset 3 follows 0: events are missing"):
        send(function, [(make_payload(1, 6), 0, 3)])
    within = [(make_payload(1, 6), 0, 1), (make_payload(1, 7), 0, 5)]
    with pytest.raises(LogGapError, match="offset 5 follows 1"):
        send(function, within)
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 0}


def test_a_transactional_topic_may_have_gaps(bench, send, make_payload):
    function = bench.function(offset_gaps=True)
    send(function, [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 0, 2)])
    assert send(function, [(make_payload(1, 7), 0, 4)]) == [None]
    assert send(bench.function(offset_gaps=True), [(make_payload(1, 8), 0, 6)]) == [None]
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 6}


def test_partitions_may_come_in_any_order(bench, send, make_payload):
    """Kafka keeps the order of a partition only; a batch may mix them as it likes."""
    zero = [(make_payload(1, item), 0, item) for item in range(5)]
    one = [(make_payload(10, item), 1, item) for item in range(5)]
    mixed = [row for pair in zip(one, zero, strict=True) for row in pair]
    send(bench.function(), mixed[:3])
    send(bench.function(), mixed)
    expected = bench.folded(
        [(1, item, 0, item) for item in range(5)] + [(10, item, 1, item) for item in range(5)]
    )
    assert bench.memories([1, 10]) == [expected[1], expected[10]]


def test_with_a_declared_partitioner_a_wrong_producer_binds_nobody(bench, send, make_payload):
    assert murmur2_partition(np.array([2, 3]), 2).tolist() == [0, 1]
    wrong = (make_payload(2, 5), 1, 0)
    right = (make_payload(2, 6), 0, 0)
    assert send(bench.function(), [wrong, right]) == [None, "partition_moved"]
    bench.forget_everything()
    function = bench.function(home=home_of("murmur2", 2))
    assert send(function, [wrong, right]) == ["partition_moved", None]
    assert bench.memories([2]) == [bench.folded([(2, 6, 0, 0)])[2]]
    assert function.counters.totals["rejected_partition_moved"] == 1
    # Read again, it is refused again: its letter may not have been written.
    assert send(bench.function(home=home_of("murmur2", 2)), [wrong]) == ["partition_moved"]
    assert home_of("any", 2) is None


def test_an_event_counts_at_the_largest_log_time_so_far(bench, make_payload):
    """A broker's clock steps back; a new worker goes on from the marker, not from the stamps."""
    asked: list[list[int]] = []

    def exclude(events, log_times_ms):
        asked.append((log_times_ms - NOW_MS).tolist())
        return np.zeros(len(log_times_ms), dtype=np.bool_)

    def send_stamped(first: int, stamps: list[int]) -> None:
        count = len(stamps)
        bench.function(exclude=exclude, starts={0: first})(
            [make_payload(1, item) for item in range(count)],
            np.zeros(count, np.int64),
            np.arange(first, first + count),
            NOW_MS + np.array(stamps, np.int64),
        )

    send_stamped(0, [0, 5, 3])
    send_stamped(3, [4, 2, 6])
    assert asked == [[0, 5, 5], [5, 5, 6]]
    assert bench.store().markers(1, 1) == {0: Marker(5, NOW_MS + 6)}


def test_an_event_that_moved_is_refused_again_when_it_is_read_again(bench, send, make_payload):
    """Its letter may have been lost with the checkpoint of the worker that was killed."""
    rows = [(make_payload(1, 5), 0, 0), (make_payload(1, 6), 1, 0), (make_payload(2, 6), 1, 1)]
    assert send(bench.function(), rows) == [None, "partition_moved", None]
    assert send(bench.function(), rows) == [None, "partition_moved", None]
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0)])[1]]
