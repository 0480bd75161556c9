"""Models: training, and the shelf of bundles."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from uic.jobs.workspace.base import assignments, day_of
from uic.jobs.workspace.measuring import MeasuringPanel

if TYPE_CHECKING:
    from uic.jobs.training.publish import TrainedBundle, Watch
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


class ModelsPanel(MeasuringPanel):
    """Methods that train and choose models; those that measure them come with `MeasuringPanel`."""

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

        chosen = [*assignments(settings), *([f"epochs={epochs}"] if epochs else [])]
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
