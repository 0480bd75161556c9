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
from uic.models.images.features import ImageFeatures
from uic.models.memory.fold import EventValueError
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.groups import GroupBatch
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import Vocabulary, build_vocabulary
from uic.models.training.checkpoint import Progress, load_checkpoint, part_of, save_checkpoint
from uic.models.training.evaluation import evaluate
from uic.models.training.loss import cross_entropy
from uic.models.training.metrics import Metrics
from uic.models.training.optimizer import Optimizer
from uic.models.training.popularity import SimpleBaselines, simple_baselines
from uic.models.training.run_spec import RunSpec
from uic.models.training.samples_checks import check_tasks, check_validation, event_features
from uic.models.training.short_histories import shortened

_WEIGHTS = "weights."
_MOMENTS = "moments."
_BEST = "best."


class NonFiniteLossError(BadInputError):
    """The loss became NaN or infinite: the data or the learning rate is at fault."""


class OutOfTimeError(Exception):
    """Raised by a watcher to end a run that may go on later; its checkpoint is written first."""


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
        metrics: of these weights on the test days; None without test days.
        curve: learning curve, `[{"step", "loss"}]`.
        epochs: metrics after each epoch, as JSON: of the validation days, or without any of the
            test days.
        baselines: what the metrics stand beside; None without test days.
        kept_epoch: the one whose weights these are, from 1; None without validation days.
    """

    spec: RunSpec
    model: Ranker
    vocabulary: Vocabulary
    metrics: Metrics | None
    curve: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    baselines: SimpleBaselines | None = None
    kept_epoch: int | None = None

    def validation(self) -> dict[str, Any] | None:
        """How the epoch was chosen, as JSON; None without validation days."""
        days = self.spec.days.validation
        if days is None:
            return None
        return {
            "days": [str(day) for day in days],
            "auc": [epoch["auc"] for epoch in self.epochs],
            "kept_epoch": self.kept_epoch,
            "most_epochs": self.spec.epochs,
        }


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
    _best: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def run(self) -> Trained:
        """Train to the end, from the checkpoint if there is one.

        With validation days the run ends after `patience` epochs without a better AUC of them, and
        the weights of the best epoch are kept, and tested once. Without any, all epochs are
        trained, the last one's weights are kept, and the test days are measured after each.

        Raises:
            NonFiniteLossError: names the step and the files of the batch.
            OutOfTimeError: the watcher said so after a step; the checkpoint has that step.
            BadInputError: no impressions on the training days; validation days that have no click
                or nothing else; a task whose label the samples do not have; a damaged checkpoint.
        """
        spec = self.spec
        check_tasks(self.reader, spec.training.task_weights)
        check_validation(self.reader, spec.days)
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
        model.train()
        while progress.epoch < spec.epochs and not self._stopped(progress):
            for batch in self._epoch(progress):
                try:
                    self._step(model, optimizer, encoder.encode(batch), progress)
                except OutOfTimeError:
                    self._save(model, optimizer, progress)
                    raise
                if progress.steps % spec.training.checkpoint_every_steps == 0:
                    self._save(model, optimizer, progress)
            self._finish_epoch(model, encoder, progress)
            self._save(model, optimizer, progress)
        if progress.best_epoch >= 0:
            self._take_best(model)
            if spec.days.test is not None and progress.test is None:
                progress.test = self._measure(model, encoder, spec.days.test).to_json()
                self._save(model, optimizer, progress)
        metrics = _metrics_of(progress, spec)
        model = model.cpu().eval()
        return Trained(
            spec,
            model,
            vocabulary,
            metrics,
            progress.curve,
            progress.epochs,
            None if metrics is None else self._baselines(),
            progress.best_epoch + 1 or None,
        )

    def _stopped(self, progress: Progress) -> bool:
        """Whether the validation days have said for long enough that it gets no better."""
        waited = progress.epoch - 1 - progress.best_epoch
        return progress.best_epoch >= 0 and waited >= self.spec.training.patience

    def _baselines(self) -> SimpleBaselines | None:
        days = self.spec.days
        if days.test is None:
            return None
        return simple_baselines(self.reader, (days.first, days.last), days.test)

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
            events=event_features(self.reader, self.spec.settings),
        )
        if not self.reader.totals(self.plan(days.first, days.last, shuffle=False)).impressions:
            msg = f"{self.reader.root}: no impressions from {days.first} to {days.last}"
            raise BadInputError(msg)
        return vocabulary

    def _epoch(self, progress: Progress) -> Iterator[GroupBatch]:
        plan = self.plan(self.spec.days.first, self.spec.days.last, shuffle=True)
        batches = self.reader.batches(plan, progress.epoch, progress.batch)
        return shortened(batches, self.spec, progress.epoch, progress.batch)

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
            progress.add_point()
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

    def _measure(self, model: Ranker, encoder: Encoder, days: tuple[date, date]) -> Metrics:
        return evaluate(model, self.reader.batches(self.plan(*days, shuffle=False)), encoder)

    def _finish_epoch(self, model: Ranker, encoder: Encoder, progress: Progress) -> None:
        """Measure the validation days, and keep the best weights by them.

        Without validation days the test days are measured; they choose nothing.
        """
        days = self.spec.days
        watched = days.validation or days.test
        metrics = None if watched is None else self._measure(model, encoder, watched)
        if days.validation is not None and metrics is not None:
            best = progress.epochs[progress.best_epoch]["auc"] if progress.best_epoch >= 0 else -1
            if metrics.auc > best:
                progress.best_epoch = progress.epoch
                weights = model.state_dict().items()
                self._best = {name: tensor.detach().cpu().clone() for name, tensor in weights}
        if progress.loss_count:
            progress.add_point()
        progress.epochs.append({} if metrics is None else metrics.to_json())
        self.watcher.epoch(progress.epoch, metrics)
        progress.epoch += 1
        progress.batch = 0

    def _take_best(self, model: Ranker) -> None:
        """Put the best epoch's weights into the model."""
        model.load_state_dict(self._best)

    def _save(self, model: Ranker, optimizer: Optimizer, progress: Progress) -> None:
        if self.checkpoint is None:
            return
        tensors: dict[str, Tensor] = {
            _WEIGHTS + name: tensor for name, tensor in model.state_dict().items()
        }
        tensors |= {_MOMENTS + name: tensor for name, tensor in optimizer.tensors().items()}
        tensors |= {_BEST + name: tensor for name, tensor in self._best.items()}
        save_checkpoint(self.checkpoint, self.spec.identity(), progress, tensors)

    def _restore(self, model: Ranker, optimizer: Optimizer) -> Progress:
        """Weights, moments and place of the checkpoint, or a start from nothing."""
        entry = load_checkpoint(self.checkpoint, self.spec.identity()) if self.checkpoint else None
        if entry is None:
            return Progress()
        progress, tensors = entry
        model.load_state_dict(part_of(tensors, _WEIGHTS))
        optimizer.restore(part_of(tensors, _MOMENTS), progress.steps)
        self._best = part_of(tensors, _BEST)
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


def _metrics_of(progress: Progress, spec: RunSpec) -> Metrics | None:
    """Of the test days and the kept weights."""
    found = progress.test
    if spec.days.validation is None and progress.epochs:
        found = progress.epochs[-1]
    return Metrics.from_json(found) if found else None
