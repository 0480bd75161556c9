"""A table of users' or items' features, and the row that held just before a moment.

One row an id, or one a change with the time from which it held. The rule is that of histories: what
came to hold at a moment is not seen at that moment, but after it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSource, NamedFeature
from uic.models.features.raw import RawValues, missing_values, raw_column

# Of a row without a time: it has always held.
ALWAYS: Final = -(2**63)
# A table of places by id is made where the ids' numbers are at most so many times as many as the
# ids: eight bytes each.
_SPAN_PER_ID: Final = 16


class FeatureTableError(BadInputError):
    """A table of features cannot be read, or a column is not what it has to be."""


@dataclass(frozen=True)
class DatedTable:
    """Rows in order of (id, time from which they hold).

    Attributes:
        ids: (rows,) int64, ascending.
        valid_from_ms: (rows,) int64, ascending within an id; `ALWAYS` for no time.
        values: raw values by key, (rows,) or (rows, width).
        features: what they are values of.
    """

    ids: NDArray[np.int64]
    valid_from_ms: NDArray[np.int64]
    values: dict[str, RawValues]
    features: tuple[NamedFeature, ...]

    @classmethod
    def read(cls, path: Path, source: FeatureSource, features: tuple[NamedFeature, ...]) -> Self:
        """Read the columns of some features.

        Raises:
            FeatureTableError: not Parquet; a column is missing, or of a wrong type; an id is
                missing; two rows of an id hold from one moment.
            FeatureValueError: a feature's column is of another type.
        """
        names = {feature.column for feature in features} | {source.id}
        names |= {source.valid_from} if source.valid_from else set()
        if source.feast is not None and not path.is_file():
            msg = f"{path}: no such file; `uic features pull` reads feature view {source.feast}"
            raise FeatureTableError(msg)
        table = _read(path, sorted(names))
        ids = _ids(table.column(source.id), f"{path}: column {source.id}")
        times = np.full(len(ids), ALWAYS)
        if source.valid_from is not None:
            where = f"{path}: column {source.valid_from}"
            times = _times(table.column(source.valid_from), where)
        order = np.lexsort((times, ids))
        ids, times = ids[order], times[order]
        twice = np.flatnonzero((ids[1:] == ids[:-1]) & (times[1:] == times[:-1]))
        if twice.size:
            which = ids[twice[0]]
            when = "" if source.valid_from is None else f" from {_moment(times[twice[0]])}"
            remedy = "" if source.valid_from else "; name valid_from if rows are changes"
            msg = f"{path}: {source.id} {which} has two rows{when}, expected one{remedy}"
            raise FeatureTableError(msg)
        values = {}
        for named in features:
            where = f"{path}: column {named.column}"
            values[named.key] = raw_column(named.feature, table.column(named.column), where)[order]
        return cls(ids, times, values, features)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """(distinct ids + 1,): the first row of each id, and the end."""
        begins = np.flatnonzero(self.ids[1:] != self.ids[:-1]) + 1
        return np.concatenate([[0], begins, [self.ids.size]])

    @cached_property
    def _distinct(self) -> NDArray[np.int64]:
        distinct: NDArray[np.int64] = self.ids[self._starts[:-1]]
        return distinct

    @cached_property
    def _place_of(self) -> NDArray[np.int64] | None:
        """The place of every id between the least and the largest; None where they lie far apart.

        One look in place of a search whose every step misses the processor's cache.
        """
        span = int(self._distinct[-1]) - int(self._distinct[0]) + 1
        if span > _SPAN_PER_ID * self._distinct.size:
            return None
        places = np.zeros(span, np.int64)
        places[self._distinct - self._distinct[0]] = np.arange(self._distinct.size)
        return places

    def _places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each id among the distinct ones, (n,); any place for an id without rows."""
        least, most = self._distinct[0], self._distinct[-1]
        if self._place_of is None:
            return np.minimum(np.searchsorted(self._distinct, ids), self._distinct.size - 1)
        return np.asarray(self._place_of[np.clip(ids, least, most) - least])

    def as_of(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row that held just before each moment: (n,), (n,) to (n,) int64; -1 for none."""
        if not self.ids.size:
            return np.full(ids.size, -1, np.int64)
        places = self._places(ids)
        firsts = self._starts[places]
        # All searches at once, each among the rows of its id: so many of them may be the first
        # that is not before the moment.
        left = self._starts[places + 1] - firsts
        rows = firsts.copy()
        for _ in range((int(left.max(initial=1)) - 1).bit_length()):
            half = left >> 1
            rows += half * (self.valid_from_ms[rows + half - 1] < times_ms)
            left -= half
        rows -= self.valid_from_ms[rows] >= times_ms
        known = (rows >= firsts) & (self.ids[firsts] == ids)
        return np.where(known, rows, -1)

    def take(self, named: NamedFeature, rows: NDArray[np.int64]) -> RawValues:
        """A feature's values of rows; -1 has what stands for no value."""
        values = missing_values(named.feature, rows.size)
        known = rows >= 0
        values[known] = self.values[named.key][rows[known]]
        return values


def _read(path: Path, names: list[str]) -> pa.Table:
    if not path.is_file():
        msg = f"{path}: no such file; features.yaml names it as a source"
        raise FeatureTableError(msg)
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                found = ", ".join(file.schema_arrow.names[:40])
                msg = f"{path}: column {missing[0]} is missing; found {found}"
                raise FeatureTableError(msg)
            return file.read(columns=names)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})"
        raise FeatureTableError(msg) from error


def _ids(column: pa.ChunkedArray, where: str) -> NDArray[np.int64]:
    kind = column.type
    if column.null_count:
        msg = f"{where}: {column.null_count} ids are missing; leave these rows out"
        raise FeatureTableError(msg)
    if not pa.types.is_integer(kind):
        msg = f"{where} is {kind}, expected whole numbers: the ids of the event log"
        raise FeatureTableError(msg)
    return _as_int64(column, pa.int64(), where)


def _times(column: pa.ChunkedArray, where: str) -> NDArray[np.int64]:
    kind = column.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        msg = f"{where} is {kind}, expected timestamps (UTC, or with a zone) or dates"
        raise FeatureTableError(msg)
    if column.null_count:
        # "Always" would be a guess that shows the past what came later.
        msg = f"{where}: {column.null_count} times are missing; say from when these rows hold"
        raise FeatureTableError(msg)
    return _as_int64(column, pa.timestamp("ms"), where)


def _as_int64(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> NDArray[np.int64]:
    """Ids, or times in milliseconds, whose finer fractions are cut off.

    Raises:
        FeatureTableError: one is too large.
    """
    finer = pa.types.is_timestamp(column.type) and column.type.unit in {"us", "ns"}
    try:
        return np.asarray(column.cast(kind, safe=not finer).cast(pa.int64()).to_numpy())
    except pa.ArrowException as error:
        msg = f"{where}: {' '.join(str(error).split())}; correct the table"
        raise FeatureTableError(msg) from error


def _moment(time_ms: int) -> str:
    return str(np.datetime64(int(time_ms), "ms"))
