"""The packed store: thousands of memories as one numpy array, in and out of Redis.

Reading is one MGET per `keys_per_read` users. Writing is a few large scripts (`write.lua`) in
which Redis decides that only a larger position lands; the markers of the partitions move in the
last script, which is sent when all others have succeeded. The order of a write:

1. All scripts but the last, in one round trip. Each one checks the generation's state, that the
   markers are not behind what the writer expects, and that what is stored is ours, before it
   writes anything.
2. The last script, which also moves the markers. A batch of `keys_per_script` memories or fewer is
   this one script: one round trip, one sync of the append-only file.

A crash between 1 and 2 leaves memories ahead of their marker, which replay skips; a marker is
never ahead of its memories. EVAL sends the text of the script (4 KB beside 600 KB of memories), so
that a Redis that was restarted or flushed needs no second try, which EVALSHA would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol

import numpy as np
import redis
from numpy.typing import ArrayLike, NDArray

from feature_repo.errors import (
    EmptyStoreError,
    ForeignValueError,
    GenerationStateError,
    PartitionMovedError,
    StoreFellBehindError,
    typed_errors,
)
from feature_repo.layout import MEMORY, NO_GENERATION, PackedLayout, ViewKeys, big_endian
from models.record import Records, header_view

# A retired generation can be switched back to, so its stream job may keep it fresh.
FOLDABLE_STATES: Final = ("ready", "live", "retired")
LOADABLE_STATES: Final = ("loading", "ready", "live", "retired")
NO_OFFSET: Final = -1
# Scripts of one round trip: bounds what a bulk load holds in memory (16 x 500 x 1.3 KB = 10 MB).
SCRIPTS_PER_ROUND_TRIP: Final = 16
_SCRIPT: Final = files("feature_repo").joinpath("write.lua").read_bytes()


@dataclass(frozen=True)
class MarkerMove:
    """How far a partition is folded, and how far the store must be already.

    Args:
        epoch: of the log.
        partition: of the epoch.
        offset: of the last event that this batch dealt with; a marker never moves back.
        expected: offset that this writer has seen or written before; NO_OFFSET for none. A store
            whose marker is smaller was restored to an older copy, or failed over.
    """

    epoch: int
    partition: int
    offset: int
    expected: int = NO_OFFSET


@dataclass(frozen=True)
class WriteTarget:
    """Where one write goes, and what must hold there.

    Args:
        keys: of the view.
        layout: of its values.
        generation: NO_GENERATION for views without generations.
        states: of the generation that allow the write.
        bundle: first 8 bytes of the bundle's hash, which all values must share.
    """

    keys: ViewKeys
    layout: PackedLayout
    generation: int
    states: tuple[str, ...] = LOADABLE_STATES
    bundle: bytes = b""


class CompareAndSetWriter(Protocol):
    """Writes a batch so that of each key the value with the largest position stays.

    One implementation per kind of Redis: a Redis Cluster needs a script per node.
    """

    def compare_and_set(
        self,
        target: WriteTarget,
        ids: NDArray[np.int64],
        values: NDArray[np.uint8],
        moves: Sequence[MarkerMove],
    ) -> NDArray[np.uint8]:
        """Write `values` (n, width) under `ids` (n,), then move the markers.

        Returns:
            (n,), uint8: ord of L (landed), K (kept what was there), F (forgotten user).

        Raises:
            StoreError: nothing of the script that failed was written, and no marker has moved.
        """
        ...


class ScriptWriter:
    """The writer for one Redis: `write.lua`, a few hundred values a script.

    Args:
        client: a Redis without cluster mode.
        address: for messages.
        keys_per_script: values of one script.
    """

    def __init__(self, client: redis.Redis, address: str, keys_per_script: int) -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self._address = address
        self._keys_per_script = keys_per_script

    def compare_and_set(
        self,
        target: WriteTarget,
        ids: NDArray[np.int64],
        values: NDArray[np.uint8],
        moves: Sequence[MarkerMove],
    ) -> NDArray[np.uint8]:
        """See `CompareAndSetWriter`."""
        step = self._keys_per_script
        starts = list(range(0, len(ids), step)) or [0]
        calls = [
            _script_call(target, ids[at : at + step], values[at : at + step], moves)
            for at in starts[:-1]
        ]
        last = starts[-1]
        closing = _script_call(target, ids[last:], values[last:], moves, move=True)
        fates: list[bytes] = []
        for at in range(0, len(calls), SCRIPTS_PER_ROUND_TRIP):
            fates += self._run(target, calls[at : at + SCRIPTS_PER_ROUND_TRIP])
        fates += self._run(target, [closing])
        return np.frombuffer(b"".join(fates), dtype=np.uint8)

    def _run(self, target: WriteTarget, calls: list[list[Any]]) -> list[bytes]:
        """One round trip."""
        with typed_errors(self._address):
            if len(calls) == 1:
                replies = [self._client.execute_command(*calls[0])]
            else:
                pipeline = self._client.pipeline(transaction=False)
                for call in calls:
                    pipeline.execute_command(*call)
                replies = pipeline.execute()
        return [_fates_of(reply, target, self._address) for reply in replies]


def _script_call(
    target: WriteTarget,
    ids: NDArray[np.int64],
    values: NDArray[np.uint8],
    moves: Sequence[MarkerMove],
    *,
    move: bool = False,
) -> list[Any]:
    """The arguments of one EVAL; without `move` the markers are only checked."""
    keys = target.keys
    in_generation = target.generation != NO_GENERATION
    marker_fields: list[Any] = []
    for entry in moves:
        marker_fields += [
            f"{entry.epoch}:{entry.partition}",
            entry.expected,
            entry.offset if move else "",
        ]
    return [
        "EVAL",
        _SCRIPT,
        3,
        keys.generation(target.generation) if in_generation else "",
        keys.forgotten if in_generation else "",
        keys.markers(target.generation) if in_generation else "",
        keys.prefix(target.generation),
        big_endian(ids),
        values.tobytes(),
        values.shape[1],
        target.layout.start,
        target.layout.position_first_byte + 1,
        target.layout.position_format,
        ",".join(target.states),
        target.bundle,
        *marker_fields,
    ]


def _fates_of(reply: list[bytes], target: WriteTarget, address: str) -> bytes:
    """What became of each value, or the error that the script found."""
    code, details = reply[0], reply[1:]
    if code == b"OK":
        return details[0]
    name = f"{address}: generation {target.generation} of {target.keys.project}"
    if code == b"EMPTY":
        msg = (
            f"{name} is not in the store: the store is empty, was wiped, or the generation was "
            "dropped; load a snapshot with `uic memories load`"
        )
        raise EmptyStoreError(msg)
    if code == b"STATE":
        msg = f"{name} is {details[0].decode()}, a write needs {' or '.join(target.states)}"
        raise GenerationStateError(msg)
    if code == b"BUNDLE":
        msg = (
            f"{name} holds memories of bundle {details[0].hex()}, these are of bundle "
            f"{target.bundle.hex()}; build a generation of their own for them"
        )
        raise GenerationStateError(msg)
    if code == b"BEHIND":
        expected = "what this writer has folded"
        msg = (
            f"{name}: the store fell behind: marker {details[0].decode()} is at "
            f"{details[1].decode()}, less than {expected}; the store was restored or failed over: "
            "start again from its marker"
        )
        raise StoreFellBehindError(msg)
    user = int.from_bytes(details[0][-8:], "big", signed=True)
    if code == b"MOVED":
        msg = (
            f"{name}: user {user} is stored with partition {float(details[1]):.0f} and came with "
            f"partition {float(details[2]):.0f} of the same epoch; producers must key by user"
        )
        raise PartitionMovedError(msg)
    msg = (
        f"{address}: the value under {details[0]!r} is not ours, or of a newer version (starts "
        f"with {details[1]!r}, expected {target.layout.start!r}); nothing was overwritten"
    )
    raise ForeignValueError(msg)


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
        writer: how a batch is written; default: scripts for one Redis.
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
        writer: CompareAndSetWriter | None = None,
        keys_per_script: int = 500,
        keys_per_read: int = 2000,
    ) -> None:
        self.client: Any = client  # redis-py types its sync and async replies as one
        self.keys = keys
        self.address = address
        self.layout = layout
        self._writer = writer or ScriptWriter(client, address, keys_per_script)
        self._keys_per_read = keys_per_read

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
            for at in range(0, len(keys), self._keys_per_read):
                values += self.client.mget(keys[at : at + self._keys_per_read])
        return stacked(values, record_bytes, self.layout, f"{self.address}: {self.keys.view}")

    def write(
        self,
        generation: int,
        user_ids: ArrayLike,
        records: Records,
        moves: Sequence[MarkerMove] | None = None,
    ) -> NDArray[np.bool_]:
        """Write memories; of each user the one with the largest position stays.

        Args:
            generation: that all records carry in their headers.
            user_ids: (users,), int64.
            records: (users, record_bytes), uint8.
            moves: of the partitions that the batch comes from (a stream job): the generation must
                then be ready, and its markers not behind `expected`. None: a load.

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
        )
        fates = self._writer.compare_and_set(target, ids, records, moves or ())
        return np.equal(fates, ord("L"))

    def _bundle_of(self, generation: int, records: Records) -> bytes:
        """The one bundle of a batch, whose headers must all name `generation`."""
        if self.layout is not MEMORY or not len(records):
            return b""
        header = header_view(records)
        others = np.flatnonzero(header["generation"] != generation)
        if others.size:
            msg = (
                f"a record of generation {int(header['generation'][others[0]])} was to be written "
                f"to generation {generation}"
            )
            raise GenerationStateError(msg)
        bundles = np.unique(header["bundle"])
        if len(bundles) != 1:
            msg = f"one batch holds memories of {len(bundles)} bundles, expected one"
            raise GenerationStateError(msg)
        return bytes(bundles[0])

    def markers(self, generation: int, epoch: int) -> dict[int, int]:
        """Offset of the last folded event per partition of `epoch`; empty if none is known."""
        with typed_errors(self.address):
            fields = self.client.hgetall(self.keys.markers(generation))
        marks: dict[int, int] = {}
        for field, offset in fields.items():
            marked_epoch, partition = field.split(b":")
            if int(marked_epoch) == epoch:
                marks[int(partition)] = int(offset)
        return marks
