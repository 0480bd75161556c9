"""`uic train dicm --strategy S --ranks N`: a run over several processes of this machine.

The ranks write the checkpoint of the finished run, which the calling process then reads as if it
had trained by itself; how many bytes that took comes back beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.training import watched
from models.ams_bytes import Job, Strategy, mean_of
from models.ams_trainer import AmsTrainer
from models.bundle import load_bundle
from models.errors import BadInputError
from models.image_features import ImageFeatures
from models.rank_processes import run_ranks
from models.reader import SamplesReader
from models.run_spec import RunSpec
from models.shard_world import ShardWorld
from models.trainer import Watcher
from models.warm_start import warm_start

_MIB = 2**20


@dataclass(frozen=True)
class AmsRun:
    """What every rank is told; can be pickled.

    Attributes:
        samples: published directory.
        images: published directory.
        spec: of the run.
        checkpoint: that the run goes on from, and ends in.
        strategy: where images are embedded.
        warm_start: bundle to start from; None for random weights.
        title: on the display of rank 0.
    """

    samples: Path
    images: Path | None
    spec: RunSpec
    checkpoint: Path
    strategy: Strategy
    warm_start: Path | None = None
    title: str = "dicm"


def strategy_of(model: str, text: str | None, ranks: int) -> Strategy | None:
    """The strategy that the command line names; None for one process.

    Raises:
        BadInputError: another name, another model, or ranks without a strategy.
    """
    if text is None:
        if ranks != 1:
            msg = f"--ranks {ranks}: says over how many processes a --strategy trains; name one"
            raise BadInputError(msg)
        return None
    if text not in {known.value for known in Strategy}:
        msg = f"--strategy {text}: expected {', '.join(known.value for known in Strategy)}"
        raise BadInputError(msg)
    if model != "dicm":
        msg = f"--strategy {text}: trains dicm, found {model}; leave it out"
        raise BadInputError(msg)
    return Strategy(text)


def train_on_ranks(run: AmsRun, ranks: int) -> dict[str, Any]:
    """Train, and leave the finished run in `run.checkpoint`.

    Returns:
        `AmsTrainer.costs`.

    Raises:
        BadInputError: fewer than one rank.
        RankFailedError: names the error of a rank.
    """
    return dict(run_ranks(ranks, _train, run)[0])


def _train(world: ShardWorld, run: AmsRun) -> dict[str, Any]:
    """What a rank does."""
    reader = SamplesReader(run.samples)
    start = load_bundle(run.warm_start) if run.warm_start is not None else None
    trainer = AmsTrainer(
        reader,
        run.spec,
        device=str(world.device),
        checkpoint=run.checkpoint,
        prepare=None if start is None else warm_start(start, except_ids=run.spec.except_ids),
        images=None if run.images is None else ImageFeatures.open(run.images),
        world=world,
        strategy=run.strategy,
    )
    if world.rank == 0:
        title = f"{run.title} {run.strategy.value} on {world.size} ranks"
        with watched(reader, run.spec, title) as watcher:
            trainer.watcher = watcher
            trainer.run()
    else:
        trainer.watcher = Watcher()
        trainer.run()
    return trainer.costs()


def describe_costs(costs: dict[str, Any]) -> str:
    """One line for a person: bytes of a mean batch, as counted."""
    batches = max(costs["measured"]["batches"], 1)
    each = {name: value / batches for name, value in costs["measured"].items()}
    images = each["image_values"] + each["image_gradients"]
    ids = each["id_values"] + each["id_gradients"]
    return (
        f"{costs['strategy']}, {costs['ranks']} ranks, {batches:.0f} batches; MiB a batch: "
        f"stored by workers {each['worker_store'] / _MIB:.3f}, "
        f"by servers {each['server_store'] / _MIB:.3f}; "
        f"sent for images {images / _MIB:.3f}, for ids {ids / _MIB:.3f}, "
        f"as requests {(each['image_requests'] + each['id_requests']) / _MIB:.3f}, "
        f"as sums of gradients {each['model_sums'] / _MIB:.3f}; "
        f"images wanted {each['images_wanted']:.0f}, embedded {each['images_embedded']:.0f}"
    )


def job_of(costs: dict[str, Any]) -> Job:
    """The mean batch of a run, for the formulas."""
    total = Job(**costs["job"])
    return mean_of(total, int(total.batches))
