"""ID embeddings on the servers: pulled and pushed by key, as in a parameter server (DICM 4.3).

As Adam's moments, the frequencies of adaptive regularisation lie beside the rows that they belong
to, and the owner adds the gradient of the regularisation by itself.
"""

from typing import Self

import torch
from torch import Tensor

from uic.models.sharding.table import ShardedTable
from uic.models.training.optimizer import RowAdam


class RegularizedTable(ShardedTable):
    """A sharded table whose rows are regularised by how many batches held them."""

    def regularize(self, frequencies: Tensor, weight: float) -> Self:
        """Take this rank's part of the frequencies.

        Args:
            frequencies: (rows,) of the whole table, batches that held each id so far; `gather`
                writes all ranks' parts back into it.
            weight: of the regularisation, lambda.
        """
        world = self.router.world
        self._whole, self._weight = frequencies, weight
        self._frequencies = frequencies[world.rank :: world.size].clone()
        return self

    @torch.no_grad()
    def push(self) -> Tensor:
        """See `ShardedTable.push`; the gradients include the regularisation."""
        super().push()
        if self._pushed is None:
            return self.weight.new_zeros((), dtype=torch.float64)
        rows, gradient = self._pushed
        self._frequencies[rows] += 1
        frequency = self._frequencies[rows].to(gradient.dtype).unsqueeze(1)
        gradient += self._weight * self.weight[rows] / frequency
        return gradient.double().square().sum()

    def gather(self, whole: RowAdam, *, everywhere: bool) -> None:
        """See `ShardedTable.gather`; the frequencies too."""
        super().gather(whole, everywhere=everywhere)
        self._copy_all(self._frequencies, self._whole, everywhere=everywhere)
