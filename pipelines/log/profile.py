"""What a log looks like: events a day, events of each user and item, time between events.

Days come from manifests; ids and times are read once, a file at a time, and only counts are kept.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.pipelines.log.columns import times_ms
from uic.pipelines.log.event_log import EventLog, LogFile

# Gaps are of so many events at most: those of a share of the users, by a hash of their id.
GAP_EVENTS: Final = 2_000_000
_GAP_SEED: Final = 31


@dataclass(frozen=True)
class LogProfile:
    """Counts of a log.

    Attributes:
        behaviors: rows by day, ISO.
        impressions: rows by day, ISO.
        of_users: (users,) behaviours of each user, ascending.
        of_items: (items,) behaviours of each item, ascending.
        gaps_seconds: (gaps,) between two behaviours of a user in log time, of a share of the users.
        gap_share: that share, 0 to 1.
    """

    behaviors: dict[str, int]
    impressions: dict[str, int]
    of_users: NDArray[np.int64]
    of_items: NDArray[np.int64]
    gaps_seconds: NDArray[np.float64]
    gap_share: float


class Tally:
    """How often each id occurs, over many tables; 16 bytes an id of each table until `counts`."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    def add(self, ids: pa.Array | pa.ChunkedArray) -> None:
        """Count ids, (rows,)."""
        ones = pa.array(np.ones(len(ids), np.int64))
        self._parts.append(_summed(pa.table({"id": ids, "count": ones})))

    def counts(self) -> NDArray[np.int64]:
        """(ids,) how often each one occurs, ascending."""
        if not self._parts:
            return np.zeros(0, np.int64)
        summed = _summed(pa.concat_tables(self._parts))
        counts: NDArray[np.int64] = np.sort(summed["count"].to_numpy())
        return counts


def _summed(table: pa.Table) -> pa.Table:
    summed = table.group_by("id").aggregate([("count", "sum")])
    return summed.select(["id", "count_sum"]).rename_columns(["id", "count"])


def log_profile(log: EventLog) -> LogProfile:
    """Read a log, once.

    Raises:
        ManifestError: a named file is missing or of another size.
    """
    files = log.behavior_files()
    rows = sum(file.rows for file in files)
    every = max(1, -(-rows // GAP_EVENTS))
    users, items = Tally(), Tally()
    kept: list[pa.Table] = []
    for file in files:
        with pq.ParquetFile(file.path) as opened:
            table = opened.read(columns=["user_id", "item_id", "log_time"])
        users.add(table["user_id"])
        items.add(table["item_id"])
        chosen = stable_hash(table["user_id"].to_numpy(), _GAP_SEED) % np.uint64(every) == 0
        kept.append(table.select(["user_id", "log_time"]).filter(pa.array(chosen)))
    return LogProfile(
        behaviors=_by_day(files),
        impressions=_by_day(log.impression_files()),
        of_users=users.counts(),
        of_items=items.counts(),
        gaps_seconds=_gaps(kept),
        gap_share=1 / every,
    )


def _by_day(files: Iterable[LogFile]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for file in files:
        counts[file.dt.isoformat()] += file.rows
    return dict(sorted(counts.items()))


def _gaps(tables: list[pa.Table]) -> NDArray[np.float64]:
    if not tables:
        return np.zeros(0)
    table = pa.concat_tables(tables)
    users, times = table["user_id"].to_numpy(), times_ms(table["log_time"])
    order = np.lexsort((times, users))
    same = users[order][1:] == users[order][:-1]
    gaps: NDArray[np.float64] = np.diff(times[order])[same] / 1000
    return gaps
