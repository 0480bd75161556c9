"""What streamed and was not compacted yet, as files of the log, for an audit of a live store."""

import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from uic.jobs.config.context import Context
from uic.jobs.stream.letters.archive import committed_files, file_ranges
from uic.jobs.stream.letters.compact import archive_of, new_rows
from uic.pipelines.audit.log_tail import LogTail, Positions
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.log.files import write_rows
from uic.pipelines.log.shown import ShownFile, split

_LOOK_SECONDS: Final = 0.5
# A file of the archive appears with the checkpoint after the one that closed it.
_CHECKPOINTS: Final = 3
_MARGIN_SECONDS: Final = 10.0


class ArchiveTail:
    """Reads the archive behind the log; a `TailReader`.

    Args:
        context: of the workspace.
        folder: an empty or missing folder for the files.
        streams: whether something streams into the archive, so that waiting for it makes sense.
    """

    def __init__(self, context: Context, folder: Path, *, streams: bool) -> None:
        self._context = context
        self._folder = folder
        self._streams = streams
        self._log = EventLog(context.log)

    def read(self) -> LogTail:
        """What is archived by now.

        Raises:
            ArchiveGapError: offsets are missing; names the partition and both.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        files, lists, ends = [], [], {}
        for epoch in self._epochs():
            # Before the rows are read: what is archived meanwhile is for the next tail.
            ends[epoch.number] = self._archived(epoch)
            shown = ShownFile(self._folder / f"shown-{epoch.number:05d}.parquet")
            path = self._folder / f"epoch-{epoch.number:05d}.parquet"
            rows = write_rows(path, shown.apart(self._tables(epoch, ends[epoch.number])))
            files += _named(path, rows, epoch)
            lists += _named(shown.path, shown.rows, epoch)
        return LogTail(tuple(files), ends, tuple(lists))

    def wait_for(self, positions: Positions) -> LogTail:
        """What is archived when it has these positions, or after a file had time to be closed."""
        stream = self._context.config.stream
        until = time.monotonic() + _MARGIN_SECONDS + stream.archive_roll_seconds
        until += _CHECKPOINTS * stream.checkpoint_seconds
        while self._streams and not self._reached(positions) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        return self.read()

    def _epochs(self) -> list[Epoch]:
        return [epoch for epoch in self._log.epochs() if epoch.kind == "topic"]

    def _archived(self, epoch: Epoch) -> dict[int, int]:
        """By partition, the last offset of log or archive."""
        archive = archive_of(self._context)
        ends = dict(epoch.last_offsets)
        for partition, last in epoch.last_offsets.items():
            files = committed_files(archive, epoch.number, partition)
            ranges = file_ranges(archive, epoch.number, files)
            ends[partition] = max([last, *(final for _, final, _ in ranges)])
        return ends

    def _reached(self, positions: Positions) -> bool:
        return all(
            self._archived(epoch).get(partition, -1) >= offset
            for epoch in self._epochs()
            for partition, offset in positions.get(epoch.number, {}).items()
        )

    def _tables(self, epoch: Epoch, ends: dict[int, int]) -> Iterator[tuple[pa.Table, pa.Table]]:
        last = pa.array([ends[partition] for partition in range(epoch.partitions)], pa.int64())
        for table, _ in new_rows(self._context, self._log, epoch, sys.maxsize):
            inside = pa.compute.less_equal(table["offset"], last.take(table["partition"]))
            chosen = table.filter(inside)
            columns = [noted.column for noted in epoch.columns]
            yield split(chosen, chosen["offset"].to_numpy(), epoch.number, columns)


def _named(path: Path, rows: int, epoch: Epoch) -> list[LogFile]:
    """A written file as one of the log's; none without rows."""
    if not rows:
        return []
    return [LogFile(path, datetime.now(UTC).date(), rows, path.stat().st_size, epoch.number)]
