"""Feast's own doors over the packed layout: what is written is what every door reads."""

import asyncio
import hashlib
import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, utils
from feast.infra.offline_stores.dask import DaskOfflineStore
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.registry.file import FileRegistryStore
from feast.metrics import track_feature_statuses
from feast.types import Bytes, Float32, Int64
from feast.value_type import ValueType

from tests.feature_repo.feast_rows import (
    BUNDLE,
    NOW,
    ROWS,
    USERS,
    expected_bytes,
    frame,
    live_generation,
    memories,
    with_options,
)
from uic.feature_repo.online_store import UicOnlineStore
from uic.feature_repo.store.errors import EmptyStoreError, StoreSettingError
from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings
from uic.models.records.record import header_view


def test_the_sdk_reads_what_it_wrote(feast: FeatureStore, redis_server: redis.Redis) -> None:
    live_generation(redis_server)
    records = memories()
    feast.write_to_online_store("user_interest", frame(records))
    response = feast.get_online_features(["user_interest:memory"], ROWS)
    assert response.to_dict()["memory"] == expected_bytes(records)
    statuses = [int(status) for status in response.proto.results[-1].statuses]
    assert statuses == [1, 3, 1, 1, 1]  # PRESENT, NOT_FOUND
    assert response.to_dict(include_event_timestamps=True)["memory__ts"][0] == 1_714_000_000
    named = feast.get_online_features(
        ["user_interest:memory"], ROWS, full_feature_names=True
    ).to_dict()
    assert named["user_interest__memory"] == expected_bytes(records)


def test_the_asynchronous_sdk_reads_and_writes_the_same(
    feast: FeatureStore, redis_server: redis.Redis
) -> None:
    live_generation(redis_server)
    records = memories()

    async def round_trip() -> dict[str, list[bytes | None]]:
        await feast.write_to_online_store_async("user_interest", frame(records))
        response = await feast.get_online_features_async(["user_interest:memory"], ROWS)
        found = response.to_dict()
        await feast._provider.online_store.close()  # type: ignore[union-attr]
        return found

    for _ in range(2):  # a second event loop needs connections of its own
        assert asyncio.run(round_trip())["memory"] == expected_bytes(records)


def test_an_older_memory_does_not_land_by_feast(
    feast: FeatureStore, redis_server: redis.Redis
) -> None:
    live_generation(redis_server)
    feast.write_to_online_store("user_interest", frame(memories(offset=100)))
    feast.write_to_online_store("user_interest", frame(memories(offset=50)))
    found = feast.get_online_features(
        ["user_interest_decoded:offset", "user_interest_decoded:events"], ROWS[:2]
    ).to_dict()
    assert found["offset"] == [100, None]
    assert found["events"] == [7, None]


def test_a_row_for_a_generation_nobody_registered_is_refused(feast: FeatureStore) -> None:
    with pytest.raises(EmptyStoreError, match="uic memories load"):
        feast.write_to_online_store("user_interest", frame(memories()))
    with pytest.raises(EmptyStoreError, match="no generation is live"):
        feast.get_online_features(["user_interest:memory"], ROWS)


def live_item_version(client: redis.Redis) -> None:
    versions = Generations(client, ViewKeys("uic", "item_image"))
    versions.register(
        Generation(
            number=1,
            rows_expected=0,
            bundle=BUNDLE,
            bundle_name="dicm/1",
            record_bytes=80,
            positions={},
            snapshot="version=001",
        )
    )
    versions.complete(1, np.zeros(0, np.int64))
    versions.switch(1, delay_seconds=0)


def test_without_an_item_version_items_have_no_vector(feast: FeatureStore) -> None:
    found = feast.get_online_features(["item_image:embedding"], [{"item_id": 8}]).to_dict()
    assert found["embedding"] == [None]


def test_vectors_of_items_are_read_as_written_and_decoded(
    feast: FeatureStore, redis_server: redis.Redis
) -> None:
    live_item_version(redis_server)
    vectors = np.arange(24, dtype="<f4").reshape(2, 12)
    values = packed_item_vectors(1, BUNDLE, 1000, vectors)
    rows = pd.DataFrame(
        {
            "item_id": [7, 8],
            "event_timestamp": pd.Timestamp(NOW),
            "embedding": [value.tobytes() for value in values],
        }
    )
    feast.write_to_online_store("item_image", rows)
    older = packed_item_vectors(1, BUNDLE, 999, 0 * vectors)
    older_rows = rows.assign(embedding=[value.tobytes() for value in older])
    feast.write_to_online_store("item_image", older_rows)
    found = feast.get_online_features(
        ["item_image:embedding", "item_image_decoded:embedding_values"],
        [{"item_id": 8}, {"item_id": 9}],
    ).to_dict()
    assert found["embedding"] == [values[1].tobytes(), None]
    assert found["embedding_values"] == [vectors[1].tolist(), None]


def test_write_read_back_and_teardown_as_feasts_universal_test_does(
    feast: FeatureStore, redis_server: redis.Redis, workspace: Path
) -> None:
    """Steps of Feast's `test_online_store` (universal): an ordinary and a packed view together."""
    live_generation(redis_server)
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    stats = FeatureView(
        name="driver_stats",
        entities=[driver],
        ttl=timedelta(days=1),
        schema=[Field(name="driver_id", dtype=Int64), Field(name="rate", dtype=Float32)],
        source=FileSource(
            path=str(workspace / "drivers.parquet"), timestamp_field="event_timestamp"
        ),
    )
    pq.write_table(
        pa.table(
            {
                "driver_id": [1, 2],
                "rate": pa.array([0.5, 0.25], pa.float32()),
                "event_timestamp": pa.array([NOW, NOW], pa.timestamp("ms", "UTC")),
            }
        ),
        workspace / "drivers.parquet",
    )
    feast.apply([driver, stats])
    feast.materialize(NOW - timedelta(hours=1), NOW, feature_views=["driver_stats"])
    records = memories()
    feast.write_to_online_store("user_interest", frame(records))
    both = feast.get_online_features(
        ["driver_stats:rate", "user_interest:memory"],
        [{"driver_id": 1, "user_id": 2}, {"driver_id": 9, "user_id": 99}],
    ).to_dict()
    assert both["rate"] == [0.5, None]
    assert both["memory"] == [records[1].tobytes(), None]
    Generations(redis_server, ViewKeys.of_memories("uic")).forget(2)
    with_options(feast, allow_deletion=True).teardown()
    # What outlives everything: who was forgotten, and whose store it is.
    assert sorted(redis_server.keys("*")) == [b"uic:uic:m:forgotten", b"uic:uic:workspace"]


def test_a_view_that_would_lose_memories_is_refused_at_apply(
    feast: FeatureStore, redis_server: redis.Redis, workspace: Path
) -> None:
    user = feast.get_entity("user")

    def view(**changes: object) -> FeatureView:
        given: dict[str, object] = {
            "name": "bad",
            "entities": [user],
            "ttl": timedelta(0),
            "schema": [Field(name="user_id", dtype=Int64), Field(name="memory", dtype=Bytes)],
            "source": FileSource(
                path=str(workspace / "x.parquet"), timestamp_field="event_timestamp"
            ),
            "tags": {"layout": "packed"},
        }
        return FeatureView(**(given | changes))

    with pytest.raises(StoreSettingError, match="ttl is 1 day"):
        feast.apply([view(ttl=timedelta(days=1))])
    with pytest.raises(StoreSettingError, match="one feature of type Bytes"):
        feast.apply(
            [view(schema=[Field(name="user_id", dtype=Int64), Field(name="a", dtype=Int64)])]
        )
    redis_server.config_set("maxmemory-policy", "allkeys-lru")
    try:
        fresh = FeatureStore(config=feast.config)
        with pytest.raises(StoreSettingError, match="allkeys-lru"):
            fresh.get_online_features(["user_interest:memory"], ROWS)
    finally:
        redis_server.config_set("maxmemory-policy", "noeviction")


def test_readers_turn_together_when_a_generation_is_switched(
    feast: FeatureStore, settings: StoreSettings, redis_server: redis.Redis
) -> None:
    generations = live_generation(redis_server)
    feast.write_to_online_store("user_interest", frame(memories()))
    second = memories(offset=500)
    header_view(second)["generation"] = 2
    one = generations.get(1)
    generations.register(Generation(2, 0, BUNDLE, "mimn/1", one.record_bytes, {}, "x"))
    keys = ViewKeys.of_memories("uic")
    PackedStore(redis_server, keys).write(2, USERS, second)
    generations.complete(2, np.array([], dtype=np.int64))

    def offset() -> int:
        found = feast.get_online_features(["user_interest_decoded:offset"], [{"user_id": 1}])
        return int(found.to_dict()["offset"][0])

    # Far enough ahead that a busy machine asks once before it.
    waits = generations.switch(2, 5.0)
    assert waits == 5.0
    assert offset() == 1
    time.sleep(5.1)
    assert offset() == 500
    generations.switch(1, 0.1)
    time.sleep(0.2)
    assert offset() == 1


HOOKS = {
    (RedisOnlineStore, "_read_features_per_fv"): "b5040e7d0b2a",
    (RedisOnlineStore, "_read_features_per_fv_async"): "b62da5bc8259",
    (RedisOnlineStore, "_get_client"): "2f1f47fd661d",
    (RedisOnlineStore, "_get_client_async"): "4168c562dbe2",
    (RedisOnlineStore, "delete_table"): "c1cd42167760",
    (RedisOnlineStore, "teardown"): "1726e6ced9f0",
    (RedisOnlineStore, "update"): "889a9dca15a8",
    (OnlineStore, "get_online_features"): "8e65b8eaf825",
    (OnlineStore, "get_online_features_async"): "3e4e22ba846a",
}


@pytest.mark.parametrize(
    ("owner", "name"), list(HOOKS), ids=lambda part: getattr(part, "__name__", part)
)
def test_feast_still_has_the_hooks_we_override(owner: type, name: str) -> None:
    """An upgrade of Feast that changes one of these must be read before the sum is renewed."""
    source = inspect.getsource(getattr(owner, name))
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == HOOKS[owner, name]
    ours = getattr(UicOnlineStore, name)
    assert list(inspect.signature(ours).parameters) == list(
        inspect.signature(getattr(owner, name)).parameters
    )


# What is called or replaced without being a hook: nobody promised that it stays.
RELIED_ON = [
    (RedisOnlineStore.online_read, "0979865237d3"),
    (RedisOnlineStore.online_write_batch, "b5b4cffe9b37"),
    (RedisOnlineStore._read_hash_fields, "6b491db3f00c"),
    (FileRegistryStore.__init__, "f5b4b51d0a92"),
    (FileRegistryStore._write_registry, "0d5999f2bdfc"),
    (DaskOfflineStore.get_historical_features, "f9d0c84f97fc"),
    (utils._get_table_entity_values, "5832e98028fb"),
    (track_feature_statuses, "9e8615718f9d"),
]


@pytest.mark.parametrize(
    ("function", "known"), RELIED_ON, ids=lambda part: getattr(part, "__qualname__", "")
)
def test_feast_still_has_what_we_rely_on(function: Callable[..., object], known: str) -> None:
    """As above: read the change, then renew the sum."""
    source = inspect.getsource(function)
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == known
