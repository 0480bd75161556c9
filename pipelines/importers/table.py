"""Imports any CSV or Parquet file whose columns are named on the command line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.models.features.event_columns import LOGGED_EVENT
from uic.pipelines.importers.cells import (
    is_number,
    truths,
    typed_numbers,
    words_of,
    written_numbers,
)
from uic.pipelines.importers.checked import Columns, accept, payload_of
from uic.pipelines.importers.formats import (
    check_names,
    refuse_what_is_no_csv,
    refuse_what_is_no_file,
)
from uic.pipelines.importers.labels import LabelColumn, label_values
from uic.pipelines.importers.parquet import batches, is_any, open_parquet
from uic.pipelines.importers.plausible import TimeUnit
from uic.pipelines.importers.source import CANCELLATION, FAULTS, Batch, IdNumbers, Rejects
from uic.pipelines.importers.table_features import (
    ColumnNames,
    TableFeatures,
    csv_types,
    parquet_types,
)
from uic.pipelines.importers.text import csv_rows, header_of
from uic.pipelines.importers.times import EventTimes
from uic.pipelines.log.columns import behavior_codes, one_chunk
from uic.pipelines.log.schemas import BEHAVIORS

_PARQUET_MAGIC: Final = b"PAR1"
_MISSING: Final = FAULTS.index("missing_field")
_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_CANCELLATION: Final = FAULTS.index(CANCELLATION)
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
_BEHAVIOR: Final = ["user_id", "item_id", "category_id", "behavior", "event_time"]


@dataclass(frozen=True)
class TableColumns:
    """Which column is what.

    Attributes:
        user_id, item_id, event_time: column names.
        category_id: column name; None puts every item into category 0.
        behavior: column name; None makes every row a click.
        quantity: column name; a row whose number is below 0 takes something back, and is left out
            as a cancellation.
        labels: further columns of impressions that tell what came of them.
        clicked: column name; then every row is an impression, and a clicked one also a click.
        behavior_names: what the file calls a behaviour, to its name here.
        string_ids: kinds (user, item, category) whose CSV columns are texts; a Parquet column
            says so itself.
        time_unit: of `event_time`: a unit, or a format of `strptime`; a Parquet timestamp says so
            itself.
        time_zone: of times that have none; None takes them as UTC in a log of UTC days, and
            refuses them in any other.
        delimiter: of a CSV file.
        features: further columns, by whose feature and its name; those of the context and of
            events are kept in the log, those of users and items go to tables of changes.
    """

    user_id: str
    item_id: str
    event_time: str
    category_id: str | None = None
    behavior: str | None = None
    clicked: str | None = None
    quantity: str | None = None
    behavior_names: Mapping[str, str] = field(default_factory=dict)
    string_ids: frozenset[str] = frozenset()
    time_unit: TimeUnit | str = TimeUnit.MILLISECONDS
    time_zone: str | None = None
    delimiter: str = ","
    features: ColumnNames = field(default_factory=dict)
    labels: tuple[LabelColumn, ...] = ()

    def names(self) -> list[str]:
        """All columns that are used, each once."""
        used = (
            self.user_id,
            self.item_id,
            self.category_id,
            self.event_time,
            self.behavior,
            self.clicked,
            self.quantity,
            *self.feature_columns(),
            *(label.column for label in self.labels),
        )
        return list(dict.fromkeys(name for name in used if name is not None))

    def feature_columns(self) -> list[str]:
        """Columns that are features, each once."""
        named = (column for of in self.features.values() for column in of.values())
        return list(dict.fromkeys(named))


class TableImporter:
    """One file; Parquet by its first bytes, else CSV with a header line."""

    def __init__(
        self, path: Path, columns: TableColumns, name: str = "table", log_zone: str = "UTC"
    ) -> None:
        if not _NAME.fullmatch(name):
            msg = f"--name: found {name!r}, expected 1 to 64 of a-z, 0-9, - and _"
            raise BadInputError(msg)
        self.name = name
        self._path, self._columns = path, columns
        self.has_impressions = columns.clicked is not None
        for option, given in (
            ("--context", columns.features.get(Owner.CONTEXT)),
            ("--label", columns.labels),
        ):
            if given and not self.has_impressions:
                msg = f"{option}: is of impressions, and there are none without --clicked COL"
                raise BadInputError(msg)
        told = {label.column for label in columns.labels}
        for column in columns.feature_columns():
            if column in told:
                msg = f"--label: {column} is a feature, too, which would tell what came of the row"
                raise BadInputError(msg)
        if columns.clicked in columns.features.get(Owner.CONTEXT, {}).values():
            msg = f"--context: {columns.clicked} is the click, which is to be foretold"
            raise BadInputError(msg)
        self.notes: Sequence[str] = ()
        if columns.category_id is None:
            self.notes = ("The source has no categories: every item is in category 0.",)
        self._names: list[str] = []
        self._times = EventTimes(
            f"{path}: column {columns.event_time}", columns.time_unit, columns.time_zone, log_zone
        )
        self._first = True
        refuse_what_is_no_file(path)
        with path.open("rb") as stream:
            self._parquet = stream.read(4) == _PARQUET_MAGIC
        self._codes = _behavior_names(columns)
        if self._parquet:
            file = open_parquet(path, dict.fromkeys(columns.names(), is_any))
            self.total = file.metadata.num_rows
            types = parquet_types(path, file.schema_arrow, columns.feature_columns())
        else:
            refuse_what_is_no_csv(path)
            self.total = path.stat().st_size
            self._names = header_of(path, columns.delimiter)
            check_names(path, self._names, columns.names())
            types = {}
            if columns.feature_columns():
                wanted = columns.feature_columns()
                types = csv_types(path, self._names, wanted, columns.delimiter)
        self._features = TableFeatures(path, columns.features, types, columns.time_zone)

    def sources(self) -> Sequence[Path]:
        """The input file."""
        return [self._path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """Rows in file order."""
        rejects.times.option = True
        for table, lines, done in self._tables(rejects):
            self._first = rejects.times.none_good
            rejects.times.unit = self._times.unit_of(table.schema.field(self._columns.event_time))
            rows, clicked = self._rows(table, lines, ids)
            extra = self._features.columns(table)
            if clicked is not None:
                extra["clicked"] = pa.array(clicked)
                extra |= self._labels(table, rows.faults)
            good, features = self._features.take(accept(self._path, rows, rejects, extra))
            if clicked is None:
                yield Batch(done, behaviors=good, features=features)
                continue
            of_event = [name for name in good.column_names if name.startswith(LOGGED_EVENT)]
            clicks = good.filter(good["clicked"]).select([*_BEHAVIOR, *of_event])
            shown = good.drop_columns(["behavior", *of_event])
            yield Batch(done, behaviors=clicks, impressions=shown, features=features)

    def _tables(self, rejects: Rejects) -> Iterator[tuple[pa.Table, NDArray[np.int64], int]]:
        names = self._columns.names()
        if not self._parquet:
            delimiter = self._columns.delimiter
            for rows in csv_rows(
                self._path, self._names, names, rejects, delimiter=delimiter, header=True
            ):
                yield rows.columns, rows.lines, rows.done
            return
        done = 0
        file = open_parquet(self._path, dict.fromkeys(names, is_any))
        for batch in batches(self._path, file, names):
            lines = np.arange(done + 1, done + batch.num_rows + 1)
            done += batch.num_rows
            yield pa.Table.from_batches([batch]), lines, done

    def _rows(
        self, table: pa.Table, lines: NDArray[np.int64], ids: IdNumbers
    ) -> tuple[Columns, NDArray[np.bool_] | None]:
        columns = self._columns
        faults = np.zeros(table.num_rows, np.int8)
        values = {}
        names = {"user": columns.user_id, "item": columns.item_id, "category": columns.category_id}
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
        self, kind: str, name: str, column: pa.Array, ids: IdNumbers, faults: NDArray[np.int8]
    ) -> NDArray[np.int64]:
        """Whole numbers as they are, texts by their number."""
        where = self._where(name)
        if not self._parquet and kind not in self._columns.string_ids:
            return written_numbers(where, kind, column, faults, first=self._first)
        if is_number(column.type):
            return typed_numbers(where, column, faults)
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
        return f"{self._path}: column {column}"


def _behavior_names(columns: TableColumns) -> dict[str, int]:
    """Names in the file, to indices into `BEHAVIORS`."""
    names = {**{name: name for name in BEHAVIORS}, **columns.behavior_names}
    codes = behavior_codes(pa.array(list(names.values()), pa.string())).to_pylist()
    return dict(zip(names, codes, strict=True))


__all__ = ["TableColumns", "TableImporter", "TimeUnit"]
