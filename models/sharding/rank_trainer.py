"""`training.trainer.Trainer` over several ranks: the same run, batches and checkpoint file.

Every rank reads every batch and keeps its groups of it. A checkpoint is that of one process: a
run that was killed goes on with another number of ranks, or with one process. Rank 0 writes it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.memory.fold import EventValueError
from uic.models.rankers.dicm.dicm import Dicm
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.groups import GroupBatch
from uic.models.sharding.ams import AmsRank
from uic.models.sharding.ams_bytes import Strategy
from uic.models.sharding.rank_training import RankTraining
from uic.models.sharding.world import ShardWorld
from uic.models.training.checkpoint import Progress
from uic.models.training.evaluation import score_tasks
from uic.models.training.metrics import Metrics
from uic.models.training.optimizer import Optimizer
from uic.models.training.trainer import Trainer


@dataclass
class RankTrainer(Trainer):
    """One rank of a run; the others run the same.

    Attributes:
        world: the ranks.
        strategy: where the images of dicm are embedded; None for a model with a large memory.
        rank: of the training, once it runs.
    """

    world: ShardWorld = field(default_factory=ShardWorld)
    strategy: Strategy | None = None
    rank: RankTraining | None = None
    _impressions: int = 0

    def costs(self) -> dict[str, Any]:
        """See `RankTraining.costs`; all ranks must call it."""
        return self._rank().costs()

    def _rank(self) -> RankTraining:
        if self.rank is None:
            msg = "the run has not begun"
            raise BadInputError(msg)
        return self.rank

    def _restore(self, model: Ranker, optimizer: Optimizer) -> Progress:
        """The checkpoint, whole, on every rank; then this rank takes its part."""
        progress = super()._restore(model, optimizer)
        self.world.barrier()  # no rank writes a checkpoint that another has yet to read
        self.rank = self._begin(model, optimizer)
        return progress

    def _begin(self, model: Ranker, optimizer: Optimizer) -> RankTraining:
        if self.strategy is not None and isinstance(model, Dicm):
            return AmsRank(model, optimizer, self.world, self.strategy)
        if self.strategy is None and model.large is not None:
            return RankTraining(model, optimizer, self.world)
        strategy = "no strategy" if self.strategy is None else f"strategy {self.strategy.value}"
        msg = (
            f"{self.spec.model} with {strategy}: over ranks train dicm, with a strategy, and "
            "models with memory=lmn, without"
        )
        raise BadInputError(msg)

    def _epoch(self, progress: Progress) -> Iterator[GroupBatch]:
        for batch in super()._epoch(progress):
            self._impressions = batch.impressions
            yield self._rank().part_of(batch)

    def _step(
        self,
        model: Ranker,  # noqa: ARG002 - `RankTraining` has it
        optimizer: Optimizer,  # noqa: ARG002 - as above
        batch: RankerBatch,
        progress: Progress,
    ) -> None:
        """A step of all ranks; `batch` is this one's part."""
        try:
            loss = self._rank().step(batch, self._impressions)
        except EventValueError as error:
            raise self._non_finite(float("nan"), batch, progress) from error
        total = float(loss.total)
        if not math.isfinite(total):
            raise self._non_finite(total, batch, progress)
        self._count_step(
            progress, float(loss.cross_entropy), self._impressions, batch.source.events
        )

    def _measure(self, model: Ranker, encoder: Encoder, days: tuple[date, date]) -> Metrics:
        """Every rank measures a share of the days, with the whole model, and learns of all."""
        self._rank().gather(everywhere=True)
        batches = self._share(self.reader.batches(self.plan(*days, shuffle=False)))
        return score_tasks(model, batches, encoder).together(self._together).metrics()

    def _take_best(self, model: Ranker) -> None:
        """On every rank, whole."""
        self._rank().gather(everywhere=True)
        super()._take_best(model)

    def _together(self, own: NDArray[Any]) -> NDArray[Any]:
        """Every rank's values, one after the other."""
        parts = self.world.from_all(torch.from_numpy(own).to(self.world.device))
        return np.concatenate([part.cpu().numpy() for part in parts])

    def _share(self, batches: Iterator[GroupBatch]) -> Iterator[GroupBatch]:
        for number, batch in enumerate(batches):
            if number % self.world.size == self.world.rank:
                yield batch

    def _save(self, model: Ranker, optimizer: Optimizer, progress: Progress) -> None:
        self._rank().gather(everywhere=False)
        if self.world.rank == 0:
            super()._save(model, optimizer, progress)
        self._rank().share()  # rank 0 too, or ranks would differ in what is apart
