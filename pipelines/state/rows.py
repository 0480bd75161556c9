"""Rows that are asked about: users at times, each with a candidate if wanted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Kind
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import MISSING, raw_column
from uic.pipelines.importers.plausible import YEAR_2000_MS

USER, TIME, ITEM, CATEGORY = "user_id", "time", "item_id", "category_id"
ROW: Final = "row"
# The end of a record's clocks, 32 bits of seconds.
_MOST_MS: Final = 2**32 * 1000
# Of a candidate that is not given: an id that no event has.
NOTHING: Final = -1


class RowsError(BadInputError):
    """The file of rows is none, or a column of it is not what it has to be."""


def read_rows(path: Path) -> pa.Table:
    """A Parquet file of rows, as it is.

    Raises:
        RowsError: it is none.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"{path}: not readable as Parquet ({' '.join(str(error).split())})"
        raise RowsError(msg) from error


def asked_rows(
    given: pa.Table,
    where: str,
    keys: Sequence[EventColumn],
    categories: Mapping[int, int],
    first_ms: int = YEAR_2000_MS,
) -> pa.Table:
    """What a table asks: `user_id`, `time` (milliseconds), `item_id`, `category_id`, keys, `row`.

    Args:
        given: with `user_id` and `time` (a timestamp, UTC where it has no zone, or milliseconds);
            `item_id`, `category_id` and keys by name if wanted.
        where: for messages.
        keys: columns of events that parts are by, and candidates have, too.
        categories: of items, for rows that name an item and no category.
        first_ms: what is earlier is a unit read wrongly.

    Raises:
        RowsError: says what is missing, of another type, or cannot be true, and in which row.
    """
    for name in (USER, TIME):
        if name not in given.column_names:
            msg = f"{where}: no column {name}; it has {', '.join(given.column_names)}"
            raise RowsError(msg)
    count = given.num_rows
    items = _ids(given, ITEM, where) if ITEM in given.column_names else np.full(count, NOTHING)
    if CATEGORY in given.column_names:
        of_items = _ids(given, CATEGORY, where)
    else:
        distinct, places = np.unique(items, return_inverse=True)
        known = [categories.get(item, NOTHING) for item in distinct.tolist()]
        of_items = np.array(known, np.int64)[places] if count else np.zeros(0, np.int64)
    columns: dict[str, NDArray[Any]] = {
        USER: _ids(given, USER, where),
        TIME: _times(given, where, first_ms),
        ITEM: items,
        CATEGORY: of_items,
        ROW: np.arange(count),
    }
    for key in keys:
        columns[key.name] = _keys(given, key, where)
    return pa.table(columns)


def _ids(table: pa.Table, name: str, where: str) -> NDArray[np.int64]:
    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        found = f"{column.null_count} nulls" if column.null_count else str(column.type)
        msg = f"{where}: column {name} has {found}, expected whole numbers, the log's ids"
        raise RowsError(msg)
    try:
        ids = np.asarray(column.cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid as error:
        msg = f"{where}: column {name} has an id beyond 2^63 - 1, which no log has"
        raise RowsError(msg) from error
    below = np.flatnonzero(ids < 0)
    if below.size:
        without = "" if name == USER else "; rows without one go into a file without the column"
        msg = (
            f"{where}: column {name} has {ids[below[0]]} in row {below[0]}, expected the log's "
            f"ids, which begin at 0{without}"
        )
        raise RowsError(msg)
    return ids


def _times(table: pa.Table, where: str, first_ms: int) -> NDArray[np.int64]:
    column = table.column(TIME)
    kind = column.type
    if column.null_count or not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        found = f"{column.null_count} nulls" if column.null_count else str(kind)
        msg = f"{where}: column {TIME} has {found}, expected timestamps or milliseconds since 1970"
        raise RowsError(msg)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False)
    times = np.asarray(column.cast(pa.int64()).to_numpy())
    odd = np.flatnonzero((times > _MOST_MS) | (times < first_ms))
    if odd.size:
        time = int(times[odd[0]])
        seconds = YEAR_2000_MS <= time * 1000 <= _MOST_MS
        advice = (
            "it looks like seconds taken for milliseconds" if seconds else "are these the times?"
        )
        if time > _MOST_MS:
            advice = "divide microseconds by 1000"
        since = np.datetime64(first_ms, "ms").astype("datetime64[D]")
        msg = (
            f"{where}: column {TIME} has {time} in row {odd[0]}, expected milliseconds since 1970, "
            f"from {since} to 2106; {advice}"
        )
        raise RowsError(msg)
    return times


def _keys(table: pa.Table, key: EventColumn, where: str) -> NDArray[np.int64]:
    if key.name not in table.column_names:
        return np.full(table.num_rows, MISSING, np.int64)
    feature = Feature(type=Kind.CATEGORICAL)
    values = raw_column(feature, table.column(key.name), f"{where}: column {key.name}")
    return np.asarray(values, np.int64)
