"""Models: searches of settings, evaluation, comparisons and the papers' tables."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel, assignments, day_of

if TYPE_CHECKING:
    from uic.jobs.training.compare import Comparison
    from uic.jobs.training.measure import Evaluation
    from uic.jobs.training.tune import Tell, Tuned
    from uic.jobs.training.tune import Watch as WatchTrial


class MeasuringPanel(WorkspacePanel):
    """Methods that say how good a model is, and which settings are best."""

    def tune(
        self,
        model: str,
        samples: str = "default",
        *,
        settings: Mapping[str, Any] | Sequence[str] = (),
        first: date | str | None = None,
        last: date | str | None = None,
        test_days: int = 1,
        validation_days: int = 1,
        trials: int = 12,
        minutes: float | None = None,
        seed: int = 0,
        device: str = "auto",
        watch: "WatchTrial | None" = None,
        tell: "Tell | None" = None,
    ) -> "Tuned":
        """Search the settings that a model learns best with; `train(..., tuned=True)` uses them.

        The same search goes on where an earlier call was killed or out of time.

        Args:
            model: its name in the catalogue.
            samples: name of the samples.
            settings: that are not searched, for every training.
            first: leave out days before this one.
            last: leave out days after this one.
            test_days: the last so many days are never read.
            validation_days: the so many days before them judge, and are not trained on.
            trials: settings to begin with, the defaults among them.
            minutes: stop after so long with the best so far; None for no limit.
            seed: of the draw, of weights and of shuffles.
            device: cpu, cuda, or auto.
            watch: shows each training.
            tell: told each that is done.

        Raises:
            BadInputError: too few impressions or clicks to learn from, a wrong name, setting or
                day, or nothing was finished in time.

        Example:
            >>> workspace.tune("din", minutes=30).assignments
            ['learning_rate=0.005', 'batch_impressions=256']
        """
        from uic.jobs.training.tune import TuneRequest, tune

        request = TuneRequest(
            model=model,
            samples=samples,
            assignments=assignments(settings),
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            test_days=test_days,
            validation_days=validation_days,
            trials=trials,
            minutes=minutes,
            seed=seed,
            device=device,
        )
        return tune(self.context, request, watch, tell)

    def evaluate(
        self,
        bundle: str,
        samples: str = "default",
        *,
        first: date | str | None = None,
        last: date | str | None = None,
        rounding: bool = True,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> "Evaluation":
        """Score the impressions of some days with a bundle.

        Args:
            bundle: a path, model/version, or model.
            samples: name of the samples.
            first: first day; None: the last day of the samples, or no limit if `last` is given.
            last: last day; None: the last day of the samples.
            rounding: of mimn: round memories to float16 after every event, as records do.
            device: cpu, cuda, or auto.
            progress: told the impressions that were scored.

        Raises:
            BadInputError: no such bundle or samples, or no impressions on these days.
        """
        from uic.jobs.training.measure import EvaluateRequest, evaluate_bundle

        request = EvaluateRequest(
            bundle=bundle,
            samples=samples,
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            rounding=rounding,
            device=device,
        )
        return evaluate_bundle(self.context, request, progress or no_progress)

    def compare(
        self,
        bundles: Sequence[str],
        samples: str = "default",
        *,
        first: date | str | None = None,
        last: date | str | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> "Comparison":
        """Compare bundles with the first one on the same impressions, paired by user.

        Args:
            bundles: two or more: a path, model/version, or model; seeds joined by commas.
            samples: name of the samples.
            first: first day; None: the last day of the samples, or no limit if `last` is given.
            last: last day; None: the last day of the samples.
            device: cpu, cuda, or auto.
            progress: told the bundles that were scored.

        Raises:
            BadInputError: fewer than two, no such bundle or samples, or days without an AUC.

        Example:
            >>> workspace.compare(["average_pooling", "mimn"]).rows[1].difference.describe()
        """
        from uic.jobs.training.compare import CompareRequest, compare_bundles

        request = CompareRequest(
            bundles=bundles,
            samples=samples,
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            device=device,
        )
        return compare_bundles(self.context, request, progress or no_progress)

    def experiment(
        self,
        table: str,
        samples: str = "default",
        *,
        repeats: int = 3,
        rows: str | None = None,
        settings: Mapping[str, Any] | Sequence[str] = (),
        first: date | str | None = None,
        last: date | str | None = None,
        test_days: int = 1,
        device: str = "auto",
        memory_limit_gib: float = 10.0,
        sale_samples: str | None = None,
        tuned: bool = False,
    ) -> list[Path]:
        """Train the rows of a paper's table; a run that was done before is not done again.

        Args:
            table: its name in `uic.jobs.experiments.experiment.EXPERIMENTS`.
            samples: name of the samples.
            repeats: seeds 0 to repeats - 1.
            rows: only rows whose model is in this list, comma-separated.
            settings: for every row whose model knows the key.
            first: leave out days before this one.
            last: leave out days after this one.
            test_days: the last so many days are the test, not trained on.
            device: cpu, cuda, or auto.
            memory_limit_gib: memory that a row may take, 0 for no limit; more is a result.
            sale_samples: of big-sale, the same days with sale days in them.
            tuned: train each row with what `tune` found for its model.

        Returns:
            The paths of Markdown, CSV and picture.

        Raises:
            BadInputError: the table, a row, a setting or the samples are unknown or do not fit.
        """
        from uic.jobs.experiments.experiment import run_experiment
        from uic.jobs.experiments.runs import Request
        from uic.jobs.training.run import check_device, open_samples

        request = Request(
            context=self.context,
            reader=open_samples(self.context, samples),
            repeats=repeats,
            assignments=assignments(settings),
            test_days=test_days,
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            device=check_device(device),
            memory_limit_gib=memory_limit_gib,
            tuned=tuned,
        )
        with_sale = None if sale_samples is None else open_samples(self.context, sale_samples)
        return run_experiment(table, request, only=rows, sale_reader=with_sale)
