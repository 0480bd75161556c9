"""What training and experiments share: samples, images, device, checkpoint, and a display."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress, TaskID

from uic.jobs.config.console import ERR, progress_display
from uic.jobs.config.context import Context
from uic.models.errors import BadInputError
from uic.models.images.features import ImageFeatures
from uic.models.rankers.dicm.batch_images import LocalImages, resolve_images
from uic.models.rankers.dicm.image_settings import ImageRankerSettings
from uic.models.rankers.ranker import Ranker
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.settings import Section
from uic.models.training.checkpoint import Progress as RunProgress
from uic.models.training.metrics import Metrics
from uic.models.training.run_spec import RunSpec
from uic.models.training.trainer import StepReport, Watcher

SettingsType = TypeVar("SettingsType", bound=Section)

# Rates are averaged over about this many seconds.
_RATE_SECONDS = 5.0


def open_samples(context: Context, name: str) -> SamplesReader:
    """The published samples of a name.

    Raises:
        BadInputError: no such samples; lists those that there are.
        ManifestError: not published, or of another schema version.
    """
    root = context.samples / name
    if not root.is_dir():
        known = (
            sorted(path.name for path in context.samples.iterdir() if path.is_dir())
            if context.samples.is_dir()
            else []
        )
        msg = (
            f"{root}: no such samples; there is: {', '.join(known) or 'none'}; "
            "make some with `uic samples`"
        )
        raise BadInputError(msg)
    return SamplesReader(root)


def with_images(
    context: Context, settings: SettingsType, *, trained: bool = False
) -> tuple[SettingsType, ImageFeatures | None]:
    """Settings of a model, and the image features that they name; None without images.

    Args:
        context: whose workspace.
        settings: of any model.
        trained: they are a bundle's (`uic.models.rankers.dicm.batch_images.resolve_images`).

    Raises:
        ImageSourceError: no such features, of another encoder or width.
        ManifestError: not published.
    """
    if not isinstance(settings, ImageRankerSettings):
        return settings, None
    return resolve_images(settings, context.images, trained=trained)


def check_device(device: str) -> str:
    """`auto` becomes cuda where there is one; cuda without one is an error.

    Raises:
        BadInputError: not auto, cpu or cuda, or no CUDA device.
    """
    import torch  # noqa: PLC0415 - takes a second, and only training needs it

    if device not in {"auto", "cpu", "cuda"}:
        msg = f"--device {device}: expected auto, cpu or cuda"
        raise BadInputError(msg)
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        msg = "--device cuda: torch finds no CUDA device here; use --device cpu"
        raise BadInputError(msg)
    if device == "auto":
        return "cuda" if available else "cpu"
    return device


def checkpoint_path(workspace: Path, spec: RunSpec) -> Path:
    """Where a run's checkpoint lies: named by everything that decides its weights."""
    return workspace / "training" / f"{spec.model}-{spec.identity()[:16]}.safetensors"


def describe(metrics: Metrics | None) -> str:
    """One line for a person."""
    if metrics is None:
        return "no test days"
    line = (
        f"AUC {metrics.auc:.4f}, GAUC {metrics.gauc:.4f}, LogLoss {metrics.logloss:.4f} "
        f"on {metrics.impressions:,} impressions"
    )
    return "; ".join([line, *(f"{name}: {describe(of)}" for name, of in metrics.tasks.items())])


def describe_images(model: Ranker) -> str | None:
    """What a model that embeds images asked for, in one line; None for others."""
    vectors = getattr(model, "vectors", None)
    if not isinstance(vectors, LocalImages):
        return None
    counts = vectors.counts
    return (
        f"images: wanted {counts.wanted:,} times, embedded {counts.embedded:,} times; "
        f"{counts.missing:,} times an item had none"
    )


@dataclass
class _Display:
    """The line of a running epoch: loss, impressions and events a second."""

    progress: Progress
    task: TaskID
    title: str
    days: tuple[date, date] | None = None
    started: float = field(default_factory=time.perf_counter)
    impressions: float = 0.0
    events: float = 0.0
    loss: float = 0.0
    weight: float = 0.0

    def step(self, report: StepReport) -> None:
        """Move the bar; old steps fade from the means."""
        now = time.perf_counter()
        elapsed = max(now - self.started, 1e-6)
        if elapsed > 2 * _RATE_SECONDS:
            # Keep half of what is known, so that the rate follows the last seconds.
            self.started = now - elapsed / 2
            self.impressions, self.events = self.impressions / 2, self.events / 2
            elapsed /= 2
        self.impressions += report.impressions
        self.events += report.events
        self.loss = 0.95 * self.loss + 0.05 * report.loss
        self.weight = 0.95 * self.weight + 0.05
        text = (
            f"{self.title} epoch {report.epoch + 1} step {report.step}: "
            f"loss {self.loss / self.weight:.4f}, {self.impressions / elapsed:,.0f} impressions/s, "
            f"{self.events / elapsed:,.0f} events/s"
        )
        self.progress.update(self.task, description=text, advance=report.impressions)

    def epoch(self, epoch: int, metrics: Metrics | None) -> None:
        """A line that stays."""
        on = "" if self.days is None else f"validation days {self.days[0]} to {self.days[1]}: "
        ERR.print(f"{self.title} epoch {epoch + 1}: {on}{describe(metrics)}")


@contextmanager
def watched(reader: SamplesReader, spec: RunSpec, title: str) -> Iterator[Watcher]:
    """A watcher that shows a run on standard error."""
    days = spec.days
    totals = reader.totals(BatchPlan(first=days.first, last=days.last))
    with progress_display() as progress:
        task = progress.add_task(title, total=totals.impressions * spec.epochs)
        display = _Display(progress, task, title, days.validation)

        def resumed(at: RunProgress) -> None:
            ERR.print(
                f"{title}: resumed at epoch {at.epoch + 1}, batch {at.batch + 1}, step {at.steps}"
            )

        yield Watcher(step=display.step, epoch=display.epoch, resumed=resumed)
