"""What a part of the log is about: its items with their categories, and how many users it has."""

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ITEMS: Final = pa.schema(
    [
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int64(), nullable=False),
    ]
)
# Pending rows are reduced to distinct ones at this many: 64 MB beside the result.
_PENDING_ROWS: Final = 1 << 22


class ItemCatalog:
    """Items with their category: of an item named twice the last counts."""

    def __init__(self) -> None:
        self._pending: list[pa.Table] = []
        self._known: list[pa.Table] = []
        self._rows = 0
        self._limit = _PENDING_ROWS

    def add(self, item_ids: pa.ChunkedArray, category_ids: pa.ChunkedArray) -> None:
        """Take what events say, in their order."""
        pairs = _last_of_each(pa.table([item_ids, category_ids], schema=ITEMS))
        self._pending.append(pairs)
        self._rows += pairs.num_rows
        if self._rows > self._limit:
            merged = _last_of_each(pa.concat_tables(self._pending))
            self._pending, self._rows = [merged], merged.num_rows
            self._limit = merged.num_rows + _PENDING_ROWS

    def add_known(self, item_ids: pa.ChunkedArray, category_ids: pa.ChunkedArray) -> None:
        """Take what the source's own table of items says; it counts more than the events."""
        self._known.append(pa.table([item_ids, category_ids], schema=ITEMS))

    def table(self, older: pa.Table | None = None) -> pa.Table:
        """`ITEMS`, one row an item, by id; `older` is an earlier catalog that this one amends."""
        tables = [*([older] if older is not None else []), *self._pending, *self._known]
        if not tables:
            return ITEMS.empty_table()
        return _last_of_each(pa.concat_tables(tables)).sort_by("item_id")


def _last_of_each(pairs: pa.Table) -> pa.Table:
    # One thread: only then does "last" follow the order of the rows.
    grouped = pairs.group_by("item_id", use_threads=False).aggregate([("category_id", "last")])
    return pa.table([grouped["item_id"], grouped["category_id_last"]], schema=ITEMS)


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
