"""Columns of the event log: their conversions on the way in."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.records.positions import EventBatch
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, BEHAVIORS

# What a fold reads of an event: what happened, and its position.
FOLDED_COLUMNS: Final = (
    "user_id",
    "item_id",
    "category_id",
    "behavior",
    "event_time",
    "log_time",
    "epoch",
    "partition",
    "offset",
)
_NAMES: Final = pa.array(BEHAVIORS, pa.string())


def behavior_codes(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Behaviours as int8 indices into `BEHAVIORS`, from such indices, a dictionary or strings."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int8())
    names = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    codes = pc.index_in(names, value_set=_NAMES)
    if codes.null_count:
        unknown = pc.filter(names, pc.is_null(codes))[0].as_py()
        msg = f"behavior: found {unknown!r}, expected one of {', '.join(BEHAVIORS)}"
        raise BadInputError(msg)
    return codes.cast(pa.int8())


def one_chunk(table: pa.Table, name: str) -> pa.Array:
    """A column as one array, whatever its chunks."""
    column = table[name].combine_chunks()
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def times_ms(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """A timestamp[ms] column as int64 milliseconds since 1970 UTC."""
    times: NDArray[np.int64] = column.to_numpy().view(np.int64)
    return times


def event_batch(events: pa.Table, users: NDArray[np.int64]) -> EventBatch:
    """Rows of the log as events of a fold.

    Args:
        events: with `FOLDED_COLUMNS`; behaviours as codes, a dictionary or strings.
        users: (users,), ascending; holds every `user_id` of the rows.
    """
    columns = {
        name: events.column(name).to_numpy().astype(np.int64, copy=False)
        for name in FOLDED_COLUMNS
        if name != "behavior"
    }
    return EventBatch(
        user_index=np.searchsorted(users, columns["user_id"]),
        item_ids=columns["item_id"],
        category_ids=columns["category_id"],
        behaviors=behavior_codes(events.column("behavior")).to_numpy(),
        event_times_ms=columns["event_time"],
        log_times_ms=columns["log_time"],
        epochs=columns["epoch"],
        partitions=columns["partition"],
        offsets=columns["offset"],
    )


def event_table(table: pa.Table, offsets: NDArray[np.int64], epoch: int) -> pa.Table:
    """A spooled table as `BEHAVIOR_EVENTS`."""
    rows = table.num_rows
    codes = one_chunk(table, "behavior")
    names = table.column_names
    return pa.table(
        [
            table["user_id"],
            table["item_id"],
            table["category_id"],
            pa.DictionaryArray.from_arrays(codes, _NAMES),
            table["event_time"],
            table["log_time"] if "log_time" in names else table["event_time"],
            pa.array(np.full(rows, epoch, np.int32)),
            table["partition"],
            pa.array(offsets),
            table["source"] if "source" in names else pa.nulls(rows, pa.string()),
        ],
        schema=BEHAVIOR_EVENTS,
    )
