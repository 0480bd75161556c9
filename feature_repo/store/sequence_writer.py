"""Adding events to stored sequences, a few hundred users a script.

`append.lua` writes an event's 17 bytes and the header of its ring; it decides by position, so that
a replay changes nothing, and what it leaves is `SequenceRing.append`, to the bit.
"""

from importlib.resources import files
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from uic.feature_repo.store.errors import ForeignValueError, typed_errors
from uic.feature_repo.store.layout import NO_GENERATION, SEQUENCE, ViewKeys, big_endian
from uic.feature_repo.store.writer import SCRIPTS_PER_ROUND_TRIP
from uic.models.records.positions import EventBatch
from uic.models.records.sequence_ring import (
    LARGEST_CATEGORY,
    RING_EVENT,
    RING_EVENTS,
    RING_HEADER,
    SequenceRing,
    packed_events,
)

_SCRIPT: Final = files("uic.feature_repo.store").joinpath("append.lua").read_bytes()
_POSITION: Final = np.dtype(
    [(name, RING_HEADER[name]) for name in ("epoch", "offset", "partition")]
)
_RING_START_BYTES: Final = 8  # magic, version, capacity


class SequenceWriter:
    """Appends to the rings of `user_sequence` in one Redis.

    Args:
        client: a Redis without cluster mode.
        project: Feast's.
        address: for messages.
        capacity: events of a ring.
        users_per_script: users of one script.
    """

    def __init__(
        self,
        client: redis.Redis,
        project: str,
        *,
        address: str = "redis",
        capacity: int = RING_EVENTS,
        users_per_script: int = 500,
    ) -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self._prefix = ViewKeys.of_sequences(project).prefix(NO_GENERATION)
        self._forgotten = ViewKeys.of_memories(project).forgotten
        self._address = address
        self._capacity = capacity
        self._ring_start = SequenceRing(capacity).empty(1)[0, :_RING_START_BYTES].tobytes()
        self._users_per_script = users_per_script

    def append(self, user_ids: NDArray[np.int64], events: EventBatch) -> int:
        """Put events behind those that are stored; events that a ring has seen are left out.

        Args:
            user_ids: (users,), int64, distinct.
            events: of these users, each user's in log order, no position twice.

        Returns:
            Events that no ring can hold: their category id is beyond 32 bits.

        Raises:
            ForeignValueError: a value is no ring of this version and capacity.
            StoreError: Redis does not take the write; rings of other scripts may have landed.
        """
        fits = np.abs(events.category_ids) <= LARGEST_CATEGORY
        left_out = len(fits) - int(fits.sum())
        if left_out:
            events = events.select(fits)
        order = np.argsort(events.user_index, kind="stable")
        rows, counts = np.unique(events.user_index, return_counts=True)
        ends = np.cumsum(counts)
        packed = packed_events(events)[order]
        positions = np.empty(len(order), dtype=_POSITION)
        positions["epoch"] = events.epochs[order]
        positions["offset"] = events.offsets[order]
        positions["partition"] = events.partitions[order]
        calls = []
        for at in range(0, len(rows), self._users_per_script):
            users = slice(at, at + self._users_per_script)
            first = int(ends[at - 1]) if at else 0
            own = slice(first, int(ends[users][-1]))
            calls.append(
                [
                    "EVAL",
                    _SCRIPT,
                    1,
                    self._forgotten,
                    self._prefix,
                    big_endian(user_ids[rows[users]]),
                    counts[users].astype("<u4").tobytes(),
                    packed[own].tobytes(),
                    positions[own].tobytes(),
                    RING_EVENT.itemsize,
                    self._capacity,
                    SEQUENCE.start,
                    self._ring_start,
                ]
            )
        for at in range(0, len(calls), SCRIPTS_PER_ROUND_TRIP):
            self._run(calls[at : at + SCRIPTS_PER_ROUND_TRIP])
        return left_out

    def _run(self, calls: list[list[Any]]) -> None:
        """One round trip."""
        with typed_errors(self._address):
            pipeline = self._client.pipeline(transaction=False)
            for call in calls:
                pipeline.execute_command(*call)
            replies = pipeline.execute()
        for reply in replies:
            if reply[0] != b"OK":
                msg = (
                    f"{self._address}: the value under {reply[1]!r} is no sequence of "
                    f"{self._capacity} events of this version (starts with {reply[2]!r}); "
                    "nothing was overwritten"
                )
                raise ForeignValueError(msg)
