"""Writing a batch so that of each key the value with the largest position stays.

`ScriptWriter` sends a few large scripts (`write.lua`) and, in the last one, the markers. It is for
one Redis; a Redis Cluster would need a script a node. The order of a write:

1. All scripts but the last, some in one round trip. Each checks the generation's state, that the
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
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from uic.feature_repo.store.errors import (
    EmptyStoreError,
    ForeignValueError,
    GenerationStateError,
    PartitionMovedError,
    StoreFellBehindError,
    typed_errors,
)
from uic.feature_repo.store.layout import (
    NO_GENERATION,
    SEQUENCE,
    PackedLayout,
    ViewKeys,
    big_endian,
)
from uic.feature_repo.store.markers import NO_OFFSET, NO_TIME, marker_text

# A retired generation can be switched back to, so its stream job may keep it fresh.
FOLDABLE_STATES: Final = ("ready", "live", "retired")
LOADABLE_STATES: Final = ("loading", "ready", "live", "retired")
# Scripts of one round trip: bounds what a bulk load holds in memory (16 x 500 x 1.3 KB = 10 MB).
SCRIPTS_PER_ROUND_TRIP: Final = 16
_SCRIPT: Final = files("uic.feature_repo.store").joinpath("write.lua").read_bytes()


@dataclass(frozen=True)
class MarkerMove:
    """How far a partition is folded, and how far the store must be already.

    Args:
        epoch: of the log.
        partition: of the epoch.
        offset: of the last event that this batch dealt with; a marker never moves back.
        expected: offset that this writer has seen or written before; NO_OFFSET for none. A store
            whose marker is smaller was restored to an older copy, or failed over.
        log_time_ms: largest log time of the partition up to `offset`; NO_TIME if not known.
    """

    epoch: int
    partition: int
    offset: int
    expected: int = NO_OFFSET
    log_time_ms: int = NO_TIME


@dataclass(frozen=True)
class WriteTarget:
    """Where one write goes, and what must hold there.

    Args:
        keys: of the view.
        layout: of its values.
        generation: NO_GENERATION for views without generations.
        states: of the generation that allow the write.
        bundle: first 8 bytes of the bundle's hash, which all values must share.
        snapshot: that a loading generation must be registered with; "" for any.
    """

    keys: ViewKeys
    layout: PackedLayout
    generation: int
    states: tuple[str, ...] = LOADABLE_STATES
    bundle: bytes = b""
    snapshot: str = ""


class ScriptWriter:
    """Writes a batch so that of each key the value with the largest position stays.

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
        """Write `values` (n, width) under `ids` (n,), then move the markers.

        Returns:
            (n,), uint8: ord of L (landed), K (kept what was there), F (forgotten user).

        Raises:
            StoreError: nothing of the script that failed was written, and no marker has moved.
        """
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
            marker_text(entry.offset, entry.log_time_ms) if move else "",
        ]
    return [
        "EVAL",
        _SCRIPT,
        3,
        keys.generation(target.generation) if in_generation else "",
        _tombstones(target),
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
        target.snapshot,
        *marker_fields,
    ]


def _tombstones(target: WriteTarget) -> str:
    """The set of ids that must not come back; items are never forgotten."""
    keys = target.keys
    if target.layout is SEQUENCE or keys == ViewKeys.of_user_features(keys.project):
        return ViewKeys.of_memories(target.keys.project).forgotten
    return "" if target.generation == NO_GENERATION else target.keys.forgotten


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
    if code == b"SNAPSHOT":
        msg = (
            f"{name}: another load has begun meanwhile, of {details[0].decode()}; this one, of "
            f"{target.snapshot}, ends here"
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
