"""Which entity a request names: nobody is read, or named wrongly, in the place of another."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.feature_server import get_app
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value
from feast.types import Bytes
from feast.value_type import ValueType

from tests.feature_repo.feast_rows import frame, live_generation, memories
from uic.feature_repo.plugin.packed_view import EntityIdError
from uic.feature_repo.store.errors import StoreSettingError

MEMORY = ["user_interest:memory"]


@pytest.fixture
def first_two(feast: FeatureStore, redis_server: redis.Redis) -> list[bytes]:
    """Users 0 and 1 have memories."""
    live_generation(redis_server)
    records = memories(users=2)
    feast.write_to_online_store("user_interest", frame(records, [0, 1]))
    return [record.tobytes() for record in records]


@pytest.mark.parametrize("hole", [None, float("nan")], ids=["null", "nan"])
def test_a_hole_among_the_users_is_nobody(
    feast: FeatureStore, first_two: list[bytes], hole: object
) -> None:
    rows = [{"user_id": user} for user in (1, hole, 0)]
    response = feast.get_online_features(MEMORY, rows)
    assert response.to_dict()["memory"] == [first_two[1], None, first_two[0]]
    assert [int(status) for status in response.proto.results[-1].statuses] == [1, 3, 1]
    alone = feast.get_online_features(MEMORY, [{"user_id": hole}])
    assert alone.to_dict()["memory"] == [None]


def test_a_hole_is_nobody_to_the_asynchronous_sdk(
    feast: FeatureStore, first_two: list[bytes]
) -> None:
    async def read() -> list[bytes | None]:
        rows = [{"user_id": None}, {"user_id": 1}]
        response = await feast.get_online_features_async(MEMORY, rows)
        values: list[bytes | None] = response.to_dict()["memory"]
        await feast._provider.online_store.close()  # type: ignore[union-attr]
        return values

    assert asyncio.run(read()) == [None, first_two[1]]


def test_a_null_over_http_is_nobody(feast: FeatureStore, first_two: list[bytes]) -> None:
    async def post() -> Any:
        transport = httpx.ASGITransport(get_app(feast))
        async with httpx.AsyncClient(transport=transport, base_url="http://feast") as client:
            asked = {"features": MEMORY, "entities": {"user_id": [None, 1]}}
            answer = await client.post("/get-online-features", json=asked)
            await feast._provider.online_store.close()  # type: ignore[union-attr]
            return answer.json()

    answer = asyncio.run(post())
    at = answer["metadata"]["feature_names"].index("memory")
    assert answer["results"][at]["statuses"] == ["NOT_FOUND", "PRESENT"]
    assert answer["results"][at]["values"][0] is None


def test_an_id_of_another_type_is_read_as_itself_or_refused(
    feast: FeatureStore, first_two: list[bytes]
) -> None:
    small = {"user_id": RepeatedValue(val=[Value(int32_val=1)])}
    assert feast.get_online_features(MEMORY, small).to_dict()["memory"] == [first_two[1]]
    word = {"user_id": RepeatedValue(val=[Value(string_val="1")])}
    with pytest.raises(EntityIdError, match="an entity key of type string_val, expected an int64"):
        feast.get_online_features(MEMORY, word)


def test_feasts_other_doors_read_ids_the_same_way(
    feast: FeatureStore, first_two: list[bytes]
) -> None:
    store = feast._provider.online_store  # type: ignore[union-attr]
    view = feast.get_feature_view("user_interest")
    keys = [
        EntityKey(join_keys=["user_id"], entity_values=[value])
        for value in (Value(), Value(int64_val=1))
    ]
    rows = store.online_read(feast.config, view, keys)
    assert rows[0] == (None, None)
    assert rows[1][1]["memory"].bytes_val == first_two[1]

    async def read() -> Any:
        rows = await store.online_read_async(feast.config, view, keys)
        await store.close()
        return rows

    assert asyncio.run(read()) == rows


def view_of(entities: list[Entity], folder: Path) -> FeatureView:
    return FeatureView(
        name="kept_by",
        entities=entities,
        schema=[Field(name="value", dtype=Bytes)],
        source=FileSource(path=str(folder / "x.parquet"), timestamp_field="event_timestamp"),
        tags={"layout": "packed", "packed_as": "vector"},
    )


@pytest.mark.parametrize("kind", [ValueType.INT32, ValueType.STRING])
def test_an_entity_that_is_no_int64_is_refused_at_apply(
    feast: FeatureStore, tmp_path: Path, kind: ValueType
) -> None:
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=kind)
    with pytest.raises(StoreSettingError, match=r"entity driver_id is (Int32|String).*Int64"):
        feast.apply([driver, view_of([driver], tmp_path)])


def test_a_view_without_an_entity_is_refused_at_apply(feast: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(StoreSettingError, match="one entity"):
        feast.apply([view_of([], tmp_path)])
