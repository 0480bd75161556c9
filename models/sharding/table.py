"""A table of trained rows over several machines (LMN's memory parameter server, section 2.2.4).

`uic.models.sharding.router` finds the owner of each id; `ShardedTable` looks rows up and moves them
with Adam, the moments beside the rows. The order of a training step, the same on all ranks:

1. `Router.route`: ids that a rank wants more than once are asked for once.
2. `Router.fetch`: an owner answers each id once, however many ranks asked.
3. The rank computes its loss.
4. `Router.push`: gradients, already summed per id on each rank, are summed at the owner.
5. `ShardedTable.move`: the owner moves its rows.
"""

from typing import Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.row_table import distinct_rows
from uic.models.sharding.router import Route, Router
from uic.models.sharding.world import ShardWorld
from uic.models.training.optimizer import RowAdam

_SEED: Final = 0x1E37


class ShardedTable(nn.Module):
    """`layers.row_table.RowTable` over several ranks; every rank must make the same calls.

    Losses of ranks add up: for the loss of the whole batch, each rank divides the sum over its
    part by the size of the whole.

    Args:
        world: the ranks.
        rows: of the whole table.
        width: of a row.
        std: standard deviation of initial values; row i is the same on any number of ranks.
        dtype: of values and moments.
    """

    # Initial values are drawn in blocks of this many rows, each from a seed of its own, so that
    # a rank draws what it owns of a table that no rank could hold.
    BLOCK: Final = 4096

    def __init__(
        self,
        world: ShardWorld,
        rows: int,
        width: int,
        std: float,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.router = Router(world, rows)
        initial = torch.zeros(self.router.local_rows, width)
        for start in range(0, rows if std else 0, self.BLOCK):
            generator = torch.Generator().manual_seed(_SEED + start)
            block = torch.randn(min(self.BLOCK, rows - start), width, generator=generator)
            ids = torch.arange(start, start + block.shape[0])
            own = ids % world.size == world.rank
            initial[ids[own] // world.size] = block[own] * std
        self.weight = nn.Parameter(initial.to(world.device, dtype), requires_grad=False)
        self.adam = RowAdam(self.weight.data)
        self._taken: list[tuple[Route, Tensor]] = []
        self._pushed: tuple[Tensor, Tensor] | None = None

    @classmethod
    def part_of(cls, world: ShardWorld, whole: RowAdam) -> Self:
        """This rank's rows of a table that every rank has, copied, with their moments.

        Raises:
            ShardError: more ranks than rows.
        """
        rows, width = whole.table.shape
        table = cls(world, rows, width, 0.0, dtype=whole.table.dtype)
        for own, source in table._pairs(whole):
            own.copy_(source[world.rank :: world.size])
        return table

    def gather(self, whole: RowAdam, *, everywhere: bool) -> None:
        """Copy all ranks' rows and moments into a whole table; every rank must call it.

        Args:
            whole: (rows, width), any values.
            everywhere: on every rank, not on rank 0 alone.
        """
        for own, target in self._pairs(whole):
            self._copy_all(own, target, everywhere=everywhere)

    def _copy_all(self, own: Tensor, target: Tensor, *, everywhere: bool) -> None:
        world = self.router.world
        parts = world.from_all(own) if everywhere else world.at_first(own)
        for rank, rows in enumerate(parts):
            target[rank :: world.size] = rows

    def _pairs(self, whole: RowAdam) -> list[tuple[Tensor, Tensor]]:
        """This rank's tensors, and those of a whole table that they are parts of."""
        return [
            (self.weight.data, whole.table),
            (self.adam.mean, whole.mean),
            (self.adam.square, whole.square),
        ]

    @property
    def width(self) -> int:
        """Of a row."""
        return self.weight.shape[1]

    def take(self, rows: Tensor) -> Tensor:
        """Rows by id: any shape of int64 to that shape and the width."""
        table, index = self._leaf(rows)
        return functional.embedding(index, table)

    def weighted_sum(self, rows: Tensor, weights: Tensor) -> Tensor:
        """`sum_k weights[:, k] table[rows[:, k]]`: (n, k), (n, k) to (n, width)."""
        table, index = self._leaf(rows)
        return functional.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    def forget(self) -> None:
        """Drop what forward passes without a step have read."""
        self._taken.clear()

    @torch.no_grad()
    def push(self) -> Tensor:
        """Send the gradients of everything taken to the owners, who sum them.

        Returns:
            scalar, float64: sum of the squares of the gradients of this rank's rows.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        summed = [
            (route.rows, self.router.push(route, _gradient(leaf))) for route, leaf in self._taken
        ]
        self._taken.clear()
        if not summed:
            self._pushed = None
            return self.weight.new_zeros((), dtype=torch.float64)
        rows, gradient = summed[0]
        if len(summed) > 1:
            rows, index = distinct_rows(
                torch.cat([rows for rows, _ in summed]), self.router.local_rows
            )
            gradient = self.weight.new_zeros(rows.shape[0], self.width)
            gradient.index_add_(0, index, torch.cat([part for _, part in summed]))
        self._pushed = (rows, gradient)
        return gradient.double().square().sum()

    def move(self, rate: float, count: int, scale: float = 1.0) -> None:
        """Adam on the rows that were pushed.

        Args:
            rate: learning rate.
            count: number of this step, from 1.
            scale: on their gradients.
        """
        if self._pushed is not None:
            rows, gradient = self._pushed
            self._pushed = None
            self.adam.step(rows, gradient * scale, rate, count)

    def _leaf(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct rows from their owners, and the index of each id among them."""
        route = self.router.route(ids)
        leaf = self.router.fetch(route, lambda rows: self.weight.index_select(0, rows))
        if torch.is_grad_enabled():
            leaf.requires_grad_()
            self._taken.append((route, leaf))
        return leaf, route.index


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
