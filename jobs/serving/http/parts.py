"""Opens the parts of a service: Feast, the store, the first scorers, and what follows them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from feast import FeatureStore

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.context import Context
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import (
    Follower,
    GenerationsProbe,
    ItemTableProbe,
    ItemVersionProbe,
    PointerProbe,
    Probe,
    RegistryProbe,
)
from uic.jobs.serving.follow.loader import Loader, ServedBundle, pass_rows_of
from uic.jobs.serving.rank.engine import Chooser, RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.records import MemoryReader, ServiceFeatures
from uic.jobs.serving.score.items import ItemTable, items_stamp
from uic.jobs.serving.score.memories import MemoryScorers
from uic.jobs.serving.score.prerank import PrerankScorer, PrerankStage
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.bundles.shelf import BundleShelf
from uic.pipelines.log.event_log import EventLog

# A follower is not in a hurry, but must not hang.
_FOLLOW_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class ServiceParts:
    """What a worker's stages are made of.

    Args:
        context: workspace and settings.
        metrics: of this process.
        log: the event log, for its item table.
        store: Feast.
        loader: of scorers.
    """

    context: Context
    metrics: ServiceMetrics
    log: EventLog
    store: FeatureStore
    loader: Loader

    @classmethod
    def of(cls, context: Context, metrics: ServiceMetrics) -> Self:
        """Open them; nothing is read from the store."""
        settings, store = context.config.serve, _feast(context)
        patient = _patient(context.config.store)
        address = resolve_address(patient, context.workspace)
        items = ItemStore.on(connect(address), address, context.config.store)
        loader = Loader(BundleShelf(context.bundles), store, items, settings)
        return cls(context, metrics, EventLog(context.log), store, loader)

    @property
    def settings(self) -> ServeSettings:
        """Of the service."""
        return self.context.config.serve

    def memories(self, reference: str) -> tuple[RankingEngine, Follower[MemoryScorers]]:
        """Ranking with memories, and what keeps it fresh.

        Raises:
            UicError: see `Service.open`.
        """
        loader, stamp = self.loader, items_stamp(self.log)
        served = ServedBundle.named(loader.shelf, reference)
        current = loader.memories(served.path, ItemTable.load(stamp and stamp[0]))
        features = self._memory_features(current.bundle.manifest)
        met: set[str] = set()
        generations = GenerationsProbe(loader, _generations(self.context), met)
        scorers = generations.around(current, MemoryScorers(current))
        engine = self._engine(features, scorers, met)

        def load(path: Path, now: MemoryScorers) -> MemoryScorers:
            scorer = loader.memories(path, now.table, now.current.items)
            return generations.around(scorer, now)

        probes: list[Probe[MemoryScorers]] = [
            RegistryProbe[MemoryScorers](self.store),
            ItemTableProbe(self.log, loader.memories_with, stamp),
            PointerProbe(served.pointer, load, self.settings.swap_delay_seconds),
            generations,
        ]
        return engine, Follower(
            scorers, self._swapping(engine), probes, self.settings.watch_seconds
        )

    def sequences(self, reference: str) -> tuple[RankingEngine, Follower[SequenceScorer]]:
        """Ranking with stored sequences, and what keeps it fresh.

        Raises:
            UicError: see `Service.open`.
        """
        loader, stamp = self.loader, items_stamp(self.log)
        served = ServedBundle.named(loader.shelf, reference)
        features = self._sequence_features()
        scorer = loader.sequences(served.path, ItemTable.load(stamp and stamp[0]))
        engine = self._engine(features, scorer, set())

        def load(path: Path, now: SequenceScorer) -> SequenceScorer:
            return loader.sequences(path, now.table, now.images, vectors_needed=True)

        probes: list[Probe[SequenceScorer]] = [
            RegistryProbe[SequenceScorer](self.store),
            ItemTableProbe(self.log, SequenceScorer.with_table, stamp),
            PointerProbe(served.pointer, load, self.settings.swap_delay_seconds),
            ItemVersionProbe[SequenceScorer](loader),
        ]
        return engine, Follower(scorer, self._swapping(engine), probes, self.settings.watch_seconds)

    def prerank(self, reference: str) -> tuple[PrerankStage, Follower[PrerankScorer]]:
        """The stage before ranking, and what keeps it fresh.

        Raises:
            UicError: no such bundle, it is damaged or has no two towers, or the registry lacks
                its views and the store does not answer.
        """
        loader, stamp = self.loader, items_stamp(self.log)
        served = ServedBundle.named(loader.shelf, reference)
        reader = self._reader(self._sequence_features())
        scorer = loader.prerank(served.path, ItemTable.load(stamp and stamp[0]))
        stage = PrerankStage(scorer, reader, self.metrics, self.settings.prerank_keep)

        def load(path: Path, now: PrerankScorer) -> PrerankScorer:
            return loader.prerank(path, now.table, vectors_needed=True)

        def swap(now: PrerankScorer) -> None:
            stage.scorer = now

        probes: list[Probe[PrerankScorer]] = [
            ItemTableProbe(self.log, loader.prerank_with, stamp),
            PointerProbe(served.pointer, load, self.settings.swap_delay_seconds),
            ItemVersionProbe[PrerankScorer](loader),
        ]
        return stage, Follower(scorer, swap, probes, self.settings.watch_seconds)

    def _swapping(self, engine: RankingEngine) -> Callable[[Chooser], None]:
        def swap(scorers: Chooser) -> None:
            engine.scorers = scorers
            self.metrics.now_serving("bundles", scorers.current.label)

        return swap

    def _engine(
        self, features: ServiceFeatures, scorers: Chooser, not_understood: set[str]
    ) -> RankingEngine:
        self.metrics.now_serving("bundles", scorers.current.label)
        return RankingEngine(
            self._reader(features),
            scorers,
            self.metrics,
            pass_rows=pass_rows_of(scorers.current, scorers.bundle),
            timeout_seconds=self.settings.request_timeout_ms / 1000,
            max_age_seconds=self.settings.max_memory_age_seconds,
            not_understood=not_understood,
        )

    def _reader(self, features: ServiceFeatures) -> MemoryReader:
        settings = self.settings
        breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_seconds)
        # Redis' own timeout comes first; this one is for what is slow around it.
        return MemoryReader(self.store, features, breaker, 2 * settings.store_timeout_ms / 1000)

    def _memory_features(self, manifest: Mapping[str, Any]) -> ServiceFeatures:
        """The features of the bundle's feature service; applied first if the registry lacks them.

        Raises:
            UicError: there is no such service, even then.
        """
        name = manifest.get("feature_service", self.settings.feature_service)
        if name not in {service.name for service in self.store.list_feature_services()}:
            # A new workspace, or one of an older version; the store must be there for it.
            self._apply()
        return ServiceFeatures.of(self.store, name)

    def _sequence_features(self) -> ServiceFeatures:
        """The features of `user_sequence`; applied first, with item vectors, if they are lacking.

        Raises:
            UicError: the registry lacks them, and the store does not answer.
        """
        store, workspace = self.store, self.context.workspace
        if SEQUENCE_SERVICE not in {service.name for service in store.list_feature_services()}:
            apply_sequences(store, workspace)
            store.refresh_registry()
        if ITEM_VIEW not in {view.name for view in store.list_feature_views()}:
            self._apply()
        return ServiceFeatures.of(store, SEQUENCE_SERVICE, SEQUENCE_VIEW)

    def _apply(self) -> None:
        """Register the definitions with the store's own timeout, not the one of a request."""
        patient = open_feature_store(self.context.config.store, self.context.workspace)
        apply_definitions(patient, self.context.workspace)
        self.store.refresh_registry()


def _patient(settings: StoreSettings) -> StoreSettings:
    return settings.model_copy(update={"timeout_seconds": _FOLLOW_TIMEOUT_SECONDS})


def _generations(context: Context) -> Generations:
    settings = context.config.store
    address = resolve_address(_patient(settings), context.workspace)
    return Generations(connect(address), ViewKeys.of_memories(settings.project), str(address))


def _feast(context: Context) -> FeatureStore:
    settings = context.config.store.model_copy(
        update={"timeout_seconds": context.config.serve.store_timeout_ms / 1000}
    )
    # Decoders of the registry read it; the same workspace for Feast and for us.
    os.environ["UIC_WORKSPACE"] = str(context.workspace.resolve())
    return open_feature_store(settings, context.workspace)
