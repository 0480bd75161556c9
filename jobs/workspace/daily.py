"""The day's work in its order: what `uic daily` does, by the methods that single commands call.

1. The log: what streamed becomes part of it, forgotten users leave the files, old files go.
2. Memories: a snapshot for each night that lacks one, in order; old ones go; what is served is
   audited.
3. Samples: the log is judged, samples are made of it, and a model is trained if one is named.

There is no note of what is done. Each step looks at what lies in the workspace: the newest complete
snapshot, the samples' manifest and what it says of the log, the samples that the current bundle was
trained on, the last audit. So a killed day goes on where it was, and a day that is done does
nothing again.
"""

from collections.abc import Collection, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from uic.jobs.config.progress import Progress
from uic.jobs.workspace.base import day_of
from uic.jobs.workspace.daily_order import (
    DailyRequest,
    DailyStep,
    DailyWork,
    Told,
    do,
    known_steps,
    never,
    plan,
    tell_no_reader,
)
from uic.jobs.workspace.data import DEFAULT_SAMPLES, DataPanel
from uic.jobs.workspace.memories import MemoriesPanel
from uic.jobs.workspace.models import ModelsPanel
from uic.jobs.workspace.users import UsersPanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.checks.gates import Judged
    from uic.jobs.training.publish import Watch

SAMPLES_DAYS: Final = 30


class DailyPanel(DataPanel, ModelsPanel, MemoriesPanel, UsersPanel):
    """The method that does a day's work."""

    def daily(
        self,
        until: date | str | None = None,
        *,
        samples: str = DEFAULT_SAMPLES,
        days: int = SAMPLES_DAYS,
        train: str | None = None,
        audit_rate: float | None = None,
        skip: Collection[str] = (),
        dry_run: bool = False,
        say: Told | None = None,
        judged: "Judged | None" = None,
        watch: "Watch | None" = None,
        progress: Progress | None = None,
    ) -> list[DailyStep]:
        """Do the day's steps in order, those that are not done, and all missed nights' snapshots.

        May be killed at any time; the same call goes on.

        Args:
            until: last day of the work; None: yesterday, in the time zone of the settings.
            samples: name of the samples.
            days: of impressions in the samples, up to `until`.
            train: model to train on the samples, from its current bundle if there is one.
            audit_rate: share of users to audit; None: `audit.sample_rate`.
            skip: names of steps to leave out, of `STEPS`.
            dry_run: say what would be done, and do nothing.
            say: told each step when it has ended.
            judged: told the report of each gate.
            watch: shows how the training goes.
            progress: told how far a step is.

        Returns:
            The steps, in order.

        Raises:
            QualityGateError: a gate or the audit failed; the steps that do not need it were done.
            BadInputError: a day, name or setting is wrong, no generation is live, or another day's
                work is under way.
            UicError: as the steps.
        """
        from uic.models.published import only_writer

        request = DailyRequest(
            until=self._day_that_is_over(until),
            samples=samples,
            days=days,
            train=train,
            audit_rate=self.config.audit.sample_rate if audit_rate is None else audit_rate,
            skip=known_steps(skip),
        )
        told = say or tell_no_reader
        if dry_run:
            return plan(self._work(request, None, None, None), told)
        busy = BadInputError(f"{self.path}: another `uic daily` is at work here; wait for it")
        with only_writer(self.path / ".daily.lock", busy):
            return do(self._work(request, judged, watch, progress), told)

    def _day_that_is_over(self, until: date | str | None) -> date:
        """The last day of the work.

        Raises:
            BadInputError: it is not over.
        """
        today = datetime.now(ZoneInfo(self.config.time_zone)).date()
        if until is None:
            return today - timedelta(days=1)
        last = day_of(until, "--until")
        if last >= today:
            msg = (
                f"--until {last}: is not over in {self.config.time_zone}; say a day before {today}"
            )
            raise BadInputError(msg)
        return last

    def _work(
        self,
        request: DailyRequest,
        judged: "Judged | None",
        watch: "Watch | None",
        progress: Progress | None,
    ) -> Iterator[DailyWork]:
        """The steps in order; the nights are looked up when those before them are done."""
        day = request.until
        for work in self._of_the_log(day):
            yield work.unless_in(request.skip)
        if "snapshot" in request.skip:
            yield DailyWork("snapshot", day, never, str, "--skip")
        else:
            yield from self._snapshots(day)
        yield self._pruning(day).unless_in(request.skip)
        yield self._auditing(request, progress).unless_in(request.skip)
        for work in self._of_samples(request, judged, watch, progress):
            yield work.unless_in(request.skip)

    def _of_the_log(self, day: date) -> Iterator[DailyWork]:
        """What streamed, those who were forgotten, and files that are old enough to go."""
        from uic.feature_repo.store.tombstones import Tombstones
        from uic.pipelines.log.event_log import EventLog

        def compacted() -> str:
            done = self.compact(day)
            events = sum(one.publication.behaviors for one in done)
            refused = sum(one.rejected for one in done)
            return f"{events:,} events published, {refused:,} refused" if done else "nothing new"

        def erased() -> str:
            rows = sum(place.rows for place in self.erase_forgotten())
            return f"{rows:,} rows of forgotten users erased"

        def cleaned() -> str:
            from uic.jobs.stream.letters.pruning import prune_streamed

            files = sum(place.files for place in prune_streamed(self.context))
            return f"{files:,} old files of stream and service removed"

        streamed = any(epoch.kind == "topic" for epoch in EventLog(self.context.log).epochs())
        quiet = None if streamed else "the log has no topic; imports are in it already"
        unneeded = None if len(Tombstones(self.path).ids()) else "no user was forgotten"
        yield DailyWork("compact", day, never, compacted, quiet)
        yield DailyWork("forget", day, lambda: unneeded, erased)
        yield DailyWork("clean", day, never, cleaned)

    def _snapshots(self, until: date) -> Iterator[DailyWork]:
        """One for each night after the newest snapshot that is complete; the last ones to be kept.

        Raises:
            BadInputError: no generation is live, or it has no snapshot.
        """
        newest = self._latest(self._live(), until)
        has = date.fromisoformat(newest.manifest["until"])
        if has >= until:
            said = f"{newest.name} holds the log until {has}"
            yield DailyWork("snapshot", until, lambda: said, str)
            return
        # A prune would remove the others: the first of these holds their days.
        kept = until - timedelta(days=self.config.memories.snapshots_kept - 1)
        night = max(has + timedelta(days=1), kept)
        while night <= until:
            yield DailyWork("snapshot", night, never, partial(self._snapshot, night))
            night += timedelta(days=1)

    def _snapshot(self, night: date) -> str:
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.memories.nightly import outside_days

        made = self.build_memories(None, night, start="latest", generation="live")
        last = outside_days(EventLog(self.context.log), made).last_day
        ends = f"; the log ends on {last}" if last is not None and last < night else ""
        return (
            f"{made.name}: {made.rows:,} users, {made.manifest['events']['folded']:,} events{ends}"
        )

    def _pruning(self, day: date) -> DailyWork:
        kept = self.config.memories.snapshots_kept

        def done() -> str | None:
            return None if self.prunable() else f"no generation has more than {kept} snapshots"

        return DailyWork("prune", day, done, lambda: f"{len(self.prune()):,} snapshots removed")

    def _of_samples(
        self,
        request: DailyRequest,
        judged: "Judged | None",
        watch: "Watch | None",
        progress: Progress | None,
    ) -> Iterator[DailyWork]:
        """The log judged, samples made of it, a model trained on them."""
        from uic.jobs.workspace.sample_requests import samples_request
        from uic.pipelines.log.event_log import EventLog
        from uic.pipelines.samples.run import is_published

        day, name, log = request.until, request.samples, EventLog(self.context.log)
        shown = [file.dt for file in log.impression_files(None, day)]
        first = max(day - timedelta(days=request.days - 1), min(shown, default=day))
        late = "" if day in shown else f"; the log has no impressions on {day}"

        def sampled() -> str | None:
            request = samples_request(self.context, (first, day), name)
            current = max(shown, default=date.min) >= first and is_published(request)
            return f"samples {name} are of {first} to {day} and of this log" if current else None

        def checked() -> str:
            tables = {"behaviors": [file.dt for file in log.behavior_files(None, day)]}
            tables |= {"impressions": shown} if shown else {}
            for table, dates in tables.items():
                self.check(table, last=max(dates, default=day), judged=judged, progress=progress)
            return f"{' and '.join(tables)} passed"

        def sample() -> str:
            made = self.samples(first, day, name, judged=judged, progress=progress)
            return f"{made.manifest['impressions']:,} impressions of {first} to {day}{late}"

        empty = None if shown else "the log has no impressions"
        yield DailyWork("check", day, sampled, checked)
        yield DailyWork("samples", day, sampled, sample, empty)
        yield self._training(request, watch)

    def _training(self, request: DailyRequest, watch: "Watch | None") -> DailyWork:
        from uic.models.published import MANIFEST_NAME, sha256_of

        model, name = request.train or "", request.samples
        manifest = self.context.samples / name / MANIFEST_NAME

        def current() -> str | None:
            lines = [one for one in self.bundles() if one.model == model and one.current]
            return f"{model}/{lines[0].version}" if lines else None

        def done() -> str | None:
            if not manifest.is_file():
                return None
            made = {"samples": name, "manifest_sha256": sha256_of(manifest)}
            trained = [
                one for one in self.bundles()
                if one.model == model and one.current and made.items() <= one.training_data.items()
            ]  # fmt: skip
            return f"{model}/{trained[0].version} was trained on them" if trained else None

        def train() -> str:
            made = self.train(model, name, warm_start=current(), watch=watch)
            auc = "" if made.metrics is None else f", AUC {made.metrics.auc:.4f}"
            return f"{made.label}{auc}"

        unasked = None if request.train else "no model was named"
        return DailyWork("train", request.until, done, train, unasked)

    def _auditing(self, request: DailyRequest, progress: Progress | None) -> DailyWork:
        from uic.jobs.checks.audit import passed_since
        from uic.models.published import MANIFEST_NAME

        rate, day = request.audit_rate, request.until

        def done() -> str | None:
            live = self._live()
            snapshot = self._latest(live, day).path / MANIFEST_NAME
            passed = passed_since(self.context, snapshot, rate, live)
            return "one has passed since the snapshot" if passed else None

        def audit() -> str:
            found = self.audit(sample_rate=rate, progress=progress)
            found.require_no_mismatch()
            users = sum(one.users for one in found.generations)
            return f"{users:,} memories are the log's"

        return DailyWork("audit", day, done, audit)
