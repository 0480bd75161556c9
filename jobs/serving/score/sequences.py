"""The other architecture: interest is computed in the request, from the stored last events.

`uic serve --model din --history-from log` runs it, so that the gain of memories can be measured on
one machine, one store and one HTTP stack. `SequenceReadout` runs a trained ranker over candidates
and histories; `uic.jobs.stream.fold.sequence_fill` puts what the event log has into the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.feature_repo.store.layout import NO_GENERATION
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.score.item_vectors import ItemVectors
from uic.jobs.serving.score.items import ItemCache, ItemTable
from uic.jobs.serving.score.readouts import Ask, RecordFacts, Scored
from uic.models.bundles.bundle import Bundle
from uic.models.records.sequence_ring import RING_HEADER, SequenceRing, Sequences
from uic.models.samples.batch import RankerBatch
from uic.models.samples.groups import GroupBatch, offsets_of

_NO_DAY: Final = np.datetime64("1970-01-01", "D")


@dataclass(frozen=True)
class Shown:
    """Candidates of some users, user after user.

    Attributes:
        user_ids: (users,), int64.
        sizes: (users,), candidates of each.
        item_ids: (candidates,), int64.
        category_ids: (candidates,), int64.
        moments_ms: (candidates,), when they are shown; milliseconds since 1970 UTC.
    """

    user_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    moments_ms: NDArray[np.int64]


class SequenceReadout:
    """A bundle of a ranker that reads histories.

    Args:
        bundle: of any model without a memory.
        items: its table gives candidates their categories; vectors are not taken from it, since
            the model embeds candidates and events together.
        ring: format of the stored sequences.
        limit: events of a history that are read; None for all that a ring keeps.
        images: vectors of items' images, for a model that looks at them.
    """

    def __init__(
        self,
        bundle: Bundle,
        items: ItemCache,
        ring: SequenceRing,
        limit: int | None = None,
        images: ItemVectors | None = None,
    ) -> None:
        if images is not None:
            images.serve(bundle.model)
        self.bundle = bundle
        self.images = images
        self.items = items
        self.label = f"{bundle.name}/{bundle.version}"
        self._ring = ring
        self._limit = limit
        self._nobody = ring.empty(1)

    def understands(self, record: bytes) -> bool:
        """Whether a value is a ring of this capacity."""
        return self._ring.holds(record)

    def score(self, asks: Sequence[Ask]) -> list[Scored]:
        """One forward pass over the candidates and histories of some users."""
        item_ids = np.array([item for ask in asks for item in ask.item_ids], dtype=np.int64)
        sizes = np.array([len(ask.item_ids) for ask in asks])
        categories, known = self.items.table.categories(item_ids)
        if self.images is not None:
            self.images.begin()
        moments = np.repeat([ask.moment_ms for ask in asks], sizes)
        users = np.array([ask.user_id for ask in asks])
        shown = Shown(users, sizes, item_ids, categories, moments)
        logits = self._logits(self._rings(asks), shown)
        reasons, without_image = self._of_images()
        nobody = None
        if any(ask.explain for ask in asks):
            everybody = np.array([len(item_ids)])
            strangers = Shown(np.zeros(1, np.int64), everybody, item_ids, categories, moments)
            nobody = self._logits(self._nobody, strangers)
        answers = []
        ends = np.cumsum(sizes)
        for ask, first, last in zip(asks, ends - sizes, ends, strict=True):
            rows = slice(first, last)
            without = nobody[rows] if nobody is not None and ask.explain else None
            answers.append(
                Scored(logits[rows], known[rows], self.label, without, None, reasons, without_image)
            )
            without_image = 0  # of the whole pass, counted once
        return answers

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `score`; vectors of images that the cache lacks do not hold up the loop."""
        if self.images is None:
            return self.score(asks)
        return await self.images.answer(lambda: self.score(asks))

    def with_images(self, images: ItemVectors) -> "SequenceReadout":
        """The same bundle with other vectors of images."""
        return SequenceReadout(self.bundle, self.items, self._ring, self._limit, images)

    def with_items(self, items: ItemCache) -> "SequenceReadout":
        """The same bundle with another item table."""
        return SequenceReadout(self.bundle, items, self._ring, self._limit, self.images)

    def _of_images(self) -> tuple[tuple[Reason, ...], int]:
        """What the last pass says of images: reasons, and how many were the default one."""
        if self.images is None:
            return (), 0
        return self.images.reasons(), self.images.counts.missing

    def _rings(self, asks: Sequence[Ask]) -> NDArray[np.uint8]:
        nobody = self._nobody.tobytes()
        joined = bytearray().join(ask.record or nobody for ask in asks)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(asks), self._ring.ring_bytes)

    @torch.inference_mode()
    def _logits(self, rings: NDArray[np.uint8], shown: Shown) -> NDArray[np.float32]:
        batch = ranker_batch(self.bundle, self._ring.read(rings, self._limit), shown)
        logits: NDArray[np.float32] = self.bundle.model(batch).numpy()
        return logits


def ranker_batch(bundle: Bundle, history: Sequences, shown: Shown) -> RankerBatch:
    """A request as a ranker takes it; rows are looked up once, and not searched for repeats.

    Args:
        bundle: whose vocabulary.
        history: of the users.
        shown: their candidates.
    """
    counts = np.diff(history.offsets)
    events = len(history.item_ids)
    vocabulary = bundle.vocabulary
    items = vocabulary.item.lookup(np.concatenate([history.item_ids, shown.item_ids]))
    kinds = vocabulary.category.lookup(np.concatenate([history.category_ids, shown.category_ids]))
    users = np.arange(len(shown.sizes))
    owners = np.repeat(users, shown.sizes)
    lengths = counts[owners]
    source = GroupBatch(
        user_ids=shown.user_ids,
        days=np.full(len(users), _NO_DAY),
        history_offsets=history.offsets,
        history_item_ids=history.item_ids,
        history_category_ids=history.category_ids,
        history_behaviors=history.behaviors,
        history_times_ms=history.event_times_ms,
        impression_offsets=offsets_of(shown.sizes),
        item_ids=shown.item_ids,
        category_ids=shown.category_ids,
        event_times_ms=shown.moments_ms,
        labels=np.zeros(len(shown.item_ids), np.bool_),
        history_lengths=lengths,
    )
    places = torch.arange(events + len(shown.item_ids))
    return RankerBatch(
        items=_tensor(items),
        categories=_tensor(kinds),
        history_items=places[:events],
        history_categories=places[:events],
        history_starts=_tensor(history.offsets[:-1]),
        history_counts=_tensor(counts),
        candidate_items=places[events:],
        candidate_categories=places[events:],
        groups=_tensor(owners),
        lengths=_tensor(lengths),
        cut_groups=_tensor(users),
        cut_lengths=_tensor(counts),
        cuts=_tensor(owners),
        labels=torch.zeros(len(shown.item_ids)),
        source=source,
    )


def _tensor(values: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


@dataclass(frozen=True)
class SequenceReadouts:
    """The one readout of an architecture without generations."""

    current: SequenceReadout

    def choose(self, record: bytes) -> SequenceReadout | None:
        """The readout, if the value is a ring of its capacity."""
        return self.current if self.current.understands(record) else None

    def all(self) -> list[SequenceReadout]:
        """The readout."""
        return [self.current]

    def facts(self, record: bytes) -> RecordFacts:
        """Position and events of a ring; it has neither a generation nor a bundle."""
        header = np.frombuffer(record, dtype=RING_HEADER, count=1)[0]
        ring = SequenceRing(int(header["capacity"]))
        last = ring.read(np.frombuffer(record, dtype=np.uint8).reshape(1, -1), limit=1)
        return RecordFacts(
            generation=NO_GENERATION,
            events=int(header["appended"]),
            last_event_time_ms=int(last.event_times_ms[-1]) if len(last.event_times_ms) else 0,
            bundle="",
            epoch=int(header["epoch"]),
            partition=int(header["partition"]),
            offset=int(header["offset"]),
        )


def item_cache(bundle: Bundle, table: ItemTable) -> ItemCache:
    """A cache that only carries the item table and names some items to warm with."""
    cache = ItemCache(table, bundle.embed, 1024)
    cache.warm(bundle.vocabulary.item.ids[:1024].tolist())
    return cache
