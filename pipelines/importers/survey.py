"""A look at a table before its import: its columns, its days, whether its ids are texts.

`open_look` reads the names of the columns, `first_values` what is in them at the beginning;
`survey` reads the chosen columns once, to the end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Kind, Owner
from uic.pipelines.importers.columns_found import kind_of
from uic.pipelines.importers.features import FEW_VALUES
from uic.pipelines.importers.guesses import guess_time_unit
from uic.pipelines.importers.input_files import InputFile, input_files
from uic.pipelines.importers.plausible import PlausibleTimes
from uic.pipelines.importers.source import UnheardRejects
from uic.pipelines.importers.table_features import NO_VALUE, ColumnNames, column_types
from uic.pipelines.importers.table_files import TableFile, open_tables
from uic.pipelines.importers.text import TextForm, header_of, texts
from uic.pipelines.importers.times import EventTimes, unit_or_format

_SEPARATORS: Final = ("::", "\t", ";", "|")
_WHOLE: Final = r"^\s*-?(0|[1-9][0-9]{0,17})(\.0+)?\s*$"
# So many distinct values tell how times are written, and which behaviours there are.
_DISTINCT: Final = 1000
# So many rows say what a column is, before it is chosen.
_FIRST_ROWS: Final = 10_000


@dataclass(frozen=True)
class TableLook:
    """The files of a table, how they are written, and the names of their columns."""

    files: Sequence[InputFile]
    form: TextForm
    names: Sequence[str]

    def tables(self, wanted: Sequence[str]) -> list[TableFile]:
        """The files with some columns.

        Raises:
            BadInputError: a column is not there.
        """
        return open_tables(self.files, list(dict.fromkeys(wanted)), self.form)


@dataclass(frozen=True)
class TableSurvey:
    """What the chosen columns hold.

    Attributes:
        time_unit: what `--time-unit` has to say; None if the file says it itself.
        no_zone: whether times have none.
        first, last: days of what can be true, in the given zone.
        text_ids: the first id that is a text, by kind (user, item, category).
        typed: whether the file's columns have types, so that texts are told by them.
        behaviors: distinct values of the behaviour column, at most 1,000, in order of appearance.
    """

    time_unit: str | None
    no_zone: bool
    first: date
    last: date
    typed: bool
    text_ids: Mapping[str, str] = field(default_factory=dict)
    behaviors: Sequence[str] = ()


def open_look(data: Path, form: TextForm, *, any_separator: bool) -> TableLook:
    """Read the names of the columns.

    Args:
        data: a file, a folder or a pattern.
        form: how text files are written.
        any_separator: find the separator by the first line.

    Raises:
        BadInputError: there is no file, or it is no table.
    """
    files = input_files([data])
    table = open_tables(files, [], TextForm(header=False))[0]
    if any_separator and not table.typed and len(table.names) == 1:
        alone = header_of(files[0].path, TextForm())[0]
        other = next((sign for sign in _SEPARATORS if sign in alone), ",")
        form = replace(form, delimiter=other)
    names = open_tables(files, [], form)[0].names
    return TableLook(
        files, form, [*names, *(key for key in files[0].partition if key not in names)]
    )


def first_values(look: TableLook, names: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Distinct values of the first rows, by column.

    Args:
        look: the table.
        names: of columns; None takes all that are there once.

    Returns:
        At most 1,000 values a column, as texts in order of appearance. Columns of lists, of objects
        and of what cannot be read are left out: that is said of a column when it is chosen.
    """
    if names is None:
        names = [name for name in look.names if look.names.count(name) == 1]
    try:
        first = next(_all_rows(look.tables(names)), None)
    except BadInputError:
        alone = [first_values(look, [name]) for name in names] if len(names) > 1 else []
        return {name: values for of in alone for name, values in of.items()}
    if first is None:
        return {}
    columns = {name: _array(first.slice(0, _FIRST_ROWS), name) for name in names}
    return {name: _distinct(column) for name, column in columns.items() if _has_words(column.type)}


def survey(
    look: TableLook,
    ids: Mapping[str, str],
    time: str,
    *,
    behavior: str | None = None,
    unit: str | None = None,
    zone: str = "UTC",
) -> TableSurvey:
    """Read the chosen columns of all rows.

    Args:
        look: the table.
        ids: column by kind: user, item, perhaps category.
        time: column of times.
        behavior: column of behaviours, or None.
        unit: what `--time-unit` says; None finds it by the first values.
        zone: whose days the log will have, and those of times without a zone.

    Raises:
        BadInputError: a column is not there, or its times cannot be told.
    """
    tables = look.tables([*ids.values(), time, *([behavior] if behavior else [])])
    kinds, words, days = _IdTexts(ids), dict[str, None](), _Days(time, unit, zone)
    for table in tables:
        for rows in table.rows(UnheardRejects()):
            if not rows.columns.num_rows:
                continue
            columns = {name: _array(rows.columns, name) for name in rows.columns.column_names}
            kinds.add(columns)
            days.add(table.path, columns[time])
            if behavior and len(words) < _DISTINCT:
                words |= dict.fromkeys(_distinct(columns[behavior]))
    first, last = days.range(tables[0].path)
    return TableSurvey(
        days.unit, days.no_zone, first, last, tables[0].typed, kinds.found, list(words)
    )


def survey_features(look: TableLook, names: ColumnNames) -> dict[Owner, dict[str, Feature]]:
    """What columns beside ids are, as an import finds them: numbers or categories.

    Raises:
        BadInputError: a column is not there, or is neither.
    """
    wanted = [column for of in names.values() for column in of.values()]
    tables = look.tables(wanted)
    types = column_types(tables, list(dict.fromkeys(wanted)))
    few = {name: set[str]() for name in types}
    for rows in _all_rows(tables):
        for name, seen in few.items():
            if pa.types.is_integer(types[name]) and len(seen) <= FEW_VALUES:
                seen |= set(_distinct(_array(rows, name)))
    features: dict[Owner, dict[str, Feature]] = {}
    for owner, of in names.items():
        for name, column in of.items():
            kind = types[column]
            category = pa.types.is_string(kind) or pa.types.is_boolean(kind)
            category |= pa.types.is_integer(kind) and len(few[column]) <= FEW_VALUES
            feature = Feature(type=Kind.CATEGORICAL if category else Kind.NUMBER)
            features.setdefault(owner, {})[name] = feature
    return features


def _all_rows(tables: Sequence[TableFile]) -> Iterator[pa.Table]:
    for table in tables:
        for rows in table.rows(UnheardRejects()):
            if rows.columns.num_rows:
                yield rows.columns


def _array(table: pa.Table, name: str) -> pa.Array:
    """A column as one array, without a dictionary."""
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pa.concat_arrays(column.chunks)


def _has_words(kind: pa.DataType) -> bool:
    """Whether values can be a person's words: texts, whole numbers or times."""
    whole = pa.types.is_integer(kind) or pa.types.is_binary(kind)
    return whole or kind_of(kind) in {"texts", "times"}


def _words(column: pa.Array) -> pa.Array:
    """Values that are there, as texts without blanks around them."""
    if pa.types.is_binary(column.type):
        column, _ = texts(column)
    words = pc.utf8_trim_whitespace(column.drop_null().cast(pa.string()))
    return words.filter(pc.invert(pc.is_in(words, value_set=pa.array(NO_VALUE))))


def _distinct(column: pa.Array) -> list[str]:
    found: list[str] = pc.unique(_words(column))[:_DISTINCT].to_pylist()
    return found


class _IdTexts:
    """Finds ids that are no whole numbers."""

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = ids
        self.found: dict[str, str] = {}

    def add(self, columns: Mapping[str, pa.Array]) -> None:
        for kind, name in self._ids.items():
            column = columns[name]
            text = pa.types.is_binary(column.type) or pa.types.is_string(column.type)
            text |= pa.types.is_large_string(column.type)
            if kind in self.found or not text:
                continue
            words = _words(column)
            if pa.types.is_binary(column.type):
                words = words.filter(pc.invert(pc.match_substring_regex(words, _WHOLE)))
            if len(words):
                self.found[kind] = words[0].as_py()


class _Days:
    """Finds how times are written, and the first and the last."""

    def __init__(self, column: str, unit: str | None, zone: str) -> None:
        self._column, self._zone = column, zone
        self.unit = unit
        self.no_zone = False
        self._ends: list[int] = []
        self._plausible = PlausibleTimes.until_tomorrow()

    def add(self, path: Path, column: pa.Array) -> None:
        where = f"{path}: column {self._column}"
        dated = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
        if self.unit is None and not dated:
            words = _distinct(column)
            self.unit = guess_time_unit(where, words) if words else None
            if self.unit is None:
                return
        unit = unit_or_format(self.unit or "ms")
        # In a log of UTC, times without a zone are taken and remarked; which tells that they are.
        bare = EventTimes(where, unit, None, "UTC")
        begin = column.slice(0, _DISTINCT)
        bare.read(begin, np.zeros(len(begin), np.int8), first=not self._ends)
        self.no_zone |= bare.remark(self._column) is not None
        faults = np.zeros(len(column), np.int8)
        times = EventTimes(where, unit, self._zone, self._zone).read(column, faults, first=False)
        good = faults == 0
        good &= ~self._plausible.implausible(times, good)
        if good.any():
            self._ends += [int(times[good].min()), int(times[good].max())]

    def range(self, path: Path) -> tuple[date, date]:
        """The first and the last day.

        Raises:
            BadInputError: no time can be true.
        """
        if not self._ends:
            read = f", read as {self.unit}" if self.unit else ""
            msg = (
                f"{path}: column {self._column} has no time between 2000 and tomorrow{read}; is it "
                "another column, or --time-unit?"
            )
            raise BadInputError(msg)
        first, last = (
            datetime.fromtimestamp(end / 1000, UTC).astimezone(ZoneInfo(self._zone)).date()
            for end in (min(self._ends), max(self._ends))
        )
        return first, last
