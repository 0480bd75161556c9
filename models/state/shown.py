"""What a fold, and each part of it, reads of the items of lists."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.models.records.positions import PLACE, REQUEST, EventBatch
from uic.models.state.part import StatePart

SHOWN_COLUMNS: Final = tuple(
    EventColumn(name=name, kind=Kind.CATEGORICAL, field=name) for name in (PLACE, REQUEST)
)
_SEED: Final = 13
# The column of the log that holds an item's place in its list.
PLACED: Final = SHOWN_COLUMNS[0].logged


def with_shown(columns: Sequence[EventColumn], *, shown: bool) -> tuple[EventColumn, ...]:
    """Columns that a fold reads, with those of lists' items if what was shown is read."""
    return (*columns, *(SHOWN_COLUMNS if shown else ()))


def read_by(part: StatePart, events: EventBatch) -> NDArray[np.bool_] | None:
    """Which events a part reads, (events,); None for all of them."""
    if part.shown_share >= 1:
        return None
    shown = events.shown
    if not shown.any():
        return None
    if part.shown_share > 0:
        shown = shown & ~sampled(events.columns[REQUEST], part.shown_share)
    return ~shown


def sampled(requests: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which requests are among this share of all, by a hash; a larger share has them, too: (n,)."""
    return stable_hash(requests, seed=_SEED) < np.uint64(share * 2.0**64)
