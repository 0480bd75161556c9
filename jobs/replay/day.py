"""The held-back day: its impressions and behaviours in order of time, and its stretches."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.jobs.replay.hold_back import HELD_KIND, HELD_SCHEMA_VERSION, ReplayError
from uic.jobs.stream.topics.produce import Outgoing, payload_of
from uic.models.features.definition import FeatureSet, Owner
from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.models.published import read_manifest
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.log.columns import wire_columns
from uic.pipelines.log.event_log import EventLog


@dataclass(frozen=True)
class DayImpressions:
    """Columns in order of event time.

    Attributes:
        user_ids: (n,).
        item_ids: (n,).
        times_ms: (n,), milliseconds since 1970 UTC.
        clicked: (n,).
        context: n rows, what a request would say beside its candidates, by name of the feature;
            None where features.yaml declares none.
    """

    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    context: pa.Table | None = None

    def __len__(self) -> int:
        """How many."""
        return len(self.user_ids)

    def between(self, start_ms: int, end_ms: int) -> "DayImpressions":
        """Those from `start_ms` until before `end_ms`."""
        first, end = np.searchsorted(self.times_ms, [start_ms, end_ms])
        here = slice(int(first), int(end))
        return DayImpressions(
            self.user_ids[here],
            self.item_ids[here],
            self.times_ms[here],
            self.clicked[here],
            None if self.context is None else self.context[here],
        )


@dataclass(frozen=True)
class HeldDay:
    """One day, ready to be lived again.

    Args:
        day: in the log's time zone.
        start_ms: its midnight, milliseconds since 1970 UTC.
        end_ms: the next one.
        impressions: of the day.
        behaviors: of the day, by (log time, partition, offset).
        columns: what these have beside ids.
    """

    day: date
    start_ms: int
    end_ms: int
    impressions: DayImpressions
    behaviors: pa.Table
    columns: tuple[EventColumn, ...] = ()

    def stretches(self, count: int, partitions: int) -> list[tuple[int, int]]:
        """The day cut into at most `count` equal stretches, (start, end) in milliseconds.

        The first one is long enough for every partition to have an event: the files of a stream
        tell which partitions there are.
        """
        edges = np.linspace(self.start_ms, self.end_ms, count + 1).astype(np.int64)
        users = self.behaviors.column("user_id").to_numpy()
        homes = stable_hash(users) % np.uint64(partitions)
        _, firsts = np.unique(homes, return_index=True)
        if len(firsts) < partitions:
            msg = f"{self.day}: only {len(firsts)} of {partitions} partitions have events"
            raise ReplayError(msg)
        until = int(self._log_times()[firsts.max()]) + 1
        later = edges[1:][edges[1:] >= until]
        bounds = [self.start_ms, *later.tolist()]
        return list(itertools.pairwise(bounds))

    def events(self, start_ms: int, end_ms: int) -> Iterator[Outgoing]:
        """The behaviours that the log got in a stretch, as payloads on the wire."""
        first, end = np.searchsorted(self._log_times(), [start_ms, end_ms])
        table = self.behaviors.slice(int(first), int(end - first))
        if not table.num_rows:
            return
        columns = [table.column(name).to_pylist() for name in ("user_id", "item_id", "category_id")]
        behaviors = table.column("behavior").cast(pa.string()).to_pylist()
        times = table.column("event_time").to_numpy().view(np.int64).tolist()
        yield Outgoing(
            payloads=[
                payload_of(*row, columns=further)
                for *row, further in zip(
                    *columns, behaviors, times, wire_columns(self.columns, table), strict=True
                )
            ],
            user_ids=table.column("user_id").to_numpy(),
            log_times_ms=table.column("log_time").to_numpy().view(np.int64),
        )

    def _log_times(self) -> NDArray[np.int64]:
        times: NDArray[np.int64] = self.behaviors.column("log_time").to_numpy().view(np.int64)
        return times


def open_day(log_root: Path, held_root: Path, features: FeatureSet | None = None) -> HeldDay:
    """The day that was held back.

    Args:
        log_root: of the event log.
        held_root: what was held back.
        features: declared; those of the context are read from the impressions.

    Raises:
        ReplayError: none was, or it has no impressions.
        ManifestError: its files are damaged.
    """
    if not (held_root / "manifest.json").is_file():
        msg = f"{held_root}: no day was held back; run `uic replay hold-back DAY` first"
        raise ReplayError(msg)
    manifest = read_manifest(held_root, HELD_KIND, HELD_SCHEMA_VERSION)
    day = date.fromisoformat(manifest["day"])
    paths = [entry["path"] for entry in manifest["files"] if entry["dt"] == manifest["day"]]
    table = pa.concat_tables([pq.read_table(held_root / path) for path in paths])
    table = table.sort_by(
        [("log_time", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
    )
    log = EventLog(log_root)
    shown = [file.path for file in log.impression_files(day, day)]
    if not shown:
        msg = f"{log_root}: no impressions on {day}; there is nothing to rank"
        raise ReplayError(msg)
    named = [] if features is None else features.of(Owner.CONTEXT)
    columns = ["user_id", "item_id", "event_time", "clicked", *(one.column for one in named)]
    # A file may lack a column of the context: its rows have none.
    tables = [
        pq.read_table(
            path, columns=[name for name in columns if name in pq.read_schema(path).names]
        )
        for path in shown
    ]
    seen = pa.concat_tables(tables, promote_options="default")
    seen = seen.sort_by([("event_time", "ascending"), ("user_id", "ascending")])
    told = {one.name: seen.column(one.column) for one in named if one.column in seen.column_names}
    context = pa.table(told) if told else None
    days = CalendarDays(str(manifest["time_zone"]))
    return HeldDay(
        day=day,
        start_ms=days.start_ms(day_number(day)),
        end_ms=days.start_ms(day_number(day + timedelta(days=1))),
        impressions=DayImpressions(
            seen.column("user_id").to_numpy(),
            seen.column("item_id").to_numpy(),
            seen.column("event_time").to_numpy().view(np.int64),
            seen.column("clicked").to_numpy(),
            context,
        ),
        behaviors=table.combine_chunks(),
        columns=tuple(noted.column for noted in log.epochs()[0].columns),
    )
