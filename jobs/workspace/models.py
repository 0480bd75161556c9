"""Models: training, evaluation, and the shelf of bundles."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel, day_of

if TYPE_CHECKING:
    from uic.jobs.training.measure import Evaluation
    from uic.jobs.training.publish import TrainedBundle, Watch
    from uic.jobs.training.tune import Tell, Tuned
    from uic.jobs.training.tune import Watch as WatchTrial
    from uic.models.bundles.bundle import Bundle


@dataclass(frozen=True)
class BundleLine:
    """One published bundle.

    Attributes:
        model: its name.
        version: of the model.
        current: whether the model's name alone means this version.
        hash: hex.
        training_data: samples, first and last day.
        auc: on its test days; None without any.
        impressions: of the test.
        remarks: what a person should know before they trust it.
    """

    model: str
    version: str
    current: bool
    hash: str
    training_data: Mapping[str, Any]
    auc: float | None
    impressions: int
    remarks: Sequence[str]


class ModelsPanel(WorkspacePanel):
    """Methods that train, measure and choose models."""

    def train(
        self,
        model: str,
        samples: str = "default",
        *,
        settings: Mapping[str, Any] | Sequence[str] = (),
        first: date | str | None = None,
        last: date | str | None = None,
        test_days: int = 1,
        validation_days: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        warm_start: str | None = None,
        except_ids: bool = False,
        version: str | None = None,
        ranks: int = 1,
        strategy: str | None = None,
        tuned: bool = False,
        watch: "Watch | None" = None,
    ) -> "TrainedBundle":
        """Train a model and publish it as a bundle, which becomes the model's current one.

        A run that was killed is resumed by the same call and ends with the same weights.

        Args:
            model: its name in `uic.models.rankers.catalogue`.
            samples: name of the samples.
            settings: hyper-parameters of the model or settings of the section `train`, as a
                mapping or as `key=value` texts.
            first: leave out days before this one.
            last: leave out days after this one.
            test_days: the last so many days are the test, not trained on.
            validation_days: the so many days before the test, which choose the epoch to keep;
                None: 1 where at least 4 days are left to train on, else 0.
            epochs: passes over the training days, with validation days at most; None: as the
                settings say.
            seed: of initial weights and shuffle.
            device: cpu, cuda, or auto.
            warm_start: bundle to start from: a path, model/version, or model.
            except_ids: do not copy its ID embeddings.
            version: name of the bundle's version; None: the next number.
            ranks: processes of this machine to train over.
            strategy: of dicm over ranks: ams, ps-worker or ps-server.
            tuned: with what `tune` found for these samples; `settings` win over it.
            watch: shows how the run goes.

        Raises:
            BadInputError: a name, setting or day is wrong, or the loss became infinite.
            RankFailedError: a rank failed or died.

        Example:
            >>> workspace.train("mimn", epochs=2, settings={"slots": 4}).metrics.auc
        """
        from uic.jobs.training.publish import TrainRequest, train_and_publish

        chosen = [*_assignments(settings), *([f"epochs={epochs}"] if epochs else [])]
        request = TrainRequest(
            model=model,
            samples=samples,
            assignments=chosen,
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            test_days=test_days,
            validation_days=validation_days,
            seed=seed,
            device=device,
            warm_start=warm_start,
            except_ids=except_ids,
            version=version,
            ranks=ranks,
            strategy=strategy,
            tuned=tuned,
        )
        return train_and_publish(self.context, request, watch)

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
            assignments=_assignments(settings),
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
            assignments=_assignments(settings),
            test_days=test_days,
            first=None if first is None else day_of(first, "first"),
            last=None if last is None else day_of(last, "last"),
            device=check_device(device),
            memory_limit_gib=memory_limit_gib,
        )
        with_sale = None if sale_samples is None else open_samples(self.context, sale_samples)
        return run_experiment(table, request, only=rows, sale_reader=with_sale)

    def bundle(self, reference: str) -> "Bundle":
        """Load a bundle as a server would: every sum, key, tensor and size is checked.

        Args:
            reference: a path, model/version, or model for its current version.

        Raises:
            BundleError: there is none of this name, or it is damaged.
        """
        from uic.models.bundles.bundle import load_bundle
        from uic.models.bundles.shelf import BundleShelf

        return load_bundle(BundleShelf(self.context.bundles).find(reference))

    def bundles(self) -> list[BundleLine]:
        """Every published bundle, by model and version.

        Raises:
            BundleError: a manifest cannot be read.
        """
        from uic.models.bundles.documents import read_bundle_manifest
        from uic.models.bundles.shelf import BundleShelf
        from uic.models.training.popularity import remarks_of

        shelf = BundleShelf(self.context.bundles)
        lines = []
        for model in shelf.models():
            for version in shelf.versions(model):
                path = shelf.path(model, version)
                manifest = read_bundle_manifest(path)
                metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
                lines.append(
                    BundleLine(
                        model=model,
                        version=version,
                        current=shelf.current(model) == version,
                        hash=manifest["hash"],
                        training_data=manifest["training_data"],
                        auc=(metrics["test"] or {}).get("auc"),
                        impressions=(metrics["test"] or {}).get("impressions", 0),
                        remarks=remarks_of(metrics),
                    )
                )
        return lines

    def use_bundle(self, model: str, version: str) -> None:
        """Make a published version the model's current one.

        Raises:
            BundleError: it is not published.
        """
        from uic.models.bundles.shelf import BundleShelf

        BundleShelf(self.context.bundles).choose(model, version)


def _assignments(settings: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Settings as `key=value` texts."""
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return list(settings)
