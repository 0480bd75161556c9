"""Rows that are asked about: users at times, each with a candidate if wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

USER, TIME, ITEM, CATEGORY = "user_id", "time", "item_id", "category_id"
ROW: Final = "row"
# The end of a record's clocks, 32 bits of seconds.
_MOST_MS: Final = 2**32 * 1000
# Of a candidate that is not given: an id that no event has.
NOTHING: Final = -1


class RowsError(BadInputError):
    """The file of rows is none, or a column of it is not what it has to be."""


@dataclass(frozen=True)
class Rows:
    """What is asked, as it travels: `user_id`, `time` (milliseconds), ids, keys, `row`."""

    given: pa.Table
    asked: pa.Table


def read_rows(path: Path, keys: Sequence[EventColumn], categories: Mapping[int, int]) -> Rows:
    """Read a Parquet file of rows.

    Args:
        path: with `user_id` and `time` (a timestamp, UTC where it has no zone, or milliseconds);
            `item_id`, `category_id` and keys by name if wanted.
        keys: columns of events that parts are by, and candidates have, too.
        categories: of items, for rows that name an item and no category.

    Raises:
        RowsError: says what is missing, or of another type.
    """
    try:
        given = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        msg = f"{path}: not readable as Parquet ({' '.join(str(error).split())})"
        raise RowsError(msg) from error
    for name in (USER, TIME):
        if name not in given.column_names:
            msg = f"{path}: no column {name}; it has {', '.join(given.column_names)}"
            raise RowsError(msg)
    count = given.num_rows
    items = _ids(given, ITEM, path) if ITEM in given.column_names else np.full(count, NOTHING)
    if CATEGORY in given.column_names:
        of_items = _ids(given, CATEGORY, path)
    else:
        distinct, places = np.unique(items, return_inverse=True)
        known = [categories.get(item, NOTHING) for item in distinct.tolist()]
        of_items = np.array(known, np.int64)[places] if count else np.zeros(0, np.int64)
    columns: dict[str, NDArray[Any]] = {
        USER: _ids(given, USER, path),
        TIME: _times(given, path),
        ITEM: items,
        CATEGORY: of_items,
        ROW: np.arange(count),
    }
    for key in keys:
        columns[key.name] = _keys(given, key, path)
    return Rows(given, pa.table(columns))


def _ids(table: pa.Table, name: str, path: Path) -> NDArray[np.int64]:
    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        found = f"{column.null_count} nulls" if column.null_count else str(column.type)
        msg = f"{path}: column {name} has {found}, expected whole numbers, the log's ids"
        raise RowsError(msg)
    try:
        return np.asarray(column.cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid as error:
        msg = f"{path}: column {name} has an id beyond 2^63 - 1, which no log has"
        raise RowsError(msg) from error


def _times(table: pa.Table, path: Path) -> NDArray[np.int64]:
    column = table.column(TIME)
    kind = column.type
    if column.null_count or not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        found = f"{column.null_count} nulls" if column.null_count else str(kind)
        msg = f"{path}: column {TIME} has {found}, expected timestamps or milliseconds since 1970"
        raise RowsError(msg)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms", kind.tz), safe=False)
    times = np.asarray(column.cast(pa.int64()).to_numpy())
    far = np.flatnonzero((times > _MOST_MS) | (times < -_MOST_MS))
    if far.size:
        msg = (
            f"{path}: column {TIME} has {times[far[0]]} in row {far[0]}, expected milliseconds "
            "since 1970, until 2106; divide microseconds by 1000"
        )
        raise RowsError(msg)
    return times


def _keys(table: pa.Table, key: EventColumn, path: Path) -> NDArray[np.int64]:
    if key.name not in table.column_names:
        return np.full(table.num_rows, MISSING, np.int64)
    feature = Feature(type=Kind.CATEGORICAL)
    where = f"{path}: column {key.name}"
    return np.asarray(raw_column(feature, table.column(key.name), where), np.int64)
