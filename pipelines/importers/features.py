"""Features that come in with an import: tables of users and items, and what the columns are.

A row of the import says what its user or item was at the row's time. Of these rows those stay in
which something is another than before, with the time as `valid_from`; so the table joins as any
other (`uic.models.features.dated`): a value is seen after its row, never by the row itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Kind, Owner
from uic.models.features.event_columns import EventColumn, event_columns
from uic.models.features.feature_file import load_features
from uic.models.features.raw import FeatureValueError
from uic.models.features.tables import (
    FEATURES_FILE,
    ID_COLUMN,
    VALID_FROM,
    name_features,
    table_path,
    write_table,
)
from uic.pipelines.importers.source import OwnerRows, readable

# Whole numbers of so few values are rather codes than amounts.
FEW_VALUES: Final = 100


@dataclass(frozen=True)
class ImportedFeature:
    """One feature, as the summary of an import tells of it."""

    owner: Owner
    name: str
    feature: Feature
    with_value: float  # share of rows


@dataclass(frozen=True)
class FeatureSummary:
    """What an import has done to the features of a workspace.

    Attributes:
        features: all that came in.
        rows: of each table that was written.
        file: `features.yaml`.
        to_add: what the file lacks, which a person wrote; None for nothing.
    """

    features: tuple[ImportedFeature, ...]
    rows: Mapping[Path, int]
    file: Path
    to_add: str | None


class FeatureCollector:
    """Takes the features of an import, and publishes them as a whole.

    Args:
        workspace: folder of `features.yaml` and `features/`.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._columns: dict[tuple[Owner, str], _Column] = {}
        self._tables: dict[Owner, list[pa.Table]] = {Owner.USER: [], Owner.ITEM: []}

    def add(self, rows: OwnerRows) -> None:
        """Take some rows, in source order."""
        for name in rows.table.column_names:
            if name in ("id", VALID_FROM):
                continue
            column = self._columns.setdefault((rows.owner, name), _Column())
            column.add(rows.table.column(name), rows.definitions.get(name))
        if rows.owner in self._tables:
            self._tables[rows.owner].append(changes_of([rows.table]))

    def event_columns(self) -> list[EventColumn]:
        """What the columns of events are: by `features.yaml`, else by their values.

        Raises:
            FeatureFileError: the file is none.
            FeatureValueError: it says number of texts.
        """
        file = self._workspace / FEATURES_FILE
        known = event_columns(load_features(file)) if file.is_file() else ()
        kinds = {column.name: column.kind for column in known}
        columns = []
        for (owner, name), column in self._columns.items():
            if owner is Owner.EVENT:
                kind = kinds.get(name, column.feature().type)
                if kind is Kind.NUMBER and column.is_text:
                    msg = f"{file}: event.{name} is a number, its column has texts or truths"
                    raise FeatureValueError(msg)
                given = {"name": name, "kind": kind, "field": name}
                columns.append(EventColumn.model_validate(given))
        return columns

    def publish(self) -> FeatureSummary | None:
        """Write the tables, each in one rename, then `features.yaml` if there is none.

        Raises:
            BadInputError: a table that is there already does not go with the new one, or a folder
                cannot be written.
        """
        if not self._columns:
            return None
        merged = {
            owner: self._with_older(owner, tables)
            for owner, tables in self._tables.items()
            if tables
        }
        for owner, table in merged.items():
            named = [ID_COLUMN[owner], *table.column_names[1:]]
            write_table(table_path(self._workspace, owner), table.rename_columns(named))
        imported = tuple(
            ImportedFeature(owner, name, column.feature(), column.with_value)
            for (owner, name), column in self._columns.items()
        )
        definitions: dict[Owner, dict[str, Feature]] = {}
        for owner in Owner:
            found = {one.name: one.feature for one in imported if one.owner is owner}
            definitions |= {owner: found} if found else {}
        dated = {owner: VALID_FROM in table.column_names for owner, table in merged.items()}
        file = self._workspace / FEATURES_FILE
        rows = {table_path(self._workspace, owner): one.num_rows for owner, one in merged.items()}
        return FeatureSummary(imported, rows, file, name_features(file, definitions, dated))

    def _with_older(self, owner: Owner, tables: list[pa.Table]) -> pa.Table:
        path = table_path(self._workspace, owner)
        if not path.exists():
            return changes_of(tables)
        with readable(path):
            older = pq.read_table(path)
        dated = VALID_FROM in tables[0].column_names
        if older.column_names[0] != ID_COLUMN[owner] or dated != (VALID_FROM in older.column_names):
            expected = f"{ID_COLUMN[owner]} first, and {'a' if dated else 'no'} {VALID_FROM}"
            msg = (
                f"{path}: columns are {', '.join(older.column_names[:20])}, expected {expected}, "
                "to go with what is imported; move the file away, or use another --workspace"
            )
            raise BadInputError(msg)
        older = older.rename_columns(["id", *older.column_names[1:]])
        try:
            return changes_of([older, *tables])
        except pa.ArrowException as error:
            msg = f"{path}: a column is of another type now ({error}); give it another NAME=COL"
            raise BadInputError(msg) from error


class _Column:
    """What is known of a column, batch after batch."""

    def __init__(self) -> None:
        self._given: Feature | None = None
        self._few: pa.Array | None = None
        self._number = False
        self._rows = self._valid = 0

    def add(self, column: pa.ChunkedArray, given: Feature | None) -> None:
        self._given = given
        self._rows += len(column)
        self._valid += len(column) - column.null_count
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind)):
            self._number = True
        elif pa.types.is_integer(kind) and not self._number:
            seen = [column.unique(), *([] if self._few is None else [self._few])]
            self._few = pc.unique(pa.chunked_array([one.cast(kind) for one in seen]))
            self._number = len(self._few.drop_null()) > FEW_VALUES

    @property
    def is_text(self) -> bool:
        return not self._number and self._few is None and self._valid > 0

    @property
    def with_value(self) -> float:
        return self._valid / max(self._rows, 1)

    def feature(self) -> Feature:
        kind = Kind.NUMBER if self._number else Kind.CATEGORICAL
        return self._given or Feature(type=kind)


def changes_of(tables: list[pa.Table]) -> pa.Table:
    """The rows in order of (id, time) at which a value is another than before.

    Of rows of one id and time the last holds. A table that lacks a column says nothing of it: the
    value before goes on.

    Args:
        tables: `id`, perhaps `valid_from`, features; in source order.

    Raises:
        pyarrow.ArrowException: a column has types that do not go together.
    """
    joined = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    ids = joined.column("id").to_numpy()
    times = np.zeros(len(ids), np.int64)
    if VALID_FROM in joined.column_names:
        times = joined.column(VALID_FROM).cast(pa.timestamp("ms")).to_numpy().view(np.int64)
    order = np.lexsort((times, ids))  # stable: rows of one time stay in source order
    ids, times = ids[order], times[order]
    begins = np.concatenate([[True], ids[1:] != ids[:-1]])[: len(ids)]
    begun = np.maximum.accumulate(np.where(begins, np.arange(len(ids)), 0))
    changed = begins.copy()
    # The last row of an id's time; the others are overwritten at once.
    last = np.concatenate([(ids[1:] != ids[:-1]) | (times[1:] != times[:-1]), [True]])[: len(ids)]
    columns = {name: joined.column(name).take(pa.array(order)) for name in joined.column_names}
    for name in set(columns) - {"id", VALID_FROM}:
        said = np.concatenate([np.full(one.num_rows, name in one.column_names) for one in tables])
        columns[name] = _carried(columns[name], said[order], begun)
    columns = {name: column.filter(pa.array(last)) for name, column in columns.items()}
    ids = ids[last]
    changed = np.concatenate([[True], ids[1:] != ids[:-1]])[: len(ids)]
    for name, column in columns.items():
        if name not in ("id", VALID_FROM):
            codes = _codes(column)
            changed[1:] |= codes[1:] != codes[:-1]
    return pa.table(columns).filter(pa.array(changed)).combine_chunks()


def _carried(
    column: pa.ChunkedArray, said: NDArray[np.bool_], begun: NDArray[np.int64]
) -> pa.ChunkedArray:
    """Each row's value or, where its table says nothing of the column, that of the row before."""
    if said.all():
        return column
    rows = np.maximum.accumulate(np.where(said, np.arange(len(said)), -1))
    return column.take(pa.array(rows, mask=rows < begun))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """(rows,) int64: equal where values are equal; a null is a value."""
    array = column.combine_chunks()
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    coded = pc.dictionary_encode(array, null_encoding="encode")
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    return np.asarray(coded.indices.cast(pa.int64()).to_numpy())
