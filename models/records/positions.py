"""Which events a record has already seen, and which are in the wrong partition.

Positions of one user compare as (epoch, offset). A newer epoch may be in any partition; within
one epoch all events of a user are in one partition (docs/concepts.md, "Positions and epochs").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.models.records.record import has_events

# The order gives the codes: an event has a behaviour as its index here (int8).
BEHAVIORS: Final = ("click", "cart", "favourite", "buy")
# What an event may be: a behaviour, or one item of a list that was shown. A list is one message
# with one position; its items are rows of an `EventBatch`, one after the other, with their places
# in the list (0, 1, ...) in the column `PLACE` and the request's number in `REQUEST`.
SHOWN: Final = "shown"
EVENT_KINDS: Final = (*BEHAVIORS, SHOWN)
SHOWN_CODE: Final = len(BEHAVIORS)
PLACE, REQUEST = "shown_place", "shown_request"


@dataclass(frozen=True)
class EventBatch:
    """Events of some users, columns of equal length; each user's events in log order.

    Attributes:
        user_index: int64, row of the user's record.
        item_ids: int64.
        category_ids: int64.
        behaviors: int8, index into `EVENT_KINDS`.
        event_times_ms: int64, when it happened; milliseconds since 1970 UTC.
        log_times_ms: int64, when the log got it, the largest so far of its partition; the one
            clock of a record's parts (`uic.models.state`).
        epochs: int64.
        partitions: int64.
        offsets: int64.
        columns: further columns of events by name: int64 categories or float64 numbers.
    """

    user_index: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    behaviors: NDArray[np.int8]
    event_times_ms: NDArray[np.int64]
    log_times_ms: NDArray[np.int64]
    epochs: NDArray[np.int64]
    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of events."""
        return len(self.user_index)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Which are items that were shown: (events,)."""
        return np.asarray(self.behaviors == SHOWN_CODE)

    def begins_message(self, order: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events, in this order, are not a further item of the list before: (events,)."""
        places = self.columns.get(PLACE)
        return np.ones(len(order), np.bool_) if places is None else places[order] <= 0

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Self:
        """The chosen events, in the same order, or in that of indices; a slice gives views."""
        taken: dict[str, Any] = {
            f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "columns"
        }
        further = {name: values[chosen] for name, values in self.columns.items()}
        return type(self)(**taken, columns=further)


def compare_positions(
    header: NDArray[np.void], events: EventBatch, order: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which events lie at or before their user's position, and which are in another partition.

    The items of a list share the fate of its first.

    The position moves with every event that is taken, so a repeat within the batch is found too:

    1. The epoch before an event is the largest of the record's and of the user's events before
       it; an event of an older epoch is skipped.
    2. An epoch's partition is the record's, or that of the epoch's first event; an event of
       another partition has moved.
    3. Of the rest, an event is skipped unless its offset is larger than all before it in its
       epoch.

    Args:
        header: (users,), the records' headers (`uic.models.records.record.HEADER`).
        events: the batch.
        order: (events,), sorts the events by user, stable.

    Returns:
        Skipped and moved, both (events,) in sorted order.
    """
    if not len(order):
        return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    heads = events.begins_message(order)
    if not heads.all():
        skipped, moved = compare_positions(header, replace(events, columns={}), order[heads])
        message = np.cumsum(heads) - 1
        return skipped[message], moved[message]
    user = events.user_index[order]
    epochs, partitions = events.epochs[order], events.partitions[order]
    fresh = ~has_events(header) & (header["offset"] == 0)
    record_epoch = np.where(fresh, -1, header["epoch"].astype(np.int64))[user]
    # 1. A running maximum that starts anew with each user: users are numbered in sorted order.
    number = np.cumsum(np.r_[True, user[1:] != user[:-1]]) - 1
    span = int(max(epochs.max(initial=0), record_epoch.max(initial=0))) + 2
    current = np.maximum.accumulate(number * span + np.maximum(epochs, record_epoch) + 1)
    current = current - number * span - 1
    older = epochs < current
    # 2. One run per user and current epoch; the runs are contiguous.
    run_begins = np.r_[True, (number[1:] != number[:-1]) | (current[1:] != current[:-1])]
    run = np.cumsum(run_begins) - 1
    in_record = current == record_epoch
    first = np.flatnonzero(run_begins)
    home = np.where(in_record, header["partition"].astype(np.int64)[user], partitions[first][run])
    moved = ~older & (partitions != home)
    # 3. Offsets take 64 bits, so their ranks are compared; rank 0 stands for "none yet".
    floor = np.where(in_record, header["offset"].astype(np.int64)[user], -1)
    _, ranks = np.unique(np.concatenate([events.offsets[order], floor]), return_inverse=True)
    offset_rank, floor_rank = ranks[: len(user)] + 1, ranks[len(user) :] + 1
    candidate = np.where(older | moved, 0, offset_rank)
    span = len(ranks) + 2
    before = np.r_[0, np.maximum.accumulate(run * span + candidate)[:-1]] - run * span
    seen = np.maximum(np.maximum(before, 0), np.where(in_record, floor_rank, 0))
    skipped = older | (~moved & (offset_rank <= seen))
    return skipped, moved
