"""Baselines that add a history up, or do not look at it: sum, mean, and the candidate alone."""

import torch
from torch import Tensor

from uic.models.layers.embedding import BatchRows
from uic.models.layers.windows import window_sums
from uic.models.rankers.lmn.settings import PluggableSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class SumPooling(Ranker):
    """Embedding & MLP: the sum of all events before the impression (MIMN, table 2, first row).

    Head input [item, sum], as in the authors' `Model_DNN`.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PluggableSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, 2 * width, memory=settings.memory)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        pooled = self.pooled(batch, rows)
        return self.finish(torch.cat([rows.candidates(batch), pooled], dim=1), batch, rows)

    def pooled(self, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """The history of each impression: (impressions, width)."""
        return window_sums(rows, batch)


class AveragePooling(SumPooling):
    """YouTube DNN: the mean of all events before the impression, zero without any (IMN, table 1).

    A sanity check more than a rival: a later paper found it level with MIMN on long histories.
    """

    def pooled(self, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """The history of each impression: (impressions, width)."""
        return super().pooled(batch, rows) / batch.lengths.clamp(min=1).unsqueeze(1)


class Dnn(Ranker):
    """The base without any history: the head over the candidate alone (LMN, table 1, first row).

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PluggableSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, width, memory=settings.memory)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish(rows.candidates(batch), batch, rows)
