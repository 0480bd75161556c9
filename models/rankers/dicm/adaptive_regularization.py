"""Adaptive regularisation of ID embeddings (DIN, arXiv 1706.06978 v1, section 5.2; DICM 7.4).

An id that a batch holds is pulled towards zero by `lambda / n`, n its frequency: rare ids, which
overfit, are pulled harder, and ids that a batch does not hold are not touched. The frequency is
counted while training, in batches that held the id so far: an owner of a shard can count it
without a word from the workers (`uic.models.sharding.ams_ids`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AdaptiveRegularization(nn.Module):
    """Counts of batches by row, and the penalty.

    Args:
        weight: lambda.
        rows: of each table, by name.
    """

    def __init__(self, weight: float, rows: Mapping[str, int]) -> None:
        super().__init__()
        self.weight = weight
        for name, count in rows.items():
            self.register_buffer(name, torch.zeros(count))

    def penalty(self, touched: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """`lambda / 2 * sum |row|^2 / n`, whose gradient is `lambda row / n`; counts the batch.

        Args:
            touched: by table: (n,) int64 distinct rows, and their (n, width) embeddings.

        Returns:
            scalar. While no gradient is wanted nothing is counted.
        """
        total = next(iter(touched.values()))[1].new_zeros(())
        for name, (rows, embeddings) in touched.items():
            counts: Tensor = getattr(self, name)
            if torch.is_grad_enabled() and self.training:
                counts[rows] += 1
            frequency = counts[rows].clamp(min=1).to(embeddings.dtype)
            total = total + (embeddings.square().sum(1) / frequency).sum()
        return 0.5 * self.weight * total
