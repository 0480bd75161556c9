"""Precomputed image vectors of items, for a ranker that looks at images (DICM, section 6.1).

The vectors of one bundle in one item version, read through Feast pinned to that version and kept
in a bounded cache. A scorer names what a request needs before it scores (`vectors_needed`); what
the cache lacks is read from the store while the event loop goes on; the scores are then a function
of what was read. A vector that names another bundle is not used, and the answer says so. An item
without an image has the default vector of the bundle, which it learned.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_store import Changes
from uic.feature_repo.store.item_vectors import (
    HEADER_BYTES,
    ITEM_VECTOR,
    ITEM_VIEW,
    item_vector_headers,
    unpacked_item_vectors,
)
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.vector_source import VectorSource
from uic.jobs.serving.score.items import CachedRows, RowCache
from uic.models.rankers.dicm.batch_images import PrecomputedImages
from uic.models.rankers.dicm.image_ranker import ImageRanker

_NO_IMAGE, _IMAGE, _FOREIGN = 0, 1, 2
_WARM_AT_ONCE: Final = 10_000
# Once, and again for images that were added meanwhile; a store that changes all the time is enough.
_READS: Final = 3


@dataclass(frozen=True)
class ReadImages:
    """What was read for a pass.

    Attributes:
        images: of the items that show one.
        reasons: what was not as it should be.
    """

    images: PrecomputedImages
    reasons: tuple[DegradedReason, ...] = ()


# For a model that looks at none.
NO_IMAGES: Final = ReadImages(
    PrecomputedImages(np.zeros(0, np.int64), torch.zeros(0, 0), np.zeros(0, np.int64))
)


class ItemVectors:
    """Vectors of items' images, from the cache and from the store.

    Args:
        model: whose image embedding made the vectors; they have no numbers if it has none, and
            say which image an item shows.
        source: where they are.
        capacity: of the cache; items.
    """

    def __init__(self, model: ImageRanker, source: VectorSource, capacity: int) -> None:
        embedding = model.image_embedding
        self.source = source
        self.width = 0 if embedding is None else embedding.width
        self.since: str | None = None  # the last change of the version that the cache has
        self._image_ids = model.image_ids
        self._changes = 0
        row = [("vector", np.float32, (self.width,)), ("id_row", np.int64), ("kind", np.uint8)]
        self.cache = RowCache(np.dtype(row, align=True), capacity)

    def warm(self, item_ids: NDArray[np.int64]) -> None:
        """Fill the cache with distinct items; a store that is away leaves it as it is."""
        for at in range(0, len(item_ids), _WARM_AT_ONCE):
            part = item_ids[at : at + _WARM_AT_ONCE][: self.cache.room]
            try:
                self.cache.put(part, self._fetch(part))
            except StoreError:
                return

    async def read(self, item_ids: NDArray[np.int64]) -> ReadImages:
        """Images of items; what the cache lacks does not hold up the loop.

        Args:
            item_ids: (n,), distinct, ascending.
        """
        cached = self.cache.find(item_ids.tolist())
        for _ in range(_READS if len(cached.missing) else 0):
            before = self._changes
            try:
                rows = self._unpacked(await self.source.read_async(cached.missing))
            except StoreError:
                return self._images(item_ids, cached, failed=True)
            if self._changes == before:  # else what was announced meanwhile is read again
                self._keep(cached, rows)
                return self._images(item_ids, cached)
        return self._images(item_ids, cached, failed=len(cached.missing) > 0)

    def read_now(self, item_ids: NDArray[np.int64]) -> ReadImages:
        """As `read`, holding up the caller: before the scorer is in use, or in a thread."""
        cached = self.cache.find(item_ids.tolist())
        if len(cached.missing):
            try:
                self._keep(cached, self._fetch(cached.missing))
            except StoreError:
                return self._images(item_ids, cached, failed=True)
        return self._images(item_ids, cached)

    async def follow(self, changes: Changes) -> None:
        """Read vectors again that were added to the version, where the cache has them."""
        if changes.item_ids is None:
            msg = "changes were missed; all vectors must be read again"
            raise ValueError(msg)
        if len(changes.item_ids):
            self._changes += 1  # before the read: an answer on its way may hold older ones
            inside = changes.item_ids[self.cache.cached(changes.item_ids)]
            if len(inside):
                self.cache.put(inside, await asyncio.to_thread(self._fetch, inside))
        self.since = changes.last

    def _keep(self, cached: CachedRows, rows: NDArray[np.void]) -> None:
        self.cache.put(cached.missing, rows)
        cached.fill(rows)

    def _images(
        self, item_ids: NDArray[np.int64], cached: CachedRows, *, failed: bool = False
    ) -> ReadImages:
        kinds = cached.rows["kind"]
        rows = cached.rows[kinds == _IMAGE]
        images = PrecomputedImages(
            item_ids[kinds == _IMAGE],
            torch.from_numpy(np.ascontiguousarray(rows["vector"])),
            np.ascontiguousarray(rows["id_row"]),
        )
        return ReadImages(images, tuple(self._reasons(kinds, failed=failed)))

    def _reasons(self, kinds: NDArray[np.uint8], *, failed: bool) -> Iterator[DegradedReason]:
        if self.source.version is None:
            yield DegradedReason.NO_ITEM_VERSION
        if failed:
            yield DegradedReason.ITEM_VECTORS_UNAVAILABLE
        if (kinds == _FOREIGN).any():
            yield DegradedReason.FOREIGN_ITEM_VECTOR

    def _fetch(self, item_ids: NDArray[np.int64]) -> NDArray[np.void]:
        """Rows of items from the store, (n,).

        Raises:
            StoreError: it does not answer.
        """
        return self._unpacked(self.source.read(item_ids))

    def _unpacked(self, values: list[bytes]) -> NDArray[np.void]:
        """Rows of packed vectors, (n,); empty ones are those of items without an image."""
        rows = np.zeros(len(values), dtype=self.cache.dtype)
        rows["kind"] = [_FOREIGN if value else _NO_IMAGE for value in values]
        expected = HEADER_BYTES + 4 * self.width
        usable = [
            at
            for at, value in enumerate(values)
            if len(value) == expected and value.startswith(ITEM_VECTOR.start)
        ]
        if usable:
            joined = np.frombuffer(b"".join(values[at] for at in usable), np.uint8)
            packed = joined.reshape(len(usable), expected)
            ours = item_vector_headers(packed)["bundle"] == np.void(self.source.bundle)
            packed, places = packed[ours], np.asarray(usable)[ours]
            rows["vector"][places] = unpacked_item_vectors(packed, ITEM_VIEW)
            rows["id_row"][places] = self._id_rows(item_vector_headers(packed)["image"])
            rows["kind"][places] = _IMAGE
        return rows

    def _id_rows(self, images: NDArray[np.void]) -> NDArray[np.int64]:
        if self._image_ids is None:
            return np.zeros(len(images), dtype=np.int64)
        # 60 of the 64 bits, as `ImageIdTable.know` takes 15 hex digits.
        contents = np.frombuffer(images.tobytes(), dtype=">u8") >> np.uint64(4)
        return self._image_ids.hashed(contents.astype(np.int64))
