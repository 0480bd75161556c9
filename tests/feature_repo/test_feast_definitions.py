"""Definitions of packed views: checked always, and never a way to lose what is stored."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Bytes, Float32, Int64
from feast.value_type import ValueType

from tests.feature_repo.feast_rows import NOW, USERS, frame, live_generation, memories, with_options
from uic.feature_repo.store.errors import DeletionRefusedError, StoreSettingError

MEMORY = ["user_interest:memory"]
ROW = [{"user_id": 1}]


def packed_view(store: FeatureStore, folder: Path, name: str, **changes: object) -> FeatureView:
    """A packed view of users, its values vectors unless its tags say otherwise."""
    tags = {"layout": "packed", "packed_as": "vector"} | dict(changes.pop("tags", {}))  # type: ignore[call-overload]
    arguments: dict[str, object] = {
        "entities": [store.get_entity("user")],
        "ttl": timedelta(0),
        "schema": [Field(name="user_id", dtype=Int64), Field(name="value", dtype=Bytes)],
        "source": FileSource(path=str(folder / "x.parquet"), timestamp_field="event_timestamp"),
    }
    return FeatureView(name=name, tags=tags, **(arguments | changes))


def renamed(store: FeatureStore) -> tuple[FeatureView, FeatureView]:
    """The view of memories, and the same under another name."""
    old = store.get_feature_view("user_interest")
    new = FeatureView(
        name="user_interest_v2",
        entities=[store.get_entity("user")],
        ttl=old.ttl,
        schema=old.schema,
        source=old.batch_source,
        tags=old.tags,
    )
    return old, new


@pytest.fixture
def stored(feast: FeatureStore, redis_server: redis.Redis) -> list[bytes]:
    """Memories of four users; every key of the store."""
    live_generation(redis_server)
    feast.write_to_online_store("user_interest", frame(memories()))
    return sorted(redis_server.keys("*"))


def test_a_renamed_view_keeps_its_memories(
    feast: FeatureStore, redis_server: redis.Redis, stored: list[bytes]
) -> None:
    old, new = renamed(feast)
    before = feast.get_online_features(MEMORY, ROW).to_dict()["memory"]
    feast.apply([feast.get_entity("user"), new], objects_to_delete=[old], partial=False)
    assert sorted(redis_server.keys("*")) == stored
    after = feast.get_online_features(["user_interest_v2:memory"], ROW).to_dict()["memory"]
    assert after == before


def test_deleting_memories_needs_a_setting_and_the_message_says_how_many(
    feast: FeatureStore, redis_server: redis.Redis, stored: list[bytes]
) -> None:
    old = feast.get_feature_view("user_interest")
    expected = r"delete 4 values of user_interest \(key_name m\).*UIC_STORE__ALLOW_DELETION"
    with pytest.raises(DeletionRefusedError, match=expected):
        feast.apply([], objects_to_delete=[old], partial=False)
    with pytest.raises(DeletionRefusedError, match=expected):
        feast.teardown()
    assert sorted(redis_server.keys("*")) == stored
    fresh = FeatureStore(config=feast.config)
    assert fresh.get_feature_view("user_interest").name == "user_interest"
    allowed = with_options(fresh, allow_deletion=True)
    allowed.apply([], objects_to_delete=[old], partial=False)
    assert redis_server.keys("*") == [b"uic:uic:workspace"]


def test_nothing_is_deleted_if_any_view_is_refused(
    feast: FeatureStore, redis_server: redis.Redis, stored: list[bytes], tmp_path: Path
) -> None:
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    stats = FeatureView(
        name="stats",
        entities=[driver],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="rate", dtype=Float32)],
        source=FileSource(path=str(tmp_path / "d.parquet"), timestamp_field="event_timestamp"),
    )
    feast.apply([driver, stats])
    row = pd.DataFrame({"driver_id": [1], "rate": [0.5], "event_timestamp": [NOW]})
    feast.write_to_online_store("stats", row)
    old = feast.get_feature_view("user_interest")
    with pytest.raises(DeletionRefusedError):
        feast.apply([], objects_to_delete=[stats, old], partial=False)
    fresh = FeatureStore(config=feast.config)
    rates = fresh.get_online_features(["stats:rate"], [{"driver_id": 1}]).to_dict()["rate"]
    assert rates == [0.5]


def test_feasts_switch_against_deletion_holds_for_packed_views(
    feast: FeatureStore, redis_server: redis.Redis, stored: list[bytes]
) -> None:
    old = feast.get_feature_view("user_interest")
    careful = with_options(feast, full_scan_for_deletion=False, allow_deletion=True)
    careful.apply([], objects_to_delete=[old], partial=False)
    assert sorted(redis_server.keys("*")) == stored


def test_two_views_of_one_key_name_are_refused(
    feast: FeatureStore, stored: list[bytes], tmp_path: Path
) -> None:
    _, new = renamed(feast)
    with pytest.raises(StoreSettingError, match=r"user_interest and user_interest_v2.*key_name"):
        feast.apply([new])
    one, two = (packed_view(feast, tmp_path, name, tags={"key_name": "x"}) for name in "ab")
    with pytest.raises(StoreSettingError, match=r"a and b.*key_name"):
        feast.apply([one, two])


@pytest.mark.parametrize("name", ["a*", "", "m:1", "a b", "ä", "a\n"])
def test_a_key_name_is_a_word(feast: FeatureStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreSettingError, match="letters, digits and underscores"):
        feast.apply([packed_view(feast, tmp_path, "bad", tags={"key_name": name})])


@pytest.mark.parametrize("name", ["m", "s", "item_image"])
def test_the_key_names_of_this_project_hold_its_own_layouts_only(
    feast: FeatureStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(StoreSettingError, match=f"key_name is '{name}'"):
        feast.apply([packed_view(feast, tmp_path, "bad", tags={"key_name": name})])


def test_a_definition_is_checked_each_time(
    feast: FeatureStore, stored: list[bytes], tmp_path: Path
) -> None:
    view = packed_view(feast, tmp_path, "v")
    feast.apply([view])
    two = [Field(name=name, dtype=kind) for name, kind in (("user_id", Int64), ("b", Bytes))]
    for changes, message in (
        ({"ttl": timedelta(days=1)}, "ttl is 1 day"),
        ({"tags": {"packed_as": "zzz"}}, "packed_as is 'zzz'"),
        ({"schema": [*view.schema, two[1]]}, "one feature of type Bytes"),
    ):
        with pytest.raises(StoreSettingError, match=message):
            feast.apply([packed_view(feast, tmp_path, "v", **changes)])


def test_a_reader_follows_a_changed_definition(feast: FeatureStore, tmp_path: Path) -> None:
    feast.apply([packed_view(feast, tmp_path, "v", tags={"key_name": "one"})])
    rows = pd.DataFrame({"user_id": [1], "event_timestamp": [NOW], "value": [b"old"]})
    feast.write_to_online_store("v", rows)
    assert feast.get_online_features(["v:value"], ROW).to_dict()["value"] == [b"old"]
    other = FeatureStore(config=feast.config)
    other.apply([packed_view(feast, tmp_path, "v", tags={"key_name": "two"})])
    other.write_to_online_store("v", rows.assign(value=[b"new"]))
    feast.refresh_registry()
    assert feast.get_online_features(["v:value"], ROW).to_dict()["value"] == [b"new"]


def test_a_feature_that_the_view_does_not_have_is_an_error(
    feast: FeatureStore, stored: list[bytes]
) -> None:
    with pytest.raises(Exception, match="zzz"):
        feast.get_online_features(["user_interest:zzz"], ROW)
    view = feast.get_feature_view("user_interest")
    with pytest.raises(StoreSettingError, match="no feature zzz; it has memory"):
        feast._provider.online_store.online_read(feast.config, view, [], ["zzz"])  # type: ignore[union-attr]


def test_keys_that_expire_are_for_ordinary_views(
    feast: FeatureStore, redis_server: redis.Redis, tmp_path: Path
) -> None:
    expiring = with_options(feast, key_ttl_seconds=100)
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    stats = FeatureView(
        name="stats",
        entities=[driver],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="rate", dtype=Float32)],
        source=FileSource(path=str(tmp_path / "d.parquet"), timestamp_field="event_timestamp"),
    )
    expiring.apply([driver, stats])
    row = pd.DataFrame({"driver_id": [1], "rate": [0.5], "event_timestamp": [NOW]})
    expiring.write_to_online_store("stats", row)
    [key] = redis_server.keys("*")
    assert 0 < redis_server.ttl(key) <= 100
    with pytest.raises(StoreSettingError, match="key_ttl_seconds is 100"):
        expiring.apply([packed_view(feast, tmp_path, "v")])
    with pytest.raises(StoreSettingError, match="key_ttl_seconds is 100"):
        expiring.get_online_features(MEMORY, ROW)


def test_a_large_request_is_read_in_parts(
    feast: FeatureStore, redis_server: redis.Redis, stored: list[bytes]
) -> None:
    parts = with_options(feast, keys_per_read=3)
    redis_server.config_resetstat()
    rows = [{"user_id": user} for user in (*USERS, *range(100, 106), 1)]
    values = parts.get_online_features(MEMORY, rows).to_dict()["memory"]
    assert [value is not None for value in values] == [True] * 4 + [False] * 6 + [True]
    assert redis_server.info("commandstats")["cmdstat_mget"]["calls"] == 4


def test_features_are_answered_in_the_order_asked_for(
    feast: FeatureStore, stored: list[bytes], tmp_path: Path
) -> None:
    stats = FeatureView(
        name="stats",
        entities=[feast.get_entity("user")],
        schema=[Field(name="user_id", dtype=Int64), Field(name="rate", dtype=Float32)],
        source=FileSource(path=str(tmp_path / "d.parquet"), timestamp_field="event_timestamp"),
    )
    feast.apply([stats])
    for features in (
        ["user_interest:memory", "stats:rate"],
        ["stats:rate", "user_interest:memory"],
    ):
        names = list(feast.get_online_features(features, ROW).to_dict())
        assert names == ["user_id", *(feature.split(":")[1] for feature in features)]
