"""`uic train MODEL --ranks N`: a run over several processes of this machine.

Two kinds of models train so: those with a large memory, whose values lie on the ranks, and dicm,
whose images do (`--strategy`). The ranks write the checkpoint of the finished run, which the
calling process then reads as if it had trained by itself; what was counted comes back beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uic.jobs.training.run import check_device, watched
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.images.features import ImageFeatures
from uic.models.rankers.lmn.settings import PluggableSettings
from uic.models.samples.reader import SamplesReader
from uic.models.settings import Section
from uic.models.sharding.ams_bytes import Job, Strategy, mean_of
from uic.models.sharding.processes import run_ranks
from uic.models.sharding.rank_trainer import RankTrainer
from uic.models.sharding.world import ShardWorld
from uic.models.training.run_spec import RunSpec
from uic.models.training.trainer import Trained, Trainer

_MIB = 2**20


@dataclass(frozen=True)
class Ranks:
    """How a run is spread.

    Attributes:
        size: number of processes.
        strategy: where the images of dicm are embedded; None for a model with a large memory.
        cuda: train on GPUs, one a rank, over NCCL; False for CPUs, over gloo.
    """

    size: int
    strategy: Strategy | None = None
    cuda: bool = False


@dataclass(frozen=True)
class RankRun:
    """What every rank is told; can be pickled.

    Attributes:
        samples: published directory.
        images: published directory.
        spec: of the run.
        checkpoint: that the run goes on from, and ends in.
        ranks: how it is spread.
        warm_start: bundle to start from; None for random weights.
        shown: whether rank 0 shows on standard error how the run goes.
    """

    samples: Path
    images: Path | None
    spec: RunSpec
    checkpoint: Path
    ranks: Ranks
    warm_start: Path | None = None
    shown: bool = True


def ranks_of(
    model: str, settings: Section, size: int, strategy: str | None, device: str
) -> Ranks | None:
    """The ranks that the command line asks for; None for a run of one process.

    Args:
        model: to train.
        settings: of the model.
        size: `--ranks`.
        strategy: `--strategy`.
        device: `--device`.

    Raises:
        BadInputError: no such strategy, a model that does not train over ranks, more ranks than
            values, or than CUDA devices if those are asked for.
    """
    if strategy is not None:
        return Ranks(size, _strategy(model, strategy), cuda=_on_cuda(device, size))
    if size == 1:
        return None
    if model == "dicm":
        msg = f"--ranks {size}: dicm trains over processes with a --strategy; name one"
        raise BadInputError(msg)
    memory = settings.memory if isinstance(settings, PluggableSettings) else None
    if memory is None:
        plugged = "; --set memory=lmn" if isinstance(settings, PluggableSettings) else ""
        msg = f"--ranks {size}: {model} without a large memory trains on one process{plugged}"
        raise BadInputError(msg)
    values = memory.lmn_keys**2
    if size > values:
        msg = (
            f"--ranks {size}: the memory has {values} values (lmn_keys={memory.lmn_keys}); "
            f"use at most {values} ranks, or raise lmn_keys"
        )
        raise BadInputError(msg)
    return Ranks(size, cuda=_on_cuda(device, size))


def _strategy(model: str, text: str) -> Strategy:
    if text not in {known.value for known in Strategy}:
        msg = f"--strategy {text}: expected {', '.join(known.value for known in Strategy)}"
        raise BadInputError(msg)
    if model != "dicm":
        msg = f"--strategy {text}: trains dicm, found {model}; leave it out"
        raise BadInputError(msg)
    return Strategy(text)


def _on_cuda(device: str, size: int) -> bool:
    """Whether ranks train on GPUs, one each."""
    if size == 1 or check_device(device) == "cpu":
        return False
    import torch  # noqa: PLC0415 - takes a second, and only training needs it

    found = torch.cuda.device_count()
    if device == "cuda" and found < size:
        msg = f"--device cuda: {size} ranks need a CUDA device each, found {found}; use cpu"
        raise BadInputError(msg)
    return found >= size


def train_on_ranks(run: RankRun) -> dict[str, Any]:
    """Train, and leave the finished run in `run.checkpoint`.

    Returns:
        `RankTraining.costs`.

    Raises:
        RankFailedError: names the error of a rank, or a rank that died.
    """
    return dict(run_ranks(run.ranks.size, _train, run, cuda=run.ranks.cuda)[0])


def train_as(
    trainer: Trainer, ranks: Ranks, start: Bundle | None, *, shown: bool
) -> tuple[Trained, dict[str, Any]]:
    """Train on ranks what a trainer would train by itself.

    Args:
        trainer: of the run, with a checkpoint.
        ranks: how it is spread.
        start: bundle to start from; None for random weights.
        shown: whether rank 0 shows on standard error how the run goes.

    Returns:
        The result, read from what the ranks left behind, and `RankTraining.costs`.

    Raises:
        BadInputError: the trainer has no checkpoint.
        RankFailedError: names the error of a rank, or a rank that died.
    """
    if trainer.checkpoint is None:
        msg = "a run over ranks ends in its checkpoint; name one"
        raise BadInputError(msg)
    run = RankRun(
        samples=trainer.reader.root,
        images=None if trainer.images is None else trainer.images.path,
        spec=trainer.spec,
        checkpoint=trainer.checkpoint,
        ranks=ranks,
        warm_start=None if start is None else start.path,
        shown=shown,
    )
    costs = train_on_ranks(run)
    return trainer.run(), costs


def _train(world: ShardWorld, run: RankRun) -> dict[str, Any]:
    """What a rank does."""
    reader = SamplesReader(run.samples)
    start = load_bundle(run.warm_start) if run.warm_start is not None else None
    trainer = RankTrainer(
        reader,
        run.spec,
        device=str(world.device),
        checkpoint=run.checkpoint,
        prepare=None if start is None else warm_start(start, except_ids=run.spec.except_ids),
        images=None if run.images is None else ImageFeatures.open(run.images),
        world=world,
        strategy=run.ranks.strategy,
    )
    if world.rank == 0 and run.shown:
        kind = "" if run.ranks.strategy is None else f" {run.ranks.strategy.value}"
        title = f"{run.spec.model}{kind} on {world.size} ranks"
        with watched(reader, run.spec, title) as watcher:
            trainer.watcher = watcher
            trainer.run()
    else:
        trainer.run()
    return trainer.costs()


def describe_costs(costs: dict[str, Any]) -> str:
    """One line for a person: bytes of a mean batch, as counted."""
    batches = max(costs["measured"]["batches"], 1)
    each = {name: value / batches for name, value in costs["measured"].items()}
    mib = {name: value / _MIB for name, value in each.items()}
    ids = mib["id_values"] + mib["id_gradients"]
    title = f"{costs['ranks']} ranks, {batches:.0f} batches; MiB a batch: "
    sums = f"as sums of gradients {mib['model_sums']:.3f}; "
    if "strategy" not in costs:
        copies = costs["measured"]["copies"] / _MIB
        return (
            f"{title}sent for values {mib['value_values'] + mib['value_gradients']:.3f}, "
            f"for ids {ids:.3f}, "
            f"as requests {mib['value_requests'] + mib['id_requests']:.3f}, {sums}"
            f"values wanted {each['values_wanted']:.0f}, asked for {each['values_asked']:.0f}; "
            f"MiB in all for checkpoints and tests {copies:.3f}"
        )
    images = mib["image_values"] + mib["image_gradients"]
    return (
        f"{costs['strategy']}, {title}"
        f"stored by workers {mib['worker_store']:.3f}, by servers {mib['server_store']:.3f}; "
        f"sent for images {images:.3f}, for ids {ids:.3f}, "
        f"as requests {mib['image_requests'] + mib['id_requests']:.3f}, {sums}"
        f"images wanted {each['images_wanted']:.0f}, embedded {each['images_embedded']:.0f}"
    )


def job_of(costs: dict[str, Any]) -> Job:
    """The mean batch of a run, for the formulas."""
    total = Job(**costs["job"])
    return mean_of(total, int(total.batches))
