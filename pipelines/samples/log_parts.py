"""Reads the event log for the samples pipeline: which files, in which parts, and a part's rows.

`log_parts` looks at the footers only, so that a wrong file is found before anything runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.records.positions import EVENT_KINDS
from uic.pipelines.log.columns import readable, with_columns
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, BEHAVIORS, IMPRESSIONS, misfit
from uic.pipelines.samples.days import DayRange
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.order import BEHAVIOR_COLUMNS, IMPRESSION_COLUMNS, column

# Rows that one element reads: small enough to overlap reading with splitting, large enough that
# the parts of a bucket in it are more than a few kilobytes.
PART_ROWS: Final = 500_000
_NEVER_NULL: Final = frozenset(
    field.name
    for schema in (BEHAVIOR_EVENTS, IMPRESSIONS)
    for field in schema
    if not field.nullable
)
# `sequence` of an impression is its file's place times this, plus its row.
FILE_ROWS: Final = 1 << 40


class LogFileError(BadInputError):
    """A file of the event log cannot be read, or its columns or rows are not what they must be."""


@dataclass(frozen=True)
class RowGroups:
    """Some row groups of one file of the log.

    Attributes:
        path: the file.
        dt: the day that its folder says.
        groups: indices of the row groups.
        sequence: the place of the first row among all rows of the table.
    """

    path: Path
    dt: date
    groups: tuple[int, ...]
    sequence: int


Part = tuple[RowGroups, ...]


def log_parts(files: Sequence[LogFile], schema: pa.Schema) -> list[Part]:
    """Parts of about `PART_ROWS` rows that together hold every row of `files`.

    Raises:
        LogFileError: a file is unreadable, has another number of rows than its manifest says, or
            lacks a column of `schema`, or has it with another type.
    """
    parts: list[Part] = []
    part: list[RowGroups] = []
    rows = 0
    for piece, size in _pieces(files, schema):
        if part and rows + size > PART_ROWS:
            parts.append(tuple(part))
            part, rows = [], 0
        part.append(piece)
        rows += size
    return [*parts, tuple(part)] if part else parts


def _pieces(files: Sequence[LogFile], schema: pa.Schema) -> Iterator[tuple[RowGroups, int]]:
    for place, file in enumerate(files):
        footer = _footer(file, schema)
        groups: list[int] = []
        done = rows = 0
        for group in range(footer.num_row_groups):
            size = footer.row_group(group).num_rows
            if groups and rows + size > PART_ROWS:
                yield _piece(file, groups, place, done), rows
                done, groups, rows = done + rows, [], 0
            groups.append(group)
            rows += size
        if groups:
            yield _piece(file, groups, place, done), rows


def _piece(file: LogFile, groups: list[int], place: int, row: int) -> RowGroups:
    return RowGroups(file.path, file.dt, tuple(groups), place * FILE_ROWS + row)


def _footer(file: LogFile, schema: pa.Schema) -> pq.FileMetaData:
    try:
        opened = pq.ParquetFile(file.path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(file.path, error) from error
    with opened:
        fault = misfit(opened.schema_arrow, schema)
        if fault is not None:
            msg = f"{file.path}: {fault}; import this day again"
            raise LogFileError(msg)
        if opened.metadata.num_rows != file.rows:
            msg = (
                f"{file.path}: {opened.metadata.num_rows} rows, its manifest says {file.rows}; "
                "import this day again"
            )
            raise LogFileError(msg)
        return opened.metadata


def _unreadable(path: Path, error: Exception) -> LogFileError:
    reason = " ".join(str(error).split())
    return LogFileError(f"{path}: not a readable Parquet file ({reason}); import this day again")


def read_behaviors(
    part: Part, days: DayRange, columns: Sequence[EventColumn] = ()
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of a part as `BEHAVIOR_COLUMNS`, and which positions it has.

    With `columns` of events, rows that have a value of the wrong type in one are left out, as the
    fold of a bundle that reads it leaves them out.

    Raises:
        LogFileError: a page is damaged, a value is null, a behaviour is unknown, or a log time is
            not of the file's day.
    """
    own = with_columns(BEHAVIOR_COLUMNS, columns)
    schema = own.append(pa.field("partition", pa.int32()))
    tables = [_read(piece, schema.names, "log_time", days) for piece in part]
    coded = (with_codes(table, piece.path) for table, piece in zip(tables, part, strict=True))
    complete = [readable(columns, of_piece) for of_piece in coded]
    table = pa.concat_tables([rows.select(schema.names).cast(schema) for rows, _ in complete])
    refused = np.concatenate([which for _, which in complete])
    table = table.combine_chunks()
    facts = {
        "table": "behaviors",
        "rows": table.num_rows,
        "bytes": table.nbytes,
        "positions": runs_of_positions(table),
    }
    kept = table.filter(pa.array(~refused)).combine_chunks() if refused.any() else table
    return kept.select(own.names), facts


def read_impressions(
    part: Part, days: DayRange, features: FeatureJoin
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of a part as `IMPRESSION_COLUMNS`, with the context's raw values, and how many.

    Raises:
        LogFileError: a page is damaged, a value is null, or an event time is not of the file's day.
    """
    tables = []
    schema = features.context_schema(IMPRESSION_COLUMNS)
    names = list(dict.fromkeys([*IMPRESSIONS.names, *features.context_columns()]))
    for piece in part:
        table = _read(piece, names, "event_time", days)
        sequence = np.arange(piece.sequence, piece.sequence + table.num_rows, dtype=np.int64)
        table = features.with_context(table, piece.path)
        table = table.append_column("sequence", pa.array(sequence))
        tables.append(table.select(schema.names).cast(schema))
    table = pa.concat_tables(tables).combine_chunks()
    return table, {"table": "impressions", "rows": table.num_rows}


def read_columns(piece: RowGroups, names: list[str]) -> pa.Table:
    """Columns of a piece; those that not every file has, only if this one has them.

    Raises:
        LogFileError: a page is damaged, or a value of a column of the log's schema is null.
    """
    try:
        with pq.ParquetFile(piece.path) as opened:
            present = [name for name in names if name in opened.schema_arrow.names]
            table = opened.read_row_groups(list(piece.groups), columns=present)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(piece.path, error) from error
    for name in present:
        nulls = table.column(name).null_count
        if nulls and name in _NEVER_NULL:
            msg = f"{piece.path}: column {name}: {nulls} nulls, expected none; import again"
            raise LogFileError(msg)
    return table


def _read(piece: RowGroups, names: list[str], time: str, days: DayRange) -> pa.Table:
    table = read_columns(piece, names)
    bounds = pc.min_max(table.column(time).cast(pa.int64())).as_py()
    start, end = days.bounds_of(piece.dt)
    if table.num_rows and not start <= bounds["min"] <= bounds["max"] < end:
        wrong = bounds["min"] if bounds["min"] < start else bounds["max"]
        msg = (
            f"{piece.path}: column {time}: {np.datetime64(wrong, 'ms')} UTC is not on {piece.dt}; "
            "the log was made in another time_zone, or is damaged; import again"
        )
        raise LogFileError(msg)
    return table


def with_codes(table: pa.Table, path: Path) -> pa.Table:
    """The column `behavior` as indices into `EVENT_KINDS`; a file's dictionary has any order."""
    codes = []
    behaviors = table.column("behavior")
    if not pa.types.is_dictionary(behaviors.type):
        behaviors = behaviors.dictionary_encode()
    for chunk in behaviors.chunks:
        of_value = pc.index_in(chunk.dictionary, value_set=pa.array(EVENT_KINDS))
        used = of_value.take(chunk.indices)
        if used.null_count:
            unknown = pc.drop_null(chunk.filter(pc.is_null(used)))[0].as_py()
            msg = f"{path}: column behavior: found {unknown!r}, expected one of {BEHAVIORS}"
            raise LogFileError(msg)
        codes.append(used.cast(pa.int8()))
    at = table.column_names.index("behavior")
    return table.set_column(at, "behavior", pa.chunked_array(codes, pa.int8()))


def runs_of_positions(table: pa.Table) -> list[tuple[int, int, int, int]]:
    """(epoch, partition, first offset, last offset) of each run of a partition in the table."""
    if not table.num_rows:
        return []
    epochs, partitions = column(table, "epoch"), column(table, "partition")
    offsets = column(table, "offset")
    # Rows come in runs of one partition, so the runs are few where the rows are many.
    starts = np.flatnonzero(
        np.concatenate(([True], (np.diff(epochs) != 0) | (np.diff(partitions) != 0)))
    )
    lowest, highest = np.minimum.reduceat(offsets, starts), np.maximum.reduceat(offsets, starts)
    return [
        (int(epochs[at]), int(partitions[at]), int(low), int(high))
        for at, low, high in zip(starts, lowest, highest, strict=True)
    ]


def offset_bounds(
    runs: Iterable[tuple[int, int, int, int]],
) -> dict[tuple[int, int], tuple[int, int]]:
    """First and last offset of each (epoch, partition) in some runs, in order."""
    bounds: dict[tuple[int, int], tuple[int, int]] = {}
    for epoch, partition, first, last in runs:
        low, high = bounds.get((epoch, partition), (first, last))
        bounds[epoch, partition] = (min(low, first), max(high, last))
    return dict(sorted(bounds.items()))
