"""DIN: the history is weighted by each candidate (Zhou et al., KDD 2018; MIMN, table 2).

The paper's head input is [item, sum, attended], as in MIMN's authors' `Model_DIN`; weights are
normalised by a softmax there and here. Only the last `history_limit` events are looked at.
"""

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, SUM
from uic.models.rankers.lmn.settings import DinSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Din(Ranker):
    """Sum of the events before the impression, each weighted by its likeness to the candidate.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: DinSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(
            settings,
            item_rows,
            category_rows,
            {"attended": width},
            (ITEM, SUM, "attended"),
            memory=settings.memory,
            limit=settings.history_limit,
        )
        self.limit = settings.history_limit
        self.attention = AttentionUnit(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        candidates = rows.candidates(batch)
        pairs = window_distinct_pairs(batch, self.limit, events_alike=True)
        keys = rows.events(batch, pairs.keys)
        attended = self.attention.attend(candidates[pairs.queries], keys, pairs)[1]
        return self.finish({"attended": attended}, batch, rows)
