"""The base without any history: the candidate alone (LMN, table 1, first row)."""

from uic.models.layers.embedding import BatchRows
from uic.models.rankers.lmn.settings import PoolingSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Dnn(Ranker):
    """The head over the candidate's embedding.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: PoolingSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish(rows.candidates(batch), batch, rows)
