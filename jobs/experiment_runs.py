"""Runs of an experiment: each row, each seed; a run that is done is not done again."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from jobs.context import ERR, Context
from jobs.experiment_tables import Row
from jobs.training import checkpoint_path, watched, with_images
from models.catalogue import MODELS
from models.metrics import Metrics
from models.published import write_json_atomically
from models.reader import SamplesReader
from models.run_spec import RunSpec, SettingError, apply_settings, split_days
from models.train_settings import TrainSettings
from models.trainer import Trained, Trainer


@dataclass(frozen=True)
class Request:
    """What `uic experiment` was asked for.

    Attributes:
        context: workspace and settings.
        reader: of the samples.
        repeats: seeds 0 to repeats - 1.
        assignments: `key=value` for every row that knows the key.
        test_days: the last so many days.
        first: leave out days before; None for none.
        last: leave out days after; None for none.
        device: where to train.
    """

    context: Context
    reader: SamplesReader
    repeats: int
    assignments: list[str]
    test_days: int
    first: date | None
    last: date | None
    device: str


@dataclass(frozen=True)
class RowResult:
    """A row with the metrics of its runs, none for a row that is published only."""

    row: Row
    metrics: list[Metrics]

    def mean(self, name: str) -> float | None:
        """Mean of a metric over the seeds."""
        values = [getattr(found, name) for found in self.metrics]
        return statistics.fmean(values) if values else None

    def deviation(self, name: str) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        values = [getattr(found, name) for found in self.metrics]
        return statistics.stdev(values) if len(values) > 1 else None


def check_assignments(assignments: list[str]) -> None:
    """Refuse a key that no model knows.

    Raises:
        SettingError: lists the known ones.
    """
    known = set(TrainSettings.model_fields)
    for kind in MODELS.values():
        known |= set(kind.settings.model_fields)
    for assignment in assignments:
        key, equals, _ = assignment.partition("=")
        if not equals or key not in known:
            msg = f"--set {assignment}: expected key=value; known: {', '.join(sorted(known))}"
            raise SettingError(msg)


def run_spec(request: Request, row: Row, seed: int) -> RunSpec:
    """The run of one row and seed; the row's own settings win over `--set`."""
    known = {*MODELS[row.model].settings.model_fields, *TrainSettings.model_fields}
    shared = [text for text in request.assignments if text.partition("=")[0] in known]
    settings, training = apply_settings(
        row.model, request.context.config.train, [*shared, *row.settings]
    )
    settings, _ = with_images(request.context, settings)
    reader = request.reader
    days = split_days(
        reader.days(), request.first, request.last, request.test_days, str(reader.root)
    )
    return RunSpec(
        model=row.model,
        settings=settings,
        training=training,
        days=days,
        seed=seed,
        samples=reader.name,
        samples_sha256=reader.manifest_sha256(),
    )


def train_row(request: Request, row: Row, seed: int) -> Trained:
    """Train one row and seed, from its checkpoint if there is one, and keep its metrics."""
    spec = run_spec(request, row, seed)
    checkpoint = checkpoint_path(request.context.workspace, spec)
    title = f"{row.label} seed {seed}"
    _, images = with_images(request.context, spec.settings)
    with watched(request.reader, spec, title) as watcher:
        trained = Trainer(
            request.reader,
            spec,
            device=request.device,
            checkpoint=checkpoint,
            watcher=watcher,
            images=images,
        ).run()
    document = {
        "row": row.label,
        "model": spec.model,
        "seed": seed,
        "settings": spec.settings.model_dump(mode="json"),
        "training": spec.training.model_dump(mode="json"),
        "epochs": trained.epochs,
        "curve": trained.curve,
    }
    write_json_atomically(result_path(request, spec), document)
    checkpoint.unlink(missing_ok=True)
    return trained


def run_rows(request: Request, rows: Sequence[Row]) -> list[RowResult]:
    """All rows and seeds; seeds outermost, so that a cut-off experiment has every row once."""
    found: dict[str, list[Metrics]] = {row.label: [] for row in rows}
    for seed in range(request.repeats):
        for row in rows:
            if row.model not in MODELS:
                continue
            path = result_path(request, run_spec(request, row, seed))
            if path.exists():
                ERR.print(f"{row.label} seed {seed}: done before, {path}", markup=False)
            else:
                train_row(request, row, seed)
            epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
            found[row.label].append(Metrics.from_json(epochs[-1]))
    return [RowResult(row, found[row.label]) for row in rows]


def result_path(request: Request, spec: RunSpec) -> Path:
    """Where the metrics of a run are kept."""
    folder = request.context.reports / "experiments" / "runs"
    return folder / f"{spec.model}-{spec.identity()[:16]}.json"
