"""ID embeddings on the servers: pulled and pushed by key, as in a parameter server (DICM 4.3).

Adam's moments lie beside the rows that they move, and so do the frequencies of adaptive
regularisation, whose gradient the owner adds by itself.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.optimizer import RowAdam
from models.shard_world import ShardWorld
from models.sharded import Route, Router


class IdServer:
    """This rank's part of one table, and its way to the other parts.

    Args:
        world: the ranks, with the counters of ID traffic.
        whole: the table and its moments, (rows, width); this rank's rows are copied out.
        frequencies: (rows,), batches that held each id so far; None without regularisation.
        weight: of the regularisation, lambda.
    """

    def __init__(
        self, world: ShardWorld, whole: RowAdam, frequencies: Tensor | None, weight: float
    ) -> None:
        self.router = Router(world, whole.table.shape[0])
        owned = self.router.owned().to(whole.table.device)
        self.adam = RowAdam(whole.table[owned].clone())
        self.adam.mean.copy_(whole.mean[owned])
        self.adam.square.copy_(whole.square[owned])
        self.frequencies = None if frequencies is None else frequencies[owned].clone()
        self.weight = weight
        self._taken: tuple[Route, Tensor] | None = None
        self._gradient = (torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def take(self, ids: Tensor) -> Tensor:
        """Pull: (n,) int64 ids to (n, width), with a gradient."""
        route = self.router.route(ids)
        leaf = self.router.fetch(route, lambda rows: self.adam.table.index_select(0, rows))
        leaf.requires_grad_()
        self._taken = (route, leaf)
        return functional.embedding(route.index, leaf)

    @torch.no_grad()
    def push(self) -> Tensor:
        """Send gradients to the owners, who sum them and add the regularisation.

        Returns:
            scalar, float64: sum of squares of the gradients of this rank's rows.
        """
        if self._taken is None:
            return self.adam.table.new_zeros((), dtype=torch.float64)
        route, leaf = self._taken
        self._taken = None
        gradient = self.router.push(
            route, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        )
        if self.frequencies is not None:
            self.frequencies[route.rows] += 1
            frequency = self.frequencies[route.rows].to(gradient.dtype).unsqueeze(1)
            gradient += self.weight * self.adam.table[route.rows] / frequency
        self._gradient = (route.rows, gradient)
        return gradient.double().square().sum()

    def move(self, rate: float, count: int, scale: float) -> None:
        """Adam on the rows that were pushed; arguments as `RowAdam.step`, gradients scaled."""
        rows, gradient = self._gradient
        self.adam.step(rows, gradient * scale, rate, count)

    def gather(self, whole: RowAdam, frequencies: Tensor | None) -> None:
        """Copy all ranks' rows back into a whole table; every rank must call it."""
        pairs = [
            (self.adam.table, whole.table),
            (self.adam.mean, whole.mean),
            (self.adam.square, whole.square),
        ]
        if self.frequencies is not None and frequencies is not None:
            pairs.append((self.frequencies, frequencies))
        size = self.router.world.size
        for own, target in pairs:
            for rank, rows in enumerate(self.router.world.everyone(own)):
                target[rank::size] = rows
