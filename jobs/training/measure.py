"""A bundle's AUC, GAUC and LogLoss on some days of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from uic.jobs.config.context import Context
from uic.jobs.config.progress import Progress
from uic.jobs.training.run import check_device, open_samples, with_images
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError
from uic.models.rankers.mimn import Mimn
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan
from uic.models.training.evaluation import evaluate
from uic.models.training.metrics import Metrics
from uic.models.training.popularity import SimpleBaselines, remarks, simple_baselines


@dataclass(frozen=True)
class EvaluateRequest:
    """What to measure; `uic.Workspace.evaluate` describes each field."""

    bundle: str
    samples: str
    first: date | None = None
    last: date | None = None
    rounding: bool = True
    device: str = "auto"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a bundle.

    Attributes:
        bundle: `model/version`.
        metrics: on the days asked for.
        baselines: from the samples' days before them; None where there are none.
        remarks: what a person should know before they trust the metrics.
    """

    bundle: str
    metrics: Metrics
    baselines: SimpleBaselines | None
    remarks: Sequence[str]


def evaluate_bundle(context: Context, request: EvaluateRequest, progress: Progress) -> Evaluation:
    """Score the impressions of some days; the last day of the samples if none is named.

    Raises:
        BadInputError: no such bundle or samples, no impressions on these days, or a bundle
            without a memory that is asked for memories without rounding.
    """
    device = check_device(request.device)
    reader = open_samples(context, request.samples)
    loaded = load_bundle(BundleShelf(context.bundles).find(request.bundle))
    label = f"{loaded.name}/{loaded.version}"
    reader.require(loaded.vocabulary.features.definitions, label)
    reader.require(loaded.vocabulary.events.definitions, label)
    _, images = with_images(context, loaded.settings, trained=True)
    loaded.model.attach_images(images)
    if not request.rounding:
        if not isinstance(loaded.model, Mimn):
            msg = f"--no-rounding: {loaded.name} keeps no memory; it is for mimn"
            raise BadInputError(msg)
        loaded.model.rounding = False
    final = reader.days()[-1]
    first = request.first or (None if request.last else final)
    plan = BatchPlan(first=first, last=request.last or final, shuffle=False)
    total = reader.totals(plan).impressions
    if not total:
        msg = f"{reader.root}: no impressions from {plan.first} to {plan.last}"
        raise BadInputError(msg)
    scored = 0

    def advance(impressions: int) -> None:
        nonlocal scored
        scored += impressions
        progress(f"scoring {label}", scored, total)

    encoder = Encoder(loaded.vocabulary, device)
    metrics = evaluate(loaded.model.to(device), reader.batches(plan), encoder, advance)
    first, last = plan.first or reader.days()[0], plan.last or final
    before = [day for day in reader.days() if day < first]
    baselines = None
    if before:
        baselines = simple_baselines(reader, (before[0], before[-1]), (first, last))
    lines = remarks(metrics, baselines, "--first and --last")
    return Evaluation(label, metrics, baselines, [*seen_days(loaded, (first, last)), *lines])


def seen_days(bundle: Bundle, days: tuple[date, date]) -> list[str]:
    """Remarks on a bundle that has seen some of the days that it is measured on.

    Args:
        bundle: to be measured.
        days: first and last.
    """
    label, (first, last) = f"{bundle.name}/{bundle.version}", (day.isoformat() for day in days)
    trained = bundle.manifest["training_data"]
    validation = (bundle.metrics.get("validation") or {}).get("days")
    lines = []
    if trained["first_day"] <= last and first <= trained["last_day"]:
        lines.append(
            f"{label} was trained on {trained['first_day']} to {trained['last_day']}: these "
            "metrics are of days that it has seen"
        )
    if validation and validation[0] <= last and first <= validation[1]:
        lines.append(
            f"{label} had its epoch chosen by {validation[0]} to {validation[1]}: these metrics "
            "are flattered by those days"
        )
    return lines
