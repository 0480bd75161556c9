"""The pre-rank's bundle, items and images: loaded at start, and kept fresh.

| what | where | what happens |
|---|---|---|
| the current bundle | `bundles/prerank/CURRENT` | loaded with all items' vectors, then swapped |
| items | the newest file of `log/items` | the same |
| item versions | the store | a newer one of the bundle: the same |
| new images | the store (`uic images add`) | the vectors of these items are made again |

Whatever is loaded anew is an object of its own, so that a request sees the old one or the new one.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from feast import FeatureStore

from uic.feature_repo.plugin.repository import apply_definitions
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.jobs.config.context import Context
from uic.jobs.serving.follow.image_watch import ImageRankers, looks_at_images
from uic.jobs.serving.follow.watch import Followed
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.read.store import MemoryReader, ServiceFeatures
from uic.jobs.serving.score.items import ItemTable, items_stamp
from uic.jobs.serving.score.prerank import PrerankScorer, PrerankStage
from uic.models.bundles.bundle import BundleError, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import UicError
from uic.pipelines.log.event_log import EventLog

LOG = logging.getLogger("uic.serve")


@dataclass
class PrerankLoader:
    """Loads bundles with the vectors of all items.

    Args:
        rankers: item versions, item table, settings.
        log: the event log, for its item table.
        loaded: the file of the item table that was loaded last, see `items_stamp`.
    """

    rankers: ImageRankers
    log: EventLog
    loaded: tuple[Path, int, int] | None = None

    def load(self, path: Path, *, vectors_needed: bool = False) -> PrerankScorer:
        """A bundle with all vectors, from files and the store of this moment.

        Args:
            path: of the bundle.
            vectors_needed: refuse it while the store has no item version of it.

        Raises:
            UicError: no bundle, damaged, of another model, or its vectors are needed and not there.
        """
        self.loaded = items_stamp(self.log)
        rankers = self.rankers
        rankers.table = ItemTable.load(self.loaded and self.loaded[0])
        bundle = load_bundle(path)
        images = None
        if looks_at_images(bundle):
            version = None
            with contextlib.suppress(StoreError):
                version = rankers.items.version_of(bundle.hash8)
            if vectors_needed and version is None:
                msg = (
                    f"{path}: the store has no ready item version of {bundle.name}/"
                    f"{bundle.version}; run `uic images embed` and `uic images load`"
                )
                raise BundleError(msg)
            images = rankers.vectors(bundle, None if version is None else version.number)
        return PrerankScorer(bundle, rankers.table, images)


@dataclass
class PrerankWatcher:
    """The pre-rank of one worker, kept fresh.

    Args:
        loader: of bundles and items.
        followed: bundle.
        stage: whose scorer is swapped.
    """

    loader: PrerankLoader
    followed: Followed
    stage: PrerankStage
    _said: str = ""

    @classmethod
    def open(
        cls,
        context: Context,
        reference: str,
        store: FeatureStore,
        items: ItemStore,
        metrics: Metrics,
    ) -> "PrerankWatcher":
        """Load everything; the store may be away if the registry has the definitions.

        Args:
            context: workspace and settings.
            reference: `prerank`, `prerank/version`, or a path.
            store: Feast, on this workspace.
            items: item versions of the store.
            metrics: of this process.

        Raises:
            UicError: no such bundle, damaged, or of another model.
        """
        settings = context.config.serve
        log = EventLog(context.log)
        shelf = BundleShelf(context.bundles)
        rankers = ImageRankers(shelf, store, items, ItemTable.load(None), settings)
        loader = PrerankLoader(rankers, log)
        followed = Followed.of(rankers, reference)
        _define(context, store)
        scorer = loader.load(followed.path)
        features = ServiceFeatures.of(store, SEQUENCE_SERVICE, SEQUENCE_VIEW)
        breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_seconds)
        reader = MemoryReader(store, features, breaker, 2 * settings.store_timeout_ms / 1000)
        return cls(loader, followed, PrerankStage(scorer, reader, metrics, settings.prerank_keep))

    @property
    def label(self) -> str:
        """`model/version` that is served."""
        return self.stage.scorer.label

    async def run(self) -> None:
        """Look until cancelled; an error is said once and the old state stays."""
        while True:
            await asyncio.sleep(self.loader.rankers.settings.watch_seconds)
            try:
                await self.look()
                self._said = ""
            except (UicError, OSError) as error:
                if str(error) != self._said:
                    self._said = str(error)
                    LOG.error("the pre-rank stays as it is: %s", error)  # noqa: TRY400 - says it all

    async def look(self) -> None:
        """One look at everything."""
        current = self.stage.scorer
        stamp = self.followed.stamp()
        path, due = current.bundle.path, 0.0
        if stamp is not None and self.followed.pointer is not None:
            path = self.followed.pointer.parent / stamp[1]
            due = stamp[0] / 1e9 + self.loader.rankers.settings.swap_delay_seconds
        other = path.name != current.bundle.version
        loader = self.loader
        new_items = items_stamp(loader.log) != loader.loaded
        if other or new_items or await self._other_images(current):
            scorer = await asyncio.to_thread(loader.load, path, vectors_needed=other)
            if other:
                await asyncio.sleep(max(0.0, due - time.time()))
            self.stage.scorer = scorer
            LOG.info("pre-rank %s of %d items", scorer.label, len(scorer.table.item_ids))

    async def _other_images(self, current: PrerankScorer) -> bool:
        """Whether all vectors must be made again; those of some items are made again here."""
        images, items = current.images, self.loader.rankers.items
        if images is None:
            return False
        found = await asyncio.to_thread(items.version_of, current.bundle.hash8)
        if found is None:
            return False  # dropped, or the store is empty: what is there is still right
        if found.number != images.source.version or images.since is None:
            return True
        if Reason.ITEM_VECTORS_UNAVAILABLE in current.flaws:
            return True
        changes = await asyncio.to_thread(items.changes, found.number, images.since)
        if changes.item_ids is None:
            return True
        await images.follow(changes)
        if len(changes.item_ids):
            current.renew(changes.item_ids)
        return False


def _define(context: Context, store: FeatureStore) -> None:
    """Put the views that are read into the registry, if it has them not."""
    if SEQUENCE_SERVICE not in {service.name for service in store.list_feature_services()}:
        apply_sequences(store, context.workspace)
    if ITEM_VIEW not in {view.name for view in store.list_feature_views()}:
        apply_definitions(store, context.workspace)
    store.refresh_registry()
