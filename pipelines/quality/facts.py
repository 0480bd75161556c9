"""Facts of a log table: one pass over its files, one row of counts a day.

Files are read batch by batch, so memory does not grow with the log. What a batch leaves behind is
a count a rule and, for behaviours, one line for each run of a partition (`positions`), with which
duplicates across files are found without sorting the log.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, IMPRESSIONS, misfit
from uic.pipelines.quality.positions import CrossFault, PartitionRuns
from uic.pipelines.quality.repetitions import Repetitions
from uic.pipelines.quality.rows import BEHAVIOR_RULES, IMPRESSION_RULES, JudgedRows, RowRule
from uic.pipelines.settings import QualitySettings

# Masks of a batch of this size stay in the cache of a core; below it, Python's share grows.
BATCH_ROWS: Final = 1 << 17
ALL: Final = "all"


@dataclass(frozen=True)
class JudgedTable:
    """A table of the log: its schema and its rules."""

    name: str
    schema: pa.Schema
    rules: tuple[RowRule, ...]
    has_positions: bool


BEHAVIORS_TABLE: Final = JudgedTable(
    "behaviors", BEHAVIOR_EVENTS, BEHAVIOR_RULES, has_positions=True
)
IMPRESSIONS_TABLE: Final = JudgedTable(
    "impressions", IMPRESSIONS, IMPRESSION_RULES, has_positions=False
)


@dataclass(frozen=True)
class LogRules:
    """How a log is judged.

    Args:
        quality: the thresholds.
        time_zone: the zone whose days are `dt`; IANA name.
        max_clock_skew_seconds: how far an event time may lie after its log time.
        sale_days: days whose volume is not judged; their rows are judged as any.
        daily: whether the log is one of days. A protocol (next-item) keeps some events of some
            users and makes its impressions at their ends, so days and volumes say nothing.
    """

    quality: QualitySettings
    time_zone: str
    max_clock_skew_seconds: int
    sale_days: Set[date] = frozenset()
    daily: bool = True


def log_facts(
    table: JudgedTable,
    files: Sequence[LogFile],
    days: Sequence[date],
    rules: LogRules,
    *,
    earlier_rows: Mapping[date, int] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[pd.DataFrame, tuple[CrossFault, ...]]:
    """The metrics frame of some days of a table, and the faults between its files.

    Args:
        table: which table.
        files: the published files of `days`, by (dt, epoch).
        days: every day that there should be.
        rules: how the log is judged.
        earlier_rows: rows of days before the first, from the manifests, for the trailing median.
        advance: called with the rows of each batch, for progress.

    Returns:
        One row a day, in order, and a last one named `all` for what is judged over the whole
        range. `day` is a string; a count is float64 (NaN: not judged here).
    """
    counts = {day: dict.fromkeys(("rows", "manifest", *_metrics(table)), 0) for day in days}
    clicks = dict.fromkeys(days, 0)
    runs = PartitionRuns()
    expected = {day: sum(file.rows for file in files if file.dt == day) for day in days}
    repetitions = {day: Repetitions(rows) for day, rows in expected.items()}
    for file in files:
        of_day = counts[file.dt]
        for rows in file_rows(file.path, file.dt, table, rules):
            of_day["rows"] += rows.batch.num_rows
            for rule in table.rules:
                mask = rule.broken(rows)
                if mask is not None:
                    of_day[rule.metric] += int(np.count_nonzero(mask))
            if table.has_positions:
                runs.add(file, rows)
                repetitions[file.dt].add(rows)
            else:
                clicks[file.dt] += int(np.count_nonzero(rows.values("clicked")))
            advance(rows.batch.num_rows)
        of_day["manifest"] += file.rows
    across = tuple(runs.faults_across_files())
    for fault in across:
        counts[fault.file.dt][fault.metric] += fault.rows
    frame = pd.DataFrame.from_dict(counts, orient="index").astype("float64")
    frame["rows.not_as_manifest"] = (frame["rows"] - frame.pop("manifest")).abs()
    if table.has_positions:
        frame["rows.repeated"] = [float(repetitions[day].count()) for day in days]
    frame["rows.missing_day"] = (frame["rows"] == 0).astype("float64")
    rows_of_days = dict(zip(days, frame["rows"], strict=True))
    frame["rows.volume_ratio"] = _volume_ratios(rows_of_days, earlier_rows or {}, rules)
    if not table.has_positions:
        frame["clicked.rate"] = _rates(pd.Series(clicks), frame["rows"], rules.quality)
    return _with_whole(frame, clicks, table, rules.quality), across


def file_rows(path: Path, day: date, table: JudgedTable, rules: LogRules) -> Iterator[JudgedRows]:
    """The rows of one file, batch by batch, ready to be judged.

    Raises:
        BadInputError: it is no Parquet file, or a column is missing or of another type.
    """
    days = CalendarDays(rules.time_zone)
    start_ms, end_ms = (days.start_ms(day_number(day) + at) for at in (0, 1))
    before = None
    for batch in record_batches(path, table.schema, BATCH_ROWS):
        rows = JudgedRows(batch, start_ms, end_ms, rules.max_clock_skew_seconds * 1000, before)
        yield rows
        if table.has_positions and batch.num_rows:
            before = rows.last()


def record_batches(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of `schema` of a Parquet file, at most `rows` rows at a time.

    Raises:
        BadInputError: it is no Parquet file, or a column is missing or of another type.
    """
    try:
        with pq.ParquetFile(path) as file:
            fault = misfit(file.schema_arrow, schema)
            if fault is not None:
                msg = f"{path}: {fault}; make the file again"
                raise BadInputError(msg)
            columns = [field.name for field in schema if not field.nullable]
            yield from file.iter_batches(batch_size=rows, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{path}: cannot be read as Parquet ({reason}); make the file again"
        raise BadInputError(msg) from error


def _metrics(table: JudgedTable) -> tuple[str, ...]:
    return tuple(rule.metric for rule in table.rules)


def _volume_ratios(
    rows: Mapping[date, float], earlier_rows: Mapping[date, int], rules: LogRules
) -> list[float]:
    """Rows of each day over the median of its trailing days with rows; NaN where not judged."""
    known: dict[date, float] = {**earlier_rows, **rows}
    quality = rules.quality
    ratios = []
    for day, count in rows.items():
        trailing = [
            known.get(day - timedelta(days=back), 0) for back in range(1, quality.trailing_days + 1)
        ]
        trailing = [rows_of_day for rows_of_day in trailing if rows_of_day > 0]
        median = float(np.median(trailing)) if trailing else math.nan
        judged = (
            count > 0  # an empty day is the affair of `rows.missing_day`
            and len(trailing) >= quality.min_trailing_days
            and max(count, median) >= quality.min_judged_rows
            and day not in rules.sale_days
        )
        ratios.append(count / median if judged else math.nan)
    return ratios


def _rates(
    clicks: "pd.Series[int]", rows: "pd.Series[float]", quality: QualitySettings
) -> "pd.Series[float]":
    return (clicks / rows).where(rows >= quality.min_judged_rows)


def _with_whole(
    frame: pd.DataFrame, clicks: Mapping[date, int], table: JudgedTable, quality: QualitySettings
) -> pd.DataFrame:
    """The days by name, and the row `all` with what is judged once: missing days, click rate."""
    whole = dict.fromkeys(frame.columns, math.nan)
    total = frame["rows"].sum()
    if not table.has_positions and total >= quality.min_judged_rows:
        whole["clicked.rate"] = sum(clicks.values()) / total
    frame.index = pd.Index([day.isoformat() for day in frame.index])
    frame.loc[ALL] = whole
    return frame.rename_axis("day").reset_index()
