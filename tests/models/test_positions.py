"""Which events a record takes: repeats are skipped, a changed partition is reported."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.memory_examples import TableBundle, events, network
from uic.models.memory.fold import EventBatch, ForeignMemoryError, MemoryFolder
from uic.models.records.positions import compare_positions
from uic.models.records.record import HEADER, RecordFormatError, header_view

FOLDER = MemoryFolder(TableBundle(network()), generation=3)


def position(record):
    header = header_view(record)
    return tuple(int(header[name][0]) for name in ("epoch", "partition", "offset", "events"))


def test_a_record_carries_the_position_of_its_last_event():
    outcome = FOLDER.fold(FOLDER.initial_records(1), events([0, 0], [1, 2], [4, 9], 7, epochs=2))
    assert position(outcome.records) == (2, 7, 9, 2)
    header = header_view(outcome.records)
    assert header["generation"].tolist() == [3]
    assert bytes(header["bundle"][0]) == TableBundle.hash8
    assert header["last_event_time_ms"].tolist() == [1_700_000_000_009]


def test_replayed_events_change_nothing():
    batch = events([0, 1, 0], [1, 2, 3], [10, 11, 12])
    once = FOLDER.fold(FOLDER.initial_records(2), batch)
    twice = FOLDER.fold(once.records, batch)
    assert not once.skipped.any()
    assert twice.skipped.tolist() == [True, True, True]
    assert np.array_equal(twice.records, once.records)


def test_a_repeat_within_a_batch_is_skipped():
    batch = events([0, 0, 0, 0], [1, 2, 2, 3], [0, 1, 1, 2])
    outcome = FOLDER.fold(FOLDER.initial_records(1), batch)
    assert outcome.skipped.tolist() == [False, False, True, False]
    expected = FOLDER.fold(FOLDER.initial_records(1), events([0] * 3, [1, 2, 3], [0, 1, 2]))
    assert np.array_equal(outcome.records, expected.records)


def test_another_partition_in_one_epoch_has_moved_and_is_not_folded():
    first = FOLDER.fold(FOLDER.initial_records(1), events([0], [1], [10], 4))
    outcome = FOLDER.fold(first.records, events([0, 0], [2, 3], [50, 11], [5, 4]))
    assert outcome.moved.tolist() == [True, False]
    assert outcome.skipped.tolist() == [False, False]
    assert position(outcome.records) == (1, 4, 11, 2)


def test_a_newer_epoch_may_be_in_any_partition_and_an_older_one_is_skipped():
    first = FOLDER.fold(FOLDER.initial_records(1), events([0], [1], [1000], 4))
    batch = events([0, 0, 0], [2, 3, 4], [0, 2000, 1], [9, 4, 9], [2, 1, 2])
    outcome = FOLDER.fold(first.records, batch)
    assert outcome.skipped.tolist() == [False, True, False]
    assert not outcome.moved.any()
    assert position(outcome.records) == (2, 9, 1, 3)


def test_the_very_first_position_is_taken():
    batch = events([0], [1], [0], 0, epochs=0)
    outcome = FOLDER.fold(FOLDER.initial_records(1), batch)
    assert not outcome.skipped.any()
    assert FOLDER.fold(outcome.records, batch).skipped.all()


def test_users_without_events_keep_their_records():
    start = FOLDER.initial_records(3)
    outcome = FOLDER.fold(start, events([1], [5], [0]))
    assert np.array_equal(outcome.records[[0, 2]], start[[0, 2]])
    assert not np.array_equal(outcome.records[1], start[1])
    assert position(start[1:2]) == (0, 0, 0, 0)  # the input is left as it was


def test_offsets_of_63_bits_compare():
    top = 2**63 - 1
    outcome = FOLDER.fold(FOLDER.initial_records(1), events([0, 0], [1, 2], [top - 1, top]))
    assert not outcome.skipped.any()
    assert position(outcome.records)[2] == top


def one_by_one(header, batch):
    """The rules of docs/concepts.md, literally, one event at a time."""
    current = {
        user: None
        if not (row["events"] or row["epoch"] or row["offset"])
        else (int(row["epoch"]), int(row["partition"]), int(row["offset"]))
        for user, row in enumerate(header)
    }
    skipped, moved = [], []
    for user, epoch, partition, offset in zip(
        batch.user_index, batch.epochs, batch.partitions, batch.offsets, strict=True
    ):
        now = current[user]
        older = now is not None and epoch < now[0]
        other = now is not None and epoch == now[0] and partition != now[1]
        seen = now is not None and epoch == now[0] and not other and offset <= now[2]
        skipped.append(older or seen)
        moved.append(other)
        if not (older or seen or other):
            current[user] = (epoch, partition, offset)
    return skipped, moved


small = st.integers(0, 3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(small, small, small, small), min_size=4, max_size=4),
    st.lists(st.tuples(small, small, small, small), max_size=30),
)
def test_the_rules_hold_for_any_records_and_events(records, rows):
    header = np.zeros(4, dtype=HEADER)
    for name, column in zip(
        ("events", "epoch", "partition", "offset"), zip(*records, strict=True), strict=True
    ):
        header[name] = column
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    batch = events(columns[0], columns[0], columns[3], columns[2], columns[1])
    order = np.argsort(batch.user_index, kind="stable")
    found = [np.empty(len(order), bool) for _ in range(2)]
    for into, answer in zip(found, compare_positions(header, batch, order), strict=True):
        into[order] = answer
    assert [column.tolist() for column in found] == list(one_by_one(header, batch))


def test_records_of_another_width_or_bundle_are_refused():
    batch: EventBatch = events([0], [1], [0])
    with pytest.raises(RecordFormatError, match="1000 bytes, this model's have 1276"):
        FOLDER.fold(np.zeros((1, 1000), np.uint8), batch)
    other = FOLDER.initial_records(1)
    header_view(other)["bundle"] = np.frombuffer(b"another!", dtype="V8")
    with pytest.raises(ForeignMemoryError, match="616e6f7468657221, this is 0123456789abcdef"):
        FOLDER.fold(other, batch)
