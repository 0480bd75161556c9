"""What the columns behind `features.yaml` hold, before anything is joined: types, texts, NaN.

A column that cannot be what its feature says is a fault of that feature alone; the others are
judged all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.dated import DatedTable
from uic.models.features.definition import Feature, FeatureSet, FeatureSource, NamedFeature, Owner
from uic.models.features.raw import FeatureValueError, category_of, raw_column

# Texts of so many categories are kept, to name the most frequent.
_TEXTS: Final = 100_000


@dataclass
class ColumnFacts:
    """One feature's column.

    Attributes:
        named: the feature.
        source: the file that it is a column of; None for the impressions.
        fault: why the feature cannot be used; None if it can.
        rows, not_finite: rows of the column, and those that are NaN or infinite.
        texts: of categories that are texts, by their number.
    """

    named: NamedFeature
    source: Path | None = None
    fault: str | None = None
    rows: int = 0
    not_finite: int = 0
    texts: dict[int, str] = field(default_factory=dict)

    @property
    def without_default(self) -> Feature:
        """The feature with nothing in the place of what is missing."""
        return self.named.feature.model_copy(update={"default": None})

    def look(self, column: pa.Array | pa.ChunkedArray, where: str) -> None:
        """Take a column, or a piece of it."""
        self.rows += len(column)
        kind = column.type
        if pa.types.is_floating(kind):
            finite = pc.fill_null(pc.is_finite(column), fill_value=True)
            self.not_finite += len(column) - int(pc.sum(finite.cast(pa.int64())).as_py() or 0)
        try:
            raw_column(self.without_default, column, where)
        except FeatureValueError as error:
            self.fault = self.fault or str(error)
            return
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            for text in pc.unique(column).to_pylist():
                if text is not None and len(self.texts) < _TEXTS:
                    self.texts[category_of(text)] = text


def columns_of(features: FeatureSet) -> list[ColumnFacts]:
    """Columns of the tables of users and items; those of impressions are looked at file by file."""
    facts = []
    for named in features:
        source = source_of(features, named.owner)
        path = None if source is None else features.folder / source.file
        facts.append(ColumnFacts(named, path))
    for owner in (Owner.USER, Owner.ITEM):
        _look_at_table([one for one in facts if one.named.owner is owner])
    return facts


def source_of(features: FeatureSet, owner: Owner) -> FeatureSource | None:
    """The table of users or items; None for the context."""
    sources = {Owner.USER: features.sources.user, Owner.ITEM: features.sources.item}
    return sources.get(owner)


def _look_at_table(facts: list[ColumnFacts]) -> None:
    if not facts or facts[0].source is None:
        return
    path = facts[0].source
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for one in facts:
                if one.named.column not in names:
                    found = ", ".join(names[:40])
                    one.fault = f"{path}: column {one.named.column} is missing; found {found}"
                    continue
                column = file.read(columns=[one.named.column]).column(0)
                one.look(column, f"{path}: column {one.named.column}")
    except (OSError, pa.ArrowException) as error:
        for one in facts:
            one.fault = f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})"


def dated_table(features: FeatureSet, owner: Owner, facts: list[ColumnFacts]) -> DatedTable | None:
    """The table with the features that can be used; None where none can.

    A table that cannot be joined (an id without a value, two rows that hold from one moment) is a
    fault of all its features.
    """
    good = [one for one in facts if one.named.owner is owner and one.fault is None]
    source = source_of(features, owner)
    if not good or source is None:
        return None
    plain = tuple(NamedFeature(owner, one.named.name, _plain(one)) for one in good)
    try:
        return DatedTable.read(features.folder / source.file, source, plain)
    except BadInputError as error:
        for one in good:
            one.fault = str(error)
        return None


def _plain(one: ColumnFacts) -> Feature:
    return one.without_default.model_copy(update={"column": one.named.column})


def distinct(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The distinct values of some arrays, ascending."""
    kept = list(parts)
    return np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
