"""Users' features in the store: loads, pushes, Feast's own doors, and one read with the memory."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.jobs.serving.feature_shop import LENGTHS, USERS, WITHOUT_ROW, tables_of, write_tables
from tests.jobs.serving.shop import Shop
from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.plugin.user_rows import load_user_rows, push_user_row, user_rows_frame
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.tombstones import Tombstones
from uic.feature_repo.user_features import USER_ROWS_PUSH, layouts_of, rows_file
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.models.features.rows import RowLayout

WITH_ROW = [user for user in USERS.tolist() if user != WITHOUT_ROW]


def stored(shop, users=USERS):
    """Rows of users by Feast."""
    feast = open_feature_store(shop.settings, shop.workspace)
    found = feast.get_online_features(
        ["user_features:features"], [{"user_id": int(user)} for user in users]
    ).to_dict()
    return found["features"]


def test_what_is_stored_is_the_raw_column_of_the_table(shop: Shop):
    features = write_tables(shop.workspace)
    loaded = load_user_rows(shop.settings, shop.workspace, features)
    assert (loaded.users, loaded.written) == (len(WITH_ROW), len(WITH_ROW))
    rows = stored(shop)
    assert [row is None for row in rows] == [user == WITHOUT_ROW for user in USERS.tolist()]
    layout = RowLayout(features.of(Owner.USER))
    assert layouts_of(shop.workspace).keys() == {layout.fingerprint}
    read = layout.read([row for row in rows if row is not None])
    table = tables_of(features)[Owner.USER]
    now = np.full(len(WITH_ROW), int(datetime.now(UTC).timestamp() * 1000))
    at = table.as_of(np.array(WITH_ROW), now)
    for named in table.features:
        np.testing.assert_array_equal(read[named.key], table.take(named, at))
    np.testing.assert_array_equal(read["valid_from_ms"], table.valid_from_ms[at])


def test_a_load_writes_what_differs_and_deletes_who_is_gone(shop: Shop):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    before = stored(shop)
    again = load_user_rows(shop.settings, shop.workspace, features)
    assert (again.written, again.unchanged) == (0, len(WITH_ROW))
    assert stored(shop) == before
    path = shop.workspace / "users.parquet"
    users = pq.read_table(path).to_pandas()
    users = users[users["user_id"] != 1]
    users.loc[users["user_id"] == 2, "balance"] = 77.0
    users.to_parquet(path)
    changed = load_user_rows(shop.settings, shop.workspace, features)
    counts = changed.written, changed.unchanged, changed.deleted
    assert counts == (1, len(WITH_ROW) - 2, 1)
    after = stored(shop)
    assert after[0] is None
    assert RowLayout(features.of(Owner.USER)).read([after[1]])["user.balance"] == 77.0
    assert after[2:] == before[2:]


@pytest.mark.parametrize("value", [b"", b"junk that is no row", b"UV"])
def test_a_damaged_row_holds_no_other_up_and_is_replaced(shop: Shop, value):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    before = stored(shop)
    key = ViewKeys.of_user_features(shop.settings.project).entities(0, [WITH_ROW[0]])[0]
    with connect(resolve_address(shop.settings, shop.workspace)) as client:
        client.set(key, value)
        loaded = load_user_rows(shop.settings, shop.workspace, features)
        assert (loaded.written, loaded.unchanged) == (1, len(WITH_ROW) - 1)
        client.set(key, value)
    push_user_row(shop.settings, shop.workspace, features, WITH_ROW[0], {"balance": 1.0})
    assert [row is None for row in stored(shop)] == [row is None for row in before]


def test_a_forgotten_user_comes_back_by_no_door(shop: Shop):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    with open_memories(shop.settings, shop.workspace) as store:
        store.generations.forget(2)
    assert stored(shop, [2]) == [None]
    loaded = load_user_rows(shop.settings, shop.workspace, features)
    assert (loaded.forgotten, loaded.unchanged) == (1, len(WITH_ROW) - 1)
    assert not push_user_row(shop.settings, shop.workspace, features, 2, {"balance": 1})
    assert stored(shop, [2]) == [None]
    assert 2 not in pq.read_table(rows_file(shop.workspace))["user_id"].to_pylist()


@pytest.mark.parametrize("door", ["load", "push", "materialize"])
def test_a_store_that_lost_everything_learns_first_who_was_forgotten(shop: Shop, door):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    Tombstones(shop.workspace).add(2)
    with open_memories(shop.settings, shop.workspace) as store:
        store.client.flushall()
    if door == "load":
        load_user_rows(shop.settings, shop.workspace, features)
    elif door == "push":
        assert not push_user_row(shop.settings, shop.workspace, features, 2, {"balance": 1})
    else:
        feast = open_feature_store(shop.settings, shop.workspace)
        apply_definitions(feast, shop.workspace)
        now = datetime.now(UTC)
        feast.materialize(now - timedelta(hours=1), now + timedelta(hours=1), ["user_features"])
    rows = stored(shop, [2, 3])
    assert [row is None for row in rows] == [True, door == "push"]


def test_feast_materializes_what_was_loaded_and_undoes_no_push(shop: Shop):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    loaded = stored(shop)
    push_user_row(shop.settings, shop.workspace, features, 3, {"balance": 5})
    pushed = stored(shop, [3])
    with open_memories(shop.settings, shop.workspace) as store:
        for key in store.client.scan_iter("uic:*:f:0:*"):
            if key[-1] != 3:
                store.client.delete(key)
    feast = open_feature_store(shop.settings, shop.workspace)
    apply_definitions(feast, shop.workspace)
    now = datetime.now(UTC)
    feast.materialize(now - timedelta(hours=1), now + timedelta(hours=1), ["user_features"])
    expected = [pushed[0] if user == 3 else row for user, row in enumerate(loaded, 1)]
    assert stored(shop) == expected


def test_feast_writes_one_user(shop: Shop):
    features = write_tables(shop.workspace)
    load_user_rows(shop.settings, shop.workspace, features)
    rows = stored(shop)
    feast = open_feature_store(shop.settings, shop.workspace)
    frame = pd.DataFrame(
        {"user_id": [3], "event_timestamp": [datetime.now(UTC)], "features": [rows[0]]}
    )
    feast.write_to_online_store("user_features", frame)
    assert stored(shop, [1, 3]) == [rows[0], rows[0]]


def test_memory_and_features_are_one_round_trip(shop: Shop):
    features = write_tables(shop.workspace)
    records = shop.generation(1, shop.bundle("0001"), LENGTHS)
    load_user_rows(shop.settings, shop.workspace, features)
    feast = open_feature_store(shop.settings, shop.workspace)
    asked = ["user_interest:memory", "user_features:features"]
    with open_memories(shop.settings, shop.workspace) as store:
        feast.get_online_features(asked, [{"user_id": 1}])
        calls = store.client.info("commandstats")["cmdstat_mget"]["calls"]
        found = feast.get_online_features(asked, [{"user_id": user} for user in (3, 1)]).to_dict()
        assert store.client.info("commandstats")["cmdstat_mget"]["calls"] == calls + 1
    assert found["memory"] == [records[2].tobytes(), records[0].tobytes()]
    assert found["features"] == stored(shop, [3, 1])


@pytest.mark.parametrize(
    ("values", "says"),
    [({"age": 3}, "user.age: features.yaml has no such feature"), ({"balance": "x"}, "a number")],
)
def test_a_push_of_what_is_no_feature_is_refused(shop: Shop, values, says):
    write_tables(shop.workspace)
    with pytest.raises(BadInputError, match=says):
        Workspace(shop.workspace).features.push(3, values)


def test_a_file_without_features_of_users_has_nothing_to_load(shop: Shop):
    (shop.workspace / "features.yaml").write_text("version: 1\n")
    with pytest.raises(BadInputError, match="no features of users"):
        Workspace(shop.workspace).features.load()


def test_plain_feast_pushes_what_the_command_pushes(shop: Shop):
    features = write_tables(shop.workspace)
    values = {"band": "old", "balance": 3.5, "likes": ["a", "c"]}
    assert push_user_row(shop.settings, shop.workspace, features, 1, values)  # before any load
    now = datetime.now(UTC)
    given = pd.DataFrame(
        {"user_id": [2, 3], "event_timestamp": [now, now - timedelta(days=300)]}
        | {name: [value, value] for name, value in values.items()}
    )
    frame = user_rows_frame(shop.workspace, features, given)
    feast = open_feature_store(shop.settings, shop.workspace)
    feast.push(USER_ROWS_PUSH, frame)
    layout = RowLayout(features.of(Owner.USER))
    rows = layout.read(stored(shop, [1, 2, 3]))
    for one in layout.features:
        assert rows[one.key][0].tolist() == rows[one.key][1].tolist() == rows[one.key][2].tolist()
    assert rows["valid_from_ms"][1] == int(now.timestamp() * 1000)
    before = stored(shop, [2])
    feast.push(USER_ROWS_PUSH, frame.assign(event_timestamp=now - timedelta(seconds=9)))
    assert stored(shop, [2]) == before  # the later one stays
    with pytest.raises(BadInputError, match=r"user\.colour: features.yaml has no such feature"):
        user_rows_frame(shop.workspace, features, given.assign(colour="red"))
