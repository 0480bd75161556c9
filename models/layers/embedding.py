"""Embedding tables of items and categories, looked up once per batch.

The tables are not touched by autograd. `ItemEmbedding.rows` copies the rows of a batch into a
leaf tensor; its gradient has a row for each distinct item of the batch, and `RowAdam`
(`uic.models.training.optimizer`) moves those rows of the table alone. A step costs what its batch
costs, for a thousand items as for ten million.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.samples.batch import RankerBatch


@dataclass(frozen=True)
class BatchRows:
    """The embeddings that one batch needs.

    Attributes:
        items: (distinct items, item width).
        categories: (distinct categories, category width).
    """

    items: Tensor
    categories: Tensor

    @property
    def width(self) -> int:
        """Width of an item and its category side by side."""
        return self.items.shape[1] + self.categories.shape[1]

    def history(self, batch: RankerBatch) -> Tensor:
        """Item and category side by side, for each event: (events, event width)."""
        return self._side_by_side(batch.history_items, batch.history_categories)

    def events(self, batch: RankerBatch, events: Tensor) -> Tensor:
        """The same for some events: (n,) int64 to (n, event width)."""
        return self._side_by_side(batch.history_items[events], batch.history_categories[events])

    def candidates(self, batch: RankerBatch) -> Tensor:
        """The same for each impression: (impressions, event width)."""
        return self._side_by_side(batch.candidate_items, batch.candidate_categories)

    def _side_by_side(self, items: Tensor, categories: Tensor) -> Tensor:
        # `embedding` and not `[]`: its backward is a plain loop of adds, several times as fast.
        return torch.cat(
            [
                functional.embedding(items, self.items),
                functional.embedding(categories, self.categories),
            ],
            dim=1,
        )


class ItemEmbedding(nn.Module):
    """Two tables; an item is its row and its category's row side by side (MIMN, section 4).

    Args:
        item_rows: rows of the item table, spare rows included.
        category_rows: rows of the category table.
        item_width: numbers an item.
        category_width: numbers a category.
        std: standard deviation of the normal initial values.
    """

    def __init__(
        self,
        item_rows: int,
        category_rows: int,
        item_width: int = 16,
        category_width: int = 16,
        *,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        self.item = nn.Parameter(torch.randn(item_rows, item_width) * std, requires_grad=False)
        self.category = nn.Parameter(
            torch.randn(category_rows, category_width) * std, requires_grad=False
        )

    @property
    def width(self) -> int:
        """Width of an item and its category side by side."""
        return self.item.shape[1] + self.category.shape[1]

    def rows(self, batch: RankerBatch) -> BatchRows:
        """The batch's rows; leaves that ask for a gradient where gradients are recorded."""
        items = self.item.index_select(0, batch.items)
        categories = self.category.index_select(0, batch.categories)
        trained = torch.is_grad_enabled()
        return BatchRows(items.requires_grad_(trained), categories.requires_grad_(trained))

    def forward(self, item_rows: Tensor, category_rows: Tensor) -> Tensor:
        """Rows to vectors: (n,), (n,) to (n, width)."""
        return torch.cat([self.item[item_rows], self.category[category_rows]], dim=1)
