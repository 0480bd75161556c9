"""`uic log compact DAY`: what streamed becomes part of the event log, with the same parser.

What the archive holds of an epoch up to the end of the day, and the log does not have yet, is
parsed, sorted by position, freed of repetitions and published. So batch folds tomorrow exactly
what was streamed today.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.config.context import Context
from uic.jobs.stream.fold.counters import PARTITION_MOVED
from uic.jobs.stream.fold.home import home_of
from uic.jobs.stream.fold.noted import note_declared
from uic.jobs.stream.letters.archive import committed_files, epoch_folder, file_ranges
from uic.jobs.stream.letters.dead_letters import letters_of
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines
from uic.models.errors import BadInputError, UicError
from uic.models.state.shown import PLACED, SHOWN_COLUMNS
from uic.pipelines.log.columns import logged_column, times_ms
from uic.pipelines.log.epochs import Epoch, Loss
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser
from uic.pipelines.log.shown import event_files
from uic.pipelines.log.writer import LogWriter, Part, Publication

_ROWS: Final = 50_000


class ArchiveGapError(UicError):
    """The archive leaves out offsets: the log made of it would not be what was streamed."""


@dataclass(frozen=True)
class Compaction:
    """What was published of an epoch, and how many payloads the parser refused."""

    epoch: int
    publication: Publication
    rejected: int


def archive_of(context: Context) -> Path:
    """The folder of what streams from a workspace."""
    return context.workspace / "stream" / "archive"


def compact(context: Context, day: date, *, accept_loss: bool = False) -> list[Compaction]:
    """Publish what streamed up to and including `day`; one part an epoch that has something new.

    An epoch that cannot be published does not keep the others from it; its error comes last.

    Args:
        context: of the workspace.
        day: of the workspace's time zone.
        accept_loss: go on without events that were not archived, and note them in `epochs.json`.

    Raises:
        BadInputError: a topic has streamed, and there is no archive of it.
        ArchiveGapError: offsets are missing; names the partition and both.
        UicError: the log refuses the rows.
    """
    zone = ZoneInfo(context.config.time_zone)
    end = datetime.combine(day + timedelta(days=1), clock_time(), zone)
    log = EventLog(context.log)
    archive = archive_of(context)
    if not archive.is_dir() and any(epoch.kind == "topic" for epoch in log.epochs()):
        msg = (
            f"{archive}: no archive: nothing has streamed from this workspace yet, or with "
            "stream.archive off; there is nothing to compact"
        )
        raise BadInputError(msg)
    done = []
    failure: UicError | None = None
    for epoch in log.epochs():
        if epoch.kind == "topic" and epoch_folder(archive, epoch.number).is_dir():
            if accept_loss:
                log.note_losses(epoch.number, _holes(archive, epoch))
                epoch = log.epochs()[epoch.number - 1]  # noqa: PLW2901 - with what was noted
            try:
                if epoch.number == _newest_topic(log):
                    epoch = note_declared(context, epoch)  # noqa: PLW2901 - the same epoch, noted
                made = _compact_epoch(context, log, epoch, int(end.timestamp() * 1000))
            except UicError as error:
                failure = failure or error
                continue
            if made is not None:
                done.append(made)
    if failure is not None:
        raise failure
    return done


def _compact_epoch(context: Context, log: EventLog, epoch: Epoch, end_ms: int) -> Compaction | None:
    rows = rejected = 0
    part = Part(f"epoch-{epoch.number}", details={"archive": f"epoch={epoch.number:05d}"})
    with LogWriter(log, part, time_zone=context.config.time_zone, topic=epoch) as writer:
        for table, refused in new_rows(context, log, epoch, end_ms):
            writer.add_behaviors(table)
            rows += table.num_rows
            rejected += refused
        return Compaction(epoch.number, writer.publish(), rejected) if rows else None


def new_rows(
    context: Context, log: EventLog, epoch: Epoch, end_ms: int
) -> Iterator[tuple[pa.Table, int]]:
    """What streamed of an epoch and is not in the log, and how many payloads were refused.

    Args:
        context: of the workspace.
        log: its log.
        epoch: a topic's, as the log has it now.
        end_ms: log time at which to stop.

    Raises:
        ArchiveGapError: offsets are missing; names the partition and both.
    """
    archive = archive_of(context)
    moved = {
        (letter.partition, letter.offset)
        for letter in letters_of(context, unfinished=True)
        if letter.epoch == epoch.number and letter.reason == PARTITION_MOVED
    }
    parser = EventParser(context.config.log, [noted.column for noted in epoch.columns], lists=True)
    forgotten = pa.array(Tombstones(context.workspace).ids())
    # Today's setting speaks of today's topic; an older one is judged as it was when it streamed.
    gaps = context.config.stream.offset_gaps if epoch.offset_gaps is None else epoch.offset_gaps
    # What a wrong producer sent before the partitioner was declared has no letter; beside the right
    # events of the same users it would be users in two partitions, which the log refuses.
    newest = epoch.number == _newest_topic(log)
    partitioner = context.config.stream.partitioner if newest else "any"
    home = home_of(partitioner, epoch.partitions)
    before = _log_times(log, epoch)
    for chunk in _chunks(archive, epoch, end_ms, before, gaps=gaps):
        table = _parsed(chunk, parser, moved)
        table = table.filter(pc.invert(pc.is_in(table["user_id"], value_set=forgotten)))
        if home is not None:
            users, places = table["user_id"].to_numpy(), table["partition"].to_numpy()
            table = table.filter(pa.array(home(users) == places))
        # A list is a row an item; its first says that the message was taken.
        taken = int((table[PLACED].fill_null(0).to_numpy() == 0).sum())
        yield table, len(chunk.rows) - taken


def _newest_topic(log: EventLog) -> int:
    return max(one.number for one in log.epochs() if one.kind == "topic")


@dataclass
class _Chunk:
    """Some payloads, and the log time of each: the largest stamp of its partition so far."""

    rows: list[LoggedPayload] = field(default_factory=list)
    log_times_ms: list[int] = field(default_factory=list)


def _chunks(
    archive: Path, epoch: Epoch, end_ms: int, before: Mapping[int, int], *, gaps: bool
) -> Iterator[_Chunk]:
    """New payloads, partition after partition in order of offset, each once."""
    chunk = _Chunk()
    for partition in range(epoch.partitions):
        last = epoch.last_offsets[partition]
        log_time = before.get(partition, 0)
        files = committed_files(archive, epoch.number, partition)
        for row in _ordered(file_ranges(archive, epoch.number, files), last):
            log_time = max(log_time, row.log_time_ms)
            if log_time >= end_ms:
                break
            hole = row.offset > last + 1 and not epoch.is_lost(partition, last + 1, row.offset - 1)
            if hole and not gaps:
                msg = (
                    f"{archive}: epoch {epoch.number}, partition {partition}: offset {row.offset} "
                    f"follows {last}; what lies between was not archived: stream it again with "
                    "stream.archive on, or, if it is gone for good, `uic log compact DAY "
                    "--accept-loss` goes on without it"
                )
                raise ArchiveGapError(msg)
            last = row.offset
            chunk.rows.append(row)
            chunk.log_times_ms.append(log_time)
            if len(chunk.rows) == _ROWS:
                yield chunk
                chunk = _Chunk()
    if chunk.rows:
        yield chunk


def _log_times(log: EventLog, epoch: Epoch) -> dict[int, int]:
    """By partition, the log time of the last event that the log has."""
    wanted = {
        partition
        for partition, last in epoch.last_offsets.items()
        if last >= epoch.first_offsets[partition]
    }
    times: dict[int, int] = {}
    day: date | None = None
    files = event_files(log, shown=True)
    for file in sorted(files, key=lambda one: one.dt, reverse=True):
        if file.dt != day and wanted <= times.keys():
            break
        day = file.dt
        if file.epoch == epoch.number:
            table = pq.ParquetFile(file.path).read(columns=["partition", "log_time"])
            latest = table.group_by("partition").aggregate([("log_time", "max")])
            stamps = times_ms(latest["log_time_max"].combine_chunks())
            for partition, stamp in zip(latest["partition"].to_pylist(), stamps, strict=True):
                times[partition] = max(int(stamp), times.get(partition, 0))
    return times


def _holes(archive: Path, epoch: Epoch) -> Iterator[Loss]:
    """Offsets between the archive's files, or between the log and the first of them."""
    for partition in range(epoch.partitions):
        last = epoch.last_offsets[partition]
        paths = committed_files(archive, epoch.number, partition)
        for first, final, _ in sorted(file_ranges(archive, epoch.number, paths)):
            if first > last + 1 and not epoch.is_lost(partition, last + 1, first - 1):
                yield partition, last + 1, first - 1
            last = max(last, final)


def _ordered(ranges: list[tuple[int, int, Path]], last: int) -> Iterator[LoggedPayload]:
    """Rows after offset `last` in ascending order, without repetitions."""
    for _, final, path in sorted(ranges):
        if final > last:
            for row in read_lines(path):
                if row.offset > last:
                    last = row.offset
                    yield row


def _parsed(chunk: _Chunk, parser: EventParser, moved: set[tuple[int, int]]) -> pa.Table:
    """The accepted rows as the writer takes them."""
    rows = chunk.rows
    partitions = np.array([row.partition for row in rows], np.int32)
    offsets = np.array([row.offset for row in rows], np.int64)
    # The parser judges by the stamp, as it does in the stream.
    stamps = np.array([row.log_time_ms for row in rows], np.int64)
    events = parser.parse([row.payload for row in rows], stamps)
    times = np.array(chunk.log_times_ms, np.int64)
    at = events.index
    kept = np.array(
        [(rows[row].partition, rows[row].offset) not in moved for row in at.tolist()],
        dtype=np.bool_,
    )
    table = pa.table(
        {
            "user_id": events.user_ids,
            "item_id": events.item_ids,
            "category_id": events.category_ids,
            "behavior": pa.array(events.behaviors, pa.int8()),
            "event_time": pa.array(events.event_times_ms).cast(pa.timestamp("ms")),
            "log_time": pa.array(times[at]).cast(pa.timestamp("ms")),
            "partition": partitions[at],
            "offset": offsets[at],
            "source": pa.array(events.sources, pa.string()),
            **{
                column.logged: logged_column(
                    column, events.columns[column.name], events.wrong.get(column.name)
                )
                for column in (*parser.columns, *SHOWN_COLUMNS)
            },
        }
    )
    return table.filter(pa.array(kept)) if len(kept) else table
