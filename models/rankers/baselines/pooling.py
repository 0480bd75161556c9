"""Baselines that add a history up, or do not look at it: sum, mean, and the candidate alone.

What they know is among the basic features of every head (`uic.models.layers.head_inputs`).
"""

from typing import Literal

from pydantic import Field

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, MEAN, SUM
from uic.models.layers.ranker_settings import HeadInputs
from uic.models.layers.windows import window_sums
from uic.models.rankers.lmn.settings import PluggableSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class SumPooling(Ranker):
    """Embedding & MLP: the sum of all events before the impression (MIMN, table 2, first row).

    The paper's head input is [item, sum], as in the authors' `Model_DNN`.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PluggableSettings, item_rows: int, category_rows: int) -> None:
        own = {SUM: settings.item_width + settings.category_width}
        memory = settings.memory
        super().__init__(settings, item_rows, category_rows, own, (ITEM, SUM), memory=memory)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish({SUM: window_sums(rows, batch)}, batch, rows)


class AveragePooling(Ranker):
    """YouTube DNN: the mean of all events before the impression, zero without any (IMN, table 1).

    The paper's head input is [item, mean]; with their product, which every head has by the common
    contract, it is the row that a memory has to beat.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PluggableSettings, item_rows: int, category_rows: int) -> None:
        memory = settings.memory
        super().__init__(settings, item_rows, category_rows, {}, (ITEM, MEAN), memory=memory)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish({}, batch, rows)


class DnnSettings(PluggableSettings):
    """Hyper-parameters of a model that looks at no history, and so at no mean of it."""

    head_inputs: Literal[HeadInputs.PAPER] = Field(
        HeadInputs.PAPER, description="what the head is fed: paper, since there is no history"
    )


class Dnn(Ranker):
    """The base without any history: the head over the candidate alone (LMN, table 1, first row).

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: DnnSettings, item_rows: int, category_rows: int) -> None:
        memory = settings.memory
        super().__init__(settings, item_rows, category_rows, {}, (ITEM,), memory=memory)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish({}, batch, rows)
