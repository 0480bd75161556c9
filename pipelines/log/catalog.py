"""What a part of the log is about: its items with their categories, its users, days and repeats."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.pipelines.log.columns import behavior_codes, times_ms
from uic.pipelines.log.publication import Span

ITEMS: Final = pa.schema(
    [
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int64(), nullable=False),
    ]
)
# Item ids, category ids and log times in milliseconds, each (rows,).
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
# Above it a slice is sorted as a whole.
_MOST_RUNS: Final = 64
_BEFORE_ALL: Final = -(2**63)
_AFTER_ALL: Final = 2**63 - 1
# Pending rows are reduced to distinct ones at this many: 64 MB beside the result.
_PENDING_ROWS: Final = 1 << 22


class ItemCatalog:
    """Items with their category: that of the item's newest event by log time.

    Of events of one time the one that was added later counts.
    """

    def __init__(self) -> None:
        self._pending: list[Pairs] = []
        self._known: list[pa.Table] = []
        self._rows = 0
        self._limit = _PENDING_ROWS

    def add(
        self,
        item_ids: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        log_ms: NDArray[np.int64],
    ) -> None:
        """Take what events say, each (rows,)."""
        rows = (item_ids, category_ids, log_ms)
        rising = bool((log_ms[1:] >= log_ms[:-1]).all())
        pairs = _last_of_each(rows) if rising else _newest_of_each([rows])
        self._pending.append(pairs)
        self._rows += len(pairs[0])
        if self._rows > self._limit:
            merged = _newest_of_each(self._pending)
            self._pending, self._rows = [merged], len(merged[0])
            self._limit = self._rows + _PENDING_ROWS

    def add_known(self, item_ids: pa.ChunkedArray, category_ids: pa.ChunkedArray) -> None:
        """Take what the source's own table of items says; it counts more than the events."""
        self._known.append(pa.table([item_ids, category_ids], schema=ITEMS))

    def table(self, older: pa.Table | None = None) -> pa.Table:
        """`ITEMS`, one row an item, by id; `older` is an earlier catalog that this one amends."""
        if len(self._pending) > 1:
            self._pending = [_newest_of_each(self._pending)]
        parts = [] if older is None else [_at(older, _BEFORE_ALL)]
        parts += [*self._pending, *(_at(table, _AFTER_ALL) for table in self._known)]
        if not parts:
            return ITEMS.empty_table()
        items, categories, _ = _newest_of_each(parts)
        return pa.table([items, categories], schema=ITEMS)


def _at(table: pa.Table, time: int) -> Pairs:
    items, categories = (table[name].to_numpy() for name in ITEMS.names)
    return items, categories, np.full(len(items), time, np.int64)


def _last_of_each(rows: Pairs) -> Pairs:
    """One row an item: the last. Hashing the items is three times as fast as sorting them."""
    table = pa.table(dict(zip(("item", "category", "time"), rows, strict=True)))
    # One thread: only then does "last" follow the order of the rows.
    grouped = table.group_by("item", use_threads=False)
    last = grouped.aggregate([("category", "last"), ("time", "last")])
    return tuple(last[name].to_numpy() for name in ("item", "category_last", "time_last"))


def _newest_of_each(parts: Sequence[Pairs]) -> Pairs:
    """One row an item, by id: the last by time, and of one time the last of the parts."""
    if len(parts) == 1 and (parts[0][0][1:] > parts[0][0][:-1]).all():
        return parts[0]
    items, categories, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((times, items))  # stable
    ordered = items[order]
    last = order[np.r_[ordered[1:] != ordered[:-1], np.ones(min(len(order), 1), bool)]]
    return items[last], categories[last], times[last]


class DistinctIds:
    """A set of int64 ids; 8 bytes each. Sorting beats hashing here (measured: 4 against 14 ms)."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []
        self._rows = 0
        self._limit = _PENDING_ROWS

    def add(self, ids: NDArray[np.int64]) -> None:
        """Add ids."""
        part = np.unique(ids)
        self._parts.append(part)
        self._rows += len(part)
        if self._rows > self._limit:
            merged = np.unique(np.concatenate(self._parts))
            self._parts, self._rows = [merged], len(merged)
            self._limit = len(merged) + _PENDING_ROWS

    def __len__(self) -> int:
        """How many distinct ids."""
        return len(np.unique(np.concatenate(self._parts))) if self._parts else 0


class Contents:
    """What the written rows of a part say, in the order of the writing."""

    def __init__(self) -> None:
        self.items = ItemCatalog()
        self.users = DistinctIds()
        self.repeated = 0
        self._spans: dict[str, tuple[int, int]] = {}
        self._rows: dict[str, Counter[date]] = {
            name: Counter() for name in ("behaviors", "shown", "impressions")
        }

    def add(self, table: str, day: date, rows: pa.Table) -> None:
        """Take rows of a day, of the table `behaviors`, `shown` or `impressions`."""
        if not rows.num_rows:
            return
        time = "log_time" if "log_time" in rows.column_names else "event_time"
        items, categories = (rows[name].to_numpy() for name in ITEMS.names)
        logged = times_ms(rows[time])
        # Rows stand by partition, and rise in each.
        falls = np.flatnonzero(logged[1:] < logged[:-1]) + 1
        bounds = [0, *falls.tolist(), len(logged)] if len(falls) <= _MOST_RUNS else [0, len(logged)]
        for first, last in pairwise(bounds):
            run = slice(first, last)
            self.items.add(items[run], categories[run], logged[run])
        self.users.add(rows["user_id"].to_numpy())
        self.repeated += _repeated(rows)
        times = times_ms(rows["event_time"])
        begin, end = int(times.min()), int(times.max())
        known = self._spans.get(table, (begin, end))
        self._spans[table] = min(begin, known[0]), max(end, known[1])
        self._rows[table][day] += rows.num_rows

    def span(self) -> Span | None:
        """When the behaviours were, or the impressions of a part without any."""
        for table, what in (("behaviors", "behaviours"), ("impressions", "impressions")):
            if table in self._spans:
                return Span(what, *self._spans[table], self._rows[table])
        return None


def _repeated(rows: pa.Table) -> int:
    """How many rows equal another of the slice, by a hash of 64 bits.

    Rows of one user and time stand beside each other but where a slice of the log ends between
    them, so only rows of one time with a neighbour are looked at.
    """
    times = times_ms(rows["event_time"])
    same = np.flatnonzero(times[1:] == times[:-1])
    rows = rows.take(pa.array(np.union1d(same, same + 1)))
    acted = rows["behavior"] if "behavior" in rows.column_names else None
    said = rows["clicked"].to_numpy() if acted is None else behavior_codes(acted).to_numpy()
    mixed = said.astype(np.uint64)
    for name in ("user_id", "item_id", "category_id", "event_time"):
        column = rows[name]
        values = times_ms(column) if name == "event_time" else column.to_numpy()
        mixed = stable_hash(values.astype(np.int64) ^ mixed.view(np.int64))
    return len(mixed) - len(np.unique(mixed))
