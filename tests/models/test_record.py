"""The packed record: its size, its fields at fixed bytes, and positions that compare as bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.models.records.record import (
    HEADER_BYTES,
    POSITION_FIRST_BYTE,
    RecordFormatError,
    check_records,
    empty_records,
    header_view,
    record_bytes,
    state_view,
)

POSITIONS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))


def test_eight_slots_of_32_fit_in_1276_bytes():
    floats = 8 * 32 + 8 * 32 + 32 + 32 + 8 + 32  # M, S, h, r, g, pool
    assert record_bytes(floats) == 1276
    assert HEADER_BYTES == 44


def test_views_write_through():
    records = empty_records(2, 3)
    header_view(records)["events"] = [7, 8]
    state_view(records)[:] = [[1, 2, 3], [4, 5, 6]]
    assert records.shape == (2, 50)
    assert header_view(records)["events"].tolist() == [7, 8]
    assert bytes(records[1, -2:]) == np.float16(6).tobytes()


@given(POSITIONS, POSITIONS)
def test_position_bytes_compare_like_positions(one, other):
    records = empty_records(2, 1)
    header = header_view(records)
    header["epoch"], header["offset"] = zip(one, other, strict=True)
    prefix = records[:, POSITION_FIRST_BYTE : POSITION_FIRST_BYTE + 12]
    assert (bytes(prefix[0]) < bytes(prefix[1])) == (one < other)


def test_a_foreign_value_is_refused():
    records = empty_records(1, 3)
    records[0, :2] = 0
    with pytest.raises(RecordFormatError, match=r"key x: not a memory record: starts with b'\\x00"):
        check_records(records, 3, "key x")


def test_a_newer_version_is_refused():
    records = empty_records(1, 3)
    header_view(records)["version"] = 9
    with pytest.raises(RecordFormatError, match="version 9, this code reads version 1"):
        check_records(records, 3, "key x")


def test_another_width_is_refused():
    with pytest.raises(RecordFormatError, match="has 50 bytes, this model's have 52"):
        check_records(empty_records(1, 3), 4, "key x")
