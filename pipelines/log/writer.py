"""Writing a part of the event log: behaviours and impressions in source order in, days out.

Memory is bounded whatever the input: rows are spooled to disk by day, then each day is put into
(partition, time, source order) in slices. The steps of a publication:

1. Take the log's lock; remove what a killed writer left.
2. Spool the rows (`add_behaviors`, `add_impressions`).
3. Day by day, in order: sort, give positions, write `dt=…/epoch-NNNNN….parquet`.
4. Bring all files to disk, write the manifest, then `epochs.json`: the moment of publication.

An error at any step removes what was written; a kill leaves files that no reader looks at and the
next writer removes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from uic.models.errors import BadInputError
from uic.models.features.event_columns import LOGGED_EVENT, EventColumn
from uic.models.hashing import stable_hash
from uic.pipelines.days import CalendarDays, day_of_number
from uic.pipelines.log.catalog import Contents
from uic.pipelines.log.columns import behavior_codes, times_ms
from uic.pipelines.log.epochs import Epoch, refuse_overtaken, with_columns
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.files import table_entry, write_item_table, write_rows
from uic.pipelines.log.ordering import SLICE_ROWS, Piece, ordered_slices
from uic.pipelines.log.positions import Positions
from uic.pipelines.log.publication import (
    BackfillError,
    DuplicateImportError,
    LogWriteError,
    Part,
    Publication,
    overlap_notice,
    refuse_backfill,
    same_sources,
)
from uic.pipelines.log.schemas import IMPRESSIONS
from uic.pipelines.log.shown import TABLE, ShownFile, Split, split
from uic.pipelines.log.spool import RUN_ROWS, KeyedSpool

Progress = Callable[[int, int], None]


class LogWriter:
    """One part of the log: an import (a new epoch), or more of a registered topic's epoch.

    Use as a context manager; what is not published when it ends is removed.

    Args:
        log: where to.
        part: its name and origin.
        time_zone: whose calendar days are `dt`.
        partitions: of a new import; count.
        topic: the registered epoch that the rows belong to. Then they bring `partition`, `offset`
            and `log_time`, each partition's in order of offset; a repeated offset is dropped.
        again: allow a source that the log already holds.
        impressions_only: publish impressions beside whatever the log has, without an epoch.
        run_rows, slice_rows: bounds of memory, see `uic.pipelines.log.spool` and
            `uic.pipelines.log.ordering`.
    """

    def __init__(
        self,
        log: EventLog,
        part: Part,
        *,
        time_zone: str,
        partitions: int = 4,
        topic: Epoch | None = None,
        again: bool = False,
        impressions_only: bool = False,
        run_rows: int = RUN_ROWS,
        slice_rows: int = SLICE_ROWS,
    ) -> None:
        self.log, self.part, self._again = log, part, again
        self._days = CalendarDays(time_zone)
        self._topic = topic
        self._columns = topic.columns if topic else ()
        self._impressions_only = impressions_only
        self._partitions = topic.partitions if topic else partitions
        self._slice_rows = slice_rows
        spool = log.root / "spool"
        self._behaviors = KeyedSpool(spool / "behaviors", run_rows)
        self._impressions = KeyedSpool(spool / "impressions", run_rows)
        self._contents = Contents()
        self._files: list[dict[str, Any]] = []
        self._stack = ExitStack()
        self._tag, self._number = "", 0

    def __enter__(self) -> Self:
        """Lock the log and clean it.

        Raises:
            LogBusyError: another process writes to it.
            DuplicateImportError: a source is in the log, and `again` is not set.
            BadInputError: the log's days are of another time zone.
            BackfillError: behaviours of an import would come after a topic's.
            LogWriteError: the log's folder cannot be made.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.log.locked())
            except OSError as error:
                raise self._write_error(error) from error
            self.log.remove_unpublished()
            manifests = self.log.manifests()
            self._check(manifests)
            self._number = self._topic.number if self._topic else len(self.log.epochs()) + 1
            serial = len(manifests) + 1
            part = f"-part-{serial:06d}" if self._topic else ""
            self._tag = f"epoch-{self._number:05d}{part}"
            if self._impressions_only:
                self._tag = f"impressions-{serial:06d}"
            self._stack = stack.pop_all()
        return self

    def _check(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        for source in () if self._again else self.part.sources:
            found = same_sources(manifests, [source])
            if not found:
                continue
            msg = (
                f"{source['name']}: already in the log as {found}; a second import would double "
                "every history: use another --workspace, or --again if that is what you want"
            )
            raise DuplicateImportError(msg)
        if self._topic is not None:
            refuse_overtaken(self._topic, self.log.epochs(), self.log.root)
        elif not self._impressions_only:
            refuse_backfill(self.log.held_back(), self.log.epochs(), self.log.root)
        for manifest in manifests:
            if manifest["time_zone"] != self._days.time_zone:
                msg = (
                    f"time_zone: found {self._days.time_zone}, the days of {self.log.root} are of "
                    f"{manifest['time_zone']}; set it back, or use another --workspace"
                )
                raise BadInputError(msg)

    @property
    def tag(self) -> str:
        """What the names of this part's files begin with."""
        return self._tag

    def add_behaviors(self, table: pa.Table) -> None:
        """Take rows in source order; all tables of a writer have the same columns.

        Args:
            table: `user_id, item_id, category_id, event_time` as in `BEHAVIOR_EVENTS`, `behavior`
                as there or as int8 index into `BEHAVIORS`; optionally `log_time` (an import
                without it has log time = event time), `source` and columns of events, which
                `note_columns` describes before they are published; of a topic also `partition`
                and `offset`.
        """
        if not table.num_rows:
            return
        columns = {name: table[name] for name in ("user_id", "item_id", "category_id")}
        columns["behavior"] = behavior_codes(table["behavior"])
        columns["event_time"] = table["event_time"].cast(pa.timestamp("ms"))
        names = table.column_names
        if "log_time" in names:
            columns["log_time"] = table["log_time"].cast(pa.timestamp("ms"))
        logged = columns.get("log_time", columns["event_time"])
        if self._topic:
            columns["partition"], columns["offset"] = table["partition"], table["offset"]
        else:
            hashed = stable_hash(table["user_id"].to_numpy()) % np.uint64(self._partitions)
            columns["partition"] = pa.array(hashed.astype(np.int32))
        if "source" in names:
            columns["source"] = table["source"].cast(pa.string())
        columns |= {name: table[name] for name in names if name.startswith(LOGGED_EVENT)}
        self._behaviors.add(pa.table(columns), self._days.numbers(times_ms(logged)))

    def add_impressions(self, table: pa.Table) -> None:
        """Take rows of `IMPRESSIONS` and context columns in source order, as `add_behaviors`."""
        if table.num_rows:
            context = [name for name in table.column_names if name not in IMPRESSIONS.names]
            fixed = table.select(IMPRESSIONS.names).cast(IMPRESSIONS)
            for name in context:
                fixed = fixed.append_column(name, table[name])
            self._impressions.add(fixed, self._days.numbers(times_ms(fixed["event_time"])))

    def note_columns(self, columns: Sequence[EventColumn]) -> None:
        """Say what the columns of an import's events are; the others are left out.

        Raises:
            EventColumnError: one is of another kind in the log.
        """
        epoch = Positions(self._number, self._partitions, None).epoch(self.part.name)
        self._columns = with_columns(epoch, columns, self.log.epochs(), self.log.root).columns

    def add_items(self, item_ids: pa.Array, category_ids: pa.Array) -> None:
        """Take items that no event has named yet, or that have a better category than theirs."""
        self._contents.items.add_known(item_ids, category_ids)

    def add_file(self, table: str, path: Path, rows: int) -> None:
        """Publish a finished file of another kind (string ids, rejects) with this part."""
        self._files.append(table_entry(self.log.root, path, table, rows))

    def publish(self, progress: Progress | None = None) -> Publication:
        """Steps 3 and 4.

        Args:
            progress: called with (days done, days in all).

        Raises:
            LogWriteError: the disk is full, or the like.
            EpochHandOverError: offsets of a topic do not follow what the log has.
        """
        try:
            return self._publish(progress or (lambda _done, _total: None))
        except OSError as error:
            raise self._write_error(error) from error

    def _publish(self, progress: Progress) -> Publication:
        behavior_days, impression_days = self._behaviors.keys(), self._impressions.keys()
        total = len(behavior_days) + len(impression_days)
        positions = Positions(self._number, self._partitions, self._topic)
        rows = impressions = 0
        for done, day in enumerate(behavior_days):
            shown = ShownFile(self._path(TABLE, day))
            behaviors = shown.apart(self._behavior_tables(day, positions))
            rows += self._write_day("behaviors", day, behaviors)
            self._name_file(TABLE, day, shown.rows)
            progress(done + 1, total)
        for done, day in enumerate(impression_days):
            impressions += self._write_day("impressions", day, self._impression_tables(day))
            progress(len(behavior_days) + done + 1, total)
        contents = self._contents
        items = contents.items.table()
        if items.num_rows:
            target = self.log.root / "items" / f"{self._tag}.parquet"
            self._files.append(
                write_item_table(self.log.root, target, contents.items, self.log.items_file())
            )
        epoch = None
        if not self._impressions_only:
            epoch = replace(positions.epoch(self.part.name), columns=self._columns)
        earlier = self.log.behavior_files() if behavior_days and not self._topic else []
        overlap = overlap_notice(self._number, behavior_days, earlier)
        manifest = {
            "epoch": None if epoch is None else epoch.number,
            "name": self.part.name,
            "time_zone": self._days.time_zone,
            "sources": [dict(source) for source in self.part.sources],
            "notes": list(self.part.notes),
            "details": dict(self.part.details),
            "files": self._files,
        }
        path = self.log.publish(epoch, manifest)
        size = sum(entry["bytes"] for entry in self._files)
        days = len({*behavior_days, *impression_days})
        files, self._files = self._files, []
        return Publication(
            epoch=epoch,
            behaviors=rows,
            impressions=impressions,
            users=len(contents.users),
            items=items.num_rows,
            days=days,
            bytes=size,
            manifest=path,
            overlap=overlap,
            span=contents.span(),
            repeated=contents.repeated,
            shown=sum(entry["rows"] for entry in files if entry["table"] == TABLE),
        )

    def _write_day(self, table: str, day: int, tables: Iterator[pa.Table]) -> int:
        dt = day_of_number(day)

        def noted() -> Iterator[pa.Table]:
            for rows in tables:
                self._contents.add(table, dt, rows)
                yield rows

        rows = write_rows(self._path(table, day), noted())
        self._name_file(table, day, rows)
        return rows

    def _path(self, table: str, day: int) -> Path:
        return self.log.root / table / f"dt={day_of_number(day)}" / f"{self._tag}.parquet"

    def _name_file(self, table: str, day: int, rows: int) -> None:
        if rows:
            entry = table_entry(self.log.root, self._path(table, day), table, rows)
            self._files.append({**entry, "dt": day_of_number(day).isoformat()})

    def _behavior_tables(self, day: int, positions: Positions) -> Iterator[Split]:
        pieces = []
        for batch in self._behaviors.pieces(day):
            time = "log_time" if "log_time" in batch.schema.names else "event_time"
            partitions = batch["partition"].to_numpy()
            pieces.append(Piece(batch, partitions, times_ms(batch[time])))
        for table, partitions in ordered_slices(pieces, self._days.start_ms(day), self._slice_rows):
            placed, offsets = positions.give(table, partitions)
            columns = [noted.column for noted in self._columns]
            yield split(placed, offsets, self._number, columns)

    def _impression_tables(self, day: int) -> Iterator[pa.Table]:
        pieces = []
        for batch in self._impressions.pieces(day):
            times = times_ms(batch["event_time"])
            pieces.append(Piece(batch, np.zeros(len(times), np.int32), times))
        for table, _ in ordered_slices(pieces, self._days.start_ms(day), self._slice_rows):
            yield table

    def _write_error(self, error: OSError) -> LogWriteError:
        msg = (
            f"{self.log.root}: cannot be written ({error.strerror or error}); nothing was "
            "published: free space or choose another --workspace, and run it again"
        )
        return LogWriteError(msg)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the spool and everything unpublished, then unlock.

        Raises:
            LogWriteError: in place of an OSError of the block.
        """
        with self._stack:
            self._behaviors.close()
            self._impressions.close()
            self.log.remove_unpublished()
        if isinstance(error, OSError):
            raise self._write_error(error) from error


__all__ = [
    "BackfillError",
    "DuplicateImportError",
    "LogWriteError",
    "LogWriter",
    "Part",
    "Publication",
]
