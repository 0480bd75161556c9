"""Sequences that the stream keeps beside the memories, on a real Redis."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.memory_examples import events
from uic.feature_repo.store.errors import ForeignValueError, StoreUnavailableError
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import NO_GENERATION, SEQUENCE, ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.sequence_writer import SequenceWriter
from uic.jobs.stream.fold.sequence_fill import fill_sequences, write_rings
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part

NOW_MS = 1_700_000_000_000
RING = SequenceRing(capacity=5)
USERS = np.arange(8)
EPOCH = 1


def _log(folder, users):
    """An import of one click after the other, a second apart."""
    log = EventLog(folder)
    count = len(users)
    clicks = {
        "user_id": pa.array(users, pa.int64()),
        "item_id": pa.array(np.arange(count) + 100),
        "category_id": pa.array(np.arange(count) % 7),
        "behavior": pa.array(np.arange(count) % 4, pa.int8()),
        "event_time": pa.array(NOW_MS + 1000 * np.arange(count), pa.timestamp("ms")),
    }
    with LogWriter(log, Part("clicks"), time_zone="UTC", partitions=2, again=True) as writer:
        writer.add_behaviors(pa.table(clicks))
        writer.publish()
    return log


def _wire(log, make_payload):
    """The log's events as they come from a source: (payload, partition, offset)."""
    rows = []
    for file in log.behavior_files():
        for row in pq.ParquetFile(file.path).read().to_pylist():
            payload = make_payload(
                row["user_id"],
                row["item_id"],
                category_id=row["category_id"],
                behavior=row["behavior"],
                event_time=int(row["event_time"].timestamp() * 1000),
            )
            rows.append((payload, row["partition"], row["offset"]))
    return sorted(rows, key=lambda row: (row[2], row[1]))


@pytest.fixture
def kept(bench, tmp_path_factory):
    """What a stream job writes to, and `stored`: the values of the users in a project."""

    class Kept:
        @staticmethod
        def new_folder():
            return tmp_path_factory.mktemp("log")

        writer = SequenceWriter(bench.client(), "test", capacity=5, users_per_script=3)

        @staticmethod
        def view(project="test"):
            keys = ViewKeys.of_sequences(project)
            return PackedStore(bench.client(), keys, layout=SEQUENCE)

        @staticmethod
        def stored(project="test"):
            keys = ViewKeys.of_sequences(project).entities(NO_GENERATION, USERS)
            return bench.client().mget(keys)

    return Kept()


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    case=st.tuples(
        st.lists(st.integers(0, 7), min_size=1, max_size=60),
        st.lists(st.integers(0, 60), max_size=4),
        st.integers(0, 60),
    )
)
def test_the_stream_leaves_what_batch_builds_from_the_log(bench, send, make_payload, kept, case):
    """Any cutting into batches, and then a new worker that replays from anywhere earlier."""
    users, cuts, back = case
    bench.forget_everything()
    keys = ViewKeys.of_sequences
    bench.client().delete(*(k for p in ("test", "batch") for k in keys(p).entities(0, USERS)))
    log = _log(kept.new_folder(), users)
    wire = _wire(log, make_payload)
    function = bench.function(sequences=kept.writer)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    for first, last in itertools.pairwise(edges):
        assert send(function, wire[first:last]) == [None] * (last - first)
    fill_sequences(log, kept.view("batch"), RING, USERS)
    assert kept.stored() == kept.stored("batch")
    again = wire[min(back, len(wire) - 1) :]
    starting = {part: offset for _, part, offset in reversed(again)}
    bench.set_marker(0, -1)
    bench.set_marker(1, -1)
    send(bench.function(sequences=kept.writer, starts=starting), again)
    fill_sequences(log, kept.view(), RING, USERS)
    assert kept.stored() == kept.stored("batch")


@pytest.mark.parametrize("before", ["sequences", "memories"])
def test_a_crash_before_either_write_loses_nothing(bench, send, make_payload, kept, before):
    """The batch comes again; what the sequences have they skip, and memories are folded."""

    def away(*_):
        msg = "gone"
        raise StoreUnavailableError(msg)

    rows = [(make_payload(item % 3, item), 0, item) for item in range(12)]
    crashed = bench.function(sequences=kept.writer, retry_seconds=0)
    send(crashed, rows[:4])
    if before == "sequences":
        crashed.sequences = SimpleNamespace(append=away)
    else:
        crashed.store.write = away
    with pytest.raises(StoreUnavailableError):
        send(crashed, rows[4:9])
    assert {p: mark.offset for p, mark in bench.store().markers(1, 1).items()} == {0: 3}
    send(bench.function(sequences=kept.writer), rows)
    items = [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert _items(kept) == [*items, *[[]] * 5]
    expected = bench.folded([(item % 3, item, 0, item) for item in range(12)])
    assert bench.memories([0, 1, 2]) == [expected[0], expected[1], expected[2]]


def _items(kept):
    """Item ids by user, as a reader of the view gets them."""
    rings, found = kept.view().read(NO_GENERATION, USERS, RING.ring_bytes + 12)
    rings[~found, 12:] = RING.empty(1)
    read = RING.read(np.ascontiguousarray(rings[:, 12:]))
    return [part.tolist() for part in np.split(read.item_ids, read.offsets[1:-1])]


def test_rejected_moved_and_excluded_events_are_not_kept(bench, send, make_payload, kept):
    function = bench.function(
        sequences=kept.writer, exclude=lambda parsed, log_times: parsed.item_ids == 9
    )
    rows = [
        (make_payload(1, 5), 0, 0),
        (make_payload(1, 6), 1, 0),
        (make_payload(1, 7, behavior="stare"), 0, 1),
        (make_payload(1, 9), 0, 2),
        (make_payload(1, 8, category_id=2**40), 0, 3),
    ]
    assert send(function, rows) == [None, "partition_moved", "unknown_behavior", None, None]
    assert _items(kept)[1] == [5]
    assert function.counters.totals["left_out_of_sequences"] == 1


def test_a_load_behind_the_stream_changes_nothing(kept):
    """Event times may fall; positions decide."""
    late = events([0], [1], [7])
    kept.writer.append(USERS, late)
    after = kept.stored()
    before = replace(events([0], [2], [6]), event_times_ms=late.event_times_ms + 60_000)
    older = RING.append(RING.empty(1), before)
    write_rings(kept.view(), RING, USERS[:1], older)
    assert kept.stored() == after
    newer = RING.append(RING.empty(1), events([0], [3], [8]))
    write_rings(kept.view(), RING, USERS[:1], newer)
    assert _items(kept)[0] == [3]


def test_a_forgotten_user_stays_forgotten(bench, kept):
    clicks = events([0, 1], [1, 2], [0, 1])
    kept.writer.append(USERS, clicks)
    Generations(bench.client(), ViewKeys.of_memories("test")).forget(1)
    assert [value is None for value in kept.stored()[:2]] == [False, True]
    kept.writer.append(USERS, events([0, 1], [3, 4], [2, 3]))
    write_rings(kept.view(), RING, USERS[:2], RING.append(RING.empty(2), clicks))
    assert _items(kept)[:2] == [[1, 3], []]


def test_a_value_of_another_program_is_not_overwritten(bench, kept):
    key = ViewKeys.of_sequences("test").entities(NO_GENERATION, [1])[0]
    bench.client().set(key, b"something else")
    with pytest.raises(ForeignValueError, match="no sequence of 5 events"):
        kept.writer.append(USERS, events([0, 1], [1, 2], [0, 1]))
    assert kept.stored()[:2] == [None, b"something else"]
