"""Imports tables of any form whose columns are named on the command line."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.event_columns import LOGGED_EVENT
from uic.pipelines.importers.cells import (
    is_number,
    truths,
    typed_numbers,
    words_of,
    written_numbers,
)
from uic.pipelines.importers.checked import Columns, accept, payload_of
from uic.pipelines.importers.columns_found import ColumnKinds
from uic.pipelines.importers.input_files import input_files
from uic.pipelines.importers.labels import label_values
from uic.pipelines.importers.plausible import TimeUnit
from uic.pipelines.importers.source import CANCELLATION, FAULTS, Batch, IdNumbers, Rejects
from uic.pipelines.importers.table_columns import TableColumns, refuse_options
from uic.pipelines.importers.table_features import TableFeatures, column_types
from uic.pipelines.importers.table_files import CONSTANT, TableFile, check_kinds, open_tables
from uic.pipelines.importers.text import TableRows, TextForm
from uic.pipelines.importers.times import EventTimes
from uic.pipelines.importers.where import RowFilter
from uic.pipelines.log.columns import behavior_codes, one_chunk
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.log.text_ids import Kind

_MISSING: Final = FAULTS.index("missing_field")
_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_CANCELLATION: Final = FAULTS.index(CANCELLATION)
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
_BEHAVIOR: Final = ["user_id", "item_id", "category_id", "behavior", "event_time"]


class TableImporter:
    """Files of one table: CSV with any separator, JSON Lines, Parquet or Arrow, by first bytes.

    Args:
        path: a file, a folder, a pattern, or several of them; each is read in the order of names.
        columns: which column is what.
        name: of the epoch.
        log_zone: whose days the log has.

    Raises:
        BadInputError: a file or a column is not what it has to be.
    """

    def __init__(
        self,
        path: Path | Sequence[Path],
        columns: TableColumns,
        name: str = "table",
        log_zone: str = "UTC",
    ) -> None:
        if not _NAME.fullmatch(name):
            msg = f"--name: found {name!r}, expected 1 to 64 of a-z, 0-9, - and _"
            raise BadInputError(msg)
        self.name = name
        self._columns, self._log_zone = columns, log_zone
        self.has_impressions = columns.clicked is not None
        refuse_options(columns)
        self.notes: Sequence[str] = ()
        if columns.category_id is None:
            self.notes = ("The source has no categories: every item is in category 0.",)
        self._first = True
        self._codes = _behavior_names(columns)
        self._files = input_files([path] if isinstance(path, Path) else path)
        form = TextForm(columns.delimiter, columns.header, columns.names)
        self._filter = RowFilter(columns.where) if columns.where else None
        wanted = [*columns.used(), *(self._filter.columns if self._filter else ())]
        self._tables = open_tables(self._files, list(dict.fromkeys(wanted)), form)
        self.total = sum(table.total for table in self._tables)
        types = column_types(self._tables, columns.feature_columns())
        self._features = TableFeatures(columns.features, types, columns.time_zone)
        # Of the table that is read.
        self._table = self._tables[0]
        self._times = self._times_of(self._table)

    def sources(self) -> Sequence[Path]:
        """The input files."""
        return [file.path for file in self._files]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """Rows in the order of files and of rows in each."""
        rejects.times.option = True
        kinds = ColumnKinds()
        done = 0
        for table in self._tables:
            self._table, self._times = table, self._times_of(table)
            for read in table.rows(rejects):
                rows = self._taken(read, rejects)
                if table.typed:
                    check_kinds(kinds, table.path, rows)
                yield self._batch(rows, done + rows.done, rejects, ids)
            done += table.total
            rejects.remark(self._times.remark(self._columns.event_time))

    def _taken(self, read: TableRows, rejects: Rejects) -> TableRows:
        """The rows that `--where` takes, with the columns that a row is made of."""
        if self._filter is None:
            return read
        rows, left_out = self._filter.taken(self._table.path, read, typed=self._table.typed)
        rejects.left_out += left_out
        return TableRows(rows.columns.select(self._columns.used()), rows.lines, rows.done)

    def _times_of(self, table: TableFile) -> EventTimes:
        where = f"{table.path}: column {self._columns.event_time}"
        return EventTimes(where, self._columns.time_unit, self._columns.time_zone, self._log_zone)

    def _batch(self, read: TableRows, done: int, rejects: Rejects, ids: IdNumbers) -> Batch:
        table = read.columns
        self._first = rejects.times.none_good
        rejects.times.unit = self._times.unit_of(table.schema.field(self._columns.event_time))
        rows, clicked = self._rows(table, read.lines, ids)
        extra = self._features.columns(table)
        if clicked is not None:
            extra["clicked"] = pa.array(clicked)
            extra |= self._labels(table, rows.faults)
        good, features = self._features.take(accept(self._table.path, rows, rejects, extra))
        if clicked is None:
            return Batch(done, behaviors=good, features=features)
        of_event = [name for name in good.column_names if name.startswith(LOGGED_EVENT)]
        clicks = good.filter(good["clicked"]).select([*_BEHAVIOR, *of_event])
        shown = good.drop_columns(["behavior", *of_event])
        return Batch(done, behaviors=clicks, impressions=shown, features=features)

    def _rows(
        self, table: pa.Table, lines: NDArray[np.int64], ids: IdNumbers
    ) -> tuple[Columns, NDArray[np.bool_] | None]:
        columns = self._columns
        faults = np.zeros(table.num_rows, np.int8)
        values = {}
        names: dict[Kind, str | None] = {
            "user": columns.user_id, "item": columns.item_id, "category": columns.category_id
        }  # fmt: skip
        for kind, name in names.items():
            values[kind] = (
                np.zeros(table.num_rows, np.int64)
                if name is None
                else self._ids(kind, name, one_chunk(table, name), ids, faults)
            )
        behaviors = np.zeros(table.num_rows, np.int64)
        if columns.behavior is not None:
            behaviors = self._behaviors(one_chunk(table, columns.behavior), faults)
        clicked = None
        if columns.clicked is not None:
            where = self._where(columns.clicked)
            clicked = truths(where, one_chunk(table, columns.clicked), faults)
        if columns.quantity is not None:
            self._cancellations(one_chunk(table, columns.quantity), faults)
        moments = one_chunk(table, columns.event_time)
        times = self._times.read(moments, faults, first=self._first)
        rows = Columns(
            values["user"],
            values["item"],
            values["category"],
            behaviors,
            times,
            faults,
            lines,
            payload_of(table),
        )
        return rows, clicked

    def _ids(
        self, kind: Kind, name: str, column: pa.Array, ids: IdNumbers, faults: NDArray[np.int8]
    ) -> NDArray[np.int64]:
        """Whole numbers as they are, texts by their number."""
        where = self._where(name)
        texts = kind in self._columns.string_ids
        if not self._table.typed and not texts:
            return written_numbers(where, kind, column, faults, first=self._first)
        if is_number(column.type):
            numbers = typed_numbers(where, column, faults)
            if not texts:
                return numbers
            column = pa.array(numbers, mask=~np.asarray(column.is_valid())).cast(pa.string())
        faults_here = np.zeros(len(column), np.int8)
        words = words_of(where, column, faults_here)
        empty = pc.equal(pc.utf8_trim_whitespace(words), "").to_numpy(zero_copy_only=False)
        faults_here[empty & (faults_here == 0)] = _MISSING
        faults[faults_here > 0] = faults_here[faults_here > 0]
        # What is left out must not get into the table of ids.
        good = np.flatnonzero(faults == 0)
        values = np.zeros(len(column), np.int64)
        values[good] = ids.numbers(kind, words.take(pa.array(good)))
        return values

    def _labels(self, table: pa.Table, faults: NDArray[np.int8]) -> dict[str, pa.Array]:
        return {
            label.logged: label_values(
                self._where(label.column), label, one_chunk(table, label.column), faults
            )
            for label in self._columns.labels
        }

    def _cancellations(self, column: pa.Array, faults: NDArray[np.int8]) -> None:
        if is_number(column.type):
            negative = pc.less(column, 0)
        else:
            words = words_of(self._where(self._columns.quantity), column, faults)
            words = pc.utf8_trim_whitespace(words)
            negative = pc.starts_with(words, "-")
            number = pc.match_substring_regex(words, r"^-?[0-9]*\.?[0-9]+$")
            other = pc.fill_null(pc.invert(number), fill_value=False)
            wrong = other.to_numpy(zero_copy_only=False) & (faults == 0)
            empty = pc.equal(words, "").to_numpy(zero_copy_only=False)
            faults[wrong] = np.where(empty[wrong], _MISSING, _WRONG_TYPE)
        taken_back = pc.fill_null(negative, fill_value=False).to_numpy(zero_copy_only=False)
        faults[taken_back & (faults == 0)] = _CANCELLATION

    def _behaviors(self, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
        words = words_of(self._where(self._columns.behavior), column, faults)
        at = pc.index_in(words, value_set=pa.array(list(self._codes), pa.string()))
        codes = pa.array(list(self._codes.values()), pa.int64()).take(at)
        behaviors: NDArray[np.int64] = pc.fill_null(codes, -1).to_numpy()
        return behaviors

    def _where(self, column: str | None) -> str:
        return f"{self._table.path}: column {column}"


def _behavior_names(columns: TableColumns) -> dict[str, int]:
    """Names in the file, to indices into `BEHAVIORS`.

    Raises:
        BadInputError: one is no behaviour, or that of all rows is none.
    """
    names = {**{name: name for name in BEHAVIORS}, **columns.behavior_names}
    constant = columns.behavior or ""
    if constant.startswith(CONSTANT) and constant[1:] not in names:
        msg = f"--behavior: found {constant!r}, expected = and one of {', '.join(names)}"
        raise BadInputError(msg)
    codes = behavior_codes(pa.array(list(names.values()), pa.string())).to_pylist()
    return dict(zip(names, codes, strict=True))


__all__ = ["TableColumns", "TableImporter", "TimeUnit"]
