"""The packed memory record: what Redis holds for a user, and a snapshot's `memory` column.

A record is a 44-byte header, the memory's state as float16 if there is one, and the exact parts if
there are any (`uic.models.state`). A batch of records is one numpy array of
shape (users, record_bytes), uint8; reading or writing a header field is a view of it, never a
loop over users. The position prefix (epoch, offset) is big-endian, so that comparing bytes
compares positions; everything else is little-endian.

| bytes | field | type |
|---|---|---|
| 0-1 | magic `UM` | 2 bytes |
| 2-3 | record version | uint16 |
| 4-7 | generation | uint32 |
| 8-11 | epoch of the last folded event | uint32, big-endian |
| 12-19 | offset of the last folded event | uint64, big-endian |
| 20-23 | partition of the last folded event | uint32 |
| 24-31 | event time of the last folded event, milliseconds since 1970 UTC | int64 |
| 32-35 | events folded, into the memory if there is one | uint32 |
| 36-43 | first 8 bytes of the bundle's hash | 8 bytes |
| 44- | memory (layout: `uic.models.memory.network`) | float16 |
| last | exact parts, in the order of the bundle's `state.yaml` | bytes |
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.errors import UicError

RECORD_MAGIC: Final = b"UM"
RECORD_VERSION: Final = 1

HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "<u2"),
        ("generation", "<u4"),
        ("epoch", ">u4"),
        ("offset", ">u8"),
        ("partition", "<u4"),
        ("last_event_time_ms", "<i8"),
        ("events", "<u4"),
        ("bundle", "V8"),
    ]
)
HEADER_BYTES: Final = HEADER.itemsize
assert HEADER.fields is not None  # noqa: S101 - for the type checker
# Where the bundle's hash stands in a record's bytes.
BUNDLE_HASH: Final = slice(HEADER.fields["bundle"][1], HEADER_BYTES)
# Where Redis finds the position: 12 bytes, compared as an unsigned big-endian number.
POSITION_FIRST_BYTE: Final = HEADER.fields["epoch"][1]

Records = NDArray[np.uint8]


class RecordFormatError(UicError):
    """A value is not a memory record of this code's version."""


def record_bytes(state_floats: int, parts_bytes: int = 0) -> int:
    """Bytes of one record: `state_floats` float16 numbers, and exact parts of `parts_bytes`."""
    return HEADER_BYTES + 2 * state_floats + parts_bytes


def empty_records(users: int, state_floats: int, parts_bytes: int = 0) -> Records:
    """Zeroed records with magic and version set, shape (users, record_bytes), uint8."""
    records = np.zeros((users, record_bytes(state_floats, parts_bytes)), dtype=np.uint8)
    header = header_view(records)
    header["magic"] = RECORD_MAGIC
    header["version"] = RECORD_VERSION
    return records


def header_view(records: Records) -> NDArray[np.void]:
    """The headers of a batch as a structured view, shape (users,), dtype `HEADER`.

    Writing to the view writes to `records`, which must be C-contiguous along its last axis.
    """
    return records[:, :HEADER_BYTES].view(HEADER)[:, 0]


def has_events(header: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether records have a position: (records,), bool.

    The first event of an import has offset 0, and its count is of a memory that may begin later.
    """
    known: NDArray[np.bool_] = (header["events"] > 0) | (header["epoch"] > 0)
    return known


def state_view(records: Records, state_floats: int | None = None) -> NDArray[np.float16]:
    """The memories of a batch as a view, shape (users, state_floats), float16.

    Args:
        records: of a batch.
        state_floats: how many there are; None for records without exact parts.
    """
    end = None if state_floats is None else HEADER_BYTES + 2 * state_floats
    return records[:, HEADER_BYTES:end].view(np.float16)


def parts_view(records: Records, parts_bytes: int) -> NDArray[np.uint8]:
    """The exact parts of a batch as a view, shape (users, parts_bytes), uint8."""
    return records[:, records.shape[1] - parts_bytes :]


def check_records(
    records: Records, state_floats: int, where: str, parts_bytes: int = 0
) -> NDArray[np.void]:
    """The headers (`header_view`) of a batch of records of this version and width.

    Raises:
        RecordFormatError: names `where`, what was found and what was expected.
    """
    expected = record_bytes(state_floats, parts_bytes)
    if records.shape[1] != expected:
        msg = f"{where}: a memory record has {records.shape[1]} bytes, this model's have {expected}"
        raise RecordFormatError(msg)
    header = header_view(records)
    foreign = np.flatnonzero(header["magic"] != RECORD_MAGIC)
    if foreign.size:
        start = bytes(records[foreign[0], : len(RECORD_MAGIC)])
        msg = f"{where}: not a memory record: starts with {start!r}, expected {RECORD_MAGIC!r}"
        raise RecordFormatError(msg)
    other = np.flatnonzero(header["version"] != RECORD_VERSION)
    if other.size:
        version = int(header["version"][other[0]])
        msg = (
            f"{where}: memory record of version {version}, "
            f"this code reads version {RECORD_VERSION}; run the version that wrote it"
        )
        raise RecordFormatError(msg)
    return header
