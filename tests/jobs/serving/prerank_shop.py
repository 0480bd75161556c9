"""A pre-rank before DIN on the shop's Redis, without a process of its own."""

from contextlib import asynccontextmanager

import httpx
import numpy as np

from tests.jobs.serving.counting import METRICS
from tests.jobs.serving.image_shop import SMALL, publish_features, publish_version
from tests.jobs.serving.shop import (
    FIRST_ITEM,
    ITEM_COUNT,
    Shop,
    categories_of,
    offline_logits,
    random_events,
)
from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.connection import resolve_address
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import (
    Follower,
    ItemTableProbe,
    ItemVersionProbe,
    PointerProbe,
)
from uic.jobs.serving.follow.loader import Loader
from uic.jobs.serving.http.app import create_app
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.records import MemoryReader, packed_feature
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemTable
from uic.jobs.serving.score.prerank import Preranked, PrerankScorer
from uic.jobs.serving.score.prerank_stage import PrerankStage
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.jobs.stream.fold.sequence_fill import write_rings
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog

LENGTHS = np.array([0, 7, 60, 130])
ITEMS = np.arange(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT)
UNKNOWN = 77_777
RING = SequenceRing()
BUNDLE = {**SMALL, "history_limit": 50, "vector_width": 5}


def offline(bundle, features, user: int, item_ids, events=None) -> np.ndarray:
    """Logits of the model's own path from samples, embedding the images itself."""
    bundle.model.attach_images(features)
    events = random_events(LENGTHS) if events is None else events
    shown = np.asarray(item_ids)
    categories = np.where(shown == UNKNOWN, UNKNOWN_CATEGORY, categories_of(shown))
    return offline_logits(bundle, events, user - 1, user, shown, categories=categories)


class Running:
    """Everything of a service but its process: a pre-rank before DIN, on the shop's Redis."""

    def __init__(self, shop: Shop, client) -> None:
        self.shop = shop
        address = resolve_address(shop.settings, shop.workspace)
        self.items = ItemStore.on(client, address, shop.settings)
        self.feast = open_feature_store(shop.settings, shop.workspace)
        apply_sequences(self.feast, shop.workspace)
        self.feast.refresh_registry()
        self.features = publish_features(shop)
        self.settings = ServeSettings(
            store_timeout_ms=20_000,
            request_timeout_ms=60_000,
            max_prerank_candidates=600,
            prerank_keep=40,
            breaker_open_seconds=0.05,
            swap_delay_seconds=0.0,
        )
        log = EventLog(shop.workspace / "log")
        self.loader = Loader(shop.shelf, log, self.feast, self.items, self.settings)
        self.write(random_events(LENGTHS))

    def write(self, events) -> None:
        rings = RING.append(RING.empty(len(LENGTHS)), events)
        with open_memories(self.shop.settings, self.shop.workspace) as store:
            keys = ViewKeys.of_sequences(self.shop.settings.project)
            packed = PackedStore(store.client, keys, layout=SEQUENCE)
            write_rings(packed, RING, np.arange(2, 5), rings[1:])

    def publish(self, version: int, *, load: bool = True, **switches):
        settings = {**BUNDLE, **switches}
        bundle = self.shop.bundle(f"{version:04d}", version, model="prerank", **settings)
        if load:
            self.load(bundle, version)
        return bundle

    def load(self, bundle, version: int) -> None:
        images = publish_version(self.shop, bundle, self.features, version)
        load_values(images, self.items.vectors, self.items.versions)

    def reader(self) -> MemoryReader:
        feature = packed_feature(self.feast, SEQUENCE_SERVICE, SEQUENCE_VIEW)
        return MemoryReader(self.feast, feature, CircuitBreaker(3, 0.05), 60.0)

    @property
    def table(self) -> ItemTable:
        return self.loader.table()[0]

    def follower(self, path) -> Follower[PrerankScorer]:
        """A follower of the current prerank, which begins with the bundle at `path`."""

        def load(path, now: PrerankScorer) -> PrerankScorer:
            return self.loader.prerank(path, now.table, vectors_needed=True)

        probes = [
            ItemTableProbe(self.loader, self.loader.prerank_with, self.loader.table()[1]),
            PointerProbe(self.loader.pointer_of("prerank"), load, 0.0),
            ItemVersionProbe(self.loader),
        ]
        return Follower(self.loader.prerank(path, self.table), lambda _: None, probes, 1.0)

    def stage(self, path) -> PrerankStage:
        return PrerankStage(self.loader.prerank(path, self.table), self.reader(), METRICS, 40)

    @asynccontextmanager
    async def client(self, stage: PrerankStage):
        """HTTP to the application in this process."""
        din = self.shop.bundle("0001", model="din", history_limit=50)
        scorer = SequenceScorer(din, self.table)
        engine = RankingEngine(self.reader(), scorer, METRICS, pass_rows=64, timeout_seconds=60)
        service = Service(self.settings, engine, None, METRICS, self.feast, None, stage)
        app = create_app(service)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            client.service = service
            yield client
        await self.close()

    async def close(self) -> None:
        # Its connection belongs to this event loop.
        await self.feast._get_provider().online_store.close()


def scored(scorer: PrerankScorer, item_ids, record: bytes | None) -> Preranked:
    """What a scorer says, its images read at once."""
    history, candidates = scorer.history(record), scorer.find(item_ids)
    read = scorer.images.read_now(scorer.vectors_needed(candidates, history))
    ask = Ask(list(item_ids), record)
    return scorer.score(candidates, scorer.sums(history, read), read, ask)
