"""A small shop for the tests of the service: bundles, memories in a real Redis, an item table.

Weights are random and large, so that every part of a memory matters to a score; what is tested
here is the service and not what a model has learned.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.generations import Generation
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.features.fitted import FittedFeatures
from uic.models.memory.fold import MemoryFolder
from uic.models.rankers.catalogue import model_kind
from uic.models.records.positions import EventBatch
from uic.models.records.record import Records
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.training.run_spec import Days, RunSpec
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trained
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part

ITEM_COUNT = 500
CATEGORY_COUNT = 20
USER_COUNT = 60
FIRST_ITEM = 1000
EVENT_TIME_MS = 1_700_000_000_000


def categories_of(item_ids):
    """The shop's category of each item."""
    return np.asarray(item_ids, dtype=np.int64) % CATEGORY_COUNT


@dataclass(frozen=True)
class Shop:
    """A workspace with a running Redis; `stop` ends it."""

    workspace: Path
    settings: StoreSettings
    server: EmbeddedRedis

    @classmethod
    def open(cls, workspace: Path, redis_port: int | None = None) -> "Shop":
        """Start Redis, apply the Feast definitions, write the item table."""
        server = EmbeddedRedis(workspace / STORE_FOLDER)
        server.start()
        settings = StoreSettings(pointer_refresh_seconds=0.1, switch_delay_seconds=0.4)
        shop = cls(workspace, settings, server)
        shop.write_items()
        apply_definitions(open_feature_store(settings, workspace), workspace)
        return shop

    @property
    def shelf(self) -> BundleShelf:
        return BundleShelf(self.workspace / "bundles")

    def write_items(self, items: int = ITEM_COUNT, name: str = "shop") -> None:
        """Publish the first so many items as an import does, with one event of somebody else."""
        item_ids = np.arange(FIRST_ITEM, FIRST_ITEM + items)
        event = {
            "user_id": [10**6],
            "item_id": [FIRST_ITEM],
            "category_id": [0],
            "behavior": pa.array([0], pa.int8()),
            "event_time": pa.array([EVENT_TIME_MS], pa.timestamp("ms")),
        }
        log = EventLog(self.workspace / "log")
        with LogWriter(log, Part(name), time_zone="UTC", partitions=1, again=True) as writer:
            writer.add_behaviors(pa.table(event))
            writer.add_items(pa.array(item_ids), pa.array(categories_of(item_ids)))
            writer.publish()

    def bundle(
        self,
        version: str,
        seed: int = 0,
        model: str = "mimn",
        compatible: tuple[bytes, ...] = (),
        *,
        current: bool = True,
        features: FittedFeatures | None = None,
        **settings,
    ) -> Bundle:
        """Publish a bundle with random weights."""
        path = self.shelf.path(model, version)
        save_bundle(path, random_model(model, seed, features, **settings), compatible)
        if current:
            self.shelf.choose(model, version)
        return load_bundle(path)

    def generation(
        self, number: int, bundle: Bundle, lengths, seed: int = 0, *, switch: bool = True
    ) -> Records:
        """Fold random events of users 1, 2, …, load them as a generation, make it live."""
        records = fold_users(bundle, number, lengths, seed)
        user_ids = np.arange(1, len(lengths) + 1)
        with open_memories(self.settings, self.workspace) as store:
            store.generations.register(
                Generation(
                    number=number,
                    rows_expected=len(user_ids),
                    bundle=bundle.hash8,
                    bundle_name=f"{bundle.name}/{bundle.version}",
                    record_bytes=records.shape[1],
                    positions={1: {0: 10_000}},
                    snapshot=f"generation={number:03d}/dt=2023-11-14",
                )
            )
            store.memories.write(number, user_ids, records)
            store.generations.complete(number, user_ids)
            if switch:
                store.generations.switch(number, self.settings.switch_delay_seconds)
        return records

    def stop(self) -> None:
        self.server.stop()


def random_model(
    model: str,
    seed: int,
    features: FittedFeatures | None = None,
    tasks: dict[str, float] | None = None,
    **settings,
) -> Trained:
    """A model that was never trained, in the form that a run leaves."""
    kind = model_kind(model)
    chosen = kind.settings(**settings)
    vocabulary = Vocabulary(
        IdTable(np.arange(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT), 8),
        IdTable(np.arange(CATEGORY_COUNT), 4),
        features or FittedFeatures(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = kind.build(chosen, vocabulary.item.rows, vocabulary.category.rows)
        ranker.attach_features(vocabulary.features)
        ranker.attach_tasks(tasks or {})
        with torch.no_grad():
            for weight in ranker.parameters():
                if weight.ndim > 1:
                    weight.mul_(2)
    day = date(2023, 11, 14)
    spec = RunSpec(
        model,
        chosen,
        TrainSettings(task_weights=tasks or {}),
        Days(day, day),
        seed,
        "shop",
        "0" * 64,
    )
    return Trained(spec, ranker.eval(), vocabulary, None, [], [])


def random_events(lengths, seed: int = 0) -> EventBatch:
    """`lengths[i]` clicks of user i + 1, offsets in order of user."""
    lengths = np.asarray(lengths, dtype=np.int64)
    total = int(lengths.sum())
    item_ids = np.random.default_rng(seed).integers(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT, total)
    zeros = np.zeros(total, dtype=np.int64)
    return EventBatch(
        user_index=np.repeat(np.arange(len(lengths)), lengths),
        item_ids=item_ids,
        category_ids=categories_of(item_ids),
        behaviors=zeros.astype(np.int8),
        event_times_ms=EVENT_TIME_MS + np.arange(total) * 1000,
        log_times_ms=EVENT_TIME_MS + np.arange(total) * 1000,
        epochs=zeros + 1,
        partitions=zeros,
        offsets=np.arange(total),
    )


def fold_users(bundle: Bundle, generation: int, lengths, seed: int = 0) -> Records:
    """The records of users whose histories have these lengths."""
    folder = MemoryFolder(bundle, generation)
    return folder.fold(folder.initial_records(len(lengths)), random_events(lengths, seed)).records


def offline_logits(
    bundle: Bundle,
    events: EventBatch,
    index: int,
    user: int,
    item_ids,
    *,
    categories=None,
    at_ms=0,
    features=None,
) -> np.ndarray:
    """Logits of the model's own path from samples: `Encoder` and `forward`.

    `index` is the user's in `events`; categories are the shop's unless they are given.
    """
    mine = events.user_index == index
    shown = np.asarray(item_ids)
    batch = GroupBatch(
        user_ids=np.array([user]),
        days=np.array(["2023-11-14"], "datetime64[D]"),
        history_offsets=np.array([0, mine.sum()]),
        history_item_ids=events.item_ids[mine],
        history_category_ids=events.category_ids[mine],
        history_behaviors=events.behaviors[mine],
        history_times_ms=events.event_times_ms[mine],
        impression_offsets=offsets_of(np.array([len(shown)])),
        item_ids=shown,
        category_ids=categories_of(shown) if categories is None else categories,
        event_times_ms=np.full(len(shown), at_ms, np.int64),
        labels=np.zeros(len(shown), np.bool_),
        history_lengths=np.full(len(shown), mine.sum()),
        features=features or {},
    )
    with torch.no_grad():
        return bundle.model(Encoder(bundle.vocabulary).encode(batch)).numpy()


def write_log(shop: Shop, lengths: np.ndarray) -> None:
    """Random events of users 1 to so many, as an import publishes them."""
    events = random_events(lengths)
    table = pa.table(
        {
            "user_id": events.user_index + 1,
            "item_id": events.item_ids,
            "category_id": events.category_ids,
            "behavior": pa.array(events.behaviors),
            "event_time": pa.array(events.event_times_ms, pa.timestamp("ms")),
        }
    )
    log = EventLog(shop.workspace / "log")
    with LogWriter(log, Part("events"), time_zone="UTC", partitions=2, again=True) as writer:
        writer.add_behaviors(table)
        writer.publish()
