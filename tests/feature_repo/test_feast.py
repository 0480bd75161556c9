"""Feast's own doors over the packed layout: what is written is what every door reads."""

import asyncio
import hashlib
import inspect
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.types import Bytes, Float32, Int64
from feast.value_type import ValueType

from feature_repo.errors import EmptyStoreError, StoreSettingError
from feature_repo.generations import Generation, Generations
from feature_repo.item_vectors import packed_item_vectors
from feature_repo.layout import ViewKeys
from feature_repo.online_store import UicOnlineStore
from feature_repo.packed import PackedStore
from feature_repo.repository import apply_definitions, open_feature_store
from feature_repo.server import EmbeddedRedis
from feature_repo.settings import StoreSettings
from models.record import Records, empty_records, header_view, state_view

BUNDLE = b"bundle-1"
NOW = datetime(2024, 5, 1, tzinfo=UTC)
USERS = [1, 2, 2**40, -5]
FLOATS = 616


def memories(offset: int = 1, users: int = len(USERS)) -> Records:
    records = empty_records(users, FLOATS)
    header = header_view(records)
    header["generation"], header["epoch"] = 1, 1
    header["offset"] = offset + np.arange(users)
    header["bundle"] = np.void(BUNDLE)
    header["last_event_time_ms"] = 1_714_000_000_500
    header["events"] = 7
    state_view(records)[:] = np.random.default_rng(0).normal(size=(users, FLOATS))
    return records


def frame(records: Records, users: list[int] = USERS) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": users,
            "event_timestamp": pd.Timestamp(NOW),
            "memory": [record.tobytes() for record in records],
        }
    )


def live_generation(client: redis.Redis) -> Generations:
    generations = Generations(client, ViewKeys.of_memories("uic"))
    generations.register(
        Generation(
            number=1,
            rows_expected=0,
            bundle=BUNDLE,
            bundle_name="mimn/1",
            record_bytes=44 + 2 * FLOATS,
            positions={},
            snapshot="generation=001/dt=2024-04-30",
        )
    )
    generations.complete(1, np.array([], dtype=np.int64))
    generations.switch(1, 0)
    return generations


@pytest.fixture
def settings(redis_server: redis.Redis) -> StoreSettings:
    port = redis_server.connection_pool.connection_kwargs["port"]
    return StoreSettings(
        address=f"127.0.0.1:{port}", pointer_refresh_seconds=0, switch_delay_seconds=0.1
    )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UIC_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def registry(redis_folder: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of this project's repository, applied once."""
    root = tmp_path_factory.mktemp("applied")
    store = open_feature_store(StoreSettings(address=redis_folder.start().address), root)
    with warnings.catch_warnings():
        # Feast calls on-demand views experimental, for offline use at scale.
        warnings.simplefilter("ignore")
        apply_definitions(store, root)
    asyncio.run(store._provider.online_store.close())  # type: ignore[union-attr]
    return root / "feast.db"


@pytest.fixture
def feast(settings: StoreSettings, workspace: Path, registry: Path) -> Iterator[FeatureStore]:
    """The repository of this project, applied."""
    shutil.copy(registry, workspace / "feast.db")
    store = open_feature_store(settings, workspace)
    yield store
    asyncio.run(store._provider.online_store.close())  # type: ignore[union-attr]


ROWS = [{"user_id": user} for user in (1, 99, -5, 2**40, 1)]
EXPECTED = [0, None, 3, 2, 0]


def expected_bytes(records: Records) -> list[bytes | None]:
    return [None if at is None else records[at].tobytes() for at in EXPECTED]


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
    feast.teardown()
    assert redis_server.keys("*") == [b"uic:uic:m:forgotten"]


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


def test_the_feature_server_serves_the_same_bytes(
    feast: FeatureStore, settings: StoreSettings, redis_server: redis.Redis, workspace: Path
) -> None:
    """`feast serve` in a process of its own, on the repository as it lies in the project."""
    import base64

    live_generation(redis_server)
    records = memories()
    feast.write_to_online_store("user_interest", frame(records))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = workspace / "repository"
    repository.mkdir()
    yaml_text = (Path(inspect.getfile(UicOnlineStore)).parent / "feature_store.yaml").read_text()
    (repository / "feature_store.yaml").write_text(
        yaml_text.replace("../var/feast.db", str(workspace / "feast.db"))
    )
    environment = os.environ | {
        "UIC_STORE__ADDRESS": str(settings.address),
        "FEAST_USAGE": "False",
    }
    command = [str(Path(sys.executable).parent / "feast"), "serve", "-h", "127.0.0.1"]
    with (workspace / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "-p", str(port), "--no-access-log"],
            cwd=repository,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, server, workspace / "serve.log")
        answer = httpx.post(
            f"{url}/get-online-features",
            json={"features": ["user_interest:memory"], "entities": {"user_id": [1, 99]}},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        document = answer.json()
        at = document["metadata"]["feature_names"].index("memory")
        values = document["results"][at]["values"]
        assert base64.b64decode(values[0]) == records[0].tobytes()
        assert values[1] is None
        assert document["results"][at]["statuses"] == ["PRESENT", "NOT_FOUND"]
        decoded = httpx.post(
            f"{url}/get-online-features",
            json={"feature_service": "interest_v1", "entities": {"user_id": [1]}},
            timeout=30,
        ).json()
        at = decoded["metadata"]["feature_names"].index("offset")
        assert decoded["results"][at]["values"] == [1]
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    # Importing Feast takes ten seconds of an idle machine, and minutes of a busy one.
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    pytest.fail(f"the feature server did not answer: {log.read_text()}")


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
