"""Opens the parts of a service: Feast, the store, the first scorers, and what follows them."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from feast import FeatureStore

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.store.connection import Address, connect, resolve_address
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.folded_until import FoldedUntil
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.feature_repo.store.layout import (
    MEMORY_FEATURE,
    MEMORY_VIEW,
    USER_FEATURES_FEATURE,
    USER_FEATURES_VIEW,
    ViewKeys,
)
from uic.jobs.config.context import Context
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import (
    ChangeProbe,
    Follower,
    GenerationsProbe,
    ItemTableProbe,
    ItemVersionProbe,
    PointerProbe,
    RegistryProbe,
    S,
)
from uic.jobs.serving.follow.freshness_probe import FreshnessProbe
from uic.jobs.serving.follow.ids_probe import IdsProbe
from uic.jobs.serving.follow.loader import Loader
from uic.jobs.serving.follow.parts_probe import PartsProbe
from uic.jobs.serving.rank.chooser import Chooser, measure_pass_rows
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.records import MemoryReader, packed_feature
from uic.jobs.serving.score.memories import MemoryScorers
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.jobs.serving.score.prerank_stage import PrerankStage
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.bundles.shelf import BundleShelf
from uic.models.state.part import StateFileError
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import TextIds

LOG: Final = logging.getLogger("uic.serve")
# A follower is not in a hurry, but must not hang.
_FOLLOW_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class ServiceParts:
    """What a worker's stages are made of.

    Args:
        context: workspace and settings.
        metrics: of this process.
        store: Feast.
        loader: of scorers.
        ids: of the log.
    """

    context: Context
    metrics: ServiceMetrics
    store: FeatureStore
    loader: Loader
    ids: TextIds

    @classmethod
    def of(cls, context: Context, metrics: ServiceMetrics) -> Self:
        """Open them; nothing is read from the store.

        Raises:
            TextIdsError: the log's table of text ids is not what it has to be.
        """
        store, address = _feast(context), _address(context)
        items = ItemStore.on(connect(address), address, context.config.store)
        shelf, log = BundleShelf(context.bundles), EventLog(context.log)
        settings = context.config.serve
        loader = Loader(shelf, log, store, items, settings, context.workspace)
        return cls(context, metrics, store, loader, TextIds.of(log))

    @property
    def settings(self) -> ServeSettings:
        """Of the service."""
        return self.context.config.serve

    def memories(self, reference: str) -> tuple[RankingEngine, Follower[MemoryScorers]]:
        """Ranking with memories, and what keeps it fresh.

        Raises:
            UicError: see `Service.open`.
        """
        loader, (table, stamp) = self.loader, self.loader.table()
        current = loader.memories(loader.shelf.find(reference), table)
        feature = self._memory_feature(current.bundle.manifest)
        generations = GenerationsProbe(loader, _generations(self.context), met=set())
        scorers = generations.around(current, MemoryScorers(current))
        engine = self._engine(feature, scorers, generations.met)

        def load(path: Path, now: MemoryScorers) -> MemoryScorers:
            scorer = loader.memories(path, now.current.table, now.current.items)
            return generations.around(scorer, now)

        items = ItemTableProbe(loader, loader.memories_with, stamp)
        pointer = self._pointer(reference, load)
        fresh = self._freshness(engine, scorers)
        return engine, self._follower(scorers, engine.use, items, pointer, generations, fresh)

    def sequences(self, reference: str) -> tuple[RankingEngine, Follower[SequenceScorer]]:
        """Ranking with stored sequences, and what keeps it fresh.

        Raises:
            UicError: see `Service.open`.
        """
        loader, (table, stamp) = self.loader, self.loader.table()
        feature = self._sequence_feature()
        records = PartsProbe(loader, _generations(self.context))
        scorer = records.around(loader.sequences(loader.shelf.find(reference), table))
        # Also for a bundle without parts, which one with parts may take the place of.
        beside = self._packed(MEMORY_VIEW, MEMORY_FEATURE, "exact parts are a new user's")
        engine = self._engine(feature, scorer, set(), beside)

        def load(path: Path, now: SequenceScorer) -> SequenceScorer:
            new = loader.sequences(path, now.table, now.images, vectors_needed=True)
            return records.around(new)

        items = ItemTableProbe(loader, SequenceScorer.with_table, stamp)
        version = ItemVersionProbe[SequenceScorer](loader)
        pointer = self._pointer(reference, load)
        fresh = self._freshness(engine, scorer)
        return engine, self._follower(scorer, engine.use, items, pointer, version, records, fresh)

    def prerank(self, reference: str) -> tuple[PrerankStage, Follower[PrerankScorer]]:
        """The stage before ranking, and what keeps it fresh.

        Raises:
            UicError: no such bundle, it is damaged or has no two towers, or the registry lacks
                its views and the store does not answer.
        """
        loader, (table, stamp) = self.loader, self.loader.table()
        reader = self._reader(self._sequence_feature(), self._user_features())
        scorer = loader.prerank(loader.shelf.find(reference), table)
        stage = PrerankStage(scorer, reader, self.metrics, self.settings.prerank_keep)

        def load(path: Path, now: PrerankScorer) -> PrerankScorer:
            return loader.prerank(path, now.table, vectors_needed=True)

        items = ItemTableProbe(loader, loader.prerank_with, stamp)
        version = ItemVersionProbe[PrerankScorer](loader)
        pointer = self._pointer(reference, load)
        probes = (items, pointer, version)
        return stage, self._follower(scorer, stage.use, *probes, stage="prerank")

    def _freshness(self, engine: RankingEngine, scorer: S) -> FreshnessProbe[S]:
        """Told what it finds from the first request on."""
        generations = _generations(self.context)
        address = _address(self.context)
        folded = FoldedUntil(connect(address), generations.keys, str(address))
        workspace = self.context.workspace
        probe = FreshnessProbe[S](workspace, generations, folded, self.metrics, engine.freshness)
        try:
            probe.read(scorer)
        except (StoreError, StateFileError) as error:
            LOG.warning("freshness is not known yet: %s", error)
        return probe

    def _pointer(self, reference: str, load: Callable[[Path, S], S]) -> PointerProbe[S]:
        pointer = self.loader.pointer_of(reference)
        return PointerProbe(pointer, load, self.settings.swap_delay_seconds)

    def _follower(
        self, scorer: S, use: Callable[[S], None], *probes: ChangeProbe[S], stage: str = "rank"
    ) -> Follower[S]:
        ids = IdsProbe[S](self.loader.log, self.ids)
        with_registry: list[ChangeProbe[S]] = [RegistryProbe[S](self.store), ids]
        with_registry.extend(probes)
        every_seconds = self.settings.watch_seconds
        return Follower(scorer, use, with_registry, every_seconds, self.metrics, stage)

    def _engine(
        self, feature: str, scorers: Chooser, not_understood: set[str], beside: str | None = None
    ) -> RankingEngine:
        return RankingEngine(
            self._reader(feature, self._user_features(), beside),
            scorers,
            self.metrics,
            pass_rows=measure_pass_rows(scorers.current),
            timeout_seconds=self.settings.request_timeout_ms / 1000,
            max_age_seconds=self.settings.max_memory_age_seconds,
            not_understood=not_understood,
        )

    def _reader(
        self, feature: str, user_features: str | None = None, beside: str | None = None
    ) -> MemoryReader:
        settings = self.settings
        breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_seconds)
        # Redis' own timeout comes first; this one is for what is slow around it.
        timeout_seconds = 2 * settings.store_timeout_ms / 1000
        return MemoryReader(
            self.store, feature, breaker, timeout_seconds, user_features, beside=beside
        )

    def _memory_feature(self, manifest: Mapping[str, Any]) -> str:
        """The packed feature of the bundle's feature service, applied first if it is lacking.

        Raises:
            UicError: there is no such service, even then.
        """
        name = manifest.get("feature_service", self.settings.feature_service)
        if name not in {service.name for service in self.store.list_feature_services()}:
            # A new workspace, or one of an older version; the store must be there for it.
            self._apply()
        return packed_feature(self.store, name, MEMORY_VIEW)

    def _sequence_feature(self) -> str:
        """The packed feature of `user_sequence`, applied first if it or item vectors are lacking.

        Raises:
            UicError: the registry lacks them, and the store does not answer.
        """
        store, workspace = self.store, self.context.workspace
        if SEQUENCE_SERVICE not in {service.name for service in store.list_feature_services()}:
            apply_sequences(store, workspace)
            store.refresh_registry()
        if ITEM_VIEW not in {view.name for view in store.list_feature_views()}:
            self._apply()
        return packed_feature(store, SEQUENCE_SERVICE, SEQUENCE_VIEW)

    def _user_features(self) -> str | None:
        """The packed feature of users' rows."""
        lost = "users' features take their defaults"
        return self._packed(USER_FEATURES_VIEW, USER_FEATURES_FEATURE, lost)

    def _packed(self, view: str, feature: str, lost: str) -> str | None:
        """The packed feature of a view, applied first if it is lacking.

        None while it cannot be: a service must start without the store. What is `lost` is said.
        """
        try:
            if view not in {one.name for one in self.store.list_feature_views()}:
                self._apply()
        except StoreError as error:
            LOG.warning("%s until the service starts anew: %s", lost, error)
            return None
        return f"{view}:{feature}"

    def _apply(self) -> None:
        """Register the definitions with the store's own timeout, not the one of a request."""
        patient = open_feature_store(self.context.config.store, self.context.workspace)
        apply_definitions(patient, self.context.workspace)
        self.store.refresh_registry()


def _address(context: Context) -> Address:
    """The store's, with the timeout of a follower."""
    patient = {"timeout_seconds": _FOLLOW_TIMEOUT_SECONDS}
    return resolve_address(context.config.store.model_copy(update=patient), context.workspace)


def _generations(context: Context) -> Generations:
    address = _address(context)
    keys = ViewKeys.of_memories(context.config.store.project)
    return Generations(connect(address), keys, str(address))


def _feast(context: Context) -> FeatureStore:
    settings = context.config.store.model_copy(
        update={"timeout_seconds": context.config.serve.store_timeout_ms / 1000}
    )
    # Decoders of the registry read it; the same workspace for Feast and for us.
    os.environ["UIC_WORKSPACE"] = str(context.workspace.resolve())
    return open_feature_store(settings, context.workspace)
