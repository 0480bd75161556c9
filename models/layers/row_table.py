"""A table of which a step touches a few rows, kept out of autograd like the embedding tables.

`take` and `weighted_sum` copy the rows that are asked for into a leaf, whose gradient has a row
for each distinct one; `uic.models.training.optimizer.Optimizer` finds every `RowTable` of a model
and moves those rows alone. `uic.models.sharding.table.ShardedTable` is the same over several
machines.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TakenRows:
    """Rows that a forward pass has read.

    Attributes:
        rows: (touched,) int64, distinct, ascending.
        leaf: (touched, width), asks for a gradient.
    """

    rows: Tensor
    leaf: Tensor


class RowTable(nn.Module):
    """A table of trained rows.

    Args:
        rows: their number.
        width: of a row.
        std: standard deviation of the normal initial values.
    """

    def __init__(self, rows: int, width: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) * std, requires_grad=False)
        self._taken: list[TakenRows] = []

    @property
    def width(self) -> int:
        """Of a row."""
        return self.weight.shape[1]

    def take(self, rows: Tensor) -> Tensor:
        """Rows by index: (n,) int64 to (n, width)."""
        table, index = self._leaf(rows)
        return functional.embedding(index, table)

    def weighted_sum(self, rows: Tensor, weights: Tensor) -> Tensor:
        """`sum_k weights[:, k] table[rows[:, k]]`, without a copy of n x k rows.

        Args:
            rows: (n, k) int64.
            weights: (n, k).

        Returns:
            (n, width).
        """
        table, index = self._leaf(rows)
        return functional.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    def taken(self) -> TakenRows | None:
        """What was read since the last call and has a gradient, each row once."""
        parts = [part for part in self._taken if part.leaf.grad is not None]
        self._taken.clear()
        if len(parts) < 2:
            return parts[0] if parts else None
        rows, index = torch.unique(torch.cat([part.rows for part in parts]), return_inverse=True)
        gradient = torch.cat([part.leaf.grad for part in parts if part.leaf.grad is not None])
        leaf = self.weight.index_select(0, rows).requires_grad_()
        leaf.grad = torch.zeros_like(leaf).index_add_(0, index, gradient)
        return TakenRows(rows, leaf)

    def forget(self) -> None:
        """Drop what forward passes without a step have read."""
        self._taken.clear()

    def _leaf(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The table to read, and the index in it of each row."""
        if not torch.is_grad_enabled():
            return self.weight, rows
        distinct, index = distinct_rows(rows, self.weight.shape[0])
        leaf = self.weight.index_select(0, distinct).requires_grad_()
        self._taken.append(TakenRows(distinct, leaf))
        return leaf, index


def distinct_rows(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distinct rows, ascending, and the index of each row among them.

    Args:
        rows: any shape, int64.
        count: of the table; marking a table of moderate size is faster than sorting.
    """
    if count > 64 * rows.numel():
        distinct, index = torch.unique(rows, return_inverse=True)
        return distinct, index
    seen = torch.zeros(count, dtype=torch.bool, device=rows.device)
    seen[rows] = True
    places = seen.cumsum(0) - 1
    return torch.nonzero(seen).squeeze(1), places[rows]
