"""Feast's registry: a reader finds the old one or the new one."""

import asyncio
from pathlib import Path

from feast import Entity
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.value_type import ValueType

from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.store.settings import StoreSettings


def test_a_reader_of_the_registry_never_sees_half_of_it(store_address: str, tmp_path: Path) -> None:
    feast = open_feature_store(StoreSettings(address=store_address), tmp_path)
    feast.apply([Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)])
    with (tmp_path / "feast.db").open("rb") as reader:
        feast.apply([Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)])
        before = Registry.FromString(reader.read())
    assert [entity.spec.name for entity in before.entities if entity.spec.name != "__dummy"] == [
        "user"
    ]
    assert {entity.name for entity in feast.list_entities()} >= {"user", "item"}
    assert [path.name for path in tmp_path.iterdir()] == ["feast.db"]
    asyncio.run(feast._provider.online_store.close())  # type: ignore[union-attr]
