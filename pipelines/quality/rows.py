"""Rules of rows: what every row of the event log must be like, as masks over a batch of rows.

A rule gives the mask of the rows that break it, or None when it can tell at once that there are
none (a minimum and a maximum are far cheaper than a mask). The same rule counts the faults of a
day and finds the examples to show, so that the two cannot disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.pipelines.log.schemas import BEHAVIORS

Mask = NDArray[np.bool_]

_POSITION: Final = ("epoch", "partition", "offset")


@dataclass
class JudgedRows:
    """A batch of rows of one file, in file order, with what a rule needs to know about the file.

    Args:
        batch: the rows.
        day_start_ms: start of the file's `dt`, UTC.
        day_end_ms: its end, UTC; not part of the day.
        max_skew_ms: how far an event time may lie after its log time (or its day).
        before: the last row of the batch before this one in the same file: epoch, partition,
            offset, log time; None at the start of a file.
    """

    batch: pa.RecordBatch
    day_start_ms: int
    day_end_ms: int
    max_skew_ms: int
    before: tuple[int, int, int, int] | None = None
    _arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def values(self, column: str) -> NDArray[Any]:
        """(rows,): a column's values; times as int64 milliseconds, nulls as 0."""
        values = self._arrays.get(column)
        if values is None:
            array = self.batch.column(column)
            if pa.types.is_timestamp(array.type):
                array = array.cast(pa.int64())
            if array.null_count:
                array = pc.fill_null(array, pa.scalar(0, pa.int64()).cast(array.type))
            values = array.to_numpy(zero_copy_only=False)
            self._arrays[column] = values
        return values

    def nulls(self, column: str) -> Mask | None:
        """(rows,): where a column is null; None if nowhere."""
        array = self.batch.column(column)
        if array.null_count == 0:
            return None
        mask: Mask = pc.is_null(array).to_numpy(zero_copy_only=False)
        return mask

    def same_partition(self) -> Mask:
        """(rows,): whether a row and the one before it are of one epoch and partition."""
        same = self._arrays.get("same partition")
        if same is None:
            same = self._steps("epoch") == 0
            same &= self._steps("partition") == 0
            if self.before is None and len(same):
                same[0] = False
            self._arrays["same partition"] = same
        return same

    def _steps(self, column: str) -> NDArray[np.int64]:
        """(rows,): a row's value less that of the row before it; 0 at the start of a file."""
        key = f"{column} steps"
        steps = self._arrays.get(key)
        if steps is None:
            values = self.values(column)
            steps = np.empty(len(values), dtype=np.int64)
            np.subtract(values[1:], values[:-1], out=steps[1:])
            if len(steps):
                at = (*_POSITION, "log_time").index(column)
                steps[0] = 0 if self.before is None else int(values[0]) - self.before[at]
            self._arrays[key] = steps
        return steps

    def duplicates(self) -> Mask:
        """(rows,): whether a row has the position of the row before it."""
        mask: Mask = self.same_partition() & (self._steps("offset") == 0)
        return mask

    def out_of_order(self) -> Mask:
        """(rows,): whether a row's (epoch, partition, offset) is below that of the row before."""
        epoch, partition = self._steps("epoch"), self._steps("partition")
        mask = self.same_partition() & (self._steps("offset") < 0)
        mask |= epoch < 0
        mask |= (epoch == 0) & (partition < 0)
        return mask

    def log_time_falls(self) -> Mask:
        """(rows,): whether a row's log time is below that of the row before in its partition."""
        mask: Mask = self.same_partition() & (self._steps("log_time") < 0)
        return mask

    def last(self) -> tuple[int, int, int, int]:
        """Position and log time of the last row: `before` of the next batch."""
        epoch, partition, offset, log_time = (
            int(self.values(column)[-1]) for column in (*_POSITION, "log_time")
        )
        return epoch, partition, offset, log_time


@dataclass(frozen=True)
class RowRule:
    """One rule of rows.

    Args:
        metric: name of its count in the metrics frame, `column.fault`.
        column: the column at fault.
        sentence: what holds when it is kept; for people.
        broken: the rows that break it; None if none do.
        needs_neighbour: a row breaks it together with the row before, so examples show both.
    """

    metric: str
    column: str
    sentence: str
    broken: Callable[[JudgedRows], Mask | None]
    needs_neighbour: bool = False


def _no_nulls(column: str) -> RowRule:
    return RowRule(f"{column}.nulls", column, f"{column} is never null", lambda r: r.nulls(column))


def _not_negative(column: str) -> RowRule:
    def broken(rows: JudgedRows) -> Mask | None:
        values = rows.values(column)
        if not len(values) or values.min() >= 0:
            return None
        mask: Mask = values < 0
        return mask

    return RowRule(f"{column}.negative", column, f"{column} is at least 0", broken)


def _unknown_behaviors(rows: JudgedRows) -> Mask | None:
    array = rows.batch.column("behavior")
    dictionary = array.dictionary.to_pylist()
    known = np.array([word in BEHAVIORS for word in dictionary], dtype=bool)
    if known.all():
        return None
    codes = pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)
    return _and_present(~known[codes], rows, "behavior")


def _outside_day(column: str) -> Callable[[JudgedRows], Mask | None]:
    def broken(rows: JudgedRows) -> Mask | None:
        times = rows.values(column)
        if not len(times) or (times.min() >= rows.day_start_ms and times.max() < rows.day_end_ms):
            return None
        return _and_present((times < rows.day_start_ms) | (times >= rows.day_end_ms), rows, column)

    return broken


def _event_after_log(rows: JudgedRows) -> Mask | None:
    late = rows.values("event_time") > rows.values("log_time") + rows.max_skew_ms
    return _and_present(late, rows, "log_time") if late.any() else None


def _event_after_day(rows: JudgedRows) -> Mask | None:
    times = rows.values("event_time")
    end = rows.day_end_ms + rows.max_skew_ms
    if not len(times) or times.max() < end:
        return None
    mask: Mask = times >= end
    return mask


def _and_present(mask: Mask, rows: JudgedRows, column: str) -> Mask:
    """Without the rows whose `column` is null: they break another rule."""
    nulls = rows.nulls(column)
    return mask if nulls is None else mask & ~nulls


_BEHAVIOR_COLUMNS: Final = (
    "user_id", "item_id", "category_id", "behavior", "event_time", "log_time", *_POSITION,
)  # fmt: skip
_IMPRESSION_COLUMNS: Final = ("user_id", "item_id", "category_id", "event_time", "clicked")

BEHAVIOR_RULES: Final = (
    *(_no_nulls(column) for column in _BEHAVIOR_COLUMNS),
    *(_not_negative(column) for column in ("user_id", "item_id", "category_id", *_POSITION)),
    RowRule(
        "behavior.unknown", "behavior", f"behavior is one of {'|'.join(BEHAVIORS)}",
        _unknown_behaviors,
    ),
    RowRule(
        "event_time.future", "event_time", "event_time is at most log_time plus the clock skew",
        _event_after_log,
    ),
    RowRule(
        "log_time.other_day", "log_time", "log_time is on the day of its folder",
        _outside_day("log_time"),
    ),
    RowRule(
        "log_time.falls", "log_time", "log_time never falls along a partition",
        JudgedRows.log_time_falls, needs_neighbour=True,
    ),
    RowRule(
        "offset.duplicates", "offset", "a position (epoch, partition, offset) is there once",
        JudgedRows.duplicates, needs_neighbour=True,
    ),
    RowRule(
        "offset.out_of_order", "offset", "a file is sorted by (epoch, partition, offset)",
        JudgedRows.out_of_order, needs_neighbour=True,
    ),
)  # fmt: skip

IMPRESSION_RULES: Final = (
    *(_no_nulls(column) for column in _IMPRESSION_COLUMNS),
    *(_not_negative(column) for column in ("user_id", "item_id", "category_id")),
    RowRule(
        "event_time.future", "event_time", "event_time is not after its day plus the clock skew",
        _event_after_day,
    ),
    RowRule(
        "event_time.other_day", "event_time", "event_time is on the day of its folder",
        _outside_day("event_time"),
    ),
)  # fmt: skip
