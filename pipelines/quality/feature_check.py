"""`features.yaml` held against the data: what each feature is worth before a model sees it.

Reads the impressions of the log day by day and joins users and items as samples do, so coverage
is what training will have. Features of events are held against the behaviours. Memory is one day's
rows, the tables, and each feature's distinct categories.
"""

from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError, QualityGateError
from uic.models.features.dated import DatedTable
from uic.models.features.definition import FeatureSet, NamedFeature, Owner, Scale
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import RawValues, is_missing, missing_values, raw_column
from uic.pipelines.importers.source import readable
from uic.pipelines.log.columns import read_column, with_columns
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.log.schemas import IMPRESSIONS, misfit
from uic.pipelines.quality.feature_columns import ColumnFacts, columns_of, dated_table, distinct
from uic.pipelines.quality.feature_values import QUANTILES, DriftOfDay, SeenValues

# Above it, a population is held to be another one (the usual rule of thumb).
_DRIFTED: Final = 0.25
_MUCH_NEW: Final = 0.05
_LITTLE: Final = 0.05
# The largest number beside the median, from which on a scale is worth a remark.
_SKEWED: Final = 100


class UnusableFeatureError(QualityGateError):
    """A feature cannot be used as `features.yaml` says."""


@dataclass(frozen=True)
class FeatureReport:
    """One feature beside the data.

    Attributes:
        key: `owner.name`.
        type: as the file says, with the scale.
        source: the file and the column that it comes from.
        covered: share of the log's users or items that ever have a value; None of others.
        coverage: share of impressions, or of behaviours, that have a value.
        default: what the others get; None is a value of its own.
        not_finite: share of the column that is NaN or infinite.
        categories: how many different ones impressions have; None for numbers.
        top: the most frequent with their share of impressions.
        quantiles: of numbers, by quantile.
        drift: by day, against the days before.
        faults: why it cannot be used.
        remarks: what to look at.
    """

    key: str
    type: str
    source: str
    covered: float | None
    coverage: float
    default: Any
    not_finite: float
    categories: int | None
    top: list[tuple[str, float]]
    quantiles: dict[str, float] | None
    drift: list[DriftOfDay]
    faults: list[str]
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        document = asdict(self)
        document["drift"] = [{**day, "day": day["day"].isoformat()} for day in document["drift"]]
        return document


def check_features(features: FeatureSet, log: EventLog) -> list[FeatureReport]:
    """Judge every feature; those that cannot be used have `faults`.

    Raises:
        BadInputError: the log has no impressions, or a file cannot be read.
    """
    files, of_events = log.impression_files(), features.of_events()
    features = features.of_impressions()
    if not files and (len(features) or not len(of_events)):
        msg = f"{log.root}: has no impressions, which features are of; import some first"
        raise BadInputError(msg)
    facts = columns_of(features)
    judged = _Judged(features, facts)
    for day, of_day in groupby(sorted(files, key=lambda file: file.dt), lambda file: file.dt):
        judged.add_day(day, list(of_day))
    return [*judged.reports(), *(_of_event(named, log) for named in of_events)]


def _of_event(named: NamedFeature, log: EventLog) -> FeatureReport:
    """A feature of events beside the behaviours of the log."""
    column, one = EventColumn.of(named), ColumnFacts(named)
    seen, there, wrong = SeenValues(one.without_default), False, 0
    files = log.behavior_files()
    for day, of_day in groupby(sorted(files, key=lambda file: file.dt), lambda file: file.dt):
        parts = []
        for file in of_day:
            with readable(file.path), pq.ParquetFile(file.path) as opened:
                fault = misfit(opened.schema_arrow, with_columns(pa.schema([]), [column]))
                has = column.logged in opened.schema_arrow.names
                if fault is not None:
                    one.fault = f"{file.path}: {fault}; give the feature another name"
                    continue
                there |= has
                rows = opened.read(columns=[column.logged if has else "user_id"])
            values, refused = read_column(column, rows)
            wrong += int(refused.sum())
            parts.append(values)
        if parts:
            seen.add_day(day, cast("RawValues", np.concatenate(parts)))
    faults = [] if one.fault is None else [one.fault]
    if not there and not faults:
        says = f"no file of the behaviour log has a column {column.logged}"
        faults = [f"{says}; import it (--event-feature), or compact a topic's day that has it"]
    elif not seen.with_value and not faults:
        faults = [f"no behaviour has a value of {named.column}"]
    report = _report(one, seen, "behaviours", None, faults)
    if wrong:
        report.remarks.append(
            f"{wrong / max(seen.impressions, 1):.1%} of behaviours have a value of the wrong type: "
            "a fold that reads the feature leaves them out"
        )
    return report


def refuse_unusable(reports: list[FeatureReport]) -> None:
    """End with exit status 3 where a feature cannot be used.

    Raises:
        UnusableFeatureError: names the first, and how many more.
    """
    broken = [one for one in reports if one.faults]
    if broken:
        more = f"; {len(broken) - 1} more" if len(broken) > 1 else ""
        msg = f"features: {broken[0].key} cannot be used: {broken[0].faults[0]}{more}"
        raise UnusableFeatureError(msg)


class _Judged:
    def __init__(self, features: FeatureSet, facts: list[ColumnFacts]) -> None:
        self._facts = facts
        self._tables = {owner: dated_table(features, owner, facts) for owner in _OWNED}
        self._seen = {one.named.key: SeenValues(one.without_default) for one in facts}
        self._all: dict[Owner, list[NDArray[np.int64]]] = {owner: [] for owner in _OWNED}
        self._having: dict[str, list[NDArray[np.int64]]] = {one.named.key: [] for one in facts}
        self._in_files: set[str] = set()

    def add_day(self, day: date, files: list[LogFile]) -> None:
        columns = {one.named.column for one in self._facts if one.named.owner is Owner.CONTEXT}
        tables = [self._read(file, columns) for file in files]
        ids = {
            owner: np.concatenate(
                [table.column(f"{owner.value}_id").to_numpy() for table in tables]
            )
            for owner in _OWNED
        }
        times = np.concatenate(
            [table.column("event_time").to_numpy().view(np.int64) for table in tables]
        )
        rows = {owner: _rows(self._tables[owner], ids[owner], times) for owner in _OWNED}
        for owner in _OWNED:
            self._all[owner] = [distinct([*self._all[owner], ids[owner]])]
        for one in self._facts:
            if one.fault is not None:
                continue
            owner, seen = one.named.owner, self._seen[one.named.key]
            if owner is Owner.CONTEXT:
                seen.add_day(day, self._context(one, tables, files))
                continue
            table = self._tables[owner]
            if table is None:
                continue
            named = next(of for of in table.features if of.key == one.named.key)
            before = seen.with_value
            values = table.take(named, rows[owner])
            seen.add_day(day, values)
            if seen.with_value > before:
                there = rows[owner] >= 0
                there[there] &= _valid(one, table.values[named.key][rows[owner][there]])
                kept = self._having[one.named.key]
                self._having[one.named.key] = [distinct([*kept, ids[owner][there]])]

    def _read(self, file: LogFile, columns: set[str]) -> pa.Table:
        with readable(file.path), pq.ParquetFile(file.path) as opened:
            present = columns & set(opened.schema_arrow.names)
            return opened.read(
                columns=[*IMPRESSIONS.names, *sorted(present - set(IMPRESSIONS.names))]
            )

    def _context(self, one: ColumnFacts, tables: list[pa.Table], files: list[LogFile]) -> RawValues:
        parts = []
        for table, file in zip(tables, files, strict=True):
            if one.named.column in table.column_names:
                self._in_files.add(one.named.key)
                where = f"{file.path}: column {one.named.column}"
                one.look(table.column(one.named.column), where)
                if one.fault is None:
                    column = table.column(one.named.column)
                    parts.append(raw_column(one.without_default, column, where))
                    continue
            parts.append(missing_values(one.without_default, table.num_rows))
        return cast("RawValues", np.concatenate(parts))

    def reports(self) -> list[FeatureReport]:
        return [self._of(one) for one in self._facts]

    def _of(self, one: ColumnFacts) -> FeatureReport:
        seen, owner = self._seen[one.named.key], one.named.owner
        covered = None
        if owner in _OWNED:
            having = sum(part.size for part in self._having[one.named.key])
            covered = having / max(sum(part.size for part in self._all[owner]), 1)
        return _report(one, seen, "impressions", covered, self._faults(one, seen))

    def _faults(self, one: ColumnFacts, seen: SeenValues) -> list[str]:
        if one.fault is not None:
            return [one.fault]
        column = one.named.column
        if one.named.owner is Owner.CONTEXT and one.named.key not in self._in_files:
            return [f"no file of the impression log has a column {column}; import it (--context)"]
        if not seen.with_value:
            return [f"no impression has a value of {column}: other ids, or rows that hold later"]
        return []


_OWNED: Final = (Owner.USER, Owner.ITEM)


def _report(
    one: ColumnFacts, seen: SeenValues, rows: str, covered: float | None, faults: list[str]
) -> FeatureReport:
    """What there is of a feature; `rows` are what it was seen by."""
    feature = one.named.feature
    quantiles = None if one.fault else seen.quantiles()
    named = None
    if quantiles is not None:
        named = {f"{at:g}": value for at, value in zip(QUANTILES, quantiles, strict=True)}
    scale = f", {feature.scale.value}" if feature.scale is not Scale.NONE else ""
    place = rows if one.source is None else str(one.source)
    top = [(one.texts.get(number, str(number)), share) for number, share in seen.top()]
    return FeatureReport(
        one.named.key,
        f"{feature.type.value}{scale}",
        f"{place}: {one.named.column}",
        covered,
        seen.coverage,
        feature.default,
        one.not_finite / max(one.rows, 1),
        seen.cardinality,
        top,
        named,
        seen.drift,
        faults,
        _remarks(one, seen, quantiles, rows),
    )


def _rows(
    table: DatedTable | None, ids: NDArray[np.int64], times_ms: NDArray[np.int64]
) -> NDArray[np.int64]:
    return np.full(len(ids), -1, np.int64) if table is None else table.as_of(ids, times_ms)


def _valid(one: ColumnFacts, values: RawValues) -> NDArray[np.bool_]:
    return ~is_missing(one.without_default, values)


def _remarks(
    one: ColumnFacts, seen: SeenValues, quantiles: list[float] | None, rows: str
) -> list[str]:
    """What a person should look at before training."""
    feature, remarks = one.named.feature, []
    if one.fault is not None or not seen.with_value:
        return []
    if one.not_finite:
        remarks.append(f"{one.not_finite / one.rows:.1%} of the column is NaN or infinite: missing")
    if seen.coverage < _LITTLE:
        remarks.append(f"only {seen.coverage:.1%} of {rows} have a value")
    count = seen.cardinality
    if count is not None and feature.rows is None and count > feature.max_categories:
        remarks.append(
            f"{count:,} categories, of which {feature.max_categories:,} have rows of their own "
            "(max_categories); `rows: N` hashes them all into N"
        )
    if count == 1 or (quantiles is not None and quantiles[0] == quantiles[-1]):
        remarks.append("has one value, and says nothing")
    if quantiles is not None and feature.scale is Scale.NONE:
        low, middle, high = quantiles[0], quantiles[3], quantiles[-1]
        if low >= 0 and high > _SKEWED * max(middle, 1e-9):
            remarks.append(f"skewed (median {middle:.4g}, largest {high:.4g}): `scale: log`")
    worst = max(seen.drift, key=lambda day: day.psi, default=None)
    if worst is not None and worst.psi > _DRIFTED:
        remarks.append(f"drifts: PSI {worst.psi:.2f} on {worst.day}")
    last = seen.drift[-1].new_categories if seen.drift else None
    if last is not None and last > _MUCH_NEW:
        remarks.append(f"{last:.1%} of the last day's {rows} have a category never seen before")
    return remarks
