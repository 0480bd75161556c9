"""From raw events to packed records: the fold that warm-up, stream and audit share.

`MemoryFolder.fold` is called with the records of some users and their next events in log order,
and must never be called with a user's records and events out of step: a record says which event
was its last, and whatever lies at or before it is skipped (docs/concepts.md, "Effectively once").
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.memory.event_terms import NO_EVENT, times_before
from uic.models.memory.group_fold import EventValueError, GroupFold, check_values, fold_groups
from uic.models.memory.kernel import PackedNetwork
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.state import MAX_EVENTS
from uic.models.records.positions import EventBatch, compare_positions
from uic.models.records.record import (
    Records,
    check_records,
    empty_records,
    header_view,
    parts_view,
    record_bytes,
    state_view,
)

__all__ = [
    "EventBatch",
    "EventValueError",
    "FoldOutcome",
    "GroupFold",
    "MemoryBundle",
    "MemoryFolder",
    "fold_groups",
]

HASH_BYTES: Final = 8


class ForeignMemoryError(BadInputError):
    """A record was made by another bundle, whose numbers mean something else."""


class RecordParts(Protocol):
    """What the fold needs of a record's exact parts (`uic.models.state.definition`)."""

    @property
    def bytes(self) -> int:
        """Of all parts of one user."""

    @property
    def reads_shown(self) -> bool:
        """Whether a part reads what was shown."""

    def initial(self) -> NDArray[np.uint8]:
        """Those of a user without an event: (bytes,)."""

    def fold(self, states: NDArray[np.uint8], events: EventBatch) -> None:
        """Fold events into parts, (users, bytes), in place."""


class MemoryBundle(Protocol):
    """What the fold needs of a bundle: a lookup, the network, the parts, and the bundle's hash."""

    @property
    def has_memory(self) -> bool:
        """Whether there is a memory network; without one `memory` and `embed` are not asked."""

    @property
    def memory(self) -> MemoryNetwork:
        """The memory network, on the CPU."""

    @property
    def state(self) -> RecordParts | None:
        """The exact parts of a record; None for none."""

    @property
    def hash8(self) -> bytes:
        """First 8 bytes of the bundle's hash."""

    def embed(self, item_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> Tensor:
        """(events, event width), float32: a lookup for each event."""


@dataclass(frozen=True)
class FoldOutcome:
    """What became of the records and of each event.

    Attributes:
        records: new records, the same rows; those without a folded event are unchanged.
        skipped: (events,), bool: at or before the record's position, already folded.
        moved: (events,), bool: in another partition than the record's within one epoch, not
            folded; its producer keys differently, and the log is not to be trusted for this user.
    """

    records: Records
    skipped: NDArray[np.bool_]
    moved: NDArray[np.bool_]


class MemoryFolder:
    """Folds events into records, without gradients.

    Args:
        bundle: the trained model (`MemoryBundle`).
        generation: stamped on every record that changes.
        learns_from_ms: log time from which events reach the memory, milliseconds since 1970 UTC;
            exact parts get earlier ones, too.
    """

    def __init__(self, bundle: MemoryBundle, generation: int, learns_from_ms: int = 0) -> None:
        if len(bundle.hash8) != HASH_BYTES:
            msg = f"bundle: hash of {len(bundle.hash8)} bytes, expected {HASH_BYTES}"
            raise BadInputError(msg)
        self._bundle = bundle
        self._parts = bundle.state
        self.parts_bytes = 0 if self._parts is None else self._parts.bytes
        self._network: PackedNetwork | None = None
        self.generation = generation
        self.learns_from_ms = learns_from_ms
        self.state_floats = 0
        if bundle.has_memory:
            self._network = self._packed(bundle.memory)
            self.state_floats = bundle.memory.layout.floats
        elif self._parts is None:
            msg = "bundle: neither a memory nor parts of a record; nothing to fold"
            raise BadInputError(msg)
        self.record_bytes = record_bytes(self.state_floats, self.parts_bytes)
        self._initial = self._initial_record()

    @staticmethod
    def _packed(memory: MemoryNetwork) -> PackedNetwork:
        if not memory.config.fits_record:
            msg = (
                "bundle: utilization_input is sum, which a float16 record cannot hold and whose P "
                "collapses over a lifetime; train with utilization_input: mean to serve it"
            )
            raise BadInputError(msg)
        return PackedNetwork(memory)

    def _initial_record(self) -> Records:
        record = empty_records(1, self.state_floats, self.parts_bytes)
        header = header_view(record)
        header["generation"] = self.generation
        header["bundle"] = np.frombuffer(self._bundle.hash8, dtype="V8")
        if self._parts is not None:
            parts_view(record, self.parts_bytes)[0] = self._parts.initial()
        if self._network is not None:
            with torch.no_grad():
                self._bundle.memory.initial(1).pack(record)
        return record

    @property
    def reads_shown(self) -> bool:
        """Whether lists of what was shown are to be among the events."""
        return self._parts is not None and self._parts.reads_shown

    def initial_records(self, users: int) -> Records:
        """Records of new users, (users, record_bytes): the initial memory, no event, position 0."""
        return np.repeat(self._initial, users, axis=0)

    def fold(self, records: Records, events: EventBatch) -> FoldOutcome:
        """Fold events into records.

        Args:
            records: (users, record_bytes), uint8; not changed.
            events: of these users.

        Returns:
            New records, and which events were skipped or had moved.

        Raises:
            RecordFormatError: not records of this version and width.
            ForeignMemoryError: a record of another bundle.
            EventValueError: the bundle's embedding of an event is not a usable number.
        """
        # 1. Which events are new.
        header = self.check(records, "fold")
        self._check_bundle(header)
        order = np.argsort(events.user_index, kind="stable")
        skipped_sorted, moved_sorted = compare_positions(header, events, order)
        skipped = np.zeros(len(events), dtype=np.bool_)
        moved = np.zeros(len(events), dtype=np.bool_)
        skipped[order] = skipped_sorted
        moved[order] = moved_sorted
        new = order[~(skipped_sorted | moved_sorted)]
        folded = records.copy()
        if not len(new):
            return FoldOutcome(folded, skipped, moved)
        # 2. Fold them, users that have some. What was shown is for the parts that read it; the
        # memory, the count and the last time are of behaviours.
        rows, firsts, lengths = np.unique(
            events.user_index[new], return_index=True, return_counts=True
        )
        changed = folded[rows]
        header = header_view(changed)
        owners = np.repeat(np.arange(len(rows)), lengths)
        acted = ~events.shown[new]
        behaved = counted = np.bincount(owners[acted], minlength=len(rows))
        last_acted = new[acted][np.cumsum(behaved)[behaved > 0] - 1]
        if self._network is not None:
            acted &= events.log_times_ms[new] >= self.learns_from_ms
            counted = np.bincount(owners[acted], minlength=len(rows))
            self._learn(self._network, changed, events, new[acted], counted)
        header["events"] = np.minimum(header["events"].astype(np.int64) + counted, MAX_EVENTS)
        if self._parts is not None:
            self._fold_parts(self._parts, changed, events.select(new), lengths)
        # 3. The time of the last behaviour of each, and the position of the last event.
        header["last_event_time_ms"][behaved > 0] = events.event_times_ms[last_acted]
        self._stamp(header, events, new[firsts + lengths - 1])
        folded[rows] = changed
        return FoldOutcome(folded, skipped, moved)

    def check(self, records: Records, where: str) -> NDArray[np.void]:
        """The headers of records of this version and width; see `check_records`."""
        return check_records(records, self.state_floats, where, self.parts_bytes)

    def _check_bundle(self, header: NDArray[np.void]) -> None:
        hashes = header["bundle"]
        other = np.flatnonzero(hashes != np.frombuffer(self._bundle.hash8, dtype=hashes.dtype))
        if other.size:
            msg = (
                f"fold: a memory of bundle {bytes(hashes[other[0]]).hex()}, this is "
                f"{self._bundle.hash8.hex()}; build a generation for the new bundle"
            )
            raise ForeignMemoryError(msg)

    def _learn(
        self,
        network: PackedNetwork,
        records: Records,
        events: EventBatch,
        new: NDArray[np.int64],
        counted: NDArray[np.int64],
    ) -> None:
        """Fold `new`, `counted` events of one user after the other, into memories of `records`."""
        learning = np.flatnonzero(counted)
        if learning.size:
            own = records[learning]
            header, sizes = header_view(own), counted[learning]
            x = self._embedded(header, events, new, np.cumsum(sizes) - sizes)
            self._fold_states(network, own, header, x, sizes)
            records[learning] = own

    def _embedded(
        self,
        header: NDArray[np.void],
        events: EventBatch,
        new: NDArray[np.int64],
        firsts: NDArray[np.int64],
    ) -> Tensor:
        """What the network gets of each new event: (new events, event width).

        Args:
            header: of the records of the users that have some.
            events: of all users.
            new: indices of the new ones, one user after the other.
            firsts: of each user, within `new`.
        """
        x = self._bundle.embed(events.item_ids[new], events.category_ids[new])
        terms = self._bundle.memory.event_terms
        if terms is None:
            return x
        last = header["last_event_time_ms"].astype(np.int64)
        times = events.event_times_ms[new]
        before = times_before(times, firsts, np.where(header["events"] == 0, NO_EVENT, last))
        with torch.no_grad():
            columns = {name: values[new] for name, values in events.columns.items()}
            told: Tensor = terms(x, events.behaviors[new], times, before, columns)
        return told

    def _fold_parts(
        self, parts: RecordParts, records: Records, new: EventBatch, lengths: NDArray[np.int64]
    ) -> None:
        """Fold `new`, the events of one user after the other, into the exact parts."""
        own = replace(new, user_index=np.repeat(np.arange(len(lengths)), lengths))
        states = np.ascontiguousarray(parts_view(records, self.parts_bytes))
        parts.fold(states, own)
        parts_view(records, self.parts_bytes)[...] = states

    def _fold_states(
        self,
        network: PackedNetwork,
        records: Records,
        header: NDArray[np.void],
        x: Tensor,
        lengths: NDArray[np.int64],
    ) -> None:
        """Fold `x`, the events of one user after the other, into the memories of `records`."""
        check_values(x)
        counts = header["events"].astype(np.int64)
        states = np.ascontiguousarray(state_view(records, self.state_floats)).view(np.uint16)
        # Each user's state is saved once, after the last event, over the one it started from.
        save_rows = np.full(len(x), -1, dtype=np.int64)
        save_rows[np.cumsum(lengths) - 1] = np.arange(len(lengths))
        network.fold(x, lengths, counts, start=states, save_rows=save_rows, saved=states)
        state_view(records, self.state_floats)[...] = states.view(np.float16)

    def _stamp(self, header: NDArray[np.void], events: EventBatch, last: NDArray[np.int64]) -> None:
        """Write the position of each record's last event, `last` being their indices."""
        header["generation"] = self.generation
        header["epoch"] = events.epochs[last]
        header["offset"] = events.offsets[last]
        header["partition"] = events.partitions[last]
