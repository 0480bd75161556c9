"""Snapshots into the store, in bulk and by Feast; generations; kills in the middle."""

import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from uic.feature_repo.plugin.repository import materialize_memories, open_feature_store
from uic.feature_repo.snapshots.published_values import load_values, point_current_to
from uic.feature_repo.snapshots.snapshots import (
    SNAPSHOT,
    SNAPSHOT_KIND,
    SNAPSHOT_SCHEMA_VERSION,
    Snapshot,
)
from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.errors import (
    EmptyStoreError,
    GenerationStateError,
    StoreUnavailableError,
)
from uic.feature_repo.store.generations import Generations, State
from uic.feature_repo.store.later_snapshot import move_on, notice_load
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import MarkerMove, PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.models.errors import ManifestError
from uic.models.published import file_entry, publish_manifest
from uic.models.records.record import (
    RecordFormatError,
    Records,
    empty_records,
    header_view,
    state_view,
)

KEYS = ViewKeys.of_memories("uic")
FLOATS = 6
CUT_MS = 1_709_769_600_000


def records_of(ids: np.ndarray, offset: int, generation: int = 1) -> Records:
    records = empty_records(len(ids), FLOATS)
    header = header_view(records)
    header["generation"], header["epoch"] = generation, 1
    header["offset"] = offset
    header["bundle"] = np.void(b"bundle-1")
    state_view(records)[:] = (ids % 101)[:, None]
    return records


def write_snapshot(
    root: Path, ids: np.ndarray, offset: int = 100, generation: int = 1, day: str = "2024-03-06"
) -> Snapshot:
    path = root / "memories" / f"generation={generation:03d}" / f"dt={day}"
    path.mkdir(parents=True)
    table = pa.table(
        {
            "user_id": ids,
            "event_timestamp": np.full(len(ids), CUT_MS),
            "memory": [record.tobytes() for record in records_of(ids, offset, generation)],
        },
        schema=SNAPSHOT,
    )
    pq.write_table(table, path / "a.parquet")
    publish_manifest(
        path,
        {
            "kind": SNAPSHOT_KIND,
            "schema_version": SNAPSHOT_SCHEMA_VERSION,
            "files": [file_entry(path, path / "a.parquet", len(ids))],
            "generation": generation,
            "rows": len(ids),
            "record_bytes": 44 + 2 * FLOATS,
            "bundle": "mimn/1",
            "bundle_hash8": b"bundle-1".hex(),
            "positions": {"1": {"0": 100}},
            "exclude": {},
            "until": day,
            "cut_ms": CUT_MS,
        },
    )
    return Snapshot.open(path)


@pytest.fixture
def parts(redis_server: redis.Redis) -> tuple[PackedStore, Generations]:
    return PackedStore(redis_server, KEYS), Generations(redis_server, KEYS)


IDS = np.arange(3000)


def dump(client: redis.Redis) -> dict[bytes, bytes]:
    """Every memory of generation 1."""
    keys = sorted(client.scan_iter(match=KEYS.prefix(1) + b"*", count=1000))
    return dict(zip(keys, client.mget(keys), strict=True)) if keys else {}


def test_a_load_makes_a_generation_ready_with_markers_at_its_positions(
    parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    with pytest.raises(EmptyStoreError):
        generations.live()
    loaded = load_values(write_snapshot(tmp_path, IDS), store, generations)
    assert (loaded.rows, loaded.landed) == (3000, 3000)
    assert loaded.generation.state is State.READY
    assert loaded.generation.rows == 3000
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 100}
    assert generations.switch(1, 5) == 0  # nobody reads yet: no need to wait
    assert generations.live() == 1


def test_bulk_load_and_feast_materialize_end_in_the_same_bytes(
    redis_server: redis.Redis,
    store_address: str,
    parts: tuple[PackedStore, Generations],
    tmp_path: Path,
) -> None:
    store, generations = parts
    ids = np.arange(500)
    snapshot = write_snapshot(tmp_path, ids)
    load_values(snapshot, store, generations)
    in_bulk = dump(redis_server)
    redis_server.flushall()
    point_current_to(snapshot.path)
    settings = StoreSettings(address=store_address, pointer_refresh_seconds=0)
    with warnings.catch_warnings():
        # Feast's offline store: dask and pandas deprecations, on-demand views experimental.
        warnings.simplefilter("ignore")
        materialize_memories(settings, tmp_path, snapshot)  # registers the generation by itself
        assert dump(redis_server) == in_bulk
        assert generations.get(1).state is State.LIVE
        newer = records_of(ids[:1], offset=500)
        store.write(1, ids[:1], newer)
        feast = open_feature_store(settings, tmp_path)
        materialize_memories(settings, tmp_path, snapshot)  # the second one
        found = feast.get_online_features(
            ["user_interest:memory"], [{"user_id": 0}, {"user_id": 7}, {"user_id": 900}]
        ).to_dict()["memory"]
    assert found == [newer.tobytes(), in_bulk[KEYS.entities(1, [7])[0]], None]


def test_of_two_loads_of_one_generation_the_later_has_it(
    redis_server: redis.Redis, parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    """The earlier would go on beneath the later one's markers: users that no stream repairs."""
    store, generations = parts
    earlier = write_snapshot(tmp_path / "1", IDS)
    later = replace(earlier, path=tmp_path / "2" / "generation=001" / "dt=2025-03-09")

    first = replace(earlier.as_generation(), snapshot=earlier.name)
    generations.register(first)
    store.write(1, IDS[:10], records_of(IDS[:10], 100), snapshot=earlier.name)
    generations.register(replace(first, snapshot=later.name))
    with pytest.raises(GenerationStateError, match="another load has begun meanwhile"):
        store.write(1, IDS[10:20], records_of(IDS[10:20], 100), snapshot=earlier.name)
    with pytest.raises(GenerationStateError, match="another load has begun meanwhile"):
        generations.complete(1, earlier.ids(), earlier.name)
    load_values(earlier, store, generations)
    assert generations.get(1).snapshot == earlier.name


def test_a_generation_with_a_missing_user_is_not_ready(
    redis_server: redis.Redis, parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    snapshot = write_snapshot(tmp_path, IDS)
    generations.register(snapshot.as_generation())
    store.write(1, IDS[:-1], records_of(IDS[:-1], 100))
    with pytest.raises(GenerationStateError, match="holds 2999 of the 3000 users"):
        generations.complete(1, snapshot.ids())
    with pytest.raises(GenerationStateError, match="loading, a switch needs ready"):
        generations.switch(1, 0)
    generations.forget(int(IDS[-1]))
    assert generations.complete(1, snapshot.ids()).state is State.READY


def test_switching_back_works_until_the_drop_and_a_drop_keeps_tombstones(
    redis_server: redis.Redis, parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    load_values(write_snapshot(tmp_path, IDS), store, generations)
    load_values(write_snapshot(tmp_path, IDS, generation=2), store, generations)
    generations.switch(1, 0)
    generations.switch(2, 0)
    assert [found.state for found in generations.all()] == [State.RETIRED, State.LIVE]
    generations.switch(1, 0)
    assert generations.live() == 1
    generations.switch(2, 0)
    with pytest.raises(GenerationStateError, match="switch to another first"):
        list(generations.drop(2, 10**9))
    generations.forget(5)
    drop = generations.drop(1, 10**9)
    next(drop)
    drop.close()  # interrupted
    assert generations.get(1).state is State.DROPPING
    with pytest.raises(GenerationStateError, match="dropping"):
        store.write(1, IDS[:1], records_of(IDS[:1], 900))
    list(generations.drop(1, 10**9))
    assert [found.number for found in generations.all()] == [2]
    assert not dump(redis_server)
    assert generations.forgotten().tolist() == [5]
    load_values(write_snapshot(tmp_path, IDS, day="2024-03-07"), store, generations)
    assert not store.read(1, [5])[1].any()


def test_a_switch_in_its_delay_does_not_let_the_old_generation_go(
    parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    for generation in (1, 2):
        load_values(write_snapshot(tmp_path, IDS, generation=generation), store, generations)
    generations.switch(1, 0)
    assert generations.switch(2, 60) == 60
    assert generations.live() == 1
    with pytest.raises(GenerationStateError, match="read; switch to another first"):
        list(generations.drop(1, 10**9))


def test_a_number_taken_by_another_bundle_is_refused(
    parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    from dataclasses import replace

    _, generations = parts
    ours = write_snapshot(tmp_path, IDS[:3]).as_generation()
    generations.register(ours)
    with pytest.raises(GenerationStateError, match=r"drop it, or build under another number"):
        generations.register(replace(ours, bundle=b"bundle-2"))


def test_a_snapshot_that_is_damaged_or_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    ids = np.arange(3)
    snapshot = write_snapshot(tmp_path, ids)
    records = records_of(ids, 1)
    header_view(records)["version"] = 9
    table = pa.table(
        {
            "user_id": ids,
            "event_timestamp": np.full(3, CUT_MS),
            "memory": [record.tobytes() for record in records],
        },
        schema=SNAPSHOT,
    )
    pq.write_table(table, snapshot.path / "a.parquet")
    with pytest.raises(RecordFormatError, match="version 9"):
        list(snapshot.batches())
    (snapshot.path / "a.parquet").unlink()
    with pytest.raises(ManifestError, match="missing"):
        Snapshot.open(snapshot.path)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "store")
    server.start()
    yield server
    server.stop()


def write_for_ever(store: PackedStore, acknowledged: list[int]) -> None:
    """Batches of growing positions; `acknowledged` gets the position of each that returned."""
    while True:
        store.write(1, IDS, records_of(IDS, acknowledged[-1] + 1))
        acknowledged.append(acknowledged[-1] + 1)


@pytest.mark.parametrize("after_seconds", [0.15, 0.4, 0.8])
def test_every_acknowledged_write_survives_a_kill_of_redis(
    own_server: EmbeddedRedis, tmp_path: Path, after_seconds: float
) -> None:
    running = own_server.running()
    assert running is not None
    client = connect(Address.at(running.address))
    store, generations = PackedStore(client, KEYS), Generations(client, KEYS)
    generations.register(write_snapshot(tmp_path, IDS).as_generation())
    acknowledged = [0]
    killer = threading.Timer(after_seconds, own_server.kill)
    killer.start()
    with pytest.raises(StoreUnavailableError):
        write_for_ever(store, acknowledged)
    killer.join()
    assert acknowledged[-1] > 0
    own_server.start()
    records, found = store.read(1, IDS)
    assert found.all()
    assert (header_view(records)["offset"] >= acknowledged[-1]).all()
    assert (state_view(records) == (IDS % 101)[:, None]).all()
    client.close()


def test_reads_are_answered_while_a_snapshot_is_loaded(
    parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    load_values(write_snapshot(tmp_path, IDS), store, generations)
    newer = write_snapshot(tmp_path, IDS, offset=200, day="2024-03-07")
    offsets: set[int] = set()

    def look(_: int) -> None:
        records, found = store.read(1, IDS[::50])
        assert found.all()
        offsets.update(header_view(records)["offset"].tolist())

    load_values(newer, store, generations, look)
    assert offsets <= {100, 200}
    assert (header_view(store.read(1, IDS)[0])["offset"] == 200).all()


def test_a_later_snapshot_that_is_not_loaded_moves_nothing(
    parts: tuple[PackedStore, Generations], tmp_path: Path
) -> None:
    store, generations = parts
    load_values(write_snapshot(tmp_path, IDS), store, generations)
    later = write_snapshot(tmp_path, IDS, offset=200, day="2024-03-07")
    described = replace(later.as_generation(), positions={1: {0: 200}})
    # Half of it is there: a load that was interrupted, or has not ended.
    store.write(1, IDS[:1500], records_of(IDS[:1500], 200))
    notice_load(described, later.batches(), store, generations)
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 100}
    # Of another bundle under the same number it is none of this generation's.
    other = replace(described, bundle=b"bundle-2", record_bytes=1)
    assert notice_load(other, iter(()), store, generations).bundle == b"bundle-1"
    store.write(1, IDS[1500:], records_of(IDS[1500:], 200))
    moved = notice_load(described, later.batches(), store, generations)
    assert (moved.snapshot, moved.state) == ("generation=001/dt=2024-03-07", State.READY)
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 200}
    # A stream's marker that is beyond stays.
    store.write(1, IDS[:0], records_of(IDS[:0], 1), [MarkerMove(1, 0, 300, 200)])
    last = replace(described, positions={1: {0: 250}}, snapshot="generation=001/dt=2024-03-08")
    assert move_on(last, store, generations).snapshot == last.snapshot
    assert {p: mark.offset for p, mark in store.markers(1, epoch=1).items()} == {0: 300}
