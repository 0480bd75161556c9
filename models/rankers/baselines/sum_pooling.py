"""Embedding & MLP: the history is the sum of its embeddings (MIMN, table 2, first row).

Head input [item, sum], as in the authors' `Model_DNN`.
"""

import torch

from uic.models.layers.embedding import BatchRows
from uic.models.layers.windows import window_sums
from uic.models.rankers.lmn.settings import PoolingSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class SumPooling(Ranker):
    """Sum of all events before the impression.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PoolingSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, 2 * width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        pooled = window_sums(rows, batch)
        return self.finish(torch.cat([rows.candidates(batch), pooled], dim=1), batch, rows)
