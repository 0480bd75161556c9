"""Items of a request: categories from the log's item table, vectors from the bundle, both cached.

The item table (`log/items/*.parquet`) is the view of items; its newest file is its version. A
cache belongs to one version of the table and one bundle: another version means another cache,
filled in the background with the items of the old one before it takes its place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.published import sha256_of
from uic.pipelines.log.event_log import EventLog

# Category of an item that the table does not have: a spare row of the vocabulary.
UNKNOWN_CATEGORY: Final = -1
Embed = Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]


@dataclass(frozen=True)
class ItemTable:
    """Category of every item that the log has named.

    Args:
        version: of the table; changes with its content.
        item_ids: (items,), int64, ascending.
        category_ids: (items,), int64.
    """

    version: str
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read `item_id, category_id`; None is an empty table.

        Raises:
            BadInputError: not Parquet, or without these columns.
        """
        if path is None:
            nothing = np.zeros(0, dtype=np.int64)
            return cls("none", nothing, nothing)
        try:
            table = pq.read_table(path, columns=["item_id", "category_id"])
        except (pa.ArrowException, OSError, KeyError) as error:
            msg = f"{path}: cannot be read as the log's item table: {error}; import the log again"
            raise BadInputError(msg) from error
        item_ids = table["item_id"].to_numpy().astype(np.int64)
        order = np.argsort(item_ids, kind="stable")
        categories = table["category_id"].to_numpy().astype(np.int64)
        return cls(item_version(path), item_ids[order], categories[order])

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


def items_stamp(log: EventLog) -> tuple[Path, int, int] | None:
    """The item table's file, its size, and when it was written; None if the log has none.

    The name is not enough: names start again with a log that is made anew.
    """
    path = log.items_file()
    if path is None:
        return None
    found = path.stat()
    return path, found.st_size, found.st_mtime_ns


class ItemCache:
    """A bounded cache of item vectors, filled in bulk.

    One dict from id to slot and three arrays. When it is full, a hand goes round the slots and
    gives away those that were not used since it last came by (the clock algorithm): a lookup only
    marks slots, in one vectorised write.

    Args:
        table: categories.
        embed: items and categories to vectors, (n, width) float32.
        capacity: items; count.
    """

    def __init__(self, table: ItemTable, embed: Embed, capacity: int) -> None:
        self.table = table
        self.hits = self.misses = 0
        self._embed = embed
        self._capacity = capacity
        self._slots: dict[int, int] = {}
        width = embed(np.zeros(1, np.int64), np.zeros(1, np.int64)).shape[1]
        self._vectors = torch.zeros(capacity, width)
        self._ids = np.zeros(capacity, dtype=np.int64)
        self._known = np.zeros(capacity, dtype=np.bool_)
        self._used = np.zeros(capacity, dtype=np.bool_)
        self._filled = 0
        self._hand = 0

    def __len__(self) -> int:
        """Items in the cache."""
        return len(self._slots)

    def ids(self) -> NDArray[np.int64]:
        """Items in the cache, in no order."""
        return self._ids[: self._filled].copy()

    def lookup(self, item_ids: list[int]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Vectors of items, (n, width) float32, and (n,) bool: in the item table."""
        if len(item_ids) > self._capacity:
            return self._load(np.asarray(item_ids, dtype=np.int64))
        find = self._slots.get
        slots = [find(item, -1) for item in item_ids]
        missing = list({item for item, slot in zip(item_ids, slots, strict=True) if slot < 0})
        self.hits += len(item_ids) - len(missing)
        if missing:
            self.misses += len(missing)
            # The hits are marked first, so that the hand passes them by.
            self._used[[slot for slot in slots if slot >= 0]] = True
            self._insert(missing)
            if any(item not in self._slots for item in item_ids):
                return self._load(np.asarray(item_ids, dtype=np.int64))
            slots = [self._slots[item] for item in item_ids]
        places = np.asarray(slots, dtype=np.int64)
        self._used[places] = True
        return self._vectors.index_select(0, torch.from_numpy(places)), self._known[places]

    def warm(self, item_ids: Iterable[int]) -> None:
        """Fill with items, as many as there is room for."""
        room = self._capacity - self._filled
        self._insert(list(dict.fromkeys(item_ids))[:room])

    def cached(self, item_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which items are in the cache, (n,) bool."""
        return np.fromiter((item in self._slots for item in item_ids.tolist()), np.bool_)

    def replace(self, item_ids: NDArray[np.int64], vectors: Tensor) -> None:
        """Give items that are in the cache other vectors, (n, width); others are left out."""
        inside = self.cached(item_ids)
        places = [self._slots[item] for item in item_ids[inside].tolist()]
        self._vectors[torch.tensor(places, dtype=torch.int64)] = vectors[torch.from_numpy(inside)]

    def _load(self, item_ids: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.bool_]]:
        categories, known = self.table.categories(item_ids)
        return self._embed(item_ids, categories), known

    def _insert(self, missing: list[int]) -> None:
        """Load items in bulk and put them into free slots, or those of the least used."""
        if not missing:
            return
        ids = np.asarray(missing, dtype=np.int64)
        vectors, known = self._load(ids)  # first: if it fails, no slot was given away
        places = self._free(len(missing))
        self._vectors[torch.from_numpy(places)] = vectors
        self._ids[places], self._known[places], self._used[places] = ids, known, True
        self._slots.update(zip(missing, places.tolist(), strict=True))

    def _free(self, count: int) -> NDArray[np.int64]:
        """Slots to write to: new ones first, then what the hand takes; none of them twice."""
        fresh = np.arange(self._filled, min(self._filled + count, self._capacity))
        self._filled += len(fresh)
        needed = count - len(fresh)
        if not needed:
            return fresh
        given = np.zeros(self._capacity, dtype=np.bool_)
        given[fresh] = True
        taken: list[NDArray[np.int64]] = [fresh]
        while needed:
            stretch = np.arange(self._hand, min(self._hand + max(needed, 1024), self._capacity))
            victims = stretch[~(self._used[stretch] | given[stretch])][:needed]
            last = int(victims[-1]) if len(victims) == needed else int(stretch[-1])
            self._used[self._hand : last + 1] = False
            given[victims] = True
            for item in self._ids[victims].tolist():
                del self._slots[item]
            taken.append(victims)
            needed -= len(victims)
            self._hand = (last + 1) % self._capacity
        return np.concatenate(taken)
