"""Precomputed image vectors of items, for a ranker that looks at images (DICM, section 6.1).

The vectors of one bundle in one item version, read through Feast pinned to that version and kept
in a bounded cache. A ranker and its vectors are one object and are swapped as one, so a request
never sees vectors of two bundles; a vector that says another bundle is not used, and the answer
says so. An item without an image has the default vector of the bundle, which it learned.

A request must not hold up the event loop for what the cache lacks (`ItemVectors.answer`):

1. Score with the cache; items that it lacks are noted, and the result is thrown away.
2. Read them without holding up the loop.
3. Score again, with what was read; it goes into the cache. Mostly, nothing was noted in step 1.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_store import Changes
from uic.feature_repo.store.item_vectors import (
    HEADER_BYTES,
    ITEM_VECTOR,
    ITEM_VIEW,
    unpacked_item_vectors,
)
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.read.vector_source import VectorSource
from uic.jobs.serving.score.items import ItemCache, ItemTable
from uic.models.images.features import NO_IMAGE
from uic.models.rankers.dicm.batch_images import ImageCounts
from uic.models.rankers.dicm.dicm import Dicm
from uic.models.rankers.dicm.prerank import Prerank

# A row of the cache: the vector, whether there is an image, whether a foreign one was met, and the
# image's row in the table of image ids as two numbers that float32 holds exactly.
_FLAGS: Final = 4
_BUNDLE: Final = slice(16, 24)
_IMAGE: Final = slice(24, 32)
_HALF: Final = 1 << 20
_WARM_AT_ONCE: Final = 10_000
# Once for what is missing, once for everything if the cache is too small, once for a change.
_READS: Final = 3
Answer = TypeVar("Answer")


class _NotReadError(Exception):
    """The cache lacks items that nobody has read yet."""


@dataclass
class _Reads:
    """What one answer needed beside the cache.

    Attributes:
        missing: items that were noted in the last try.
        rows: what was read, by item.
        failed: the store did not answer, so whatever is missing stays so.
    """

    missing: set[int] = field(default_factory=set)
    rows: dict[int, Tensor] = field(default_factory=dict)
    failed: bool = False


class ItemVectors:
    """What a DICM ranker asks for images, answered from the cache.

    It stands in for `ImageFeatures` (which image an item shows) and for `ImageVectors` (what an
    image's vector is): here every item with an image is an image of its own.

    Args:
        model: whose image embedding made the vectors; they have no numbers if it has none, and
            say which image an item shows.
        source: where they are.
        capacity: of the cache; items.
    """

    def __init__(self, model: Dicm | Prerank, source: VectorSource, capacity: int) -> None:
        embedding = model.image_embedding
        self.source = source
        self.width = 0 if embedding is None else embedding.width
        self.counts = ImageCounts()
        self._image_ids = model.image_ids
        # Asks for item 0 at once, to see how wide a row is.
        self._reads: _Reads | None = None  # of the answer that is being scored
        self._changes = 0
        self.cache = ItemCache(ItemTable.load(None), lambda ids, _: self._wanted(ids), capacity)
        self.since: str | None = None  # the last change of the version that the cache has
        self._table: list[Tensor] = []
        self._rows = 0
        self._failed = self._foreign = False

    def fetch(self, item_ids: NDArray[np.int64]) -> Tensor:
        """Rows of the cache for items, from the store: (n, width + 4), float32.

        Raises:
            StoreError: it does not answer.
        """
        return self._unpacked(self.source.read(item_ids))

    def _unpacked(self, values: list[bytes]) -> Tensor:
        """Rows of the cache for packed vectors."""
        table = np.zeros((len(values), self.width + _FLAGS), dtype=np.float32)
        expected = HEADER_BYTES + 4 * self.width
        usable = [
            at
            for at, value in enumerate(values)
            if len(value) == expected and value.startswith(ITEM_VECTOR.start)
        ]
        foreign = {at for at, value in enumerate(values) if value} - set(usable)
        if usable:
            packed = np.frombuffer(b"".join(values[at] for at in usable), np.uint8)
            packed = packed.reshape(len(usable), expected)
            places = np.asarray(usable)
            bundle = np.frombuffer(self.source.bundle, np.uint8)
            ours = (packed[:, _BUNDLE] == bundle).all(axis=1)
            foreign |= set(places[~ours].tolist())
            places = places[ours]
            table[places, : self.width] = unpacked_item_vectors(packed[ours], ITEM_VIEW)
            table[places, self.width] = 1
            hashed = self._hashed(packed[ours][:, _IMAGE])
            table[places, self.width + 2] = hashed // _HALF
            table[places, self.width + 3] = hashed % _HALF
        table[sorted(foreign), self.width + 1] = 1
        return torch.from_numpy(table)

    def warm(
        self, item_ids: NDArray[np.int64], progress: Callable[[int], None] | None = None
    ) -> None:
        """Fill the cache; a store that is away leaves it as it is."""
        for at in range(0, len(item_ids), _WARM_AT_ONCE):
            try:
                self.cache.warm(item_ids[at : at + _WARM_AT_ONCE].tolist())
            except StoreError:
                return
            if progress is not None:
                progress(at)

    async def answer(self, score: Callable[[], Answer]) -> Answer:
        """What `score` returns, with what the cache lacks read without holding up the loop.

        Args:
            score: a forward pass over this model; may be called several times.
        """
        reads = _Reads()
        for _ in range(_READS):
            answer = self._noting(reads, score)  # steps 1 and 3
            if not reads.missing:
                return answer
            await self._read(reads)  # step 2
        reads.failed = True
        return self._noting(reads, score)

    async def follow(self, changes: Changes) -> None:
        """Read vectors again that were added to the version, where the cache has them."""
        if changes.item_ids is None:
            msg = "changes were missed; all vectors must be read again"
            raise ValueError(msg)
        if len(changes.item_ids):
            self._changes += 1  # before the read: an answer on its way may hold older ones
            inside = changes.item_ids[self.cache.cached(changes.item_ids)]
            if len(inside):
                self.cache.replace(inside, await asyncio.to_thread(self.fetch, inside))
        self.since = changes.last

    def _noting(self, reads: _Reads, score: Callable[[], Answer]) -> Answer:
        self._reads, reads.missing = reads, set()
        try:
            return score()
        finally:
            self._reads = None

    async def _read(self, reads: _Reads) -> None:
        """Step 2; what was announced meanwhile is read in another try."""
        ids = np.array(sorted(reads.missing), dtype=np.int64)
        before = self._changes
        try:
            rows = self._unpacked(await self.source.read_async(ids))
        except StoreError:
            reads.failed = True
            return
        if self._changes == before:
            reads.rows |= dict(zip(ids.tolist(), rows, strict=True))
        else:
            reads.rows.clear()

    def _wanted(self, item_ids: NDArray[np.int64]) -> Tensor:
        """What the cache asks for: from the store, or in an answer from what was read for it."""
        reads = self._reads
        if reads is None:
            return self.fetch(item_ids)
        if reads.failed:
            msg = "the store did not answer in this request"
            raise StoreError(msg)
        wanted = item_ids.tolist()
        missing = [item for item in wanted if item not in reads.rows]
        if missing:
            reads.missing.update(missing)
            raise _NotReadError
        return torch.stack([reads.rows[item] for item in wanted])

    def serve(self, model: Dicm | Prerank) -> None:
        """Be what the model asks for images from now on."""
        model.features = model.vectors = self

    # What the model asks for

    def rows_of(self, item_ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int32]:
        """See `ImageFeatures.rows_of`; rows of the table of this pass."""
        ids = np.asarray(item_ids, dtype=np.int64)
        distinct, places = np.unique(ids, return_inverse=True)
        found = self._lookup(distinct)
        has_image = found[:, self.width].numpy() > 0
        self._foreign |= bool((found[:, self.width + 1] > 0).any())
        rows = np.full(len(distinct), NO_IMAGE, dtype=np.int32)
        rows[has_image] = self._rows + np.arange(np.count_nonzero(has_image), dtype=np.int32)
        self._table.append(found[torch.from_numpy(has_image)])
        self._rows += int(np.count_nonzero(has_image))
        if self._image_ids is not None:
            table = torch.cat(self._table)[:, self.width + 2 :].numpy().astype(np.int64)
            self._image_ids.know_rows(table[:, 0] * _HALF + table[:, 1])
        shown: NDArray[np.int32] = rows[places]
        return shown

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """See `ImageVectors`: (distinct, width)."""
        table = torch.cat(self._table)[:, : self.width]
        return table.index_select(0, torch.from_numpy(np.ascontiguousarray(rows)))

    def begin(self) -> None:
        """Before a pass: nothing is asked for yet."""
        self._table, self._rows = [], 0
        self.counts = ImageCounts()
        self._failed = self._foreign = False

    def reasons(self) -> tuple[Reason, ...]:
        """After a pass: what was not as it should be."""
        found = []
        if self.source.version is None:
            found.append(Reason.NO_ITEM_VERSION)
        if self._failed or (self._reads is not None and self._reads.missing):
            found.append(Reason.ITEM_VECTORS_UNAVAILABLE)
        if self._foreign:
            found.append(Reason.FOREIGN_ITEM_VECTOR)
        return tuple(found)

    def _lookup(self, distinct: NDArray[np.int64]) -> Tensor:
        """Rows of the cache; those that are missing while the store is away have no image."""
        try:
            return self.cache.lookup(distinct.tolist())[0]
        except _NotReadError:
            pass  # this try is thrown away
        except StoreError:
            self._failed = True
        there = self.cache.cached(distinct)
        table = torch.zeros(len(distinct), self.width + _FLAGS)
        if there.any():
            table[torch.from_numpy(there)] = self.cache.lookup(distinct[there].tolist())[0]
        return table

    def _hashed(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        if self._image_ids is None:
            return np.zeros(len(images), dtype=np.int64)
        # 60 of the 64 bits, as `ImageIdTable.know` takes 15 hex digits.
        contents = np.frombuffer(images.tobytes(), dtype=">u8") >> np.uint64(4)
        return self._image_ids.hashed(contents.astype(np.int64))
