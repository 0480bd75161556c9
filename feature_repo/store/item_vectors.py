"""The packed item vector: what the store holds for an item of one item version.

A value is 32 bytes and the vector as float32, little-endian; of a batch, one numpy array of shape
(items, bytes), uint8.

| bytes | field | type |
|---|---|---|
| 0-1 | magic `UE` | 2 bytes |
| 2-3 | version of this layout | uint16 |
| 4-7 | item version (a generation of the view `item_image`) | uint32 |
| 8-15 | when it was embedded, milliseconds since 1970 UTC: its position | int64, big-endian |
| 16-23 | first 8 bytes of the hash of the bundle that embedded it | 8 bytes |
| 24-31 | first 8 bytes of the sha256 of the image file: the id of the image | 8 bytes |
| 32- | the vector | float32 |

So a reader can tell whose space it is in: a ranker never mixes vectors of two bundles. A
bundle that knows images by their ids alone has vectors without a number.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uic.feature_repo.store.errors import ForeignValueError
from uic.feature_repo.store.layout import PackedLayout

Values = NDArray[np.uint8]

ITEM_VIEW: Final = "item_image"
ITEM_VECTOR_MAGIC: Final = b"UE"
ITEM_VECTOR_VERSION: Final = 1
ITEM_VECTOR_HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "<u2"),
        ("generation", "<u4"),
        ("event_time_ms", ">i8"),
        ("bundle", "V8"),
        ("image", "V8"),
    ]
)
HEADER_BYTES: Final = ITEM_VECTOR_HEADER.itemsize
ITEM_VECTOR: Final = PackedLayout(
    start=ITEM_VECTOR_MAGIC + ITEM_VECTOR_VERSION.to_bytes(2, "little"),
    position_first_byte=8,
    position_format=">I4I4",
    header_bytes=HEADER_BYTES,
)


def packed_item_vectors(
    item_version: int,
    bundle: bytes,
    event_time_ms: int,
    vectors: ArrayLike,
    images: Sequence[bytes] | None = None,
) -> Values:
    """Vectors as they are stored.

    Args:
        item_version: that they belong to.
        bundle: first 8 bytes of the hash of the bundle that embedded them.
        event_time_ms: when, milliseconds since 1970 UTC; of two values the later stays.
        vectors: (items, width), float32.
        images: (items,), first 8 bytes of each image's sha256; None if they are not images.

    Returns:
        (items, 32 + 4 x width), uint8.
    """
    numbers = np.ascontiguousarray(vectors, dtype="<f4")
    values = np.zeros((len(numbers), HEADER_BYTES + 4 * numbers.shape[1]), dtype=np.uint8)
    header = item_vector_headers(values)
    header["magic"], header["version"] = ITEM_VECTOR_MAGIC, ITEM_VECTOR_VERSION
    header["generation"] = item_version
    header["event_time_ms"] = event_time_ms
    header["bundle"] = np.void(bundle)
    if images is not None:
        header["image"] = np.frombuffer(b"".join(images), dtype="V8")
    values[:, HEADER_BYTES:] = numbers.view(np.uint8)
    return values


def item_vector_headers(values: Values) -> NDArray[np.void]:
    """The headers of a batch as a structured view, (items,), dtype `ITEM_VECTOR_HEADER`."""
    return values[:, :HEADER_BYTES].view(ITEM_VECTOR_HEADER)[:, 0]


def unpacked_item_vectors(values: Values, where: str) -> NDArray[np.float32]:
    """The vectors of a batch, (items, width), float32.

    Raises:
        ForeignValueError: a value is of another layout; names `where`.
    """
    start = np.frombuffer(ITEM_VECTOR.start, dtype=np.uint8)
    too_short = values.shape[1] < HEADER_BYTES or (values.shape[1] - HEADER_BYTES) % 4
    if too_short or (values[:, : len(start)] != start).any():
        begin = bytes(values[0, :8]) if len(values) else b""
        msg = (
            f"{where}: an item vector of {values.shape[1]} bytes starts with {begin!r}, expected "
            f"{ITEM_VECTOR.start!r}; it is not ours, or of another version: embed the images again"
        )
        raise ForeignValueError(msg)
    vectors: NDArray[np.float32] = np.ascontiguousarray(values[:, HEADER_BYTES:]).view("<f4")
    return vectors
