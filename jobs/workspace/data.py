"""Data: imports, the simulator, quality gates and samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace import simulated_files
from uic.jobs.workspace.base import WorkspacePanel, day_of
from uic.jobs.workspace.sample_requests import samples_request
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.checks.gates import Judged
    from uic.jobs.stream.letters.compact import Compaction
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.importers.run import ImportSummary
    from uic.pipelines.importers.source import Importer
    from uic.pipelines.importers.table import TableColumns
    from uic.pipelines.quality.gates import GateReport
    from uic.pipelines.samples.next_item import NextItemTargets
    from uic.pipelines.simulator.plan import SimulationPlan
    from uic.pipelines.simulator.write import SimulatedLog

DEFAULT_SAMPLES = "default"


@dataclass(frozen=True)
class Simulated:
    """A simulated log.

    Attributes:
        plan: what it was made from.
        log: what was written, with the best AUC that a ranking of it can reach.
        calendar: the sale days, for `sale.calendar`; None without any.
        item_images: which item shows which photograph; None without photographs.
    """

    plan: "SimulationPlan"
    log: "SimulatedLog"
    calendar: Path | None
    item_images: Path | None


@dataclass(frozen=True)
class Samples:
    """Published samples.

    Attributes:
        name: to train from.
        path: their folder.
        manifest: days, counts, what was left out, settings.
    """

    name: str
    path: Path
    manifest: dict[str, Any]


class DataPanel(WorkspacePanel):
    """Methods that fill the log and make samples of it."""

    def import_table(
        self,
        file: str | Path | Sequence[str | Path],
        columns: "TableColumns",
        *,
        name: str = "table",
        again: bool = False,
        impressions_only: bool = False,
        any_time: bool = False,
        shown: bool = False,
        next_item: "NextItemOptions | None" = None,
        progress: Progress | None = None,
    ) -> "ImportSummary":
        """Import a table of any form into the event log.

        Args:
            file: CSV, JSON Lines (compressed or not), Parquet or Arrow; a file, a folder, a
                pattern, or several of them.
            columns: which column is what.
            name: of the new epoch; a-z, 0-9, - and _.
            again: import a file that the log has once more.
            impressions_only: rows go to the impression log alone, beside any log.
            any_time: take times before 2000 and after tomorrow.
            shown: keep each impression as an event, too, which parts of a record can read.
            next_item: make impressions by the papers' protocol; None keeps the file's.
            progress: told the rows that were read.

        Raises:
            BadInputError: the file or a column is not what it should be, or the log has it.

        Example:
            >>> columns = TableColumns(user_id="buyer", item_id="sku", event_time="at")
            >>> workspace.import_table("clicks.csv", columns).publication.behaviors
        """
        from uic.pipelines.importers.table import TableImporter

        given = [file] if isinstance(file, str | Path) else file
        return self.import_from(
            TableImporter([Path(one) for one in given], columns, name, self.config.time_zone),
            again=again,
            impressions_only=impressions_only,
            any_time=any_time,
            shown=shown,
            next_item=next_item,
            progress=progress,
        )

    def import_from(
        self,
        importer: "Importer",
        *,
        again: bool = False,
        impressions_only: bool = False,
        any_time: bool = False,
        shown: bool = False,
        next_item: "NextItemOptions | None" = None,
        progress: Progress | None = None,
    ) -> "ImportSummary":
        """Import by any importer, one of `uic.pipelines.importers` or your own.

        Args:
            importer: reads the files.
            again: import files that the log already holds once more.
            impressions_only: leave the files' behaviours out.
            any_time: take times before 2000 and after tomorrow, too.
            shown: keep each impression as an event, too, which parts of a record can read.
            next_item: make impressions by the papers' protocol.
            progress: told what was read, in the importer's own unit.

        Raises:
            BadInputError: no row can be used, or the log has it.
        """
        from uic.pipelines.importers.features import FeatureCollector
        from uic.pipelines.importers.run import run_import
        from uic.pipelines.log.event_log import EventLog

        return run_import(
            importer,
            EventLog(self.context.log),
            time_zone=self.config.time_zone,
            partitions=self.config.log.partitions,
            again=again,
            impressions_only=impressions_only,
            any_time=any_time,
            shown=shown,
            next_item=next_item,
            features=FeatureCollector(self.path),
            progress=progress,
        )

    def simulate(
        self,
        *,
        preset: str = "plain",
        photographs: str | Path | None = None,
        explain: bool = False,
        progress: Progress | None = None,
        **plan: Any,
    ) -> Simulated:
        """Write a simulated event log into an empty workspace.

        Args:
            preset: where fields that are not given come from, one of `PRESETS` of
                `uic.pipelines.simulator.plan`.
            photographs: class folders of images that items show; None for none.
            explain: find which knowledge is worth how much AUC (`Simulated.log.ceilings`).
            progress: told the days that were simulated and written.
            **plan: fields of `uic.pipelines.simulator.plan.SimulationPlan`, such as `users`,
                `items`, `days`, `seed`, `first_day`, `sale_days`. The time zone is the settings'.

        Raises:
            SimulationPlanError: a field is out of range, or the log holds something already.
            BadInputError: the photographs cannot be used, or the calendar cannot be written.
        """
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.simulator.plan import SimulationPlan
        from uic.pipelines.simulator.write import write_simulation

        shown = None if photographs is None else simulated_files.photographs_in(Path(photographs))
        report, counts = progress or no_progress, () if shown is None else shown.counts
        made = SimulationPlan.preset(
            preset, time_zone=self.config.time_zone, photographs=counts, **plan
        )
        log = write_simulation(
            made,
            EventLog(self.context.log),
            self.config.log,
            workspace=self.path,
            explain=explain,
            generated=partial(report, "simulating days"),
            written=partial(report, "writing days"),
        )
        calendar = simulated_files.write_calendar(made, self.path)
        images = (
            None if shown is None else simulated_files.write_item_images(made, shown, self.path)
        )
        return Simulated(made, log, calendar, images)

    def check(
        self,
        what: str = "all",
        name: str | None = None,
        *,
        first: date | str | None = None,
        last: date | str | None = None,
        docs: bool = True,
        judged: "Judged | None" = None,
        progress: Progress | None = None,
    ) -> "list[GateReport]":
        """Judge the event log or samples by the limits of the section `quality`.

        Args:
            what: behaviors, impressions, samples, or all that the workspace has.
            name: which samples; with `samples` only.
            first: first day of the log; None: the first that it has.
            last: last day of the log; None: the last that it has.
            docs: write Data Docs to `reports/quality`.
            judged: told each report, also those that make this raise.
            progress: told the rows that were read.

        Raises:
            QualityGateError: an expectation failed.
            BadInputError: nothing to judge, or a file cannot be read.
        """
        from uic.jobs.checks.gates import conclude, log_reports, samples_report
        from uic.models.published import MANIFEST_NAME

        if (name is not None) != (what == "samples"):
            msg = "uic check samples NAME needs the name of the samples, the others take none"
            raise BadInputError(msg)
        days = (
            None if first is None else day_of(first, "first"),
            None if last is None else day_of(last, "last"),
        )
        reports = log_reports(
            self.context,
            behaviors=days if what in {"behaviors", "all"} else None,
            impressions=days if what in {"impressions", "all"} else None,
            skip_absent=what == "all",
            progress=progress or no_progress,
        )
        names = [name] if name else []
        if what == "all":
            published = self.context.samples.glob(f"*/{MANIFEST_NAME}")
            names = sorted(path.parent.name for path in published)
        reports += [samples_report(self.context, one, progress or no_progress) for one in names]
        if not reports:
            msg = f"{self.path}: nothing to judge; `uic import` or `uic simulate` makes a log"
            raise BadInputError(msg)
        conclude(self.context, reports, judged or _tell_nobody, docs=docs)
        return reports

    def samples(
        self,
        first: date | str,
        last: date | str,
        name: str = DEFAULT_SAMPLES,
        *,
        features: Path | str | None = None,
        state: Path | str | None = None,
        labels: Sequence[str] | None = None,
        next_item: "NextItemTargets | None" = None,
        gates: bool = True,
        judged: "Judged | None" = None,
        runner: str = "DirectRunner",
        beam_arguments: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Samples:
        """Group each user's impressions of a day with the history that they share.

        Args:
            first: first day of impressions.
            last: last day of impressions, included.
            name: of the samples, a folder of `samples/`.
            features: a `features.yaml`; None takes the workspace's, if any, "none" joins nothing.
            state: a `state.yaml`, likewise.
            labels: of the log, beside the click; None takes `samples.labels` of the settings.
            next_item: make impressions of behaviours; None takes those of the log.
            gates: judge the log before and the samples after; see `check`.
            judged: told the report of each gate; that of samples in a Beam worker: it is pickled.
            runner: of Beam.
            beam_arguments: for Beam.
            progress: told the rows of the log that the gates have read.

        Raises:
            QualityGateError: a gate failed; nothing was published.
            BadInputError: a name, day or file is wrong, or the log has no such days.
        """
        from uic.jobs.checks.gates import check_inputs, check_samples
        from uic.pipelines.samples.run import make_samples

        days = day_of(first, "first"), day_of(last, "last")
        told, report = judged or _tell_nobody, progress or no_progress
        request = samples_request(
            self.context,
            days,
            name,
            features=features,
            state=state,
            labels=labels,
            next_item=next_item,
        )
        if gates:
            request = replace(request, gate=partial(check_samples, self.context, told))
            check_inputs(self.context, *days, told, report, with_impressions=next_item is None)
        report(f"grouping the impressions of {days[0]} to {days[1]}", 0, None)
        return Samples(name, request.output, make_samples(request, runner, beam_arguments))

    def compact(self, day: date | str, *, accept_loss: bool = False) -> "list[Compaction]":
        """Add what streamed up to and including a day to the event log.

        Args:
            day: the last one, in the time zone of the settings.
            accept_loss: go on without events that were not archived; the log notes which.

        Raises:
            ArchiveGapError: the stream's archive lacks events before this day.
        """
        from uic.jobs.stream.letters.compact import compact

        return compact(self.context, day_of(day, "day"), accept_loss=accept_loss)


def _tell_nobody(report: "GateReport", page: Path | None) -> None:
    del report, page
