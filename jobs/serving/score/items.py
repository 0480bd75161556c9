"""Items of a request: categories from the log's item table, vectors from the bundle, both cached.

The item table (`log/items/*.parquet`) is the view of items; its newest file is its version. A
cache belongs to one version of the table and one bundle: another version means another cache,
filled in the background with the items of the old one before it takes its place.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.site import SiteFeatures
from uic.models.errors import BadInputError
from uic.models.published import sha256_of
from uic.pipelines.log.event_log import EventLog

# Category of an item that the table does not have: a spare row of the vocabulary.
UNKNOWN_CATEGORY: Final = -1
# File of an item table, its size in bytes, when it was written in nanoseconds.
ItemsStamp = tuple[Path, int, int]
Embed = Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]


@dataclass(frozen=True)
class ItemTable:
    """Category of every item that the log has named.

    Args:
        version: of the table; changes with its content.
        item_ids: (items,), int64, ascending.
        category_ids: (items,), int64.
        features: of the workspace, with those of items.
    """

    version: str
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    features: SiteFeatures = field(default_factory=SiteFeatures)

    @classmethod
    def load(cls, path: Path | None, features: SiteFeatures | None = None) -> Self:
        """Read `item_id, category_id`; None is an empty table.

        Raises:
            BadInputError: not Parquet, or without these columns.
        """
        if path is None:
            nothing = np.zeros(0, dtype=np.int64)
            return cls("none", nothing, nothing, features or SiteFeatures())
        try:
            table = pq.read_table(path, columns=["item_id", "category_id"])
        except (pa.ArrowException, OSError, KeyError) as error:
            msg = f"{path}: cannot be read as the log's item table: {error}; import the log again"
            raise BadInputError(msg) from error
        item_ids = table["item_id"].to_numpy().astype(np.int64)
        order = np.argsort(item_ids, kind="stable")
        categories = table["category_id"].to_numpy().astype(np.int64)
        known = item_ids[order], categories[order]
        return cls(item_version(path), *known, features or SiteFeatures())

    def categories(
        self, item_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Category of each item, `UNKNOWN_CATEGORY` for unknown ones, and (n,) bool: known."""
        if not len(self.item_ids):
            return np.full(len(item_ids), UNKNOWN_CATEGORY), np.zeros(len(item_ids), np.bool_)
        places = np.minimum(np.searchsorted(self.item_ids, item_ids), len(self.item_ids) - 1)
        known = self.item_ids[places] == item_ids
        return np.where(known, self.category_ids[places], UNKNOWN_CATEGORY), known


def item_version(path: Path) -> str:
    """Names the content of an item table."""
    return f"{path.name}:{sha256_of(path)[:16]}"


def items_stamp(log: EventLog) -> ItemsStamp | None:
    """The item table's file, its size, and when it was written; None if the log has none.

    The name is not enough: names start again with a log that is made again.
    """
    path = log.items_file()
    if path is None:
        return None
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class CachedRows:
    """Rows of some items, in the order in which they were asked for.

    Attributes:
        rows: (n,), structured; what the cache lacks is zero until `fill`.
        missing: (m,), int64, distinct, ascending: what the cache lacks.
    """

    rows: NDArray[np.void]
    missing: NDArray[np.int64]
    _item_ids: NDArray[np.int64]
    _lacking: NDArray[np.intp]

    def fill(self, rows: NDArray[np.void]) -> None:
        """Put the rows of `missing`, (m,), where they were asked for."""
        self.rows[self._lacking] = rows[
            np.searchsorted(self.missing, self._item_ids[self._lacking])
        ]


class RowCache:
    """A bounded cache of one row per item, read and filled in bulk.

    One dict from id to slot and three arrays. When it is full, a hand goes round the slots and
    gives away those that were not used since it last came by (the clock algorithm): a read only
    marks slots, in one vectorised write.

    Args:
        dtype: of a row, structured.
        capacity: items; count.
    """

    def __init__(self, dtype: np.dtype[np.void], capacity: int) -> None:
        self.dtype = dtype
        self.hits = self.misses = 0
        self._capacity = capacity
        self._slots: dict[int, int] = {}
        self._rows = np.zeros(capacity, dtype=dtype)
        self._ids = np.zeros(capacity, dtype=np.int64)
        self._used = np.zeros(capacity, dtype=np.bool_)
        self._filled = 0
        self._hand = 0

    def __len__(self) -> int:
        """Items in the cache."""
        return len(self._slots)

    def ids(self) -> NDArray[np.int64]:
        """Items in the cache, in no order."""
        return self._ids[: self._filled].copy()

    @property
    def room(self) -> int:
        """Items that still fit without another one giving way."""
        return self._capacity - self._filled

    def find(self, item_ids: list[int]) -> CachedRows:
        """A copy of the rows of items, (n,), and what is missing."""
        slots = np.fromiter(
            map(self._slots.get, item_ids, repeat(-1)), dtype=np.int64, count=len(item_ids)
        )
        ids = np.asarray(item_ids, dtype=np.int64)
        lacking = np.flatnonzero(slots < 0)
        # Marked now, so that the hand passes them by when the missing ones are put in.
        self._used[slots[slots >= 0] if len(lacking) else slots] = True
        rows = self._rows.take(slots)
        if len(lacking):
            rows[lacking] = np.zeros((), dtype=rows.dtype)
        missing = np.unique(ids[lacking])
        self.hits += len(item_ids) - len(missing)
        self.misses += len(missing)
        return CachedRows(rows, missing, ids, lacking)

    def put(self, item_ids: NDArray[np.int64], rows: NDArray[np.void]) -> None:
        """Keep the rows of distinct items, (n,); more than the cache can hold are not kept."""
        if len(item_ids) > self._capacity:
            return
        there = self.cached(item_ids)
        self._rows[[self._slots[item] for item in item_ids[there].tolist()]] = rows[there]
        new = item_ids[~there]
        slots = self._free(len(new))
        self._rows[slots], self._ids[slots], self._used[slots] = rows[~there], new, True
        self._slots.update(zip(new.tolist(), slots.tolist(), strict=True))

    def cached(self, item_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which items are in the cache, (n,) bool."""
        return np.fromiter((item in self._slots for item in item_ids.tolist()), np.bool_)

    def _free(self, count: int) -> NDArray[np.int64]:
        """Slots to write to: new ones first, then what the hand takes; none of them twice."""
        fresh = np.arange(self._filled, min(self._filled + count, self._capacity))
        self._filled += len(fresh)
        needed = count - len(fresh)
        if not needed:
            return fresh
        given = np.zeros(self._capacity, dtype=np.bool_)
        given[fresh] = True
        slots: list[NDArray[np.int64]] = [fresh]
        while needed:
            stretch = np.arange(self._hand, min(self._hand + max(needed, 1024), self._capacity))
            victims = stretch[~(self._used[stretch] | given[stretch])][:needed]
            last = int(victims[-1]) if len(victims) == needed else int(stretch[-1])
            self._used[self._hand : last + 1] = False
            given[victims] = True
            for item in self._ids[victims].tolist():
                del self._slots[item]
            slots.append(victims)
            needed -= len(victims)
            self._hand = (last + 1) % self._capacity
        return np.concatenate(slots)


@dataclass(frozen=True)
class FoundItems:
    """What a cache has of some items, in the order in which they were asked for.

    Attributes:
        vectors: (n, width) float32.
        known: (n,), bool: in the item table.
        features: (n, item width) float32, items' features, embedded.
        lacking: (n, items' features) int8: 0, or `LACKS`, or `UNSEEN`.
        categories: (n,) int64, `UNKNOWN_CATEGORY` where the table lacks the item.
    """

    vectors: Tensor
    known: NDArray[np.bool_]
    features: Tensor
    lacking: NDArray[np.int8]
    categories: NDArray[np.int64]


class ItemCache:
    """Vectors and features of items of one bundle and one item table, embedded here and kept.

    Args:
        table: categories.
        embed: items and categories to vectors, (n, width) float32.
        capacity: items; count.
        features: of the bundle; None for one without.
    """

    def __init__(
        self,
        table: ItemTable,
        embed: Embed,
        capacity: int,
        features: ServedFeatures | None = None,
    ) -> None:
        self.table = table
        self._embed, self.features = embed, features
        width = embed(np.zeros(1, np.int64), np.zeros(1, np.int64)).shape[1]
        wide = 0 if features is None else features.item_width
        count = 0 if features is None else len(features.items)
        row = [
            ("vector", np.float32, (width,)),
            ("features", np.float32, (wide,)),
            ("lacking", np.int8, (count,)),
            ("known", np.bool_),
            ("category", np.int64),
        ]
        self.rows = RowCache(np.dtype(row, align=True), capacity)

    def lookup(self, item_ids: list[int]) -> FoundItems:
        """What the cache has of items, loaded first where it lacks some."""
        cached = self.rows.find(item_ids)
        if len(cached.missing):
            rows = self._load(cached.missing)
            self.rows.put(cached.missing, rows)
            cached.fill(rows)
        rows = cached.rows
        return FoundItems(
            torch.from_numpy(np.ascontiguousarray(rows["vector"])),
            rows["known"],
            torch.from_numpy(np.ascontiguousarray(rows["features"])),
            rows["lacking"],
            rows["category"],
        )

    def warm(self, item_ids: NDArray[np.int64]) -> None:
        """Fill with distinct items, as many as there is room for."""
        item_ids = item_ids[: self.rows.room]
        self.rows.put(item_ids, self._load(item_ids))

    def _load(self, item_ids: NDArray[np.int64]) -> NDArray[np.void]:
        categories, known = self.table.categories(item_ids)
        rows = np.zeros(len(item_ids), dtype=self.rows.dtype)
        rows["vector"], rows["known"] = self._embed(item_ids, categories).numpy(), known
        rows["category"] = categories
        if self.features is not None and self.features.items:
            features, rows["lacking"] = self.features.embed_items(item_ids)
            rows["features"] = features.numpy()
        return rows
