"""Quality gates of a workspace: judge, write the page, tell the caller, stop on failure.

`uic check` judges what is there; `uic samples` calls `check_inputs` before it builds and
`check_samples` on what it built, before the manifest is published.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.context import Context
from uic.jobs.config.progress import Progress, no_progress
from uic.models.errors import BadInputError
from uic.models.published import read_manifest

if TYPE_CHECKING:
    from uic.pipelines.log.event_log import EventLog, LogFile
    from uic.pipelines.quality.facts import LogRules
    from uic.pipelines.quality.gates import Advance, GateReport

Days = tuple[date | None, date | None]
Judged = Callable[["GateReport", Path | None], None]
"""Called with the report of a gate, passed or failed, and its page."""


def check_inputs(
    context: Context,
    first: date,
    last: date,
    judged: Judged,
    progress: Progress,
    *,
    with_impressions: bool = True,
) -> None:
    """Judge what samples of the days `first` to `last` are made of; call it before building.

    Behaviours from the start of the history window on (or of the log, if it begins later) and the
    impressions of the days themselves, which samples of behaviours alone have not.

    Raises:
        QualityGateError: a check failed (exit status 3); build nothing.
        BadInputError: there is nothing to judge, or a file cannot be read.
    """
    from uic.pipelines.log.event_log import EventLog  # noqa: PLC0415 - pyarrow and pandas

    window = timedelta(days=context.config.samples.window_days)
    present = [file.dt for file in EventLog(context.log).behavior_files(first - window, last)]
    history = min(present, default=first)
    impressions = (first, last) if with_impressions else None
    reports = log_reports(
        context, behaviors=(history, last), impressions=impressions, progress=progress
    )
    conclude(context, reports, judged)


def check_samples(
    context: Context, judged: Judged, root: Path, manifest: Mapping[str, Any]
) -> None:
    """Judge samples that are about to be published; called in a Beam worker.

    Args:
        context: workspace and configuration.
        judged: told the report.
        root: the directory that holds the files.
        manifest: what is going to be its manifest.

    Raises:
        QualityGateError: a check failed (exit status 3); do not publish.
    """
    conclude(context, [_samples_report(context, root, manifest, no_progress)], judged)


def samples_report(context: Context, name: str, progress: Progress) -> "GateReport":
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
    return _samples_report(context, root, manifest, progress)


def log_reports(
    context: Context,
    *,
    behaviors: Days | None,
    impressions: Days | None,
    skip_absent: bool = False,
    progress: Progress,
) -> "list[GateReport]":
    """Judge tables of the event log.

    Args:
        context: workspace and configuration.
        behaviors: first and last day of behaviours; None in it: the log's own first or last. None
            for it leaves the table out.
        impressions: the same for impressions.
        skip_absent: leave a table without any file out instead of raising.
        progress: told the rows that were read.

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
            _judge(f"checking {name}", rows, partial(gate, log, first, last, rules), progress)
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


def _samples_report(
    context: Context, root: Path, manifest: Mapping[str, Any], progress: Progress
) -> "GateReport":
    from uic.pipelines.quality.gates import gate_samples  # noqa: PLC0415 - pyarrow and pandas

    rows = sum(int(entry["rows"]) for entry in manifest["files"])
    judging = partial(gate_samples, root, manifest, context.config.quality)
    return _judge("checking samples", rows, judging, progress)


def _judge(
    step: str, rows: int, judging: "Callable[[Advance], GateReport]", progress: Progress
) -> "GateReport":
    from uic.pipelines.quality.suite import great_expectations  # noqa: PLC0415 - as above

    progress("loading Great Expectations, once a run", 0, 1)
    great_expectations()
    progress("loading Great Expectations, once a run", 1, 1)
    read = 0

    def advance(count: int) -> None:
        nonlocal read
        read += count
        progress(step, read, rows)

    return judging(advance)


def conclude(
    context: Context, reports: "Sequence[GateReport]", judged: Judged, *, docs: bool = True
) -> None:
    """Write the pages of the reports, tell the caller, and raise if a check failed.

    Args:
        context: workspace and configuration.
        reports: of the gates.
        judged: told each report.
        docs: whether to write Data Docs to `<workspace>/reports/quality`.

    Raises:
        QualityGateError: names the first failed expectation with its counts, and all others.
    """
    from uic.pipelines.quality.gates import require  # noqa: PLC0415
    from uic.pipelines.quality.page import write_page  # noqa: PLC0415

    for report in reports:
        page = write_page(context.reports / "quality", report) if docs else None
        judged(report, page)
    require(reports)
