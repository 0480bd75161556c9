"""The gates: judge a table of the log, or samples that are about to be published.

A gate counts, judges, and, for what failed, fetches examples; it changes nothing. `require` turns
failed reports into the error that ends a command with status 3.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd

from uic.models.errors import BadInputError, QualityGateError
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.quality.checks import Check, log_checks
from uic.pipelines.quality.examples import Example, log_examples, sample_examples
from uic.pipelines.quality.facts import (
    ALL,
    BEHAVIORS_TABLE,
    IMPRESSIONS_TABLE,
    JudgedTable,
    LogRules,
    log_facts,
)
from uic.pipelines.quality.repetitions import repetition_remark
from uic.pipelines.quality.sample_facts import sample_checks, sample_facts
from uic.pipelines.quality.suite import CheckVerdict, Judgement, judge, limits, number
from uic.pipelines.settings import QualitySettings

Advance = Callable[[int], None]
_DAYS_IN_MESSAGE: Final = 3


@dataclass(frozen=True)
class CheckResult:
    """A check, what was found, and rows that broke it."""

    verdict: CheckVerdict
    examples: tuple[Example, ...] = ()

    @property
    def check(self) -> Check:
        """What was expected."""
        return self.verdict.check

    def sentence(self) -> str:
        """One line that names the column, the expectation and the counts."""
        check, verdict = self.check, self.verdict
        where = [f"{name}: {number(value)}" for name, value in verdict.failing]
        shown = ", ".join(where[:_DAYS_IN_MESSAGE])
        more = f" and {len(where) - _DAYS_IN_MESSAGE} more" if len(where) > _DAYS_IN_MESSAGE else ""
        if check.unit == "ratio":
            found = number(verdict.observed or 0)
        else:
            found = number(sum(value for _, value in verdict.failing))
        named = " and ".join(f"quality.{name}" for name in check.settings)
        held = f"{check.metric} {limits(check)}" + (f": {named}" if named else "")
        return (
            f"column {check.column}: expected {check.sentence} ({held}), "
            f"found {found} ({shown}{more})"
        )


@dataclass(frozen=True)
class GateReport:
    """What a gate found.

    Args:
        name: behaviors, impressions, or the name of the samples.
        subject: the days or the directory that was judged; for people.
        rows: rows (or groups) read.
        results: one a check, in order.
        frame: the metrics that were judged.
        judgement: what Great Expectations said; `page` renders it.
        remarks: what is worth a look and no failure.
        seconds: spent on `facts`, `judging` (the first pays the import) and `examples`.
    """

    name: str
    subject: str
    rows: int
    results: tuple[CheckResult, ...]
    frame: pd.DataFrame
    judgement: Judgement
    seconds: Mapping[str, float]
    remarks: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that did not pass."""
        return tuple(result for result in self.results if not result.verdict.success)


def gate_behaviors(
    log: EventLog, first: date, last: date, rules: LogRules, advance: Advance = lambda _: None
) -> GateReport:
    """Judge the behaviours of the days `first` to `last`.

    Raises:
        BadInputError: the days are reversed, or a file cannot be read.
    """
    return _gate_log(BEHAVIORS_TABLE, log.behavior_files, first, last, rules, advance)


def gate_impressions(
    log: EventLog, first: date, last: date, rules: LogRules, advance: Advance = lambda _: None
) -> GateReport:
    """Judge the impressions of the days `first` to `last`; as `gate_behaviors`."""
    return _gate_log(IMPRESSIONS_TABLE, log.impression_files, first, last, rules, advance)


def gate_samples(
    root: Path,
    manifest: Mapping[str, Any],
    quality: QualitySettings,
    advance: Advance = lambda _: None,
) -> GateReport:
    """Judge a directory of samples, published or staged.

    Args:
        root: where the files are.
        manifest: its manifest, written or about to be; `files` holds `path` and `rows`.
        quality: the thresholds.
        advance: called with groups read.
    """
    started = time.perf_counter()
    files = manifest["files"]
    frame = sample_facts(root, files, quality, advance)
    rows = int(frame.loc[frame["file"] == ALL, "rows.count"].iloc[0])
    counted = time.perf_counter() - started

    def examples(verdict: CheckVerdict) -> tuple[Example, ...]:
        return sample_examples(verdict, root, files, quality.examples)

    judgement, results, spent = _judged("samples", frame, sample_checks(quality), "file", examples)
    seconds = {"facts": counted, **spent}
    return GateReport(f"samples {root.name}", str(root), rows, results, frame, judgement, seconds)


def log_days(files: Sequence[LogFile]) -> tuple[date, date] | None:
    """First and last day that have a file; None without files."""
    days = [file.dt for file in files]
    return (min(days), max(days)) if days else None


def require(reports: Sequence[GateReport]) -> None:
    """Pass if every check of every report did.

    Raises:
        QualityGateError: one line: the first failed expectation with its column and counts, then
            the others.
    """
    failed = [(report, result) for report in reports for result in report.failed]
    if not failed:
        return
    (report, first), others = failed[0], failed[1:]
    also = ", ".join(f"{other.name} {result.check.metric}" for other, result in others)
    msg = f"quality gate of {report.name} ({report.subject}): {first.sentence()}"
    raise QualityGateError(f"{msg}; also failed: {also}" if also else msg)


def _gate_log(  # noqa: PLR0917 - as `gate_behaviors`, after the table and its files
    table: JudgedTable,
    files_of: Callable[[date | None, date | None], list[LogFile]],
    first: date,
    last: date,
    rules: LogRules,
    advance: Advance,
) -> GateReport:
    if last < first:
        msg = f"days: first {first} is after last {last}; turn them round"
        raise BadInputError(msg)
    started = time.perf_counter()
    days = [first + timedelta(days=at) for at in range((last - first).days + 1)]
    files = files_of(first, last)
    earlier: dict[date, int] = {}
    trailing = timedelta(days=rules.quality.trailing_days)
    for file in files_of(first - trailing, first - timedelta(days=1)):
        earlier[file.dt] = earlier.get(file.dt, 0) + file.rows
    frame, across = log_facts(table, files, days, rules, earlier_rows=earlier, advance=advance)
    counted = time.perf_counter() - started

    def examples(verdict: CheckVerdict) -> tuple[Example, ...]:
        return log_examples(verdict, table, files, rules, across)

    checks = log_checks(table, rules)
    judgement, results, spent = _judged(table.name, frame, checks, "day", examples)
    seconds = {"facts": counted, **spent}
    subject, rows = f"{first} to {last}", int(frame["rows"].sum())
    remark = None
    if table.has_positions:
        repeated = dict(zip(days, frame["rows.repeated"].astype("Int64")[: len(days)], strict=True))
        remark = repetition_remark({day: int(count) for day, count in repeated.items()}, rows)
    remarks = () if remark is None else (remark,)
    return GateReport(table.name, subject, rows, results, frame, judgement, seconds, remarks)


def _judged(
    name: str,
    frame: pd.DataFrame,
    checks: Sequence[Check],
    label: str,
    examples: Callable[[CheckVerdict], tuple[Example, ...]],
) -> tuple[Judgement, tuple[CheckResult, ...], dict[str, float]]:
    """What Great Expectations says of a frame, examples of what failed, and seconds for each."""
    started = time.perf_counter()
    judgement = judge(name, frame, checks, label)
    judged = time.perf_counter()
    results = tuple(
        CheckResult(verdict, () if verdict.success else examples(verdict))
        for verdict in judgement.verdicts
    )
    seconds = {"judging": judged - started, "examples": time.perf_counter() - judged}
    return judgement, results, seconds
