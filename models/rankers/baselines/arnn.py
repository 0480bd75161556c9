"""ARNN: GRU4Rec with an attention-weighted sum of all its states (MIMN, section 5.2).

The paper's head input is [item, sum, last state, attended states]. The GRU runs once per group; the
weights depend on the candidate (the activation unit of DIN, softmax over the events that it sees).
"""

import torch
from torch import nn

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, SUM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.windows import group_windows
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Arnn(Ranker):
    """States of a GRU, weighted by each candidate.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: WindowedSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        limit = settings.history_limit
        own = {"state": width, "attended": width}
        super().__init__(settings, item_rows, category_rows, own, (ITEM, SUM, *own), limit=limit)
        self.limit = limit
        self.gru = nn.GRU(width, width, batch_first=True)
        self.attention = AttentionUnit(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        history = rows.history(batch)
        candidates = rows.candidates(batch)
        windows = group_windows(batch, self.limit)
        steps = windows.events.shape[1]
        last = attended = torch.zeros_like(candidates)
        if steps:
            states, _ = self.gru(history[windows.events])  # (groups, steps, width)
            ends = batch.lengths - windows.firsts[batch.groups]
            last = nn.functional.pad(states, (0, 0, 1, 0))[batch.groups, ends]
            pairs = window_distinct_pairs(batch, self.limit, events_alike=False)
            groups = torch.repeat_interleave(batch.history_counts)[pairs.keys]
            places = pairs.keys - batch.history_starts[groups] - windows.firsts[groups]
            keys = states.flatten(0, 1).index_select(0, groups * steps + places)
            attended = self.attention.attend(candidates[pairs.queries], keys, pairs)[1]
        return self.finish({"state": last, "attended": attended}, batch, rows)
