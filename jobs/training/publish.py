"""From a request to a published bundle: one run, in this process or over ranks.

1. Settings, image features, samples and days; refuse what does not fit before anything is made.
2. Train, from the checkpoint of the same run if it was killed.
3. Save the bundle, make it the model's current one, remove the checkpoint.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from uic.jobs.config.context import Context
from uic.jobs.training.rank_run import Ranks, ranks_of, train_as
from uic.jobs.training.run import check_device, checkpoint_path, open_samples, with_images
from uic.jobs.training.tuned import check_test_unseen, tuned_assignments
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.models.features.event_columns import event_columns
from uic.models.images.features import ImageFeatures
from uic.models.memory.slot_use import SlotUse
from uic.models.published import write_json_atomically
from uic.models.rankers.mimn import Mimn
from uic.models.rankers.slot_writes import slot_use
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.state.definition import StateDefinition
from uic.models.training.metrics import Metrics
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.trainer import Trained, Trainer, Watcher

# Of the last training day, whose histories say how slots are used.
_FOLDED_USERS = 256


@dataclass(frozen=True)
class TrainRequest:
    """What to train; `uic.Workspace.train` describes each field.

    Attributes:
        model: name in the catalogue.
        samples: name of the samples.
        assignments: `key=value` for fields of the model's settings or of `train`.
        tuned: begin with what `uic tune` found; assignments win over it.
        first: leave out days before; None for none.
        last: leave out days after; None for none.
        test_days: the last so many days.
        validation_days: the so many days before them, which choose the epoch; None: 1 where enough
            days are left to train on.
        seed: of initial weights and shuffle.
        device: cpu, cuda or auto.
        warm_start: reference of the bundle to start from; None for random weights.
        except_ids: do not copy its ID embeddings.
        version: name; None: the next number.
        ranks: processes.
        strategy: of dicm over ranks.
    """

    model: str
    samples: str
    assignments: Sequence[str] = ()
    first: date | None = None
    last: date | None = None
    test_days: int = 1
    validation_days: int | None = None
    seed: int = 0
    device: str = "auto"
    warm_start: str | None = None
    except_ids: bool = False
    version: str | None = None
    ranks: int = 1
    strategy: str | None = None
    tuned: bool = False


@dataclass(frozen=True)
class TrainingStart:
    """A run that is about to begin.

    Attributes:
        spec: model, settings, days, seed.
        reader: of the samples.
        device: cpu or cuda.
        checkpoint: that a killed run goes on from.
        ranks: how it is spread; None for this process alone.
    """

    spec: RunSpec
    reader: SamplesReader
    device: str
    checkpoint: Path
    ranks: Ranks | None


@dataclass(frozen=True)
class TrainedBundle:
    """A model that was trained and published.

    Attributes:
        label: `model/version`.
        path: of the bundle.
        hash8: first 8 bytes of its hash.
        trained: metrics, learning curve, and the model itself.
        costs: bytes that ranks sent and stored; None for a run of one process.
        slots: how the memory's slots are used; None for a model without.
    """

    label: str
    path: Path
    hash8: bytes
    trained: Trained
    costs: dict[str, Any] | None
    slots: SlotUse | None = None

    @property
    def metrics(self) -> Metrics | None:
        """Of the kept weights on the test days; None without test days."""
        return self.trained.metrics


Watch = Callable[[TrainingStart], AbstractContextManager[Watcher]]
"""Gives the watcher of a run; entered before the first step, left after the last."""


def train_and_publish(
    context: Context, request: TrainRequest, watch: Watch | None
) -> TrainedBundle:
    """Train a model and publish it as the current bundle of its name.

    Raises:
        BadInputError: the request does not fit the workspace, or the loss became infinite.
        RankFailedError: a rank failed or died.
    """
    # Step 1
    run, start, images = _prepare(context, request)
    shelf = BundleShelf(context.bundles)
    version = request.version or shelf.next_version(request.model)
    path = shelf.path(request.model, version)
    trainer = Trainer(
        run.reader,
        run.spec,
        device=run.device,
        checkpoint=run.checkpoint,
        prepare=warm_start(start, except_ids=request.except_ids) if start else None,
        images=images,
    )
    # Step 2
    costs = None
    with nullcontext(Watcher()) if watch is None else watch(run) as trainer.watcher:
        if run.ranks is None:
            trained = trainer.run()
        else:
            trained, costs = train_as(trainer, run.ranks, start, shown=watch is not None)
            name = f"{request.model}-{version}.json"
            write_json_atomically(context.reports / "ranks" / name, costs)
    # Step 3. Memories of a bundle whose item vectors this run started from are still understood.
    understood = start.readout_compatible_with if start and not request.except_ids else ()
    state = state_of(run.reader, trained)
    columns = event_columns(run.reader.event_features)
    slots = slots_of(run.reader, trained)
    hash8 = save_bundle(path, trained, tuple(understood), state, columns, slots=slots)
    shelf.choose(request.model, version)
    run.checkpoint.unlink(missing_ok=True)
    return TrainedBundle(f"{request.model}/{version}", path, hash8, trained, costs, slots)


def slots_of(reader: SamplesReader, trained: Trained) -> SlotUse | None:
    """How the memory of a model uses its slots on the last training day; None without a memory."""
    if not isinstance(trained.model, Mimn):
        return None
    last = trained.spec.days.last
    batches = reader.batches(BatchPlan(first=last, last=last, shuffle=False))
    return slot_use(trained.model, batches, Encoder(trained.vocabulary), _FOLDED_USERS)


def state_of(reader: SamplesReader, trained: Trained) -> StateDefinition | None:
    """The parts of a record whose features a model has; None if it has none."""
    features = trained.vocabulary.features.definitions
    if reader.state_document is None or not features.of(Owner.STATE):
        return None
    where = f"{reader.root}: state"
    return StateDefinition.of_document(reader.state_document, where)


def _prepare(
    context: Context, request: TrainRequest
) -> tuple[TrainingStart, Bundle | None, ImageFeatures | None]:
    """The run, the bundle to start from, and the image features of the model."""
    found = tuned_assignments(context, request.model, request.samples) if request.tuned else []
    settings, training = apply_settings(
        request.model, context.config.train, [*found, *request.assignments]
    )
    ranks = ranks_of(request.model, settings, request.ranks, request.strategy, request.device)
    settings, images = with_images(context, settings)
    device = check_device(request.device) if ranks is None else "cuda" if ranks.cuda else "cpu"
    reader = open_samples(context, request.samples)
    if request.except_ids and request.warm_start is None:
        msg = "--except-ids: says what --warm-start leaves out; name a bundle with --warm-start"
        raise BadInputError(msg)
    shelf = BundleShelf(context.bundles)
    start = load_bundle(shelf.find(request.warm_start)) if request.warm_start else None
    spec = RunSpec(
        model=request.model,
        settings=settings,
        training=training,
        days=split_days(
            reader.days(),
            request.first,
            request.last,
            request.test_days,
            str(reader.root),
            validation_days=request.validation_days,
        ),
        seed=request.seed,
        samples=reader.name,
        samples_sha256=reader.manifest_sha256(),
        warm_start=start.hash8.hex() if start else "",
        except_ids=request.except_ids,
    )
    if request.tuned:
        check_test_unseen(context, request.model, request.samples, spec.days)
    checkpoint = checkpoint_path(context.workspace, spec)
    return TrainingStart(spec, reader, device, checkpoint, ranks), start, images
