"""A real Redis with a ready generation, and a small memory network to fold with."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.stream.fold.fold_function import FoldFunction
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.memory.network import MemoryConfig, MemoryNetwork
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import LogSettings

KEYS = ViewKeys.of_memories("test")
NOW_MS = 1_700_000_000_000


class SmallBundle:
    """A memory network of two slots, with random but fixed parameters and embeddings."""

    hash8 = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    has_memory = True
    state = None

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.memory = MemoryNetwork(MemoryConfig(slots=2, item_width=4, category_width=4))
        self.table = torch.randn(64, 4)

    def embed(self, item_ids: np.ndarray, category_ids: np.ndarray) -> torch.Tensor:
        items = self.table[torch.from_numpy(item_ids % 64)]
        return torch.cat([items, self.table[torch.from_numpy(category_ids % 64)]], dim=1)


@dataclass
class Bench:
    """A store with generation 1 ready, and what is needed to fold into it."""

    server: EmbeddedRedis
    folder: MemoryFolder

    def client(self) -> Any:
        running = self.server.running()
        address = Address.at(running.address if running else "127.0.0.1:1")
        return connect(replace(address, timeout_seconds=2))

    def store(self) -> PackedStore:
        return PackedStore(self.client(), KEYS)

    def function(self, **options: Any) -> FoldFunction:
        settings = {
            "parser": EventParser(LogSettings()),
            "folder": self.folder,
            "store": self.store(),
            "epoch": 1,
            "starts": {0: 0, 1: 0},
            "clock": lambda: NOW_MS / 1000,
        }
        return FoldFunction(**{**settings, **options})

    def forget_everything(self) -> None:
        """Remove memories and markers, but not the generation."""
        client = self.client()
        client.delete(KEYS.markers(1), *KEYS.entities(1, list(range(20))))

    def set_marker(self, partition: int, offset: int) -> None:
        """What a restore of an older copy does to a marker."""
        self.client().hset(KEYS.markers(1), f"1:{partition}", offset)

    def memories(self, users: list[int]) -> list[bytes]:
        """What the store holds; empty for those that it does not know."""
        records, found = self.store().read(1, users, self.folder.record_bytes)
        return [
            bytes(record) if there else b"" for record, there in zip(records, found, strict=True)
        ]

    def folded(self, events: list[tuple[int, int, int, int]]) -> dict[int, bytes]:
        """The batch fold, one event at a time: (user, item, partition, offset) -> memories."""
        memories: dict[int, np.ndarray] = {}
        for user, item, partition, offset in events:
            record = memories.get(user, self.folder.initial_records(1))
            one = EventBatch(
                user_index=np.array([0]),
                item_ids=np.array([item]),
                category_ids=np.array([item % 10]),
                behaviors=np.array([0], np.int8),
                event_times_ms=np.array([NOW_MS]),
                log_times_ms=np.array([NOW_MS]),
                epochs=np.array([1]),
                partitions=np.array([partition]),
                offsets=np.array([offset]),
            )
            memories[user] = self.folder.fold(record, one).records
        return {user: bytes(record[0]) for user, record in memories.items()}


def payload(user: int, item: int, **other: Any) -> bytes:
    """A good event on the wire, unless `other` spoils it."""
    event = {
        "user_id": user,
        "item_id": item,
        "category_id": item % 10,
        "behavior": "click",
        "event_time": NOW_MS,
    }
    return json.dumps({**event, **other}).encode()


def call(function: FoldFunction, rows: list[tuple[bytes | None, int, int]]) -> list[str | None]:
    """Call with (payload, partition, offset) rows, all logged at NOW_MS."""
    return function(
        [row[0] for row in rows],
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.full(len(rows), NOW_MS, np.int64),
    )


@pytest.fixture(scope="session")
def stream_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("stream-store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def folder() -> MemoryFolder:
    return MemoryFolder(SmallBundle(), generation=1)


@pytest.fixture
def bench(stream_redis: EmbeddedRedis, folder: MemoryFolder) -> Bench:
    stream_redis.start()
    bench = Bench(stream_redis, folder)
    client = bench.client()
    client.flushall()
    generations = Generations(client, KEYS)
    generations.register(
        Generation(
            number=1,
            rows_expected=0,
            bundle=SmallBundle.hash8,
            bundle_name="small/1",
            record_bytes=folder.record_bytes,
            positions={},
            snapshot="",
        )
    )
    generations.complete(1, np.empty(0, np.int64))
    return bench


@pytest.fixture
def make_payload() -> Callable[..., bytes]:
    return payload


@pytest.fixture
def send() -> Callable[..., list[str | None]]:
    return call
