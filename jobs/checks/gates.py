"""Quality gates as commands run them: judge, show a table, write the page, stop on failure.

`uic check` shows all; `uic samples` calls `check_inputs` before it builds and `check_samples` on
what it built, before the manifest is published.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from uic.jobs.config.context import ERR, OUT, Context, progress_display
from uic.models.errors import BadInputError
from uic.models.published import read_manifest

if TYPE_CHECKING:
    from uic.pipelines.log.event_log import EventLog, LogFile
    from uic.pipelines.quality.facts import LogRules
    from uic.pipelines.quality.gates import Advance, CheckResult, GateReport

Days = tuple[date | None, date | None]


def check_inputs(context: Context, first: date, last: date, *, docs: bool = True) -> None:
    """Judge what samples of the days `first` to `last` are made of; call it before building.

    Behaviours from the start of the history window on (or of the log, if it begins later) and the
    impressions of the days themselves. Prints what failed, and a line for what did not.

    Raises:
        QualityGateError: a check failed (exit status 3); build nothing.
        BadInputError: there is nothing to judge, or a file cannot be read.
    """
    from uic.pipelines.log.event_log import EventLog  # noqa: PLC0415 - pyarrow and pandas

    window = timedelta(days=context.config.samples.window_days)
    present = [file.dt for file in EventLog(context.log).behavior_files(first - window, last)]
    history = min(present, default=first)
    reports = log_reports(context, behaviors=(history, last), impressions=(first, last))
    conclude(context, reports, docs=docs, show=False)


def check_samples(
    context: Context, root: Path, manifest: Mapping[str, Any], *, docs: bool = True
) -> None:
    """Judge samples that are about to be published.

    Args:
        context: workspace and configuration.
        root: the directory that holds the files.
        manifest: what is going to be its manifest.
        docs: whether to write Data Docs.

    Raises:
        QualityGateError: a check failed (exit status 3); do not publish.
    """
    conclude(context, [_samples_report(context, root, manifest)], docs=docs, show=False)


def samples_report(context: Context, name: str) -> "GateReport":
    """Judge published samples by their name.

    Raises:
        BadInputError: there are none of this name.
        ManifestError: they are not published, or are damaged.
    """
    from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION  # noqa: PLC0415 - pyarrow

    root = context.samples / name
    if not root.is_dir():
        msg = f"{root}: no samples of this name; `uic samples` makes them"
        raise BadInputError(msg)
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    return _samples_report(context, root, manifest)


def log_reports(
    context: Context,
    *,
    behaviors: Days | None,
    impressions: Days | None,
    skip_absent: bool = False,
) -> "list[GateReport]":
    """Judge tables of the event log.

    Args:
        context: workspace and configuration.
        behaviors: first and last day of behaviours; None in it: the log's own first or last. None
            for it leaves the table out.
        impressions: the same for impressions.
        skip_absent: leave a table without any file out instead of raising.

    Raises:
        BadInputError: there is nothing to judge, or a file cannot be read.
    """
    from uic.pipelines.log.event_log import EventLog  # noqa: PLC0415 - pyarrow and pandas
    from uic.pipelines.quality.gates import gate_behaviors, gate_impressions  # noqa: PLC0415

    log = EventLog(context.log)
    rules = log_rules(context, log)
    reports = []
    for name, wanted, files_of, gate in (
        ("behaviors", behaviors, log.behavior_files, gate_behaviors),
        ("impressions", impressions, log.impression_files, gate_impressions),
    ):
        files = files_of() if wanted else []
        if wanted is None or (skip_absent and not files):
            continue
        first, last = _judged_days(context.log, name, files, wanted)
        rows = sum(file.rows for file in files if first <= file.dt <= last)
        reports.append(
            _with_progress(f"checking {name}", rows, partial(gate, log, first, last, rules))
        )
    return reports


def log_rules(context: Context, log: "EventLog") -> "LogRules":
    """The rules of the configuration; days are those of the zone that the log was written in."""
    from uic.pipelines.quality.facts import LogRules  # noqa: PLC0415 - pyarrow and pandas
    from uic.pipelines.sale_calendar import SaleCalendar  # noqa: PLC0415

    config = context.config
    return LogRules(
        quality=config.quality,
        time_zone=log.time_zone() or config.time_zone,
        max_clock_skew_seconds=config.log.max_clock_skew_seconds,
        sale_days=frozenset(_sale_days(SaleCalendar.of(config.sale).sales)),
        daily=not any(manifest.get("details", {}).get("protocol") for manifest in log.manifests()),
    )


def _sale_days(sales: Sequence[Any]) -> list[date]:
    return [
        date.fromordinal(day)
        for sale in sales
        for day in range(sale.first.toordinal(), sale.last.toordinal() + 1)
    ]


def _judged_days(
    log: Path,
    name: str,
    files: Sequence["LogFile"],
    wanted: Days,
) -> tuple[date, date]:
    from uic.pipelines.quality.gates import log_days  # noqa: PLC0415

    present = log_days(files)
    if present is None:
        msg = f"{log}: no published {name}; `uic import` or `uic simulate` makes them"
        raise BadInputError(msg)
    first, last = wanted[0] or present[0], wanted[1] or present[1]
    if first > last:
        msg = (
            f"{log}: first day {first} is after last day {last}; "
            f"its {name} are of {present[0]} to {present[1]}"
        )
        raise BadInputError(msg)
    return first, last


def _samples_report(context: Context, root: Path, manifest: Mapping[str, Any]) -> "GateReport":
    from uic.pipelines.quality.gates import gate_samples  # noqa: PLC0415 - pyarrow and pandas

    rows = sum(int(entry["rows"]) for entry in manifest["files"])
    judging = partial(gate_samples, root, manifest, context.config.quality)
    return _with_progress("checking samples", rows, judging)


def _with_progress(
    text: str, rows: int, judging: "Callable[[Advance], GateReport]"
) -> "GateReport":
    from uic.pipelines.quality.suite import great_expectations  # noqa: PLC0415 - as above

    if "great_expectations" not in sys.modules:
        with ERR.status("loading Great Expectations, once a run"):
            great_expectations()
    with progress_display() as progress:
        task = progress.add_task(text, total=rows)
        return judging(lambda done: progress.advance(task, done))


def conclude(context: Context, reports: "Sequence[GateReport]", *, docs: bool, show: bool) -> None:
    """Print the reports, write their pages, and raise if a check failed.

    Args:
        context: workspace and configuration.
        reports: what the gates found.
        docs: whether to write Data Docs to `<workspace>/reports/quality`.
        show: print every expectation on standard output, or only failed ones on standard error.

    Raises:
        QualityGateError: names the first failed expectation with its counts, and all others.
    """
    from uic.pipelines.quality.gates import require  # noqa: PLC0415

    for report in reports:
        shown = report.results if show else report.failed
        console = OUT if show else ERR
        if shown:
            console.print(_table(report, shown))
        for result in report.failed:
            _print_examples(result)
        passed = len(report.results) - len(report.failed)
        seconds = report.seconds
        ERR.print(
            f"{report.name} ({report.subject}): {passed} of {len(report.results)} expectations "
            f"hold over {report.rows:,} rows; counted in {seconds['facts']:.1f} s, judged in "
            f"{seconds['judging']:.1f} s",
            markup=False,
        )
        if docs:
            from uic.pipelines.quality.page import write_page  # noqa: PLC0415

            path = write_page(context.reports / "quality", report)
            console.print(f"Data Docs: {path}", markup=False)
    require(reports)


def _table(report: "GateReport", results: "Sequence[CheckResult]") -> Table:
    from uic.pipelines.quality.suite import limits, number  # noqa: PLC0415

    table = Table(title=f"{report.name}: {report.subject}", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "expectation", "expected", "observed", "failed in"):
        table.add_column(heading, overflow="fold")
    for result in results:
        verdict, check = result.verdict, result.check
        failing = ", ".join(f"{name} ({number(value)})" for name, value in verdict.failing[:3])
        more = len(verdict.failing) - 3
        table.add_row(
            Text("pass", "green") if verdict.success else Text("FAIL", "bold red"),
            check.sentence,
            limits(check),
            "not judged" if verdict.observed is None else number(verdict.observed),
            Text(f"{failing} and {more} more" if more > 0 else failing),
        )
    return table


def _print_examples(result: "CheckResult") -> None:
    for example in result.examples:
        row = ", ".join(f"{name}={value}" for name, value in example.items())
        ERR.print(f"  {result.check.metric}: {row}", markup=False)
