"""Columns of the event log: their conversions on the way in."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Kind
from uic.models.features.event_columns import LOGGED_EVENT, ColumnValues, EventColumn
from uic.models.features.raw import MISSING
from uic.models.records.positions import EVENT_KINDS, EventBatch
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
_NAMES: Final = pa.array(EVENT_KINDS, pa.string())


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


def one_chunk(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """A column as one array, whatever its chunks."""
    column = table[name]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
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
        columns=batch_columns(events),
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


def with_columns(schema: pa.Schema, columns: Iterable[EventColumn]) -> pa.Schema:
    """A schema of behaviours with nullable columns of events, `event.NAME`."""
    for column in columns:
        schema = schema.append(pa.field(column.logged, pa.from_numpy_dtype(column.dtype)))
    return schema


def logged_column(
    column: EventColumn, values: ColumnValues, wrong: NDArray[np.bool_] | None
) -> pa.Array:
    """A column as the log has it: null where there is no value.

    A value of the wrong type is kept as `column.missing`, which no value can be: a fold that reads
    the column leaves the event out (`readable`), and one that does not folds it.
    """
    absent = np.isnan(values) if column.kind is Kind.NUMBER else values == MISSING
    return pa.array(values, mask=absent if wrong is None else absent & ~wrong)


def read_column(
    column: EventColumn, table: pa.Table | pa.RecordBatch
) -> tuple[ColumnValues, NDArray[np.bool_]]:
    """The reverse of `logged_column` for rows of the log, (rows,) both; all missing if not there.

    Raises:
        pyarrow.ArrowException: the column is of another type.
    """
    if column.logged not in table.schema.names:
        values = np.full(table.num_rows, column.missing, column.dtype)
        return values, np.zeros(table.num_rows, np.bool_)
    logged = one_chunk(table, column.logged).cast(pa.from_numpy_dtype(column.dtype))
    values = logged.fill_null(pa.scalar(column.missing, logged.type)).to_numpy(zero_copy_only=False)
    absent = np.isnan(values) if column.kind is Kind.NUMBER else values == MISSING
    return values, absent & np.asarray(logged.is_valid())


def readable(columns: Sequence[EventColumn], table: pa.Table) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Rows of the log with columns as a fold takes them, without nulls.

    Returns:
        The rows, and which of them have a value of the wrong type, so that they are to be left out.
    """
    refused = np.zeros(table.num_rows, np.bool_)
    for column in columns:
        values, wrong = read_column(column, table)
        if column.logged in table.column_names:
            table = table.drop_columns(column.logged)
        table = table.append_column(column.logged, pa.array(values))
        refused |= wrong
    return table, refused


def batch_columns(events: pa.Table) -> dict[str, ColumnValues]:
    """Columns of events, without nulls, by name."""
    return {
        name.removeprefix(LOGGED_EVENT): events.column(name).to_numpy()
        for name in events.column_names
        if name.startswith(LOGGED_EVENT)
    }


def event_table(
    table: pa.Table, offsets: NDArray[np.int64], epoch: int, columns: Sequence[EventColumn] = ()
) -> pa.Table:
    """A spooled table as `BEHAVIOR_EVENTS`, with columns of events."""
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
            *(_as_logged(one, table) for one in columns),
        ],
        schema=with_columns(BEHAVIOR_EVENTS, columns),
    )


def _as_logged(column: EventColumn, table: pa.Table) -> pa.Array | pa.ChunkedArray:
    kind = pa.from_numpy_dtype(column.dtype)
    if column.logged not in table.column_names:
        return pa.nulls(table.num_rows, kind)
    try:
        return table[column.logged].cast(kind)
    except pa.ArrowInvalid as error:
        msg = f"{column.logged}: {error}; it is {column.kind.value}, and its values are not"
        raise BadInputError(msg) from error


def wire_columns(
    columns: Sequence[EventColumn], table: pa.Table | pa.RecordBatch
) -> list[dict[str, Any]]:
    """What each row of the log has in fields of the wire, without those that it lacks.

    What was of the wrong type on the wire stays so: a list.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(table.num_rows)]
    for column in columns:
        values, wrong = read_column(column, table)
        absent = np.isnan(values) if column.kind is Kind.NUMBER else values == MISSING
        given = values.tolist()
        for at in np.flatnonzero(~absent | wrong).tolist():
            rows[at][column.field] = [] if wrong[at] else given[at]
    return rows
