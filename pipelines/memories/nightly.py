"""Which snapshot a nightly build goes on from, and what a build leaves out by its days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow.parquet as pq

from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.records.positions import PLACE
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.log.older import OlderEvents, older_events
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.log.shown import event_files


@dataclass(frozen=True)
class OutsideDays:
    """What lies outside the days of a snapshot.

    Attributes:
        older: behaviours of days before its first; None if it goes on from another snapshot.
        last_day: of the log's behaviours; None for an empty log.
    """

    older: OlderEvents | None
    last_day: date | None


def outside_days(log: EventLog, snapshot: Snapshot) -> OutsideDays:
    """Count what a snapshot's days leave out."""
    first = date.fromisoformat(snapshot.manifest["first_day"])
    last = max((file.dt for file in log.behavior_files()), default=None)
    return OutsideDays(
        older_events(log, first) if snapshot.manifest["from"] is None else None, last
    )


def newest_before(snapshots: Sequence[Snapshot], until: date, log: EventLog) -> Snapshot | None:
    """The snapshot of one generation to go on from; the one of `until` or later if it holds all.

    A snapshot of a day can have been built before the day's events were in the log: then an older
    one is gone on from, and the day's is made anew.

    Returns:
        None if there is none to go on from.
    """
    ordered = sorted(snapshots, key=lambda one: str(one.manifest["until"]))
    for snapshot in reversed(ordered):
        if snapshot.manifest["until"] < until.isoformat() or not _lacks(snapshot, until, log):
            return snapshot
    return None


def _lacks(snapshot: Snapshot, until: date, log: EventLog) -> bool:
    """Whether the log has events of the snapshot's last days beyond its positions."""
    last = min(date.fromisoformat(snapshot.manifest["until"]), until)
    lists = any(one["name"] == PLACE for one in snapshot.manifest.get("columns", ()))
    files = event_files(log, last - timedelta(days=1), last, shown=lists)
    return any(beyond(file, snapshot.positions) for file in files)


def beyond(file: LogFile, positions: Mapping[int, Mapping[int, int]]) -> bool:
    """Whether a file of behaviours has events beyond positions; reads three columns."""
    with pq.ParquetFile(file.path) as opened:
        table = opened.read(columns=["epoch", "partition", "offset"])
    epochs, partitions, offsets = (column.to_numpy() for column in table.columns)
    return not bool(at_or_before(epochs, partitions, offsets, positions).all())
