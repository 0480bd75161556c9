"""The last events of a user, packed: what a ranker without a memory needs in every request.

This is the other architecture (MIMN, figure 2, "A"): the request fetches a sequence and computes
interest from it. A value is a ring: appending writes over the oldest event and moves a counter,
so that a stream job need not shift 17 KB for one click. A batch of users is one numpy array of
shape (users, ring bytes), uint8; every field is a view of it.

| bytes | field | type |
|---|---|---|
| 0-1 | magic `US` | 2 bytes |
| 2-3 | version | uint16 |
| 4-7 | capacity of the ring | uint32, events |
| 8-15 | events ever appended; the next place is this modulo the capacity | uint64 |
| 16-19, 20-27 | epoch, offset of the last event | uint32, uint64, big-endian |
| 28-31 | its partition | uint32 |
| 32- | events, each: item id, category id | int64, int32 |
| | event time in seconds since 1970 UTC, behaviour | uint32, int8 |

The position is as in a memory's header, so that Redis can compare it. With 1,000 events a ring has
17,032 bytes; a memory of 8 slots has 1,276. Category ids beyond 32 bits are refused.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.records.positions import EventBatch

RING_EVENTS: Final = 1000
RING_MAGIC: Final = b"US"
RING_VERSION: Final = 2
RING_HEADER: Final = np.dtype(
    [
        ("magic", "S2"),
        ("version", "<u2"),
        ("capacity", "<u4"),
        ("appended", "<u8"),
        ("epoch", ">u4"),
        ("offset", ">u8"),
        ("partition", "<u4"),
    ]
)
RING_POSITION_FIRST_BYTE: Final = 16
# An event is one run of bytes, so that a stream writes it into a ring in Redis at one go.
RING_EVENT: Final = np.dtype(
    [("item_id", "<i8"), ("category_id", "<i4"), ("seconds", "<u4"), ("behavior", "i1")]
)
_LARGEST_COUNT: Final = 2**62  # events; beyond it the sum with a batch leaves int64
LARGEST_CATEGORY: Final = 2**31 - 1

Rings = NDArray[np.uint8]


class RingFormatError(BadInputError):
    """A value is not a sequence ring of this version."""


@dataclass(frozen=True)
class Sequences:
    """Histories of some users, oldest first, one after the other.

    Attributes:
        offsets: (users + 1,) int64.
        item_ids: (events,) int64.
        category_ids: (events,) int64.
        behaviors: (events,) int8.
        event_times_ms: (events,) int64, to the second.
    """

    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    behaviors: NDArray[np.int8]
    event_times_ms: NDArray[np.int64]


class SequenceRing:
    """Reads and appends to rings of one capacity.

    Args:
        capacity: events that a ring keeps.
    """

    def __init__(self, capacity: int = RING_EVENTS) -> None:
        self.capacity = capacity
        self.ring_bytes = RING_HEADER.itemsize + capacity * RING_EVENT.itemsize

    def empty(self, users: int) -> Rings:
        """Rings without an event, (users, ring_bytes) uint8."""
        rings = np.zeros((users, self.ring_bytes), dtype=np.uint8)
        header = self.header(rings)
        header["magic"], header["version"] = RING_MAGIC, RING_VERSION
        header["capacity"] = self.capacity
        return rings

    def holds(self, value: bytes) -> bool:
        """Whether a value is a ring of this capacity."""
        if len(value) != self.ring_bytes:
            return False
        return bool(self._good(np.frombuffer(value, dtype=np.uint8).reshape(1, -1))[0])

    def header(self, rings: Rings) -> NDArray[np.void]:
        """The headers as a view, (users,), dtype `RING_HEADER`."""
        return rings[:, : RING_HEADER.itemsize].view(RING_HEADER)[:, 0]

    def check(self, rings: Rings, where: str) -> None:
        """Refuse what is not a ring of this capacity and version.

        Raises:
            RingFormatError: names `where`, what was found and what was expected.
        """
        if rings.shape[1] != self.ring_bytes:
            msg = f"{where}: a sequence of {rings.shape[1]} bytes, expected {self.ring_bytes}"
            raise RingFormatError(msg)
        good = self._good(rings)
        if not good.all():
            first = bytes(rings[np.flatnonzero(~good)[0], :8])
            msg = f"{where}: starts with {first!r}, expected a sequence of {self.capacity} events"
            raise RingFormatError(msg)

    def _good(self, rings: Rings) -> NDArray[np.bool_]:
        """Which headers are of this capacity and version, with a counter that can be right."""
        header = self.header(rings)
        good: NDArray[np.bool_] = (
            (header["magic"] == RING_MAGIC)
            & (header["version"] == RING_VERSION)
            & (header["capacity"] == self.capacity)
            & (header["appended"] <= _LARGEST_COUNT)
        )
        return good

    def append(self, rings: Rings, events: EventBatch) -> Rings:
        """New rings with the events behind those that are there.

        An event at or before a ring's position is left out, so appending again changes nothing.

        Args:
            rings: (users, ring_bytes), uint8; not changed.
            events: of these users, each user's in log order.

        Raises:
            RingFormatError: not rings of this capacity, or a category id beyond 32 bits.
        """
        self.check(rings, "append")
        if len(events) and int(np.abs(events.category_ids).max()) > LARGEST_CATEGORY:
            msg = (
                f"category_id {int(events.category_ids.max())}: a sequence holds up to 2^31 - 1; "
                "text categories that `uic import` numbers fit, those of a log from before version "
                "0.3 do not: import its files again in another --workspace"
            )
            raise RingFormatError(msg)
        after = rings.copy()
        header = self.header(after)
        fresh = self._fresh(header, events)
        order = fresh[np.argsort(events.user_index[fresh], kind="stable")]
        users, firsts, counts = np.unique(
            events.user_index[order], return_index=True, return_counts=True
        )
        # Where each event goes; of more events than fit, the later ones write over the earlier.
        rank = np.arange(len(order)) - np.repeat(firsts, counts)
        fits = rank >= np.repeat(counts, counts) - self.capacity
        rows = events.user_index[order]
        places = (header["appended"][rows].astype(np.int64) + rank) % self.capacity
        source, rows, places = order[fits], rows[fits], places[fits]
        self._events(after)[rows, places] = packed_events(events)[source]
        header["appended"][users] += counts.astype(np.uint64)
        last = order[firsts + counts - 1]
        header["epoch"][users] = events.epochs[last]
        header["partition"][users] = events.partitions[last]
        header["offset"][users] = events.offsets[last]
        return after

    def read(self, rings: Rings, limit: int | None = None) -> Sequences:
        """The last `limit` events of each ring, oldest first.

        Args:
            rings: (users, ring_bytes), uint8.
            limit: events; None for all that a ring keeps.
        """
        appended = self.header(rings)["appended"].astype(np.int64)
        lengths = np.minimum(
            appended, self.capacity if limit is None else min(limit, self.capacity)
        )
        offsets = np.zeros(len(rings) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        rows = np.repeat(np.arange(len(rings)), lengths)
        steps = np.arange(offsets[-1]) - offsets[:-1][rows]
        places = ((appended - lengths)[rows] + steps) % self.capacity
        events = self._events(rings)[rows, places]
        return Sequences(
            offsets=offsets,
            item_ids=events["item_id"].copy(),
            category_ids=events["category_id"].astype(np.int64),
            behaviors=events["behavior"].copy(),
            event_times_ms=events["seconds"].astype(np.int64) * 1000,
        )

    def _fresh(self, header: NDArray[np.void], events: EventBatch) -> NDArray[np.int64]:
        """Indices of events behind their user's position."""
        ring_header = header[events.user_index]
        later = events.epochs > ring_header["epoch"].astype(np.int64)
        same = events.epochs == ring_header["epoch"].astype(np.int64)
        behind = same & (events.offsets > ring_header["offset"].astype(np.int64))
        return np.flatnonzero(later | behind | (ring_header["appended"] == 0))

    def _events(self, rings: Rings) -> NDArray[np.void]:
        """The events as a view, (users, capacity), dtype `RING_EVENT`."""
        return rings[:, RING_HEADER.itemsize :].view(RING_EVENT)


def packed_events(events: EventBatch) -> NDArray[np.void]:
    """Events as a ring holds them, (events,), dtype `RING_EVENT`."""
    packed = np.empty(len(events), dtype=RING_EVENT)
    packed["item_id"] = events.item_ids
    packed["category_id"] = events.category_ids
    packed["seconds"] = events.event_times_ms // 1000
    packed["behavior"] = events.behaviors
    return packed
