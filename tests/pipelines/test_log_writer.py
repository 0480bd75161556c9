"""Writing the event log: order, positions, publication, and what an error leaves behind."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.errors import BadInputError, ManifestError
from uic.models.hashing import stable_hash
from uic.pipelines.days import CalendarDays
from uic.pipelines.log.epochs import EpochHandOverError, UserMovedError
from uic.pipelines.log.event_log import EventLog, LogBusyError
from uic.pipelines.log.positions import LogOrderError
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, BEHAVIORS, IMPRESSIONS
from uic.pipelines.log.writer import DuplicateImportError, LogWriter, Part, Publication

DAY_MS = 86_400_000
SOURCE = {"name": "a.csv", "bytes": 3, "sha256": "aa"}


def events(rows: list[tuple[int, int, int]], **columns: pa.Array) -> pa.Table:
    """Clicks as (user, item, time in ms); the category is item % 10."""
    users, items, times = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "category_id": pa.array([item % 10 for item in items], pa.int64()),
            "behavior": pa.array([item % 4 for item in items], pa.int8()),
            "event_time": pa.array(times, pa.timestamp("ms")),
            **columns,
        }
    )


def impressions(rows: list[tuple[int, int, int]]) -> pa.Table:
    users, items, times = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "category_id": pa.array(items, pa.int64()),
            "event_time": pa.array(times, pa.timestamp("ms")),
            "clicked": pa.array([True] * len(rows)),
            "tab": pa.array([7] * len(rows), pa.int16()),
        }
    )


def read(log: EventLog) -> pa.Table:
    return pa.concat_tables([pq.read_table(file.path) for file in log.behavior_files()])


def write(log: EventLog, *tables: pa.Table, **options: object) -> Publication:
    options = {"time_zone": "UTC", "partitions": 2, **options}
    progress = options.pop("progress", None)
    with LogWriter(log, options.pop("part", Part("test")), **options) as writer:  # type: ignore
        for table in tables:
            writer.add_behaviors(table)
        return writer.publish(progress)  # type: ignore


def test_events_are_ordered_by_partition_and_time_with_dense_offsets(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    write(log, events([(1, 10, DAY_MS + 5), (2, 11, 7)]), events([(1, 12, 3), (2, 13, 7)]))
    first, second = log.behavior_files()
    assert (first.dt, first.rows, first.epoch) == (date(1970, 1, 1), 3, 1)
    assert (second.dt, second.rows) == (date(1970, 1, 2), 1)
    table = read(log)
    # Parquet gives a dictionary back with int32 indices, whatever was written.
    assert table.cast(BEHAVIOR_EVENTS).schema.names == BEHAVIOR_EVENTS.names
    placed = (stable_hash([1, 2]) % np.uint64(2)).tolist()
    expected = [(1, 12, 3, placed[0]), (2, 11, 7, placed[1]), (2, 13, 7, placed[1])]
    expected.sort(key=lambda row: row[3])
    found = [
        (row["user_id"], row["item_id"], row["partition"]) for row in table.slice(0, 3).to_pylist()
    ]
    assert found == [(user, item, partition) for user, item, _, partition in expected]
    (epoch,) = log.epochs()
    assert sum(last + 1 for last in epoch.last_offsets.values()) == 4


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(0, 99),
            # Now and then many within a moment, which no range of times can split.
            st.one_of(st.integers(0, 3 * DAY_MS), st.integers(0, 2)),
        ),
        min_size=1,
    ),
    run_rows=st.integers(1, 20),
    slice_rows=st.integers(1, 20),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]),
)
def test_any_input_in_any_bounds_comes_out_in_one_order(
    rows: list, run_rows: int, slice_rows: int, zone: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = EventLog(tmp_path_factory.mktemp("log"))
    half = len(rows) // 2
    tables = [events(part) for part in (rows[:half], rows[half:]) if part]
    bounds = {"run_rows": run_rows, "slice_rows": slice_rows, "partitions": 3}
    write(log, *tables, time_zone=zone, **bounds)
    partition = (stable_hash([user for user, _, _ in rows]) % np.uint64(3)).tolist()
    order = sorted(range(len(rows)), key=lambda at: (partition[at], rows[at][2], at))
    expected: dict[int, list] = {}
    for at in order:
        user, item, time = rows[at]
        of_partition = expected.setdefault(partition[at], [])
        of_partition.append((user, item, BEHAVIORS[item % 4], time, len(of_partition)))
    found: dict[int, list] = {}
    table = read(log)
    times = table["log_time"].cast(pa.int64()).to_pylist()
    for row, time in zip(table.to_pylist(), times, strict=True):
        found.setdefault(row["partition"], []).append(
            (row["user_id"], row["item_id"], row["behavior"], time, row["offset"])
        )
    assert found == expected


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    logs = [EventLog(tmp_path / name) for name in "ab"]
    for log, run_rows in zip(logs, (2, 1000), strict=True):
        write(log, events([(user, user, user % 7) for user in range(50)]), run_rows=run_rows)
    left, right = ([file.path.read_bytes() for file in log.behavior_files()] for log in logs)
    assert left == right
    manifests = [(log.root / "manifests/000001-test.json").read_bytes() for log in logs]
    assert manifests[0] == manifests[1]


def test_days_are_those_of_the_time_zone(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(
        log, events([(1, 1, 16 * 3_600_000 - 1), (1, 2, 16 * 3_600_000)]), time_zone="Asia/Shanghai"
    )
    assert [file.dt for file in log.behavior_files()] == [date(1970, 1, 1), date(1970, 1, 2)]
    assert log.behavior_files(first=date(1970, 1, 2))[0].rows == 1
    assert log.behavior_files(last=date(1969, 1, 2)) == []


def test_days_never_fall_where_the_clock_goes_back_over_midnight() -> None:
    days = CalendarDays("America/St_Johns")  # until 2011 at 00:01 back to 23:01
    start = days.start_ms(days.numbers(np.array([1_289_066_400_000]))[0])
    times = np.arange(start, start + 3 * DAY_MS, 60_000)
    assert (np.diff(days.numbers(times)) >= 0).all()


def test_impressions_keep_their_context_and_go_by_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with LogWriter(log, Part("test"), time_zone="UTC") as writer:
        writer.add_impressions(impressions([(1, 5, 9), (2, 6, 8)]))
        writer.publish()
    (file,) = log.impression_files()
    table = pq.read_table(file.path)
    assert table.schema.names == [*IMPRESSIONS.names, "tab"]
    assert table["item_id"].to_pylist() == [6, 5]
    assert log.behavior_files() == []


def test_items_are_merged_over_imports(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(log, events([(1, 12, 1), (1, 15, 2)]))
    with LogWriter(log, Part("more"), time_zone="UTC") as writer:
        writer.add_behaviors(events([(1, 16, 3)]))
        writer.add_items(pa.array([12]), pa.array([99]))
        writer.publish()
    path = log.items_file()
    assert path is not None
    assert pq.read_table(path).to_pydict() == {"item_id": [12, 15, 16], "category_id": [99, 5, 6]}
    assert [epoch.number for epoch in log.epochs()] == [1, 2]


def test_the_same_source_twice_is_refused_unless_asked_for(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    part = Part("test", sources=[SOURCE])
    write(log, events([(1, 1, 1)]), part=part)
    with pytest.raises(DuplicateImportError, match=r"already in the log as epoch 1 .* --again"):
        write(log, events([(1, 1, 1)]), part=part)
    write(log, events([(1, 1, 1)]), part=part, again=True)
    assert len(log.epochs()) == 2


def test_another_time_zone_is_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(log, events([(1, 1, 1)]))
    with pytest.raises(BadInputError, match="time_zone: found Asia/Tokyo"):
        write(log, events([(1, 1, 1)]), time_zone="Asia/Tokyo")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    first = LogWriter(log, Part("test"), time_zone="UTC")
    with first, pytest.raises(LogBusyError, match="another process writes"):
        write(log, events([(1, 1, 1)]))
    write(log, events([(1, 1, 1)]))


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    unknown = events([(1, 1, 1)]).set_column(3, "behavior", pa.array(["stare"]))
    with pytest.raises(BadInputError, match="found 'stare', expected one of click"):
        write(log, events([(1, 1, 1), (2, 2, 2)]), unknown, run_rows=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


def test_an_error_between_days_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        assert len(list(tmp_path.glob("behaviors/*/*.parquet"))) == done
        if done == 2:
            raise KeyboardInterrupt

    four_days = events([(1, 1, day * DAY_MS) for day in range(4)])
    with pytest.raises(KeyboardInterrupt):
        write(EventLog(tmp_path), four_days, progress=stop)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize(("day", "overlaps"), [(1, True), (2, True), (3, False)])
def test_an_import_that_begins_before_the_last_one_ends_says_so(
    tmp_path: Path, day: int, overlaps: bool
) -> None:
    log = EventLog(tmp_path)
    write(log, events([(1, 1, DAY_MS), (1, 1, 2 * DAY_MS)]))
    said = write(log, events([(2, 1, day * DAY_MS)])).overlap
    assert (said is not None) == overlaps
    if said:
        assert "epoch 1 goes on to 1970-01-03" in said


def test_an_epochs_file_without_its_lists_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "epochs.json").write_text('{"schema_version": 1, "epochs": []}')
    with pytest.raises(ManifestError, match=r"epochs\.json: manifests is no list"):
        EventLog(tmp_path).behavior_files()


def test_readers_see_only_what_epochs_json_names(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(log, events([(1, 1, 1)]))
    stray = tmp_path / "behaviors/dt=1970-01-01/epoch-00002.parquet"
    stray.write_bytes(b"half")
    (tmp_path / "manifests/000002-x.json").write_text("{")
    assert len(log.behavior_files()) == 1
    write(log, events([(1, 1, DAY_MS)]))
    assert not stray.exists()
    log.behavior_files()[0].path.write_bytes(b"cut")
    with pytest.raises(ManifestError, match="3 bytes, its manifest says"):
        log.behavior_files()


def test_a_topic_is_registered_and_grows(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    write(log, events([(1, 1, 1)]))
    topic = log.append_epoch(kind="topic", name="t", partitions=2, first_offsets={0: 5, 1: 0})
    assert (topic.number, topic.last_offsets) == (2, {0: 4, 1: -1})
    place = {
        "log_time": pa.array([10, 11, 11], pa.timestamp("ms")),
        "partition": pa.array([0, 0, 0], pa.int32()),
        "offset": pa.array([5, 7, 7], pa.int64()),
    }
    write(log, events([(1, 1, 1), (2, 2, 2), (2, 2, 2)], **place), topic=topic)
    assert log.epochs()[1].last_offsets == {0: 7, 1: -1}
    assert read(log)["offset"].to_pylist() == [0, 5, 7]
    with pytest.raises(EpochHandOverError, match="continues at 5, the log already has 7"):
        write(log, events([(1, 1, 1), (2, 2, 2), (2, 2, 2)], **place), topic=log.epochs()[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitions": 2, "first_offsets": {0: 1}}, "expected one for each of 0 to 1"),
        ({"partitions": 1, "first_offsets": {0: -1}}, "is negative"),
        ({"partitions": 0, "first_offsets": {}}, "expected one for each"),
        ({"name": "known", "partitions": 1, "first_offsets": {0: 0}}, "registered already"),
    ],
)
def test_an_epoch_that_does_not_follow_is_refused(
    tmp_path: Path, options: dict, message: str
) -> None:
    log = EventLog(tmp_path)
    log.append_epoch(kind="topic", name="known", partitions=1, first_offsets={0: 0})
    with pytest.raises(EpochHandOverError, match=message):
        log.append_epoch(**{"kind": "topic", "name": "new", **options})


def test_a_user_in_two_partitions_and_falling_log_time_are_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    topic = log.append_epoch(kind="topic", name="t", partitions=2, first_offsets={0: 0, 1: 0})

    def rows(partitions: list[int], times: list[int]) -> pa.Table:
        place = {
            "log_time": pa.array(times, pa.timestamp("ms")),
            "partition": pa.array(partitions, pa.int32()),
            "offset": pa.array([0, 1], pa.int64()),
        }
        return events([(4, 1, 1), (4, 2, 2)], **place)

    with pytest.raises(UserMovedError, match="user 4 is in partitions 0 and 1 of one epoch"):
        write(log, rows([0, 1], [1, 2]), topic=topic)
    with pytest.raises(LogOrderError, match="log time must never fall"):
        write(log, rows([0, 0], [2, 1]), topic=topic)


def test_damaged_epochs_are_named(tmp_path: Path) -> None:
    (tmp_path / "epochs.json").write_text("{")
    with pytest.raises(BadInputError, match=r"epochs\.json: cannot be read as JSON"):
        EventLog(tmp_path).epochs()
    (tmp_path / "epochs.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(ManifestError, match="this code reads 1"):
        EventLog(tmp_path).epochs()
