"""One worker of the service: everything it holds, from opening to closing."""

import asyncio
import contextlib
import gc
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from feast import FeatureStore

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.context import Context
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.image_watch import ImageRankers, ImageWatcher
from uic.jobs.serving.follow.loading import Library, pass_rows_of, warm
from uic.jobs.serving.follow.prerank_watch import PrerankWatcher
from uic.jobs.serving.follow.watch import Followed, Watcher
from uic.jobs.serving.http.feature_log import FeatureLog
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.read.store import MemoryReader, ServiceFeatures
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.readouts import Readouts
from uic.jobs.serving.score.sequences import SequenceReadouts
from uic.models.bundles.shelf import BundleShelf
from uic.pipelines.log.event_log import EventLog

LOG = logging.getLogger("uic.serve")
# The watcher is not in a hurry, but must not hang.
_WATCH_TIMEOUT_SECONDS: Final = 2.0


@dataclass
class Service:
    """A worker.

    Args:
        settings: of the service.
        engine: ranks.
        watcher: keeps bundles and items fresh; None where nothing is followed.
        metrics: counters.
        store: Feast.
        feature_log: None unless switched on.
        draining: set by SIGTERM: not ready any more, but answering.
        prerank: the stage before ranking; None unless a bundle was named for it.
    """

    settings: ServeSettings
    engine: RankingEngine
    watcher: Watcher | ImageWatcher | None
    metrics: Metrics
    store: FeatureStore
    feature_log: FeatureLog | None
    draining: bool = False
    prerank: PrerankWatcher | None = None
    _watching: list["asyncio.Task[None]"] = field(default_factory=list, repr=False)

    @classmethod
    def open(cls, context: Context, bundle: str, metrics: Metrics) -> "Service":
        """Load and warm everything; the store may be away, the bundle may not.

        Args:
            context: workspace and settings.
            bundle: `model`, `model/version`, or a path.
            metrics: of this process.

        Raises:
            UicError: no such bundle, it is damaged or for another feature service, or Feast's
                registry is empty and the store that it is made with does not answer.
        """
        torch.set_num_threads(1)
        settings = context.config.serve
        log = EventLog(context.log)
        library = Library(
            BundleShelf(context.bundles),
            settings.item_cache_items,
            ItemTable.load(log.items_file()),
        )
        followed = Followed.of(library, bundle)
        current = library.load(followed.path)
        store, features = open_features(context, current.bundle.manifest)
        generations = _generations(context.config.store, context.workspace)
        readouts = Readouts(current)
        with contextlib.suppress(StoreError):
            readouts = library.readouts(current, generations.all(), None)
        engine = _engine(settings, store, features, readouts, metrics)
        watcher = Watcher(
            engine=engine,
            library=library,
            followed=followed,
            generations=generations,
            store=store,
            log=log,
            metrics=metrics,
            swap_delay_seconds=settings.swap_delay_seconds,
            every_seconds=settings.watch_seconds,
        )
        watcher.begin()
        metrics.now_serving("bundles", current.label)
        return cls(settings, engine, watcher, metrics, store, _feature_log(context))

    @classmethod
    def open_sequences(cls, context: Context, bundle: str, metrics: Metrics) -> "Service":
        """As `open`, for a ranker that reads a stored history, and maybe images of items.

        Raises:
            UicError: no such bundle, it is damaged or keeps a memory, or the store does not answer.
        """
        torch.set_num_threads(1)
        settings = context.config.serve
        log = EventLog(context.log)
        store = _feast(context)
        apply_sequences(store, context.workspace)
        store.refresh_registry()
        features = ServiceFeatures.of(store, SEQUENCE_SERVICE, SEQUENCE_VIEW)
        rankers = ImageRankers(
            BundleShelf(context.bundles),
            store,
            _item_store(context.config.store, context.workspace),
            ItemTable.load(log.items_file()),
            settings,
        )
        followed = Followed.of(rankers, bundle)
        if ITEM_VIEW not in {view.name for view in store.list_feature_views()}:
            apply_definitions(store, context.workspace)
            store.refresh_registry()
        current = rankers.load(followed.path)
        engine = _engine(settings, store, features, SequenceReadouts(current), metrics)
        watcher = ImageWatcher(
            engine=engine,
            rankers=rankers,
            followed=followed,
            log=log,
            metrics=metrics,
            swap_delay_seconds=settings.swap_delay_seconds,
            every_seconds=settings.watch_seconds,
        )
        watcher.begin()
        metrics.now_serving("bundles", current.label)
        return cls(settings, engine, watcher, metrics, store, _feature_log(context))

    def add_prerank(self, context: Context, bundle: str) -> None:
        """Load the pre-rank beside the ranker.

        Raises:
            UicError: no such bundle, it is damaged or has no two towers, or the registry lacks
                its views and the store does not answer.
        """
        items = _item_store(context.config.store, context.workspace)
        self.prerank = PrerankWatcher.open(context, bundle, self.store, items, self.metrics)

    async def start(self) -> None:
        """Begin to watch; the first read opens the connection to the store."""
        await self.engine.reader.fetch([0])
        # What is alive now stays: collections look at a request's own garbage only.
        gc.collect()
        gc.freeze()
        for watcher in (self.watcher, self.prerank):
            if watcher is not None:
                self._watching.append(asyncio.create_task(watcher.run()))

    async def stop(self) -> None:
        """Close connections and write what is left to write."""
        for watching in self._watching:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        if self.feature_log is not None:
            await asyncio.to_thread(self.feature_log.close)
        provider: Any = self.store._get_provider()  # noqa: SLF001 - Feast's own way to its store
        await provider.online_store.close()

    def status(self) -> dict[str, Any]:
        """What /readyz says."""
        readouts: Any = self.engine.readouts
        current = readouts.current
        images = getattr(current, "images", None)
        breaker = getattr(self.engine.reader, "breaker", None)
        return {
            "ready": not self.draining,
            "bundle": current.label,
            "bundle_hash": current.bundle.hash8.hex(),
            "pending": None if self.watcher is None else self.watcher.pending,
            "reads_also": sorted(other.label for other in readouts.all()[1:]),
            "items": current.items.table.version,
            "item_version": None if images is None else images.source.version,
            "store": "circuit open" if breaker is not None and breaker.is_open else "answers",
            "prerank": None if self.prerank is None else self.prerank.label,
            "pass_candidates": self.engine.pass_rows,
            "worker": os.getpid(),
            "now": round(time.time(), 3),
        }


def open_features(
    context: Context, manifest: dict[str, Any]
) -> tuple[FeatureStore, ServiceFeatures]:
    """Feast on the workspace, and the features of the bundle's feature service.

    Raises:
        UicError: the registry has no such service, even after the definitions were applied.
    """
    store = _feast(context)
    name = manifest.get("feature_service", context.config.serve.feature_service)
    if name not in {service.name for service in store.list_feature_services()}:
        # A new workspace, or one of an older version; the store must be there for it.
        patient = open_feature_store(context.config.store, context.workspace)
        apply_definitions(patient, context.workspace)
        store.refresh_registry()
    return store, ServiceFeatures.of(store, name)


def _item_store(settings: StoreSettings, workspace: Path) -> ItemStore:
    patient = settings.model_copy(update={"timeout_seconds": _WATCH_TIMEOUT_SECONDS})
    address = resolve_address(patient, workspace)
    return ItemStore.on(connect(address), address, settings)


def _generations(settings: StoreSettings, workspace: Path) -> Generations:
    patient = settings.model_copy(update={"timeout_seconds": _WATCH_TIMEOUT_SECONDS})
    address = resolve_address(patient, workspace)
    return Generations(connect(address), ViewKeys.of_memories(settings.project), str(address))


def _feast(context: Context) -> FeatureStore:
    settings = context.config.store.model_copy(
        update={"timeout_seconds": context.config.serve.store_timeout_ms / 1000}
    )
    # Decoders of the registry read it; the same workspace for Feast and for us.
    os.environ["UIC_WORKSPACE"] = str(context.workspace.resolve())
    return open_feature_store(settings, context.workspace)


def _engine(
    settings: ServeSettings,
    store: FeatureStore,
    features: ServiceFeatures,
    readouts: Readouts | SequenceReadouts,
    metrics: Metrics,
) -> RankingEngine:
    breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_seconds)
    # Redis' own timeout comes first; this one is for what is slow around it.
    reader = MemoryReader(store, features, breaker, 2 * settings.store_timeout_ms / 1000)
    warm(readouts.current)
    return RankingEngine(
        reader,
        readouts,
        metrics,
        pass_rows=pass_rows_of(readouts.current),
        timeout_seconds=settings.request_timeout_ms / 1000,
        max_age_seconds=settings.max_memory_age_seconds,
    )


def _feature_log(context: Context) -> FeatureLog | None:
    settings = context.config.serve
    if not settings.log_features:
        return None
    return FeatureLog(context.workspace / "serving" / "features", settings.log_features_sample)
