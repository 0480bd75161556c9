"""Rows that came in as columns, checked: what cannot be in the log goes to the rejects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.pipelines.importers.source import (
    FAULTS,
    IMPLAUSIBLE_TIME,
    TIME_OUT_OF_RANGE,
    Rejects,
    fault_codes,
)
from uic.pipelines.log.events import Reason


@dataclass
class Columns:
    """Raw columns of behaviours, each (rows,).

    `faults` is an index into `FAULTS` where reading a row already found one, else 0. `payload`
    gives the text of a row for the rejects file.
    """

    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    behaviors: NDArray[np.int64]  # index into `BEHAVIORS`; negative is unknown
    times_ms: NDArray[np.int64]
    faults: NDArray[np.int8]
    lines: NDArray[np.int64]
    payload: Callable[[int], str]


def accept(
    path: Path, rows: Columns, rejects: Rejects, extra: Mapping[str, pa.Array] | None = None
) -> pa.Table:
    """The good rows as `LogWriter.add_behaviors` takes them; the others go to `rejects`.

    Args:
        path: the file, for the rejects.
        rows: the columns.
        rejects: takes the rest.
        extra: further columns, kept beside the good rows.
    """
    ids = {"user": rows.user_ids, "item": rows.item_ids, "category": rows.category_ids}
    faults = fault_codes(ids, rows.times_ms, rows.behaviors)
    faults = np.where(rows.faults > 0, rows.faults, faults)
    judged = (faults == 0) | (faults == FAULTS.index(TIME_OUT_OF_RANGE))
    implausible = rejects.times.implausible(rows.times_ms, judged)
    faults[implausible & (faults == 0)] = FAULTS.index(IMPLAUSIBLE_TIME)
    for row in np.flatnonzero(faults).tolist():
        rejects.add(path, int(rows.lines[row]), FAULTS[faults[row]], rows.payload(row))
    # A time out of range would not convert; its row is dropped below.
    times = np.where(faults > 0, 0, rows.times_ms)
    table = pa.table(
        {
            "user_id": rows.user_ids,
            "item_id": rows.item_ids,
            "category_id": rows.category_ids,
            "behavior": pa.array(np.where(faults > 0, 0, rows.behaviors).astype(np.int8)),
            "event_time": pa.array(times, pa.timestamp("ms")),
            **(extra or {}),
        }
    )
    return table.filter(pa.array(faults == 0)) if faults.any() else table


def whole_numbers(column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
    """A column of integers of any width as int64; nulls are faults, and 0.

    An unsigned number beyond int64 comes out negative, so it is out of range for ids and times.
    """
    faults[column.is_null().to_numpy(zero_copy_only=False)] = FAULTS.index(Reason.MISSING_FIELD)
    values: NDArray[np.int64] = pc.fill_null(column, 0).to_numpy().astype(np.int64)
    return values


def payload_of(columns: pa.Table | pa.RecordBatch) -> Callable[[int], str]:
    """The text of a row for the rejects, its values with commas between."""

    def text(row: int) -> str:
        return ",".join(_shown(columns[name][row]) for name in columns.schema.names)

    return text


def _shown(scalar: pa.Scalar) -> str:
    try:
        value = scalar.as_py()
    except (OverflowError, ValueError):  # a time that Python has no date for
        value = scalar.value
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
