"""`uic log compact DAY`: what streamed becomes part of the event log, with the same parser.

What the archive holds of an epoch up to the end of the day, and the log does not have yet, is
parsed, sorted by position, freed of repetitions and published. So batch folds tomorrow exactly
what was streamed today.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from uic.jobs.config.context import Context
from uic.jobs.stream.fold.counters import PARTITION_MOVED
from uic.jobs.stream.fold.home import home_of
from uic.jobs.stream.letters.archive import committed_files, file_range
from uic.jobs.stream.letters.dead_letters import letters_of
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines
from uic.models.errors import BadInputError, UicError
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser
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


def compact(context: Context, day: date) -> list[Compaction]:
    """Publish what streamed up to and including `day`; one part an epoch that has something new.

    Raises:
        BadInputError: a topic has streamed, and there is no archive of it.
        ArchiveGapError: offsets are missing; names the partition and both.
        UicError: the log refuses the rows.
    """
    zone = ZoneInfo(context.config.time_zone)
    end = datetime.combine(day + timedelta(days=1), clock_time(), zone)
    log = EventLog(context.log)
    archive = context.workspace / "stream" / "archive"
    if not archive.is_dir() and any(epoch.kind == "topic" for epoch in log.epochs()):
        msg = (
            f"{archive}: no archive: nothing has streamed from this workspace yet, or with "
            "stream.archive off; there is nothing to compact"
        )
        raise BadInputError(msg)
    done = []
    for epoch in log.epochs():
        if epoch.kind == "topic" and (archive / f"epoch={epoch.number:05d}").is_dir():
            made = _compact_epoch(context, log, epoch, archive, int(end.timestamp() * 1000))
            if made is not None:
                done.append(made)
    return done


def _compact_epoch(
    context: Context, log: EventLog, epoch: Epoch, archive: Path, end_ms: int
) -> Compaction | None:
    moved = {
        (letter.partition, letter.offset)
        for letter in letters_of(context)
        if letter.epoch == epoch.number and letter.reason == PARTITION_MOVED
    }
    parser = EventParser(context.config.log)
    rows = rejected = 0
    part = Part(f"epoch-{epoch.number}", details={"archive": f"epoch={epoch.number:05d}"})
    # Today's setting speaks of today's topic; an older one is judged as it was when it streamed.
    gaps = context.config.stream.offset_gaps if epoch.offset_gaps is None else epoch.offset_gaps
    # What a wrong producer sent before the partitioner was declared has no letter; beside the right
    # events of the same users it would be users in two partitions, which the log refuses.
    newest = max(one.number for one in log.epochs() if one.kind == "topic")
    partitioner = context.config.stream.partitioner if epoch.number == newest else "any"
    home = home_of(partitioner, epoch.partitions)
    with LogWriter(log, part, time_zone=context.config.time_zone, topic=epoch) as writer:
        for chunk in _chunks(archive, epoch, end_ms, gaps=gaps):
            table, refused = _parsed(chunk, parser, moved)
            if home is not None:
                users, places = table["user_id"].to_numpy(), table["partition"].to_numpy()
                table = table.filter(pa.array(home(users) == places))
                refused = len(chunk) - table.num_rows
            writer.add_behaviors(table)
            rows += table.num_rows
            rejected += refused
        return Compaction(epoch.number, writer.publish(), rejected) if rows else None


def _chunks(
    archive: Path, epoch: Epoch, end_ms: int, *, gaps: bool
) -> Iterator[list[LoggedPayload]]:
    """New payloads, partition after partition in order of offset, each once."""
    chunk: list[LoggedPayload] = []
    for partition in range(epoch.partitions):
        last = epoch.last_offsets[partition]
        for row in _ordered(committed_files(archive, epoch.number, partition), last):
            if row.log_time_ms >= end_ms:
                break
            if row.offset > last + 1 and not gaps:
                msg = (
                    f"{archive}: epoch {epoch.number}, partition {partition}: offset {row.offset} "
                    f"follows {last}; what lies between was not archived: stream it again with "
                    "stream.archive on"
                )
                raise ArchiveGapError(msg)
            last = row.offset
            chunk.append(row)
            if len(chunk) == _ROWS:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _ordered(paths: list[Path], last: int) -> Iterator[LoggedPayload]:
    """Rows after offset `last` in ascending order, without repetitions."""
    ranges = sorted((*file_range(path), path) for path in paths)
    for _, final, path in ranges:
        if final > last:
            for row in read_lines(path):
                if row.offset > last:
                    last = row.offset
                    yield row


def _parsed(
    chunk: list[LoggedPayload], parser: EventParser, moved: set[tuple[int, int]]
) -> tuple[pa.Table, int]:
    """The accepted rows as the writer takes them, and how many were refused."""
    partitions = np.array([row.partition for row in chunk], np.int32)
    offsets = np.array([row.offset for row in chunk], np.int64)
    times = np.array([row.log_time_ms for row in chunk], np.int64)
    events = parser.parse([row.payload for row in chunk], times)
    at = events.index
    kept = np.array(
        [(chunk[row].partition, chunk[row].offset) not in moved for row in at.tolist()],
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
        }
    )
    table = table.filter(pa.array(kept)) if len(kept) else table
    return table, len(chunk) - table.num_rows
