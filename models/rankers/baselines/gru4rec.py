"""GRU4Rec: the history is the last state of a GRU over it (Hidasi et al., ICLR 2016; table 2).

The paper's head input is [item, sum, state], as in MIMN's authors' `Model_GRU4REC`. The GRU is
`torch.nn.GRU`, run once per group; an impression reads the state after its last event.
"""

from torch import nn

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, SUM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.windows import group_windows
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Gru4Rec(Ranker):
    """State of a GRU over the events before the impression; zero if there are none.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: WindowedSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        limit = settings.history_limit
        own, paper = {"state": width}, (ITEM, SUM, "state")
        super().__init__(settings, item_rows, category_rows, own, paper, limit=limit)
        self.limit = limit
        self.gru = nn.GRU(width, width, batch_first=True)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        history = rows.history(batch)
        windows = group_windows(batch, self.limit)
        if windows.events.shape[1]:
            states, _ = self.gru(history[windows.events])  # (groups, steps, width)
            # Step 0 is before the first event.
            states = nn.functional.pad(states, (0, 0, 1, 0))
            last = states[batch.groups, batch.lengths - windows.firsts[batch.groups]]
        else:
            last = history.new_zeros(batch.lengths.shape[0], rows.width)
        return self.finish({"state": last}, batch, rows)
