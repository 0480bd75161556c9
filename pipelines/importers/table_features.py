"""Columns of an imported table that are features: their types, and whose they are.

A Parquet column has its type; a column of a text file gets one from all of its values, read once
before the import: true and false, whole numbers, numbers, else texts. So a column has one type in
every file of the log that one import makes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uic.models.errors import BadInputError
from uic.models.features.definition import EVENT_FIELDS, NAME_PATTERN, Feature, Kind, Owner
from uic.models.features.event_columns import LOGGED_EVENT
from uic.models.features.raw import MISSING, raw_column
from uic.models.features.tables import VALID_FROM
from uic.pipelines.importers.source import OwnerRows, UnheardRejects
from uic.pipelines.importers.table_files import TableFile
from uic.pipelines.importers.text import texts
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, IMPRESSIONS

# What a CSV file writes where there is no value.
NO_VALUE: Final = ("", "NULL", "null", "NaN", "nan", "\\N")
_WHOLE: Final = r"^-?(0|[1-9][0-9]{0,17})$"
_NUMBER: Final = r"^-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$|^-?inf$"
_TRUTHS: Final = ("true", "false")
# Names that mean something else where the feature would be.
_TAKEN: Final[Mapping[Owner, frozenset[str]]] = {
    Owner.USER: frozenset({"id", "user_id", VALID_FROM}),
    Owner.ITEM: frozenset({"id", "item_id", VALID_FROM}),
    Owner.CONTEXT: frozenset({*IMPRESSIONS.names, *BEHAVIOR_EVENTS.names, "sequence"}),
    Owner.EVENT: EVENT_FIELDS,
}

ColumnNames = Mapping[Owner, Mapping[str, str]]


def column_names(owner: Owner, given: Sequence[str]) -> dict[str, str]:
    """Column by name of feature, of `COL` or `NAME=COL`.

    Raises:
        BadInputError: no name of a feature, one that means something else, or one twice.
    """
    option = "--context" if owner is Owner.CONTEXT else f"--{owner.value}-feature"
    names: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        column = column if equals else name
        if not re.fullmatch(NAME_PATTERN, name):
            msg = (
                f"{option}: found {text!r}, expected NAME=COL with a name of a-z, 0-9 and _ that "
                "begins with a letter"
            )
            raise BadInputError(msg)
        if name in _TAKEN[owner] or name in names:
            why = "is there twice" if name in names else "is a column of the log already"
            msg = f"{option}: {name} {why}; say OTHER={column}"
            raise BadInputError(msg)
        names[name] = column
    return names


class TableFeatures:
    """The features of one import.

    Args:
        names: column by owner and name of feature.
        types: of each column, as `column_types` says.
        time_zone: of times that have none.
    """

    def __init__(
        self,
        names: ColumnNames,
        types: Mapping[str, pa.DataType],
        time_zone: str | None = None,
    ) -> None:
        self._names, self._types = names, types
        self._zone = time_zone or "UTC"

    def columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """The values of some rows as `owner.name`, of one type in all rows of the file."""
        return {
            f"{owner.value}.{name}": self._values(table.column(column), self._types[column])
            for owner, names in self._names.items()
            for name, column in names.items()
        }

    def _values(self, column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
        """Of one type; times without a zone are of the import's, as event times, and become UTC."""
        values = _typed(column, kind)
        zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
        if zoned or not pa.types.is_timestamp(kind) or self._zone == "UTC":
            return values
        placed = pc.assume_timezone(values, self._zone, ambiguous="earliest", nonexistent="latest")
        return placed.cast(kind)

    def take(self, good: pa.Table) -> tuple[pa.Table, tuple[OwnerRows, ...]]:
        """Good rows and all features.

        Of `columns` the rows keep those of the context, by their names, and those of events, as the
        log has them but for whole numbers, which stay so until it is known what they are.
        """
        given = {f"{owner.value}.{name}" for owner, of in self._names.items() for name in of}
        plain = good.select([name for name in good.column_names if name not in given])
        rows = []
        for owner, names in self._names.items():
            if not names:
                continue
            values = {name: good.column(f"{owner.value}.{name}") for name in names}
            if owner is Owner.CONTEXT:
                for name, value in values.items():
                    plain = plain.append_column(name, value)
                rows.append(OwnerRows(owner, pa.table(values)))
                continue
            if owner is Owner.EVENT:
                for name, value in values.items():
                    logged = f"{LOGGED_EVENT}{name}"
                    plain = plain.append_column(logged, _of_event(logged, value))
                rows.append(OwnerRows(owner, pa.table(values)))
                continue
            whose = {"id": good.column(f"{owner.value}_id"), VALID_FROM: good.column("event_time")}
            rows.append(OwnerRows(owner, pa.table({**whose, **values})))
        return plain, tuple(rows)


def _of_event(where: str, values: pa.ChunkedArray) -> pa.Array:
    """Texts and truths as categories, int64; whole numbers as they are; others as float64."""
    kind = values.type
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return values.cast(pa.int64())
    if not (pa.types.is_string(kind) or pa.types.is_boolean(kind)):
        if pa.types.is_timestamp(kind):
            values = values.cast(pa.int64())
        numbers = values.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_finite(numbers), numbers, None)
    categories = raw_column(Feature(type=Kind.CATEGORICAL), values, where)
    return pa.array(categories, mask=categories == MISSING)


def column_types(tables: Sequence[TableFile], wanted: Sequence[str]) -> dict[str, pa.DataType]:
    """What columns become: of text files and JSON by all of their values.

    Raises:
        BadInputError: a column is neither texts, numbers, truths nor times, or of two kinds.
    """
    kinds = {name: _Kinds() for name in wanted}
    types: dict[str, pa.DataType] = {}
    for table in tables if wanted else ():
        for rows in table.rows(UnheardRejects()):
            for name in wanted:
                column = rows.columns.column(name)
                if not table.typed:
                    kinds[name].add(_words(column))
                    continue
                if pa.types.is_null(column.type):
                    continue
                if table.declared or column.null_count < len(column):
                    where = f"{table.path}: column {name}"
                    types[name] = _joined(where, types.get(name), _plain(where, column.type))
            if table.declared:
                break  # its types hold for all of its rows
    return {name: types.get(name, kinds[name].type()) for name in wanted}


def _joined(where: str, known: pa.DataType | None, other: pa.DataType) -> pa.DataType:
    """One type for the values of two.

    Raises:
        BadInputError: there is none.
    """
    if known is None or known == other:
        return other
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (known, other)]
    if not all(numbers):
        msg = f"{where} is {other}, and {known} before; make it one type"
        raise BadInputError(msg)
    whole = pa.types.is_integer(known) and pa.types.is_integer(other)
    return pa.int64() if whole else pa.float64()


class _Kinds:
    """What all values so far can be read as."""

    def __init__(self) -> None:
        self._whole = self._number = self._truth = True
        self._any = False

    def add(self, words: pa.Array) -> None:
        words = words.drop_null()
        self._any |= len(words) > 0
        self._whole = self._whole and _all(pc.match_substring_regex(words, _WHOLE))
        self._number = self._number and _all(pc.match_substring_regex(words, _NUMBER))
        lower = pc.ascii_lower(words)
        self._truth = self._truth and _all(pc.is_in(lower, value_set=pa.array(_TRUTHS)))

    def type(self) -> pa.DataType:
        if not self._any:
            return pa.string()
        if self._truth:
            return pa.bool_()
        if self._whole:
            return pa.int64()
        return pa.float64() if self._number else pa.string()


def _all(truths: pa.Array) -> bool:
    return bool(pc.all(truths, min_count=0).as_py())


def _words(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Bytes of a CSV file as texts; what is no value, or no UTF-8, is null."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.binary())
    words, undecodable = texts(column)
    words = pc.utf8_trim_whitespace(words)
    absent = np.asarray(pc.is_in(words, value_set=pa.array(NO_VALUE))) | undecodable
    return pc.if_else(pa.array(absent), None, words)


def _plain(where: str, kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(where, kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_decimal(kind) or pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pa.timestamp("ms")
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return kind
    msg = (
        f"{where} is {kind}, expected texts, numbers, truths or times; put lists into a table of "
        "their own, and name it in features.yaml"
    )
    raise BadInputError(msg)


def _typed(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_binary(column.type):
        words = _words(column)
        return pc.ascii_lower(words).cast(kind) if pa.types.is_boolean(kind) else words.cast(kind)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = column.cast(kind, safe=False)
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], kind)
