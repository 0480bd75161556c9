"""What a fold reads of the items of lists, as columns of events, which their parser makes."""

from collections.abc import Sequence
from typing import Final

from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.records.positions import PLACE, REQUEST

SHOWN_COLUMNS: Final = tuple(
    EventColumn(name=name, kind=Kind.CATEGORICAL, field=name) for name in (PLACE, REQUEST)
)
# The column of the log that holds an item's place in its list.
PLACED: Final = SHOWN_COLUMNS[0].logged


def with_shown(columns: Sequence[EventColumn], *, shown: bool) -> tuple[EventColumn, ...]:
    """Columns that a fold reads, with those of lists' items if what was shown is read."""
    return (*columns, *(SHOWN_COLUMNS if shown else ()))
