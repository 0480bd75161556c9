"""Imports any CSV or Parquet file whose columns are named on the command line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.checked import Columns, accept, payload_of, whole_numbers
from uic.pipelines.importers.parquet import batches, is_any, open_parquet
from uic.pipelines.importers.source import FAULTS, Batch, IdNumbers, Rejects
from uic.pipelines.importers.text import csv_rows, header_of, integers, texts
from uic.pipelines.log.columns import behavior_codes, one_chunk
from uic.pipelines.log.events import MAX_TIME_MS
from uic.pipelines.log.schemas import BEHAVIORS

_PARQUET_MAGIC: Final = b"PAR1"
_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_MISSING: Final = FAULTS.index("missing_field")
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")


class TimeUnit(StrEnum):
    """What a time column of numbers or texts holds."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    ISO = "iso"


@dataclass(frozen=True)
class TableColumns:
    """Which column is what.

    Attributes:
        user_id, item_id, event_time: column names.
        category_id: column name; None puts every item into category 0.
        behavior: column name; None makes every row a click.
        clicked: column name; then every row is an impression, and a clicked one also a click.
        behavior_names: what the file calls a behaviour, to its name here.
        string_ids: kinds (user, item, category) whose CSV columns are texts; a Parquet column
            says so itself.
        time_unit: of `event_time`; a Parquet timestamp says so itself.
        delimiter: of a CSV file.
    """

    user_id: str
    item_id: str
    event_time: str
    category_id: str | None = None
    behavior: str | None = None
    clicked: str | None = None
    behavior_names: Mapping[str, str] = field(default_factory=dict)
    string_ids: frozenset[str] = frozenset()
    time_unit: TimeUnit = TimeUnit.MILLISECONDS
    delimiter: str = ","

    def names(self) -> list[str]:
        """All columns that are used, each once."""
        used = (
            self.user_id,
            self.item_id,
            self.category_id,
            self.event_time,
            self.behavior,
            self.clicked,
        )
        return list(dict.fromkeys(name for name in used if name is not None))


class TableImporter:
    """One file; Parquet by its first bytes, else CSV with a header line."""

    def __init__(self, path: Path, columns: TableColumns, name: str = "table") -> None:
        if not _NAME.fullmatch(name):
            msg = f"--name: found {name!r}, expected 1 to 64 of a-z, 0-9, - and _"
            raise BadInputError(msg)
        self.name = name
        self._path, self._columns = path, columns
        self.has_impressions = columns.clicked is not None
        self.notes: Sequence[str] = ()
        if columns.category_id is None:
            self.notes = ("The source has no categories: every item is in category 0.",)
        self._names: list[str] = []
        if not path.is_file():
            msg = f"{path}: no such file"
            raise BadInputError(msg)
        with path.open("rb") as stream:
            self._parquet = stream.read(4) == _PARQUET_MAGIC
        self._codes = _behavior_names(columns)
        if self._parquet:
            file = open_parquet(path, dict.fromkeys(columns.names(), is_any))
            self.total = file.metadata.num_rows
        else:
            self.total = path.stat().st_size
            self._names = header_of(path, columns.delimiter)
            for column in columns.names():
                if self._names.count(column) != 1:
                    names = ", ".join(self._names)
                    msg = f"{path}: column {column} is missing or there twice; found {names}"
                    raise BadInputError(msg)

    def sources(self) -> Sequence[Path]:
        """The input file."""
        return [self._path]

    def batches(self, rejects: Rejects, ids: IdNumbers) -> Iterator[Batch]:
        """Rows in file order."""
        for table, lines, done in self._tables(rejects):
            rows, clicked = self._rows(table, lines, ids)
            if clicked is None:
                yield Batch(done, behaviors=accept(self._path, rows, rejects))
                continue
            good = accept(self._path, rows, rejects, {"clicked": pa.array(clicked)})
            clicks = good.filter(good["clicked"]).drop_columns(["clicked"])
            yield Batch(done, behaviors=clicks, impressions=good.drop_columns(["behavior"]))

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
                else self._ids(kind, one_chunk(table, name), ids, faults)
            )
        behaviors = np.zeros(table.num_rows, np.int64)
        if columns.behavior is not None:
            behaviors = self._behaviors(one_chunk(table, columns.behavior), faults)
        clicked = None
        if columns.clicked is not None:
            clicked = _truth(self._path, one_chunk(table, columns.clicked), faults)
        times = self._times(one_chunk(table, columns.event_time), faults)
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
        self, kind: str, column: pa.Array, ids: IdNumbers, faults: NDArray[np.int8]
    ) -> NDArray[np.int64]:
        """Whole numbers as they are, texts by their number."""
        if not self._parquet and kind not in self._columns.string_ids:
            return _numbers(column, faults)
        if pa.types.is_integer(column.type):
            return whole_numbers(column, faults)
        words, bad = _texts(self._path, column)
        empty = pc.equal(pc.utf8_trim_whitespace(words), "").to_numpy(zero_copy_only=False)
        faults[empty] = _MISSING
        faults[bad] = _WRONG_TYPE
        # What is left out must not get into the table of ids.
        good = np.flatnonzero(faults == 0)
        values = np.zeros(len(column), np.int64)
        values[good] = ids.numbers(kind, words.take(pa.array(good)))
        return values

    def _behaviors(self, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
        words, bad = _texts(self._path, column)
        faults[bad] = _WRONG_TYPE
        at = pc.index_in(words, value_set=pa.array(list(self._codes), pa.string()))
        codes = pa.array(list(self._codes.values()), pa.int64()).take(at)
        behaviors: NDArray[np.int64] = pc.fill_null(codes, -1).to_numpy()
        return behaviors

    def _times(self, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
        """Milliseconds since 1970 UTC."""
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            # Of finer units milliseconds are left; flooring keeps the order.
            stamps = column.cast(pa.timestamp("ms"), safe=False)
            return whole_numbers(stamps.cast(pa.int64()), faults)
        if self._columns.time_unit is TimeUnit.ISO:
            words, bad = _texts(self._path, column)
            faults[bad] = _WRONG_TYPE
            return _iso_times(words, faults)
        parsed = (
            whole_numbers(column, faults)
            if pa.types.is_integer(column.type)
            else _numbers(column, faults)
            if pa.types.is_binary(column.type)
            else None
        )
        if parsed is None:
            msg = (
                f"{self._path}: column {self._columns.event_time} is {column.type}, expected "
                "an integer or a timestamp; for texts use --time-unit iso"
            )
            raise BadInputError(msg)
        scale = 1000 if self._columns.time_unit is TimeUnit.SECONDS else 1
        # Clipped so that milliseconds fit int64; what was clipped is out of range still.
        return parsed.clip(-1, MAX_TIME_MS // scale + 1) * scale


def _behavior_names(columns: TableColumns) -> dict[str, int]:
    """Names in the file, to indices into `BEHAVIORS`."""
    names = {**{name: name for name in BEHAVIORS}, **columns.behavior_names}
    codes = behavior_codes(pa.array(list(names.values()), pa.string())).to_pylist()
    return dict(zip(names, codes, strict=True))


def _texts(path: Path, column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Any column of texts as strings; null and what is not UTF-8 are empty."""
    if pa.types.is_binary(column.type):
        return texts(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
        words = pc.fill_null(column.cast(pa.string()), "")
        return words, np.zeros(len(column), bool)
    if pa.types.is_integer(column.type):
        return pc.fill_null(column.cast(pa.string()), ""), np.zeros(len(column), bool)
    msg = f"{path}: found a column of {column.type}, expected integers or strings"
    raise BadInputError(msg)


def _numbers(column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
    values, bad = integers(column)
    faults[bad] = _WRONG_TYPE
    if bad.any():
        faults[bad & pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)] = (
            _MISSING
        )
    return values


def _truth(path: Path, column: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Booleans, numbers (0 is no), or the texts 0, 1, true, false."""
    if pa.types.is_floating(column.type):
        column = pc.not_equal(pc.if_else(pc.is_nan(column), None, column), 0)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type):
        truth: NDArray[np.bool_] = whole_numbers(column, faults) != 0
        return truth
    lower = pc.ascii_lower(_texts(path, column)[0])
    at = pc.index_in(lower, value_set=pa.array(["0", "false", "1", "true"]))
    faults[at.is_null().to_numpy(zero_copy_only=False)] = _WRONG_TYPE
    faults[pc.equal(lower, "").to_numpy(zero_copy_only=False)] = _MISSING
    found: NDArray[np.bool_] = pc.fill_null(at, 0).to_numpy() >= 2
    return found


def _iso_times(words: pa.Array, faults: NDArray[np.int8]) -> NDArray[np.int64]:
    """ISO 8601 texts; without an offset they are UTC."""
    try:
        times: NDArray[np.int64] = words.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        times = np.zeros(len(words), np.int64)
        for row, word in enumerate(words.to_pylist()):
            try:
                stamp = datetime.fromisoformat(word)
                known = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
                times[row] = round(known.timestamp() * 1000)
            except (ValueError, OverflowError):
                faults[row] = faults[row] or (_WRONG_TYPE if word else _MISSING)
    return times
