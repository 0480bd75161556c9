"""Rankers that look at images: loaded with the item version of their bundle, and kept fresh.

| what | where | what happens |
|---|---|---|
| the current bundle | `bundles/<model>/CURRENT` | loaded with its vectors, then swapped as one |
| items | the newest file of `log/items` | categories of candidates |
| item versions | the store | a newer one of the bundle: its vectors take the old ones' place |
| new images | the store (`uic images add`) | vectors of items in the cache are read again |

A bundle without a ready item version is not swapped to; the old one stays, and its vectors too.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from feast import FeatureStore

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_store import ItemStore
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.loading import warm
from uic.jobs.serving.follow.watch import Followed
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.read.vector_source import VectorSource
from uic.jobs.serving.score.item_vectors import ItemVectors
from uic.jobs.serving.score.items import ItemTable, items_stamp
from uic.jobs.serving.score.sequences import SequenceReadout, SequenceReadouts, item_cache
from uic.models.bundles.bundle import Bundle, BundleError, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import UicError
from uic.models.rankers.dicm.dicm import Dicm
from uic.models.rankers.dicm.prerank import Prerank
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog

LOG = logging.getLogger("uic.serve")


def looks_at_images(bundle: Bundle) -> bool:
    """Whether a bundle's model needs to know which image an item shows."""
    model = bundle.model
    return isinstance(model, Dicm | Prerank) and model.settings.wants_images


@dataclass
class ImageRankers:
    """Loads rankers with their vectors.

    Args:
        shelf: of the workspace.
        store: Feast.
        items: item versions of the store.
        table: of items; categories.
        settings: of the service.
    """

    shelf: BundleShelf
    store: FeatureStore
    items: ItemStore
    table: ItemTable
    settings: ServeSettings

    def load(self, path: Path, *, vectors_needed: bool = False) -> SequenceReadout:
        """A ranker, warmed.

        Args:
            path: of its bundle.
            vectors_needed: refuse it while the store has no item version of it.

        Raises:
            UicError: no bundle, damaged, keeps a memory, or its vectors are needed and not there.
        """
        bundle = load_bundle(path)
        if bundle.has_memory:
            msg = f"{path}: model {bundle.name} keeps a memory; leave out --history-from"
            raise BundleError(msg)
        images = None
        if looks_at_images(bundle):
            images = self.vectors(bundle, self._version(bundle))
            if vectors_needed and images.source.version is None:
                msg = (
                    f"{path}: the store has no ready item version of {bundle.name}/"
                    f"{bundle.version}; run `uic images embed` and `uic images load`"
                )
                raise BundleError(msg)
        readout = SequenceReadout(
            bundle, item_cache(bundle, self.table), SequenceRing(), images=images
        )
        warm(readout)
        return readout

    def vectors(
        self, bundle: Bundle, version: int | None, like: ItemVectors | None = None
    ) -> ItemVectors:
        """Vectors of a bundle in an item version, the cache filled with the items of `like`."""
        breaker = CircuitBreaker(self.settings.breaker_failures, self.settings.breaker_open_seconds)
        timeout_seconds = 2 * self.settings.store_timeout_ms / 1000
        source = VectorSource(self.store, version, bundle.hash8, breaker, timeout_seconds)
        made = ItemVectors(bundle.model, source, self.settings.item_cache_items)
        known = self.table.item_ids if len(self.table.item_ids) else bundle.vocabulary.item.ids
        wanted = known if like is None or not len(like.cache) else like.cache.ids()
        if version is not None:
            # Before the cache is filled, so that nothing is added unnoticed meanwhile.
            with contextlib.suppress(StoreError):
                made.since = self.items.changes(version, None).last
            made.warm(wanted[: self.settings.item_cache_items])
        return made

    def _version(self, bundle: Bundle) -> int | None:
        try:
            found = self.items.version_of(bundle.hash8)
        except StoreError:
            return None
        return None if found is None else found.number


@dataclass
class ImageWatcher:
    """Keeps one worker's ranker and its vectors fresh.

    Args:
        engine: whose readouts are swapped.
        rankers: loads them.
        followed: bundle.
        log: the event log, for its item table.
        metrics: told the current bundle.
        swap_delay_seconds: from a change of CURRENT to the swap.
        every_seconds: between two looks.
    """

    engine: RankingEngine
    rankers: ImageRankers
    followed: Followed
    log: EventLog
    metrics: Metrics
    swap_delay_seconds: float
    every_seconds: float
    pending: str | None = None
    _said: str = ""
    _items: tuple[Path, int, int] | None = None

    def begin(self) -> None:
        """Remember what was loaded at start."""
        self._items = items_stamp(self.log)

    async def run(self) -> None:
        """Look until cancelled; an error is said once and the old state stays."""
        while True:
            await asyncio.sleep(self.every_seconds)
            try:
                await self.look()
                self._said = ""
            except (UicError, OSError) as error:
                if str(error) != self._said:
                    self._said = str(error)
                    LOG.error("nothing was swapped: %s", error)  # noqa: TRY400 - says it all

    async def look(self) -> None:
        """One look at everything."""
        await self._follow_items()
        await self._follow_pointer()
        current = self._current()
        if current.images is not None:
            await self._follow_version(current, current.images)

    async def _follow_items(self) -> None:
        stamp = items_stamp(self.log)
        if stamp == self._items:
            return
        self._items = stamp
        table = await asyncio.to_thread(ItemTable.load, stamp and stamp[0])
        self.rankers.table = table
        current = self._current()
        items = await asyncio.to_thread(item_cache, current.bundle, table)
        self._swap(current.with_items(items))
        LOG.info("item table %s", table.version)

    async def _follow_pointer(self) -> None:
        stamp = self.followed.stamp()
        current = self._current()
        if stamp is None or self.followed.pointer is None or stamp[1] == current.bundle.version:
            return
        replaced_ns, version = stamp
        self.pending = version
        try:
            path = self.followed.pointer.parent / version
            readout = await asyncio.to_thread(self.rankers.load, path, vectors_needed=True)
            await asyncio.sleep(max(0.0, replaced_ns / 1e9 + self.swap_delay_seconds - time.time()))
            self._swap(readout)
        finally:
            self.pending = None
        LOG.info("bundle %s is served now, %s was", readout.label, current.label)

    async def _follow_version(self, current: SequenceReadout, images: ItemVectors) -> None:
        items = self.rankers.items
        found = await asyncio.to_thread(items.version_of, current.bundle.hash8)
        number = None if found is None else found.number
        if number is None:
            return  # dropped, or the store is empty: what is cached is still right
        changes = None
        if number == images.source.version and images.since is not None:
            changes = await asyncio.to_thread(items.changes, number, images.since)
        if changes is None or changes.item_ids is None:
            made = await asyncio.to_thread(self.rankers.vectors, current.bundle, number, images)
            self._swap(current.with_images(made))
            LOG.info("item version %s of %s", number, current.label)
            return
        await images.follow(changes)

    def _swap(self, readout: SequenceReadout) -> None:
        self.engine.readouts = SequenceReadouts(readout)
        self.metrics.now_serving("bundles", readout.label)

    def _current(self) -> SequenceReadout:
        readouts = self.engine.readouts
        assert isinstance(readouts, SequenceReadouts)  # noqa: S101 - made with these
        return readouts.current
