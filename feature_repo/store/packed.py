"""The packed store: thousands of memories as one numpy array, in and out of Redis.

Reading is one MGET per `keys_per_read` users and one copy; writing is
`uic.feature_repo.store.writer`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import ArrayLike, NDArray

from uic.feature_repo.store.errors import ForeignValueError, GenerationStateError, typed_errors
from uic.feature_repo.store.item_vectors import ITEM_VECTOR, item_vector_headers
from uic.feature_repo.store.layout import MEMORY, NO_GENERATION, PackedLayout, ViewKeys
from uic.feature_repo.store.markers import NO_OFFSET, Marker, markers_of
from uic.feature_repo.store.writer import (
    FOLDABLE_STATES,
    LOADABLE_STATES,
    MarkerMove,
    ScriptWriter,
    WriteTarget,
)
from uic.models.records.record import HEADER, HEADER_BYTES, Records, header_view

__all__ = ["NO_OFFSET", "MarkerMove", "PackedStore", "stacked"]

_SCAN_KEYS: Final = 1000


def stacked(
    values: Sequence[bytes | None], width: int | None, layout: PackedLayout, where: str
) -> tuple[Records, NDArray[np.bool_]]:
    """Redis' answers as one array, refused unless all start as ours do.

    Args:
        values: (n,) answers; None where there is nothing.
        width: bytes of a value; None: as wide as the first.
        layout: of the values.
        where: for messages.

    Returns:
        (n, width) uint8, writable, zero where there is nothing, and (n,) bool: found.

    Raises:
        ForeignValueError: a value is not ours, of a newer version, or of another width.
    """
    found = np.fromiter((value is not None for value in values), np.bool_, len(values))
    if width is None:
        width = next((len(value) for value in values if value is not None), 0)
    if width == 0 and not found.any():
        return np.zeros((len(values), 0), dtype=np.uint8), found
    nothing = bytes(width)
    # One copy in all: into a bytearray, so that the array can be written to.
    joined = bytearray().join([nothing if value is None else value for value in values])
    lengths = {len(value) for value in values if value is not None}
    if lengths - {width} or (lengths and width < len(layout.start)):
        other = min(
            (value for value in values if value is not None),
            key=lambda value: (len(value) == width, len(value)),
        )
        msg = (
            f"{where}: a value has {len(other)} bytes and starts with {other[:8]!r}, "
            f"expected {width} bytes; it is not ours"
        )
        raise ForeignValueError(msg)
    records = np.frombuffer(joined, dtype=np.uint8).reshape(len(values), width)
    start = layout.start
    wrong = found & (records[:, : len(start)] != np.frombuffer(start, np.uint8)).any(axis=1)
    if wrong.any():
        begins = bytes(records[wrong][0, :8])
        msg = (
            f"{where}: a value starts with {begins!r}, expected {start!r}; "
            "it is not ours, or of a newer version: run the version that wrote it"
        )
        raise ForeignValueError(msg)
    return records, found


class PackedStore:
    """Bulk reads and writes of one packed view.

    Args:
        client: Redis; replies must be bytes.
        keys: of the view.
        address: for messages.
        layout: of the values.
        keys_per_script: memories of one script.
        keys_per_read: memories of one MGET.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: ViewKeys,
        *,
        address: str = "redis",
        layout: PackedLayout = MEMORY,
        keys_per_script: int = 500,
        keys_per_read: int = 2000,
    ) -> None:
        self.client: Any = client  # redis-py types its sync and async replies as one
        self.keys = keys
        self.address = address
        self.layout = layout
        self._writer = ScriptWriter(client, address, keys_per_script)
        self.keys_per_read = keys_per_read

    def read(
        self, generation: int, user_ids: ArrayLike, record_bytes: int | None = None
    ) -> tuple[Records, NDArray[np.bool_]]:
        """The memories of users, in the order asked.

        Args:
            generation: of the memories.
            user_ids: (users,), int64.
            record_bytes: width of a record; None: the width of those found.

        Returns:
            (users, record_bytes) uint8, zero where nothing was found, and (users,) bool: found.
            Without `record_bytes` and without any found, the width is 0.

        Raises:
            ForeignValueError: a value is not of this view, or not of the expected width.
            StoreError: Redis does not answer.
        """
        ids = np.asarray(user_ids, dtype=np.int64)
        keys = self.keys.entities(generation, ids)
        values: list[bytes | None] = []
        with typed_errors(self.address):
            for at in range(0, len(keys), self.keys_per_read):
                values += self.client.mget(keys[at : at + self.keys_per_read])
        return stacked(values, record_bytes, self.layout, f"{self.address}: {self.keys.view}")

    def write(
        self,
        generation: int,
        user_ids: ArrayLike,
        records: Records,
        moves: Sequence[MarkerMove] | None = None,
        snapshot: str = "",
    ) -> NDArray[np.bool_]:
        """Write memories; of each user the one with the largest position stays.

        Args:
            generation: that all records carry in their headers.
            user_ids: (users,), int64.
            records: (users, record_bytes), uint8.
            moves: of the partitions that the batch comes from (a stream job): the generation must
                then be ready, and its markers not behind `expected`. None: a load.
            snapshot: that is loaded; a loading generation must not have become another load's.

        Returns:
            (users,), bool: landed. A record that did not land met one at the same or a larger
            position, or a forgotten user; there is nothing to do again.

        Raises:
            StoreError: by its type, what is wrong. No marker has moved; what had landed may stay.
        """
        ids = np.asarray(user_ids, dtype=np.int64)
        target = WriteTarget(
            keys=self.keys,
            layout=self.layout,
            generation=generation,
            states=LOADABLE_STATES if moves is None else FOLDABLE_STATES,
            bundle=self._bundle_of(generation, records),
            snapshot=snapshot,
        )
        fates = self._writer.compare_and_set(target, ids, records, moves or ())
        return np.equal(fates, ord("L"))

    def _bundle_of(self, generation: int, records: Records) -> bytes:
        """The one bundle of a batch, whose headers must all name `generation`."""
        if generation == NO_GENERATION or not len(records):
            return b""
        item_vectors = self.layout is ITEM_VECTOR
        header = item_vector_headers(records) if item_vectors else header_view(records)
        others = np.flatnonzero(header["generation"] != generation)
        if others.size:
            msg = (
                f"a value of generation {int(header['generation'][others[0]])} was to be written "
                f"to generation {generation}"
            )
            raise GenerationStateError(msg)
        bundles = np.unique(header["bundle"])
        if len(bundles) != 1:
            msg = f"one batch holds values of {len(bundles)} bundles, expected one"
            raise GenerationStateError(msg)
        return bytes(bundles[0])

    def count_by_epoch(self, generation: int) -> dict[int, int]:
        """How many memories have their position in each epoch; reads all of their headers.

        Raises:
            StoreError: Redis does not answer.
        """
        counts: Counter[int] = Counter()
        pattern = self.keys.prefix(generation) + b"*"
        cursor = 0
        with typed_errors(self.address):
            while True:
                cursor, found = self.client.scan(cursor, match=pattern, count=_SCAN_KEYS)
                pipe = self.client.pipeline(transaction=False)
                for key in found:
                    pipe.getrange(key, 0, HEADER_BYTES - 1)
                heads = [head for head in pipe.execute() if len(head) == HEADER_BYTES]
                header = np.frombuffer(b"".join(heads), dtype=HEADER)
                counts.update(header["epoch"].tolist())
                if cursor == 0:
                    return dict(counts)

    def markers(self, generation: int, epoch: int) -> dict[int, Marker]:
        """How far each partition of `epoch` is folded; empty if none is known."""
        with typed_errors(self.address):
            fields = self.client.hgetall(self.keys.markers(generation))
        return markers_of(fields).get(epoch, {})
