"""A user's features as a row of bytes: nothing is lost, and nothing damaged is read."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.features.definition import FeatureSet
from uic.models.features.raw import raw_values
from uic.models.features.rows import RowLayout, definitions_of

FEATURES = FeatureSet.from_json(
    [
        {"owner": "user", "name": "band", "type": "categorical"},
        {"owner": "user", "name": "balance", "type": "number", "default": -1},
        {"owner": "user", "name": "likes", "type": "categories", "most": 3},
        {"owner": "user", "name": "text", "type": "embedding", "width": 2},
    ]
)
LAYOUT = RowLayout(FEATURES.features)
USERS = st.lists(
    st.tuples(
        st.none() | st.text(max_size=5),
        st.none() | st.floats(width=32),
        st.none() | st.lists(st.text(max_size=3), max_size=5),
        st.none() | st.lists(st.floats(width=32), min_size=2, max_size=2),
    ),
    min_size=1,
    max_size=6,
)


def packed(users, since=7):
    columns = zip(FEATURES, zip(*users, strict=True), strict=True)
    raw = {named.key: raw_values(named.feature, column, named.key) for named, column in columns}
    rows = LAYOUT.pack(raw, np.full(len(users), since))
    return raw, [row.tobytes() for row in rows]


@settings(deadline=None)
@given(USERS)
def test_what_is_packed_is_read(users):
    raw, rows = packed(users)
    assert all(map(LAYOUT.is_row, rows))
    found = LAYOUT.read(rows)
    assert found["valid_from_ms"].tolist() == [7] * len(users)
    for named in FEATURES:
        np.testing.assert_array_equal(found[named.key], raw[named.key])


@settings(deadline=None)
@given(USERS, st.data())
def test_no_damaged_row_is_one(users, data):
    row = packed(users)[1][0]
    at = data.draw(st.integers(0, len(row) - 1))
    flipped = bytearray(row)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    assert not LAYOUT.is_row(bytes(flipped))
    assert not LAYOUT.is_row(row[:at])
    assert definitions_of(row[:at]) is None
    assert not LAYOUT.is_row(row + b"\0")


def test_definitions_that_read_values_alike_are_one_and_others_are_not():
    def fingerprint(**change):
        entries = FEATURES.to_json()
        entries[0] |= change
        return RowLayout(FeatureSet.from_json(entries).features).fingerprint

    assert fingerprint() == LAYOUT.fingerprint
    assert fingerprint(width=16, min_count=9) == LAYOUT.fingerprint  # how it is embedded
    for change in ({"default": "old"}, {"name": "group"}):
        assert fingerprint(**change) != LAYOUT.fingerprint
