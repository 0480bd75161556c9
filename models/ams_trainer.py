"""`models.trainer.Trainer` over several ranks: the same run, batches and checkpoint file.

Every rank reads every batch and keeps its groups of it. A checkpoint is that of one process: a
run that was killed goes on with another number of ranks, or with one process. Rank 0 writes it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.ams import AmsRank
from models.ams_bytes import Strategy
from models.batch import Encoder, RankerBatch
from models.checkpoint import Progress
from models.dicm import Dicm
from models.errors import BadInputError
from models.evaluation import score
from models.groups import GroupBatch
from models.metrics import Metrics, measure
from models.optimizer import Optimizer
from models.ranker import Ranker
from models.shard_world import ShardWorld
from models.trainer import Trainer


@dataclass
class AmsTrainer(Trainer):
    """One rank of a run; the others run the same.

    Attributes:
        world: the ranks.
        strategy: where images are embedded.
        rank: of the training, once it runs.
    """

    world: ShardWorld = field(default_factory=ShardWorld)
    strategy: Strategy = Strategy.AMS
    rank: AmsRank | None = None
    _impressions: int = 0

    def costs(self) -> dict[str, Any]:
        """What was wanted and what was counted, over all ranks; all must call it."""
        rank = self._rank()
        return {
            "strategy": self.strategy.value,
            "ranks": self.world.size,
            "measured": rank.measured(),
            "job": vars(rank.job()),
        }

    def _rank(self) -> AmsRank:
        if self.rank is None:
            msg = "the run has not begun"
            raise BadInputError(msg)
        return self.rank

    def _restore(self, model: Ranker, optimizer: Optimizer) -> Progress:
        """The checkpoint, whole, on every rank; then this rank takes its part."""
        if not isinstance(model, Dicm):
            msg = f"strategy {self.strategy.value}: trains dicm, found {self.spec.model}"
            raise BadInputError(msg)
        progress = super()._restore(model, optimizer)
        self.world.barrier()  # no rank writes a checkpoint that another has yet to read
        self.rank = AmsRank(model, optimizer, self.world, self.strategy)
        return progress

    def _epoch(self, progress: Progress) -> Iterator[GroupBatch]:
        for batch in super()._epoch(progress):
            self._impressions = batch.impressions
            yield self._rank().part_of(batch)

    def _step(
        self,
        model: Ranker,  # noqa: ARG002 - `AmsRank` has it
        optimizer: Optimizer,  # noqa: ARG002
        batch: RankerBatch,
        progress: Progress,
    ) -> None:
        """A step of all ranks; `batch` is this one's part."""
        value = float(self._rank().step(batch, self._impressions))
        if not math.isfinite(value):
            raise self._non_finite(value, batch, progress)
        self._count_step(progress, value, self._impressions, batch.source.events)

    def _finish_epoch(self, model: Ranker, encoder: Encoder, progress: Progress) -> Metrics | None:
        """Every rank measures a share of the test days; rank 0 learns of all scores."""
        self._rank().gather()
        days = self.spec.days
        metrics = None
        if days.test_first is not None and days.test_last is not None:
            plan = self.plan(days.test_first, days.test_last, shuffle=False)
            batches = self._share(self.reader.batches(plan))
            scores, labels, users = score(model, batches, encoder)
            metrics = measure(
                self._together(scores),
                self._together(labels.view(np.uint8)).view(np.bool_),
                self._together(users),
            )
        return self._end_epoch(progress, metrics)

    def _together(self, own: NDArray[Any]) -> NDArray[Any]:
        """Every rank's values, one after the other."""
        parts = self.world.everyone(torch.from_numpy(own).to(self.world.device))
        return np.concatenate([part.cpu().numpy() for part in parts])

    def _share(self, batches: Iterator[GroupBatch]) -> Iterator[GroupBatch]:
        for number, batch in enumerate(batches):
            if number % self.world.size == self.world.rank:
                yield batch

    def _save(self, model: Ranker, optimizer: Optimizer, progress: Progress) -> None:
        self._rank().gather()
        if self.world.rank == 0:
            super()._save(model, optimizer, progress)
