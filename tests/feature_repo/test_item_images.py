"""Item versions: loaded, switched, pinned, added to; vectors of another bundle are refused."""

import asyncio
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore

from uic.feature_repo.plugin.pinned import pinned
from uic.feature_repo.plugin.repository import (
    apply_definitions,
    materialize_item_images,
    open_feature_store,
)
from uic.feature_repo.snapshots.item_images import (
    ITEM_IMAGES_KIND,
    ITEM_IMAGES_SCHEMA_VERSION,
    ITEM_VECTORS,
    ItemImages,
    list_item_images,
)
from uic.feature_repo.snapshots.published_values import load_values, point_current_to
from uic.feature_repo.store.connection import Address
from uic.feature_repo.store.errors import ForeignValueError, GenerationStateError
from uic.feature_repo.store.generations import State
from uic.feature_repo.store.item_store import CHANGES_KEPT, ItemStore
from uic.feature_repo.store.item_vectors import packed_item_vectors, unpacked_item_vectors
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.models.errors import ManifestError
from uic.models.published import file_entry, publish_manifest

OLD, NEW = b"bundle-1", b"bundle-2"
IDS = np.array([3, 7, 8], np.int64)
TIME_MS = 1_709_769_600_000


def vectors(seed: int, items: int = len(IDS)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, 12)).astype(np.float32)


def publish(root: Path, version: int, bundle: bytes, values: np.ndarray) -> ItemImages:
    path = root / "item_images" / f"version={version:03d}"
    path.mkdir(parents=True)
    table = pa.table(
        [IDS, np.full(len(IDS), TIME_MS), [value.tobytes() for value in values]],
        schema=ITEM_VECTORS,
    )
    pq.write_table(table, path / "a.parquet")
    publish_manifest(
        path,
        {
            "kind": ITEM_IMAGES_KIND,
            "schema_version": ITEM_IMAGES_SCHEMA_VERSION,
            "files": [file_entry(path, path / "a.parquet", len(IDS))],
            "version": version,
            "rows": len(IDS),
            "value_bytes": 80,
            "bundle": f"dicm/{version}",
            "bundle_hash8": bundle.hex(),
            "cut_ms": TIME_MS,
        },
    )
    return ItemImages.open(path)


@pytest.fixture
def settings(redis_folder: EmbeddedRedis, redis_server: redis.Redis) -> StoreSettings:
    return StoreSettings(address=redis_folder.start().address, pointer_refresh_seconds=0)


@pytest.fixture
def store(settings: StoreSettings, redis_server: redis.Redis) -> ItemStore:
    return ItemStore.on(redis_server, Address.at(str(settings.address)), settings)


@pytest.fixture
def feast(settings: StoreSettings, tmp_path: Path) -> FeatureStore:
    opened = open_feature_store(settings, tmp_path)
    apply_definitions(opened, tmp_path)
    return opened


def read(feast: FeatureStore, ids: list[int]) -> list[bytes | None]:
    rows = {"item_id": ids}
    return feast.get_online_features(["item_image:embedding"], rows).to_dict()["embedding"]


def test_a_version_is_loaded_beside_the_live_one_and_swapped(
    tmp_path: Path, store: ItemStore, feast: FeatureStore
) -> None:
    old = packed_item_vectors(1, OLD, TIME_MS, vectors(1))
    new = packed_item_vectors(2, NEW, TIME_MS, vectors(2))
    assert (
        load_values(publish(tmp_path, 1, OLD, old), store.vectors, store.versions).generation.state
        is State.READY
    )
    store.versions.switch(1, 0)
    load_values(publish(tmp_path, 2, NEW, new), store.vectors, store.versions)
    assert read(feast, [7, 9]) == [old[1].tobytes(), None]
    store.versions.switch(2, 0)
    assert read(feast, [7, 9]) == [new[1].tobytes(), None]
    store.versions.switch(1, 0)
    assert read(feast, [7]) == [old[1].tobytes()]
    assert [found.version for found in list_item_images(tmp_path)] == [1, 2]


def test_a_pinned_reader_reads_its_version_live_or_not(
    tmp_path: Path, store: ItemStore, feast: FeatureStore
) -> None:
    for version, bundle in ((1, OLD), (2, NEW)):
        values = packed_item_vectors(version, bundle, TIME_MS, vectors(version))
        load_values(publish(tmp_path, version, bundle, values), store.vectors, store.versions)
    store.versions.switch(1, 0)
    found = store.version_of(NEW)
    assert found is not None
    assert found.number == 2
    with pinned("item_image", found.number):
        [value] = read(feast, [3])

        async def later() -> bytes:
            answer = await feast.get_online_features_async(
                ["item_image:embedding"], {"item_id": [3]}
            )
            await feast._get_provider().online_store.close()
            return answer.to_dict()["embedding"][0]

        assert asyncio.run(later()) == value
    assert value is not None
    np.testing.assert_array_equal(
        unpacked_item_vectors(np.frombuffer(value, np.uint8)[None], "x")[0], vectors(2)[0]
    )
    assert read(feast, [3]) != [value]


def test_feast_materialize_loads_a_version(
    tmp_path: Path, store: ItemStore, feast: FeatureStore, settings: StoreSettings
) -> None:
    values = packed_item_vectors(1, OLD, TIME_MS, vectors(1))
    images = publish(tmp_path, 1, OLD, values)
    point_current_to(images.path)
    materialize_item_images(settings, tmp_path, images)
    assert store.versions.get(1).state is State.LIVE
    assert read(feast, IDS.tolist()) == [value.tobytes() for value in values]


def test_vectors_of_another_bundle_or_layout_never_enter_a_version(
    tmp_path: Path, store: ItemStore
) -> None:
    values = packed_item_vectors(1, OLD, TIME_MS, vectors(1))
    load_values(publish(tmp_path, 1, OLD, values), store.vectors, store.versions)
    other = packed_item_vectors(1, NEW, TIME_MS + 1, vectors(2))
    with pytest.raises(GenerationStateError, match="build a generation of their own"):
        store.vectors.write(1, IDS, other)
    mixed = publish(tmp_path, 3, OLD, packed_item_vectors(3, NEW, TIME_MS, vectors(2)))
    with pytest.raises(ManifestError, match=r"bundles \['62756e646c652d32'\]"):
        list(mixed.batches())
    found, _ = store.vectors.read(1, IDS)
    np.testing.assert_array_equal(found, values)
    with pytest.raises(ForeignValueError, match="item vector of 80 bytes"):
        unpacked_item_vectors(np.zeros((1, 80), np.uint8), "here")


def test_an_added_item_is_announced_and_a_late_load_does_not_undo_it(
    tmp_path: Path, store: ItemStore
) -> None:
    images = publish(tmp_path, 1, OLD, packed_item_vectors(1, OLD, TIME_MS, vectors(1)))
    load_values(images, store.vectors, store.versions)
    before = store.changes(1, None)
    fresh = packed_item_vectors(1, OLD, TIME_MS + 5, vectors(9, 2))
    assert store.add(1, [7, 100], fresh).tolist() == [True, True]
    seen = store.changes(1, before.last)
    assert seen.item_ids is not None
    assert seen.item_ids.tolist() == [7, 100]
    again = store.changes(1, seen.last)
    assert again.item_ids is not None
    assert again.item_ids.tolist() == []
    load_values(images, store.vectors, store.versions)
    found, _ = store.vectors.read(1, [7, 100])
    np.testing.assert_array_equal(found, fresh)


def test_a_reader_that_missed_changes_is_told_to_renew(store: ItemStore, tmp_path: Path) -> None:
    images = publish(tmp_path, 1, OLD, packed_item_vectors(1, OLD, TIME_MS, vectors(1)))
    load_values(images, store.vectors, store.versions)
    store.add(1, [1], packed_item_vectors(1, OLD, TIME_MS, vectors(1, 1)))
    since = store.changes(1, None).last
    key = store.versions.keys.generation(1) + ":changes"
    pipe = store.client.pipeline(transaction=False)
    for _ in range(3):
        pipe.xadd(key, {"items": b"\0" * 8})
    pipe.execute()
    assert store.changes(1, since).item_ids is not None
    store.client.xtrim(key, maxlen=1, approximate=False)
    assert store.changes(1, since).item_ids is None
    assert CHANGES_KEPT > 1000


def test_dropping_a_version_leaves_nothing(tmp_path: Path, store: ItemStore) -> None:
    for version in (1, 2):
        values = packed_item_vectors(version, OLD, TIME_MS, vectors(1))
        load_values(publish(tmp_path, version, OLD, values), store.vectors, store.versions)
    store.versions.switch(1, 0)
    store.add(2, [1], packed_item_vectors(2, OLD, TIME_MS, vectors(1, 1)))
    list(store.drop(2, 1_000_000))
    assert not list(store.client.scan_iter(match="uic:uic:item_image:*2:*"))
    found = store.version_of(OLD)
    assert found is not None
    assert found.number == 1
