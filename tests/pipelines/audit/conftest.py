"""A workspace whose memories were built, loaded into a real Redis, and streamed on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.memories.conftest import FIRST, random_behaviors, untrained_bundle, write_log
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.writer import MarkerMove
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.records.record import Records
from uic.pipelines.audit.log_tail import NoTail, TailReader
from uic.pipelines.audit.memories import AuditRequest, audit_generation
from uic.pipelines.audit.report import GenerationAudit
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import ExcludeRule
from uic.pipelines.settings import MemoriesSettings, SaleSettings

DAYS = 6
USERS = 30
SNAPSHOT_DAY = FIRST + timedelta(days=3)


@dataclass
class Audited:
    """A workspace with its store."""

    workspace: Path
    settings: StoreSettings
    store: OpenedStore

    def build(self, until: date = SNAPSHOT_DAY, rules: tuple[ExcludeRule, ...] = ()) -> int:
        """Build a snapshot and load it; the generation's number."""
        request = MemoriesRequest(
            log=self.workspace / "log",
            memories=self.workspace / "memories",
            bundle=self.workspace / "bundles" / "mimn" / "1",
            until=until,
            time_zone="UTC",
            memories_settings=MemoriesSettings(buckets=2),
            sale=SaleSettings(),
            rules=rules,
        )
        snapshot = build_memories(request)
        load_values(snapshot, self.store.memories, self.store.generations)
        return snapshot.generation

    def folder(self, generation: int) -> MemoryFolder:
        return MemoryFolder(load_bundle(self.workspace / "bundles" / "mimn" / "1"), generation)

    def stream(self, generation: int) -> None:
        """Fold what the log has after the snapshot, and move the markers, as the stream does."""
        folder = self.folder(generation)
        marks = self.store.generations.markers(generation)[1]
        log = EventLog(self.workspace / "log")
        for file in log.behavior_files(SNAPSHOT_DAY + timedelta(days=1)):
            table = pq.read_table(file.path)
            ids = table.column("user_id").to_numpy()
            users = np.unique(ids)
            there, found = self.store.memories.read(generation, users, folder.record_bytes)
            records = np.where(found[:, None], there, folder.initial_records(len(users)))
            partitions = table.column("partition").to_numpy().astype(np.int64)
            offsets = table.column("offset").to_numpy()
            batch = EventBatch(
                user_index=np.searchsorted(users, ids),
                item_ids=table.column("item_id").to_numpy(),
                category_ids=table.column("category_id").to_numpy(),
                behaviors=np.zeros(len(ids), np.int8),
                event_times_ms=table.column("event_time").to_numpy().view(np.int64),
                log_times_ms=table.column("log_time").to_numpy().view(np.int64),
                epochs=np.ones(len(ids), np.int64),
                partitions=partitions,
                offsets=offsets,
            )
            moves = [
                MarkerMove(1, p, int(offsets[partitions == p].max()), marks[p])
                for p in np.unique(partitions).tolist()
            ]
            folded = folder.fold(records, batch).records
            assert self.store.memories.write(generation, users, folded, moves).all()

    def record(self, generation: int, user: int) -> Records:
        """(1, record_bytes), writable."""
        return self.store.memories.read(generation, [user])[0]

    def put(self, generation: int, user: int, record: Records) -> None:
        """Overwrite a memory behind the store's back, whatever its position."""
        key = self.store.memories.keys.entities(generation, [user])[0]
        self.store.client.set(key, record.tobytes())

    def remove(self, generation: int, user: int) -> None:
        self.store.client.delete(*self.store.memories.keys.entities(generation, [user]))

    def audit(
        self, generation: int, rate: float = 1.0, tail: TailReader | None = None
    ) -> GenerationAudit:
        request = AuditRequest(
            log=self.workspace / "log",
            memories=self.workspace / "memories",
            bundles=self.workspace / "bundles",
            scratch=self.workspace / "spool",
            settings=AuditSettings(sample_rate=rate),
            tail=tail or NoTail(),
        )
        found = self.store.generations.get(generation)
        return audit_generation(request, self.store, found, feast=None)


def everybody() -> pa.Table:
    """Behaviours in which all users have one on the first day."""
    table = random_behaviors(days=DAYS, events=800, users=USERS)
    users = np.concatenate([np.arange(USERS), table.column("user_id").to_numpy()[USERS:]])
    return table.set_column(0, "user_id", pa.array(users))


@contextmanager
def audited(workspace: Path, server: EmbeddedRedis) -> Iterator[Audited]:
    """A workspace with six days of log and an empty store."""
    running = server.start()
    settings = StoreSettings(address=running.address)
    write_log(workspace / "log", everybody())
    untrained_bundle(workspace / "bundles" / "mimn" / "1")
    with open_memories(settings, workspace) as store:
        store.client.flushall()
        yield Audited(workspace, settings, store)


@pytest.fixture(scope="session")
def audit_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("audit-store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bench(tmp_path: Path, audit_redis: EmbeddedRedis) -> Iterator[Audited]:
    with audited(tmp_path, audit_redis) as found:
        yield found
