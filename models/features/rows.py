"""One user's features as a small binary row: what the store keeps beside a memory.

    UF | version | checksum | definitions | valid_from_ms | raw values, one feature after the other

A row names the definitions that it was made of by their fingerprint, so that a reader knows where
each value lies, and never reads a row of other definitions as one of its own.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Kind, NamedFeature
from uic.models.features.raw import RawValues

ROW_MAGIC: Final = b"UF"
ROW_VERSION: Final = 1
ROW_HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "<u2"),
        ("checksum", "<u4"),  # CRC-32 of everything behind it
        ("definitions", "S16"),  # hex
        ("valid_from_ms", "<i8"),
    ]
)
_CHECKED_FROM: Final = 8


def raw_definition(named: NamedFeature) -> dict[str, Any]:
    """What of a definition decides its raw values: two that agree in it read each other's.

    How a value is embedded (buckets, rows, a category's width) is the bundle's own matter.
    """
    feature = named.feature
    said: dict[str, Any] = {"key": named.key, "type": feature.type.value}
    if feature.type is Kind.CATEGORIES:
        said["most"] = feature.most
    if feature.type is Kind.EMBEDDING:
        said["width"] = feature.width
    if feature.default is not None:
        said["default"] = feature.default
    return said


@dataclass(frozen=True)
class RowLayout:
    """Where the values of some features lie in a row.

    Attributes:
        features: in order.
    """

    features: tuple[NamedFeature, ...]

    @cached_property
    def fingerprint(self) -> bytes:
        """16 hex digits of the definitions, as far as they decide raw values."""
        text = json.dumps([raw_definition(named) for named in self.features], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16].encode()

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Of a whole row, without gaps."""
        fields: list[Any] = [(name, ROW_HEADER[name]) for name in ROW_HEADER.names or ()]
        for named in self.features:
            feature = named.feature
            number = np.int64 if feature.categorical else np.float32
            width = {Kind.CATEGORIES: feature.most, Kind.EMBEDDING: feature.width}
            shape = (width[feature.type],) if feature.type in width else ()
            fields.append((named.key, np.dtype(number).newbyteorder("<"), shape))
        return np.dtype(fields)

    def pack(
        self, values: Mapping[str, RawValues], valid_from_ms: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Rows of users.

        Args:
            values: by key, (users,) or (users, width), of every feature.
            valid_from_ms: (users,), when each row came to hold; milliseconds since 1970 UTC.

        Returns:
            (users, bytes of a row).
        """
        rows = np.zeros(len(valid_from_ms), self.dtype)
        rows["magic"], rows["version"] = ROW_MAGIC, ROW_VERSION
        rows["definitions"] = self.fingerprint
        rows["valid_from_ms"] = valid_from_ms
        for named in self.features:
            rows[named.key] = values[named.key]
        packed = rows.view(np.uint8).reshape(len(rows), self.dtype.itemsize)
        rows["checksum"] = [zlib.crc32(row[_CHECKED_FROM:].tobytes()) for row in packed]
        return packed

    def read(self, rows: Sequence[bytes]) -> NDArray[np.void]:
        """Rows that `is_row` holds to be of this layout, (n,); a field a key, and the header's."""
        return np.frombuffer(b"".join(rows), self.dtype)

    def is_row(self, row: bytes) -> bool:
        """Whether a row is whole, and of these definitions."""
        return len(row) == self.dtype.itemsize and definitions_of(row) == self.fingerprint


def valid_from_of(row: bytes) -> int | None:
    """When a row came to hold, milliseconds since 1970 UTC; None for one that cannot be read."""
    if definitions_of(row) is None:
        return None
    return int(np.frombuffer(row, ROW_HEADER, count=1)[0]["valid_from_ms"])


def definitions_of(row: bytes) -> bytes | None:
    """The fingerprint that a row names; None for one that is damaged or of another version."""
    if len(row) < ROW_HEADER.itemsize or not row.startswith(ROW_MAGIC):
        return None
    header = np.frombuffer(row, ROW_HEADER, count=1)[0]
    if header["version"] != ROW_VERSION or header["checksum"] != zlib.crc32(row[_CHECKED_FROM:]):
        return None
    return bytes(header["definitions"])
