"""The archive: where reading must start again, and the event log that is made of it."""

import json
import sys
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.jobs.cli import main
from uic.jobs.config.config import Config
from uic.jobs.config.context import Context
from uic.jobs.stream.letters.archive import (
    archived_up_to,
    epoch_folder,
    file_range,
    note_first_starts,
)
from uic.jobs.stream.letters.compact import ArchiveGapError, compact
from uic.jobs.stream.letters.dead_letters import read_dead_letters
from uic.jobs.stream.letters.tail import ArchiveTail
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of
from uic.jobs.workspace.daily_order import STEPS
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError
from uic.pipelines.log.columns import times_ms
from uic.pipelines.log.event_log import EventLog

DAY_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
DAY = date(2026, 3, 1)


def _write(folder: Path, name: str, rows: list[LoggedPayload]) -> None:
    path = epoch_folder(folder, 1) / f"dt={DAY}" / f"part={rows[0].partition}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line_of(row) for row in rows))


@pytest.fixture
def archived(make_payload):
    """Rows of a partition, one every 1,000 seconds from midnight; user = offset modulo 3."""

    def rows(partition: int, first: int, last: int) -> list[LoggedPayload]:
        return [
            LoggedPayload(
                make_payload(
                    10 * partition + offset % 3, offset, event_time=DAY_MS + 1_000_000 * offset
                ),
                partition,
                offset,
                DAY_MS + 1_000_000 * offset,
            )
            for offset in range(first, last + 1)
        ]

    return rows


@pytest.fixture
def context(tmp_path: Path) -> Context:
    context = Context(tmp_path, Config(), None)
    EventLog(context.log).append_epoch(
        kind="topic", name="behaviours.abc", partitions=2, first_offsets={0: 0, 1: 0}
    )
    return context


def _archive(context: Context) -> Path:
    return context.workspace / "stream" / "archive"


def _log_times(context: Context) -> list[int]:
    """Log times of all events of one partition, in order of offset."""
    tables = [pq.read_table(file.path) for file in EventLog(context.log).behavior_files()]
    return times_ms(pa.concat_tables(tables).sort_by("offset")["log_time"]).tolist()


def test_the_newest_file_does_not_count(tmp_path, archived):
    _write(tmp_path, "part-a", archived(0, 0, 9))
    _write(tmp_path, "part-b", archived(0, 10, 19))
    _write(tmp_path, ".part-c.inprogress", archived(0, 20, 29))
    _write(tmp_path, "part-d", archived(1, 5, 6))
    assert archived_up_to(tmp_path, 1, 3) == {0: 10, 1: 5}


def test_without_files_the_first_start_counts(tmp_path, archived):
    note_first_starts(tmp_path, 1, {0: 7, 1: 3})
    note_first_starts(tmp_path, 1, {0: 50, 1: 50})
    assert archived_up_to(tmp_path, 1, 2) == {0: 7, 1: 3}


def test_a_files_range_is_its_first_and_last_line(tmp_path, archived):
    _write(tmp_path, "part-a", archived(0, 3, 2000))
    (path,) = epoch_folder(tmp_path, 1).rglob("part-a")
    assert file_range(path) == (3, 2000)


def test_compaction_publishes_each_event_once_in_order(context, archived):
    _write(_archive(context), "part-b", archived(0, 5, 20))
    _write(_archive(context), "part-a", archived(0, 0, 9))
    _write(_archive(context), "part-c", archived(1, 0, 3))
    (done,) = compact(context, DAY)
    assert done.publication.behaviors == 25
    assert EventLog(context.log).epochs()[0].last_offsets == {0: 20, 1: 3}


def test_compaction_goes_on_where_the_log_ends_and_stops_at_midnight(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    compact(context, DAY)
    assert compact(context, DAY) == []
    # Offset 87 is logged after the next midnight.
    _write(_archive(context), "part-b", archived(0, 10, 88))
    (done,) = compact(context, DAY)
    assert done.publication.behaviors == 77
    (done,) = compact(context, date(2026, 3, 2))
    assert done.publication.behaviors == 2


def test_what_the_parser_refuses_is_counted_and_left_out(context, archived):
    rows = archived(0, 0, 9)
    rows[4] = LoggedPayload(b"{", 0, 4, rows[4].log_time_ms)
    _write(_archive(context), "part-a", rows)
    (done,) = compact(context, DAY)
    assert (done.publication.behaviors, done.rejected) == (9, 1)


def test_a_list_of_three_is_one_message_of_those_that_were_not_refused(context, archived):
    rows = archived(0, 0, 9)
    shown = {
        "user_id": 1, "behavior": "shown", "request_id": 1, "event_time": DAY_MS,
        "item_ids": [5, 6, 7], "category_ids": [1, 1, 1],
    }  # fmt: skip
    rows[4] = LoggedPayload(json.dumps(shown).encode(), 0, 4, rows[4].log_time_ms)
    rows[5] = LoggedPayload(b"{", 0, 5, rows[5].log_time_ms)
    _write(_archive(context), "part-a", rows)
    (done,) = compact(context, DAY)
    assert (done.publication.behaviors, done.publication.shown, done.rejected) == (8, 3, 1)


def test_a_hole_in_the_archive_is_refused(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    _write(_archive(context), "part-b", archived(0, 12, 19))
    with pytest.raises(ArchiveGapError, match="partition 0: offset 12 follows 9"):
        compact(context, DAY)
    assert EventLog(context.log).behavior_files() == []


def test_a_clock_that_steps_back_gives_the_largest_log_time_so_far(context, archived):
    """A broker with a slower clock became the leader at offset 4: 2 s back, over midnight."""
    midnight = DAY_MS + 86_400_000
    stamps = [0, 1000, 2000, 3000, 1500, 2500, 4000]
    rows = [
        LoggedPayload(row.payload, 0, row.offset, midnight - 3000 + stamp)
        for row, stamp in zip(archived(0, 0, 6), stamps, strict=True)
    ]
    _write(_archive(context), "part-a", rows[:6])
    (done,) = compact(context, DAY)
    # From offset 3 on it is the next day, whatever the clock said afterwards.
    assert done.publication.behaviors == 3
    (done,) = compact(context, date(2026, 3, 2))
    assert done.publication.behaviors == 3
    _write(_archive(context), "part-b", rows[5:])
    compact(context, date(2026, 3, 2))
    times = [time - midnight for time in _log_times(context)]
    assert times == [-3000, -2000, -1000, 0, 0, 0, 1000]


def test_a_clock_that_steps_back_between_two_compactions_too(context, archived):
    rows = archived(0, 0, 3)
    _write(_archive(context), "part-a", rows[:2])
    compact(context, DAY)
    later = LoggedPayload(rows[0].payload, 0, 2, rows[1].log_time_ms - 400_000)
    _write(_archive(context), "part-b", [later])
    compact(context, DAY)
    last = rows[1].log_time_ms
    assert _log_times(context) == [last - 1_000_000, last, last]


def test_accepted_losses_are_holes_that_compaction_passes(context, archived):
    log = EventLog(context.log)
    _write(_archive(context), "part-a", archived(0, 0, 9))
    _write(_archive(context), "part-b", archived(0, 12, 19))
    log.note_losses(1, [(0, 10, 10), (0, 11, 11), (1, 0, 4)])
    (done,) = compact(context, DAY)
    assert done.publication.behaviors == 18
    assert log.epochs()[0].losses == ((0, 10, 10), (0, 11, 11), (1, 0, 4))
    _write(_archive(context), "part-c", archived(0, 22, 22))
    with pytest.raises(ArchiveGapError, match="--accept-loss"):
        compact(context, DAY)


def test_holes_of_the_archive_can_be_accepted_afterwards(context, archived):
    _write(_archive(context), "part-a", archived(0, 2, 9))
    _write(_archive(context), "part-b", archived(0, 12, 19))
    (done,) = compact(context, DAY, accept_loss=True)
    assert done.publication.behaviors == 16
    assert EventLog(context.log).epochs()[0].losses == ((0, 0, 1), (0, 10, 11))
    assert compact(context, DAY, accept_loss=True) == []


def test_the_tail_of_the_log_is_what_a_compaction_would_add(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    compact(context, DAY)
    rows = archived(0, 10, 19)
    rows[4] = LoggedPayload(b"{", 0, 14, rows[4].log_time_ms)
    _write(_archive(context), "part-b", rows)
    tail = ArchiveTail(context, context.workspace / "tail", streams=False).read()
    assert tail.last_offsets == {1: {0: 19, 1: -1}}
    assert [file.rows for file in tail.files] == [9]
    compact(context, DAY)
    added = EventLog(context.log).behavior_files()[-1]
    assert pq.read_table(tail.files[0].path).equals(pq.read_table(added.path))


def test_an_audit_waits_for_the_archive(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    tail = ArchiveTail(context, context.workspace / "tail", streams=True)

    def write() -> None:
        _write(_archive(context), "part-b", archived(0, 10, 12))

    timer = threading.Timer(0.7, write)
    timer.start()
    assert tail.wait_for({1: {0: 11}}).last_offsets == {1: {0: 12, 1: -1}}
    timer.join()


def test_an_epoch_with_a_hole_does_not_keep_the_next_from_the_log(context, archived):
    _write(_archive(context), "part-a", archived(0, 3, 9))
    log = EventLog(context.log)
    log.append_epoch(kind="topic", name="two", partitions=1, first_offsets={0: 0})
    path = epoch_folder(_archive(context), 2) / f"dt={DAY}" / "part=0" / "part-a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(line_of(row) for row in archived(0, 0, 4)))
    with pytest.raises(ArchiveGapError, match="epoch 1, partition 0"):
        compact(context, DAY)
    assert log.epochs()[1].last_offsets == {0: 4}


@pytest.mark.parametrize("name", ["part-x", ".part-x.inprogress.0a1b"])
def test_an_event_that_the_stream_refused_as_moved_stays_out(name, context, archived, make_payload):
    rows = archived(0, 0, 3)
    moved = LoggedPayload(
        make_payload(0, 9, event_time=DAY_MS), 1, 0, DAY_MS
    )  # user 0 is in partition 0
    _write(_archive(context), "part-a", rows)
    _write(_archive(context), "part-b", [moved])
    letters = context.workspace / "stream" / "dead-letters" / "epoch=00001" / name
    letters.parent.mkdir(parents=True)
    line = line_of(moved).rstrip(b"}\n") + b',"reason":"partition_moved","log_epoch":1}\n'
    letters.write_bytes(line + line + (b"" if name == "part-x" else b"{half a li"))
    (letter,) = read_dead_letters(letters.parents[1], unfinished=True)
    assert (letter.place, letter.reason) == ((1, 1, 0), "partition_moved")
    (done,) = compact(context, DAY)
    assert (done.publication.behaviors, done.rejected) == (4, 1)


def test_a_workspace_that_never_streamed_has_nothing_to_compact(context):
    with pytest.raises(BadInputError, match="no archive: nothing has streamed"):
        compact(context, DAY)


def test_gaps_of_an_epoch_are_judged_as_when_it_streamed(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    _write(_archive(context), "part-b", archived(0, 12, 19))
    EventLog(context.log).note_offset_gaps(1)
    assert not context.config.stream.offset_gaps  # today's topic has none
    (done,) = compact(context, DAY)
    assert (done.epoch, done.publication.behaviors) == (1, 18)


def test_compact_again_says_nothing_new_and_exits_0(context, archived, monkeypatch, capsys):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    monkeypatch.setenv("UIC_WORKSPACE", str(context.workspace))
    said = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["uic", "log", "compact", "2026-03-01"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said.append(capsys.readouterr().out.strip())
    assert said == [
        "epoch 1: 10 events of 1 days published, 0 refused",
        "nothing new: the log has all that streamed up to 2026-03-01",
    ]


def test_the_daily_command_compacts_once(context, archived):
    _write(_archive(context), "part-a", archived(0, 0, 9))
    others = [name for name in STEPS if name != "compact"]
    said = [Workspace(context.workspace).daily(DAY, skip=others)[0].said for _ in range(2)]
    assert said == ["10 events published, 0 refused", "nothing new"]
