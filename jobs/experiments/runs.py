"""Runs of an experiment: each row, each seed; a run that is done is not done again."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from uic.jobs.config.console import ERR
from uic.jobs.config.context import Context
from uic.jobs.experiments.sequence_cost import is_out_of_memory, memory_limit
from uic.jobs.experiments.tables import Row, Table
from uic.jobs.training.run import checkpoint_path, watched, with_images
from uic.jobs.training.tuned import check_test_unseen, tuned_assignments
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.published import MANIFEST_NAME, replacement, write_json_atomically
from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import Vocabulary
from uic.models.training.evaluation import score
from uic.models.training.metrics import Metrics, measure
from uic.models.training.paired import Difference, standard_error
from uic.models.training.run_spec import (
    Days,
    RunSpec,
    SettingError,
    apply_settings,
    shared_assignments,
    split_days,
)
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trained, Trainer
from uic.models.training.warm_up import WarmUp

Prepare = Callable[[Ranker, Vocabulary], None]


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
        validation_days: that choose the epoch to keep; None: 1 where enough days are left.
        memory_limit_gib: memory that a row may take, 0 for no limit; more is a result.
        tuned: train each row with what `uic tune` found for its model.
    """

    context: Context
    reader: SamplesReader
    repeats: int
    assignments: list[str]
    test_days: int
    first: date | None
    last: date | None
    device: str
    validation_days: int | None = None
    memory_limit_gib: float = 0.0
    tuned: bool = False


@dataclass(frozen=True)
class RowResult:
    """A row with the documents of its runs, none for a row that is printed only.

    Attributes:
        row: of the table.
        runs: what `train_row` kept of each seed, or the limit that it ran into.
        length: events of the history that the model looks at.
        difference: of its AUC to average pooling's, paired by user; None where there is none.
    """

    row: Row
    runs: list[dict[str, Any]]
    length: str = "-"
    difference: Difference | None = None

    def mean(self, name: str, items: str = "all") -> float | None:
        """Mean of a metric over the seeds, of all items or of `new` ones; None without a run."""
        values = self._values(name, items)
        return statistics.fmean(values) if values else None

    def deviation(self, name: str, items: str = "all") -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        values = self._values(name, items)
        return statistics.stdev(values) if len(values) > 1 else None

    def error(self, name: str) -> float | None:
        """Standard error of the mean over the seeds; None for fewer than two."""
        return standard_error(self._values(name, "all"))

    @property
    def out_of_memory_gib(self) -> float | None:
        """The limit that every run of the row ran into; None if one was trained."""
        limits = [run["out_of_memory_gib"] for run in self.runs if "out_of_memory_gib" in run]
        return max(limits) if limits and len(limits) == len(self.runs) else None

    @property
    def entropies(self) -> list[float]:
        """Of each walk's attention in the first run, nats; empty for other models."""
        return next((r["attention_entropies"] for r in self.runs if "attention_entropies" in r), [])

    def _values(self, name: str, items: str) -> list[float]:
        documents = [
            run.get("new_items") if items == "new" else run.get("test") or run["epochs"][-1]
            for run in self.runs
            if run.get("epochs")
        ]
        values = [getattr(Metrics.from_json(found), name) for found in documents if found]
        return [value for value in values if not math.isnan(value)]


def check_assignments(assignments: list[str]) -> None:
    """Refuse a key that no model knows.

    Raises:
        SettingError: lists the known ones.
    """
    known = set(TrainSettings.model_fields)
    for kind in MODELS.values():
        known |= kind.settings.keys()
    for assignment in assignments:
        key, equals, _ = assignment.partition("=")
        if not equals or key not in known:
            msg = f"--set {assignment}: expected key=value; known: {', '.join(sorted(known))}"
            raise SettingError(msg)


def run_spec(request: Request, row: Row, seed: int) -> RunSpec:
    """The run of one row and seed; the row's own settings win over `--set`."""
    shared = shared_assignments(row.model, request.assignments)
    found: list[str] = []
    if request.tuned:
        found = tuned_assignments(request.context, row.model, request.reader.name)
    settings, training = apply_settings(
        row.model, request.context.config.train, [*found, *shared, *row.settings]
    )
    settings, _ = with_images(request.context, settings)
    reader = request.reader
    days = split_days(
        reader.days(),
        request.first,
        request.last,
        request.test_days,
        str(reader.root),
        validation_days=request.validation_days,
    )
    if request.tuned:
        check_test_unseen(request.context, row.model, reader.name, days)
    spec = RunSpec(
        model=row.model,
        settings=settings,
        training=training,
        days=days,
        seed=seed,
        samples=reader.name,
        samples_sha256=reader.manifest_sha256(),
    )
    if row.warm_up is WarmUp.NONE:
        return spec
    before = day_before(spec).identity()
    return replace(spec, warm_start=before, except_ids=row.warm_up is WarmUp.PARTIAL)


def day_before(spec: RunSpec) -> RunSpec:
    """The run that a warm-up starts from: without the last training day, and without a test.

    Raises:
        BadInputError: there is one training day only.
    """
    days = spec.days
    last = days.last - timedelta(days=1)
    if last < days.first:
        msg = f"warm-up: one training day, {days.last}; a model of the days before needs two"
        raise BadInputError(msg)
    return replace(spec, days=Days(days.first, last), warm_start="", except_ids=False)


def _warm_up(request: Request, row: Row, spec: RunSpec) -> Prepare | None:
    """Train what a row starts from, if it was not trained before."""
    if row.warm_up is WarmUp.NONE:
        return None
    before = day_before(spec)
    folder = request.context.reports / "experiments" / "bundles"
    path = folder / f"{before.model}-{before.identity()[:16]}"
    if not (path / MANIFEST_NAME).exists():
        save_bundle(path, _train(request, before, f"day before, seed {spec.seed}", None))
    return warm_start(load_bundle(path), except_ids=spec.except_ids)


def _train(request: Request, spec: RunSpec, title: str, prepare: Prepare | None) -> Trained:
    checkpoint = checkpoint_path(request.context.workspace, spec)
    _, images = with_images(request.context, spec.settings)
    with watched(request.reader, spec, title) as watcher:
        trained = Trainer(
            request.reader,
            spec,
            device=request.device,
            checkpoint=checkpoint,
            watcher=watcher,
            prepare=prepare,
            images=images,
        ).run()
    checkpoint.unlink(missing_ok=True)
    return trained


def train_row(request: Request, row: Row, seed: int, *, new_items: bool = False) -> Trained:
    """Train one row and seed, from its checkpoint if there is one, and keep its metrics.

    Args:
        request: samples and settings.
        row: of a table.
        seed: of weights and shuffle.
        new_items: measure the test impressions of items that training did not learn, too.
    """
    spec = run_spec(request, row, seed)
    prepare = _warm_up(request, row, spec)
    trained = _train(request, spec, f"{row.label} seed {seed}", prepare)
    document = {
        "row": row.label,
        "model": spec.model,
        "seed": seed,
        "settings": spec.settings.model_dump(mode="json"),
        "training": spec.training.document(),
        "test": None if trained.metrics is None else trained.metrics.to_json(),
        "validation": trained.validation(),
        "epochs": trained.epochs,
        "curve": trained.curve,
        **trained.model.extra_metrics(_first_test_batch(request, trained)),
    }
    if new_items:
        document["new_items"] = _on_new_items(request, trained)
    path = result_path(request, spec)
    _save_scores(path.with_suffix(".npz"), request, trained)
    write_json_atomically(path, document)
    return trained


def _save_scores(path: Path, request: Request, trained: Trained) -> None:
    """Keep the test's scores, which differences of rows are paired by."""
    days = trained.spec.days
    plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=False)
    encoder = Encoder(trained.vocabulary)
    scores, labels, users = score(trained.model, request.reader.batches(plan), encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacement(path) as draft, draft.open("wb") as stream:
        np.savez_compressed(stream, scores=scores.astype(np.float32), labels=labels, users=users)


def _first_test_batch(request: Request, trained: Trained) -> RankerBatch:
    days = trained.spec.days
    plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=True)
    return Encoder(trained.vocabulary).encode(next(iter(request.reader.batches(plan))))


def _on_new_items(request: Request, trained: Trained) -> dict[str, Any] | None:
    """Metrics of the test impressions whose item has no embedding of its own.

    These are items that training saw fewer than `min_count` times, most of them never.
    """
    days = trained.spec.days
    plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=False)
    items = np.concatenate([batch.item_ids for batch in request.reader.batches(plan)])
    new = ~np.isin(items, trained.vocabulary.item.ids)
    scores, labels, users = score(
        trained.model, request.reader.batches(plan), Encoder(trained.vocabulary)
    )
    if len(set(labels[new].tolist())) < 2:
        return None
    return dict(measure(scores[new], labels[new], users[new]).to_json())


def run_rows(request: Request, table: Table, rows: Sequence[Row]) -> list[RowResult]:
    """All rows and seeds; seeds outermost, so that a cut-off experiment has every row once."""
    runs: dict[str, list[dict[str, Any]]] = {row.label: [] for row in rows}
    for seed in range(request.repeats):
        for row in rows:
            if row.model not in MODELS:
                continue
            path = result_path(request, run_spec(request, row, seed))
            if path.exists():
                ERR.print(f"{row.label} seed {seed}: done before, {path}", markup=False)
            else:
                _train_within(request, row, seed, new_items=table.images)
            runs[row.label].append(json.loads(path.read_text(encoding="utf-8")))
    return [RowResult(row, runs[row.label], _length(request, row)) for row in rows]


def _train_within(request: Request, row: Row, seed: int, *, new_items: bool) -> None:
    """Train a row, or record that it needs more memory than the limit.

    That is a result like any other, kept so that a second call does not try it again.
    """
    limit_gib = request.memory_limit_gib
    try:
        with memory_limit(limit_gib, request.device):
            train_row(request, row, seed, new_items=new_items)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        ERR.print(f"{row.label} seed {seed}: needs more than {limit_gib:g} GiB", markup=False)
        document = {"row": row.label, "out_of_memory_gib": limit_gib}
        write_json_atomically(result_path(request, run_spec(request, row, seed)), document)


def _length(request: Request, row: Row) -> str:
    """Events that a row's model looks at: a number, `all`, or `-` for a row printed only."""
    if row.model not in MODELS:
        return "-"
    limit = getattr(run_spec(request, row, 0).settings, "history_limit", None)
    return "all" if limit is None else str(limit)


def result_path(request: Request, spec: RunSpec) -> Path:
    """Where the metrics of a run are kept."""
    folder = request.context.reports / "experiments" / "runs"
    return folder / f"{spec.model}-{spec.identity()[:16]}.json"
