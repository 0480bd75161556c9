"""One training over several processes: each has a part of every batch and of every table.

What is stepped by row (embeddings of items and categories, the values and users of a large
memory) lies on the ranks, row `i` on rank `i % size`; a sum over ranks of such a table's gradient
would be the table. Dense weights are on every rank. One step, the same on all ranks:

1. Forward and backward of the rank's part: rows come from their owners where the model reads
   them. The loss is the sum over the part, divided by the size of the whole batch, so that
   gradients of ranks add up.
2. Push gradients of rows to their owners.
3. Sum the dense gradients over all ranks.
4. Clip by the norm of everything, and move: dense weights on all ranks alike, rows at their owners.

The result is that of one process, but for the order of sums. So trains LMN, whose memory of a
million values is the table that matters (its memory parameter server, LMN section 2.2.4); DICM
adds its images (`uic.models.sharding.ams`).
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from uic.models.layers.batch_sums import BatchSums
from uic.models.layers.embedding import BatchRows
from uic.models.layers.row_table import RowTable
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import RankerBatch
from uic.models.samples.groups import GroupBatch
from uic.models.sharding.router import ShardError
from uic.models.sharding.table import ShardedTable
from uic.models.sharding.world import ShardWorld, Traffic
from uic.models.training.loss import cross_entropy
from uic.models.training.optimizer import Optimizer, RowAdam

# What `torch.nn.utils.clip_grad_norm_` adds to the norm.
_CLIP_EPSILON: Final = 1e-6
# The values of a large memory, by their name in a ranker.
_VALUES: Final = "large.block.values"


@dataclass(frozen=True)
class BatchLoss:
    """Loss of a batch, or of a rank's part of it.

    Attributes:
        cross_entropy: scalar, the mean over the impressions of the whole batch.
        total: scalar, with the penalty.
    """

    cross_entropy: Tensor
    total: Tensor


class RankTraining:
    """One rank of a training.

    Args:
        model: whole, the same on every rank. Its tables are taken apart: between `share` and
            `gather` the whole ones hold nothing.
        optimizer: of this model, moments included.
        world: the ranks.

    Attributes:
        value_traffic: what left this rank for the values of a large memory.
        id_traffic: the same for all other tables.
        batches: steps so far.
    """

    def __init__(self, model: Ranker, optimizer: Optimizer, world: ShardWorld) -> None:
        self.model, self.optimizer, self.world = model, optimizer, world
        self.value_traffic, self.id_traffic = Traffic(), Traffic()
        self.batches = 0
        self._whole = {
            name: module for name, module in model.named_modules() if isinstance(module, RowTable)
        }
        self._shards: dict[str, ShardedTable] = {}
        for module in model.modules():
            if isinstance(module, BatchSums):
                module.sum_over_ranks = world.sum

    # ------------------------------------------------------------------------- tables, apart
    def share(self) -> None:
        """Take the tables apart, if they are whole: each rank keeps its rows.

        Raises:
            ShardError: more ranks than rows; names the table.
        """
        if self._shards:
            return
        for name, whole in self.optimizer.rows.items():
            if not whole.table.numel():  # a table without width
                continue
            traffic = self.value_traffic if name == _VALUES else self.id_traffic
            try:
                shard = self._shard(name, replace(self.world, traffic=traffic), whole)
            except ShardError as error:
                msg = f"{name}: {error}"
                raise ShardError(msg) from error
            self._shards[name] = shard
            self._resize(name, 0)
            if name in self._whole:
                self.model.set_submodule(name, shard)

    def gather(self, *, everywhere: bool) -> None:
        """Put the tables together again, if they are apart; all must call it.

        Args:
            everywhere: on every rank, to score with; else on rank 0 alone, for a checkpoint,
                and all must call `share` next.
        """
        here = everywhere or self.world.rank == 0
        for name, shard in self._shards.items():
            if here:
                self._resize(name, shard.router.rows)
            shard.gather(self.optimizer.rows[name], everywhere=everywhere)
            if here and name in self._whole:
                self.model.set_submodule(name, self._whole[name])
        if here:
            self._shards.clear()

    def _shard(self, name: str, world: ShardWorld, whole: RowAdam) -> ShardedTable:  # noqa: ARG002
        """This rank's part of a table."""
        return ShardedTable.part_of(world, whole)

    def _tensors(self, name: str) -> list[Tensor]:
        """Every whole tensor of a table."""
        whole = self.optimizer.rows[name]
        return [whole.table, whole.mean, whole.square]

    def _resize(self, name: str, rows: int) -> None:
        """Give every whole tensor of a table so many rows, with any values."""
        for tensor in self._tensors(name):
            tensor.data = tensor.data.new_empty((rows, *tensor.shape[1:]))
        # The model's parameter and the optimiser's table are one piece of memory.
        self._parameter(name).data = self.optimizer.rows[name].table.data

    def _parameter(self, name: str) -> nn.Parameter:
        if name in self._whole:
            return self._whole[name].weight
        parameter: nn.Parameter = getattr(self.model.embedding, name)
        return parameter

    # ------------------------------------------------------------------------------- a step
    def part_of(self, batch: GroupBatch) -> GroupBatch:
        """This rank's groups of a batch; may be none."""
        mine = np.arange(self.world.rank, batch.groups, self.world.size)
        return batch.select(mine)

    def step(self, part: RankerBatch, impressions: int) -> BatchLoss:
        """One step of the whole batch.

        Args:
            part: this rank's, encoded.
            impressions: of the whole batch.

        Returns:
            That of the whole batch, the same on all ranks.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        self.share()
        self.batches += 1
        loss = self._loss(part, impressions)
        loss.total.backward()  # type: ignore[no-untyped-call]
        self._after_backward()
        squares = sum(
            (shard.push() for shard in self._shards.values()),
            torch.zeros((), dtype=torch.float64, device=self.world.device),
        )
        whole, squares = self._sum_dense(loss, squares)
        scale = self._scale(squares)
        for weight in self.optimizer.dense:
            if weight.grad is not None:
                weight.grad *= scale
        rate = self.optimizer.step_dense()
        for shard in self._shards.values():
            shard.move(rate, self.optimizer.steps, scale)
        return whole

    def _loss(self, part: RankerBatch, impressions: int) -> BatchLoss:
        """Of this rank's part."""
        outputs = self.model.outputs(part, self._rows(part))
        loss = self._cross_entropy(outputs.all_logits, part, impressions)
        return BatchLoss(loss, loss + outputs.penalty)

    def _rows(self, part: RankerBatch) -> BatchRows:
        """Embeddings of the part, from their owners."""
        return BatchRows(self._pull("item", part.items), self._pull("category", part.categories))

    def _pull(self, name: str, rows: Tensor) -> Tensor:
        """Rows of a table, from their owners: (n,) int64 to (n, width)."""
        shard = self._shards.get(name)
        if shard is None:  # a table without width
            return self.optimizer.rows[name].table.new_zeros(rows.shape[0], 0)
        return shard.take(rows)

    def _cross_entropy(self, all_logits: Tensor, part: RankerBatch, impressions: int) -> Tensor:
        return cross_entropy(all_logits, part, self.model.tasks, impressions)

    def _after_backward(self) -> None:
        """Go on with gradients that did not end on rows or on dense weights."""

    @torch.no_grad()
    def _sum_dense(self, loss: BatchLoss, squares: Tensor) -> tuple[BatchLoss, Tensor]:
        """Step 3: sums over ranks of the dense gradients, the loss, and the squares of rows."""
        flat = [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten()
            for weight in self.optimizer.dense
        ]
        losses = torch.stack([loss.cross_entropy.detach(), loss.total.detach()])
        summed = self.world.sum(torch.cat([*flat, losses]))
        *gradients, losses = torch.split(summed, [*(part.numel() for part in flat), 2])
        for weight, gradient in zip(self.optimizer.dense, gradients, strict=True):
            weight.grad = gradient.view_as(weight).clone()
        return BatchLoss(losses[0], losses[1]), self.world.sum(squares)

    def _scale(self, squares: Tensor) -> float:
        """Step 4: what gradients are multiplied by, from the squares of all rows of tables."""
        if not self.optimizer.gradient_clip:
            return 1.0
        for weight in self.optimizer.dense:
            if weight.grad is not None:
                squares = squares + weight.grad.double().square().sum()
        norm = float(squares.sqrt())
        return min(1.0, self.optimizer.gradient_clip / (norm + _CLIP_EPSILON))

    # ---------------------------------------------------------------------------- the costs
    def costs(self) -> dict[str, Any]:
        """What all ranks together counted since the start, as JSON; all must call it."""
        return {"ranks": self.world.size, "measured": self.measured()}

    def measured(self) -> dict[str, float]:
        """Counters of all ranks together, since the start; bytes and counts. All must call it."""
        return self._over_ranks(
            {
                "values_wanted": self.value_traffic.wanted,
                "values_asked": self.value_traffic.distinct,
                "value_requests": self.value_traffic.ids,
                "value_values": self.value_traffic.values,
                "value_gradients": self.value_traffic.gradients,
                **self._shared_counts(),
            }
        )

    def _shared_counts(self) -> dict[str, int]:
        """What is counted in every training."""
        return {
            "id_requests": self.id_traffic.ids,
            "id_values": self.id_traffic.values,
            "id_gradients": self.id_traffic.gradients,
            "model_sums": self.world.traffic.sums,
            "copies": self.value_traffic.copies
            + self.id_traffic.copies
            + self.world.traffic.copies,
        }

    def _over_ranks(self, counts: dict[str, int]) -> dict[str, float]:
        """Sums over ranks, and the number of batches."""
        own = torch.tensor(list(counts.values()), dtype=torch.float64, device=self.world.device)
        summed = self.world.sum(own).tolist()
        return {**dict(zip(counts, summed, strict=True)), "batches": self.batches}
