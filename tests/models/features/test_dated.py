"""The row that held just before a moment, against a search by hand."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.features.dated import ALWAYS, DatedTable, FeatureTableError
from uic.models.features.definition import FeatureSet, FeatureSource
from uic.models.features.raw import MISSING

FEATURES = FeatureSet.from_json([{"owner": "user", "name": "band", "type": "categorical"}]).features
DATED = FeatureSource(file="users.parquet", id="user_id", valid_from="since")


def by_hand(rows, user, time):
    """The latest row of the user from before the time."""
    before = [row for row in rows if row[0] == user and row[1] < time]
    return max(before, key=lambda row: row[1], default=None)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 20)),
        unique=True,
        max_size=40,
    ),
    asked=st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 22)), min_size=1, max_size=40),
    apart=st.sampled_from([1, 2**60]),  # ids far apart are searched for, others looked up
)
def test_any_rows_are_joined_as_a_search_by_hand_joins_them(rows, asked, apart, tmp_path_factory):
    path = tmp_path_factory.mktemp("dated") / "users.parquet"
    rows = [(user * apart, time) for user, time in rows]
    asked = [(user * apart, time) for user, time in asked]
    rows = [(user, time, number) for number, (user, time) in enumerate(rows)]
    table = pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "since": pa.array([row[1] for row in rows], pa.timestamp("ms")),
            "band": pa.array([row[2] for row in rows], pa.int64()),
        }
    )
    pq.write_table(table, path)
    dated = DatedTable.read(path, DATED, FEATURES)
    users, times = (np.array(part, np.int64) for part in zip(*asked, strict=True))
    found = dated.take(FEATURES[0], dated.as_of(users, times)).tolist()
    expected = [by_hand(rows, user, time) for user, time in asked]
    assert found == [MISSING if row is None else row[2] for row in expected]


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"user_id": [1, 1], "since": [NOON, NOON], "band": [1, 2]}, "user_id 1 has two rows from"),
        (
            {"user_id": [1, 2], "since": pa.array([None, 5], pa.timestamp("ms")), "band": [1, 2]},
            "1 times are missing; say from when",
        ),
        (
            {"user_id": pa.array([2**63], pa.uint64()), "since": [NOON], "band": [1]},
            "user_id: .*; correct the table",
        ),
        ({"user_id": ["a"], "since": [NOON], "band": [1]}, "user_id is string, expected whole"),
        ({"user_id": [None, 1], "since": [NOON, NOON], "band": [1, 2]}, "1 ids are missing"),
        ({"user_id": [1], "since": [12], "band": [1]}, "since is int64, expected timestamps"),
        ({"user_id": [1], "since": [NOON]}, "column band is missing; found user_id, since"),
        ({"user_id": [1], "since": [NOON], "band": [1.5]}, "band is double, expected texts"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_line(tmp_path, columns, says):
    path = write(tmp_path / "users.parquet", **columns)
    with pytest.raises(Exception, match=says) as failure:
        DatedTable.read(path, DATED, FEATURES)
    assert str(path) in str(failure.value)


def test_a_file_that_is_no_parquet_and_changes_without_a_time(tmp_path):
    path = tmp_path / "users.parquet"
    with pytest.raises(FeatureTableError, match="no such file"):
        DatedTable.read(path, DATED, FEATURES)
    write(path, user_id=[1, 1], band=[1, 2])
    with pytest.raises(FeatureTableError, match="name valid_from if rows are changes"):
        DatedTable.read(path, FeatureSource(file="users.parquet", id="user_id"), FEATURES)
    write(path, user_id=[2, 1], band=[20, 10])
    always = DatedTable.read(path, FeatureSource(file="users.parquet", id="user_id"), FEATURES)
    assert always.as_of(np.array([1, 2, 3]), np.array([ALWAYS + 1, 0, 0])).tolist() == [0, 1, -1]


def test_fractions_of_a_millisecond_are_cut_off(tmp_path):
    since = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    path = write(tmp_path / "users.parquet", user_id=[1], since=since, band=[7])
    dated = DatedTable.read(path, DATED, FEATURES)
    assert dated.valid_from_ms.tolist() == [1_700_000_000_123]
