"""What the log says of some users: their memories at given positions, folded from nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.records.record import Records, has_events, header_view
from uic.pipelines.log.columns import event_batch
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.memories.fold_bucket import events_in_order

Marks = Mapping[int, Mapping[int, int]]  # epoch -> partition -> offset of the last folded event


@dataclass(frozen=True)
class Expected:
    """Memories by the log.

    Attributes:
        records: (users, record_bytes): folded up to each served memory's own position.
        behind: (users,): events after that position lie at or before a marker.
        events: that were folded.
        repeated: events at a position that another has, too.
    """

    records: Records
    behind: NDArray[np.bool_]
    events: int
    repeated: int


def fold_to_positions(
    folder: MemoryFolder,
    users: NDArray[np.int64],
    events: pa.Table,
    *,
    served: Records,
    found: NDArray[np.bool_],
    marks: Marks,
) -> Expected:
    """Fold each user's events up to the position of what is served.

    Of the memory's own epoch these are the events up to its offset; of an older epoch those at or
    before its marker, for what lies after it was never folded when the next epoch took over. For a
    user without a memory, all events at or before the markers.

    Args:
        folder: of the generation.
        users: (users,), ascending.
        events: `event_schema` of these users, in any order.
        served: (users, record_bytes).
        found: (users,): whether anything is served.
        marks: read before `served` was.
    """
    events = events_in_order(events)
    batch = event_batch(events, users)
    header = header_view(served)
    at_epoch = np.where(found, header["epoch"].astype(np.int64), -1)[batch.user_index]
    at_offset = np.where(found, header["offset"].astype(np.int64), -1)[batch.user_index]
    marked = at_or_before(batch.epochs, batch.partitions, batch.offsets, marks)
    # The first event of an import has position (1, 0); a memory without events has none at all.
    folded = found & has_events(header)
    own = folded[batch.user_index] & (batch.epochs == at_epoch)
    reached = own & (batch.offsets <= at_offset)
    before = marked & ~own & ~(folded[batch.user_index] & (batch.epochs > at_epoch))
    chosen = reached | before
    initial = folder.initial_records(len(users))
    outcome = folder.fold(initial, batch.select(chosen))
    later = marked & ~chosen
    # Events in a user's second partition of an epoch are refused, and so leave no memory behind.
    further = folder.fold(outcome.records, batch.select(later))
    behind = (further.records != outcome.records).any(axis=1)
    return Expected(outcome.records, behind, int(chosen.sum()), _repeated(batch))


def _repeated(events: EventBatch) -> int:
    """How many events share their position with one before; a log has each position once."""
    order = np.lexsort((events.offsets, events.partitions, events.epochs))
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for column in (events.epochs, events.partitions, events.offsets):
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    return int(same.sum())
