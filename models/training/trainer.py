"""Training: batches of groups, one optimiser step a batch, a checkpoint now and then.

`uic train MODEL --samples NAME` runs it. A run is a pure function of its `RunSpec` on one machine
and torch build: weights, order of batches and learning curve, killed and resumed or not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.images.features import ImageFeatures
from uic.models.memory.event_terms import in_buckets
from uic.models.memory.fold import EventValueError
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.groups import GroupBatch
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import Vocabulary, build_vocabulary
from uic.models.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from uic.models.training.evaluation import evaluate
from uic.models.training.loss import cross_entropy
from uic.models.training.metrics import Metrics
from uic.models.training.optimizer import Optimizer
from uic.models.training.popularity import SimpleBaselines, simple_baselines
from uic.models.training.run_spec import RunSpec

_WEIGHTS = "weights."
_MOMENTS = "moments."


class NonFiniteLossError(BadInputError):
    """The loss became NaN or infinite: the data or the learning rate is at fault."""


@dataclass(frozen=True)
class StepReport:
    """What a display is told after each step.

    Attributes:
        epoch: running, from 0.
        step: done so far.
        loss: of this batch.
        impressions: of this batch.
        events: of this batch.
    """

    epoch: int
    step: int
    loss: float
    impressions: int
    events: int


@dataclass(frozen=True)
class Watcher:
    """Callbacks that report how training goes; by default they do nothing."""

    step: Callable[[StepReport], None] = lambda _: None
    epoch: Callable[[int, Metrics | None], None] = lambda _epoch, _metrics: None
    resumed: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Attributes:
        spec: what was run.
        model: in evaluation mode, on the CPU.
        vocabulary: of the training days.
        metrics: on the test days after the last epoch; None without test days.
        curve: learning curve, `[{"step", "loss"}]`.
        epochs: metrics after each epoch, as JSON.
        baselines: what the metrics stand beside; None without test days.
    """

    spec: RunSpec
    model: Ranker
    vocabulary: Vocabulary
    metrics: Metrics | None
    curve: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    baselines: SimpleBaselines | None = None


@dataclass
class Trainer:
    """One run.

    Attributes:
        reader: of the samples.
        spec: of the run.
        device: where to train.
        checkpoint: file to resume from and to save to; None saves nothing.
        watcher: told how it goes.
        prepare: changes fresh weights before the first step (warm start).
        images: features of the images that the model looks at
            (`uic.models.rankers.dicm.batch_images`).
    """

    reader: SamplesReader
    spec: RunSpec
    device: str = "cpu"
    checkpoint: Path | None = None
    watcher: Watcher = field(default_factory=Watcher)
    prepare: Callable[[Ranker, Vocabulary], None] | None = None
    images: ImageFeatures | None = None

    def run(self) -> Trained:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            NonFiniteLossError: names the step and the files of the batch.
            BadInputError: no impressions on the training days; a task whose label the samples do
                not have; a damaged checkpoint.
        """
        spec = self.spec
        self._check_tasks()
        vocabulary = self._vocabulary()
        model = build_model(spec, vocabulary)
        if self.prepare is not None:
            self.prepare(model, vocabulary)
        model.attach_images(self.images)
        model.to(self.device)
        optimizer = Optimizer(
            model,
            learning_rate=spec.training.learning_rate,
            decay_rate=spec.training.decay_rate,
            decay_steps=spec.training.decay_steps,
            gradient_clip=spec.training.gradient_clip,
        )
        encoder = Encoder(vocabulary, self.device)
        progress = self._restore(model, optimizer)
        metrics = _metrics_of(progress)
        model.train()
        while progress.epoch < spec.training.epochs:
            for batch in self._epoch(progress):
                self._step(model, optimizer, encoder.encode(batch), progress)
                if progress.steps % spec.training.checkpoint_every_steps == 0:
                    self._save(model, optimizer, progress)
            metrics = self._finish_epoch(model, encoder, progress)
            self._save(model, optimizer, progress)
        model = model.cpu().eval()
        baselines = None if metrics is None else self._baselines()
        return Trained(spec, model, vocabulary, metrics, progress.curve, progress.epochs, baselines)

    def _check_tasks(self) -> None:
        there = self.reader.labels
        for name in self.spec.training.task_weights:
            if name not in there:
                msg = (
                    f"task_weights: {self.reader.root} has no label {name!r}, it has: "
                    f"{', '.join(there) or 'none'}; make it with `uic samples --label {name}`"
                )
                raise BadInputError(msg)

    def _baselines(self) -> SimpleBaselines | None:
        days = self.spec.days
        if days.test_first is None or days.test_last is None:
            return None
        train, test = (days.first, days.last), (days.test_first, days.test_last)
        return simple_baselines(self.reader, train, test)

    def plan(self, first: date, last: date, *, shuffle: bool) -> BatchPlan:
        """How the days become batches."""
        training = self.spec.training
        return BatchPlan(
            batch_impressions=training.batch_impressions,
            batch_events=training.batch_events,
            buffer_groups=training.buffer_groups,
            seed=self.spec.seed,
            shuffle=shuffle,
            first=first,
            last=last,
        )

    def _vocabulary(self) -> Vocabulary:
        training, days = self.spec.training, self.spec.days
        batches = self.reader.batches(self.plan(days.first, days.last, shuffle=False))
        vocabulary = build_vocabulary(
            batches,
            training.min_count,
            training.spare_item_rows,
            training.spare_category_rows,
            self.reader.features if training.features else None,
            events=self._event_features(),
        )
        if not self.reader.totals(self.plan(days.first, days.last, shuffle=False)).impressions:
            msg = f"{self.reader.root}: no impressions from {days.first} to {days.last}"
            raise BadInputError(msg)
        return vocabulary

    def _event_features(self) -> FeatureSet:
        """The columns of events that the model's settings name, as its fold takes them."""
        found = {named.name: named for named in self.reader.event_features}
        for name in self.spec.settings.event_columns:
            if name not in found:
                msg = (
                    f"{self.reader.root}: event.{name} is no column of these samples (they have "
                    f"{', '.join(found) or 'none'}); name it under event: of features.yaml, and "
                    "make the samples again"
                )
                raise BadInputError(msg)
        read = tuple(found[name] for name in self.spec.settings.event_columns)
        return in_buckets(FeatureSet(read))

    def _epoch(self, progress: Progress) -> Iterator[GroupBatch]:
        days = self.spec.days
        plan = self.plan(days.first, days.last, shuffle=True)
        return self.reader.batches(plan, progress.epoch, progress.batch)

    def _step(
        self, model: Ranker, optimizer: Optimizer, batch: RankerBatch, progress: Progress
    ) -> None:
        """Forward, backward, one move of the weights, one line for the curve."""
        rows = model.embedding.rows(batch)
        try:
            outputs = model.outputs(batch, rows)
        except EventValueError as error:
            raise self._non_finite(float("nan"), batch, progress) from error
        loss = cross_entropy(outputs.all_logits, batch, model.tasks)
        value = float(loss.detach())
        total = loss + outputs.penalty
        if not math.isfinite(float(total.detach())):
            raise self._non_finite(float(total.detach()), batch, progress)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step(batch, rows)
        self._count_step(progress, value, batch.source.impressions, batch.source.events)

    def _count_step(self, progress: Progress, loss: float, impressions: int, events: int) -> None:
        """A step is done: the place in the epoch, the curve, the display."""
        progress.steps += 1
        progress.batch += 1
        progress.loss_sum += loss * impressions
        progress.loss_count += impressions
        if progress.steps % self.spec.training.curve_every_steps == 0:
            _add_point(progress)
        self.watcher.step(StepReport(progress.epoch, progress.steps, loss, impressions, events))

    def _non_finite(
        self, value: float, batch: RankerBatch, progress: Progress
    ) -> NonFiniteLossError:
        files = ", ".join(batch.source.files)
        msg = (
            f"{self.reader.root}: loss is {value} at step {progress.steps + 1} (epoch "
            f"{progress.epoch + 1}, batch {progress.batch + 1}, {batch.source.groups} groups from "
            f"{files}); lower learning_rate or gradient_clip, or look at those groups"
        )
        return NonFiniteLossError(msg)

    def _finish_epoch(self, model: Ranker, encoder: Encoder, progress: Progress) -> Metrics | None:
        """Measure the test days; the last epoch's weights are kept, not the best test's."""
        days = self.spec.days
        metrics = None
        if days.test_first is not None and days.test_last is not None:
            plan = self.plan(days.test_first, days.test_last, shuffle=False)
            metrics = evaluate(model, self.reader.batches(plan), encoder)
        return self._end_epoch(progress, metrics)

    def _end_epoch(self, progress: Progress, metrics: Metrics | None) -> Metrics | None:
        """An epoch is done: the curve, its metrics, the display."""
        if progress.loss_count:
            _add_point(progress)
        progress.epochs.append({} if metrics is None else metrics.to_json())
        self.watcher.epoch(progress.epoch, metrics)
        progress.epoch += 1
        progress.batch = 0
        return metrics

    def _save(self, model: Ranker, optimizer: Optimizer, progress: Progress) -> None:
        if self.checkpoint is None:
            return
        tensors: dict[str, Tensor] = {
            _WEIGHTS + name: tensor for name, tensor in model.state_dict().items()
        }
        tensors |= {_MOMENTS + name: tensor for name, tensor in optimizer.tensors().items()}
        save_checkpoint(self.checkpoint, self.spec.identity(), progress, tensors)

    def _restore(self, model: Ranker, optimizer: Optimizer) -> Progress:
        """Weights, moments and place of the checkpoint, or a start from nothing."""
        entry = load_checkpoint(self.checkpoint, self.spec.identity()) if self.checkpoint else None
        if entry is None:
            return Progress()
        progress, tensors = entry
        model.load_state_dict(
            {
                name.removeprefix(_WEIGHTS): tensor
                for name, tensor in tensors.items()
                if name.startswith(_WEIGHTS)
            }
        )
        optimizer.restore(
            {
                name.removeprefix(_MOMENTS): tensor
                for name, tensor in tensors.items()
                if name.startswith(_MOMENTS)
            },
            progress.steps,
        )
        self.watcher.resumed(progress)
        return progress


def build_model(spec: RunSpec, vocabulary: Vocabulary) -> Ranker:
    """Fresh weights, a function of the seed alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = spec.kind.build(spec.settings, vocabulary.item.rows, vocabulary.category.rows)
        model.attach_features(vocabulary.features)
        model.attach_event_features(vocabulary.events)
        model.attach_tasks(spec.training.task_weights)
        return model


def _add_point(progress: Progress) -> None:
    mean = progress.loss_sum / progress.loss_count
    progress.curve.append({"step": progress.steps, "epoch": progress.epoch, "loss": mean})
    progress.loss_sum, progress.loss_count = 0.0, 0


def _metrics_of(progress: Progress) -> Metrics | None:
    """The metrics of the last epoch that a checkpoint knows of."""
    if not progress.epochs or not progress.epochs[-1]:
        return None
    return Metrics.from_json(progress.epochs[-1])
