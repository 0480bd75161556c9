"""DIEN, with its auxiliary loss or without (Zhou et al., AAAI 2019; MIMN, table 2: without).

A GRU over the history extracts interests, shared by a group; then, for each candidate, a GRU
whose update gate is scaled by attention (AUGRU) evolves them. The second depends on the
candidate, so nothing of it can be shared: that is the cost which MIMN removes.

The paper's head input is [item, evolved, sum, item * sum], as in MIMN's authors' `Model_DIEN`.
"""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, ITEM_SUM, SUM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.recurrent import AttentionalGru, gru_states
from uic.models.layers.windows import PaddedWindows, group_windows
from uic.models.rankers.ranker import Outputs, Ranker, no_penalty
from uic.models.samples.batch import RankerBatch


class DienSettings(WindowedSettings):
    """Hyper-parameters of interest extraction and evolution."""

    auxiliary_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="factor on the auxiliary loss; 0 = without, as in MIMN's table 2"
    )


class Dien(Ranker):
    """Interests extracted once per group, evolved for each candidate.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: DienSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        limit = settings.history_limit
        own, paper = {"evolved": width}, (ITEM, "evolved", SUM, ITEM_SUM)
        super().__init__(settings, item_rows, category_rows, own, paper, limit=limit)
        self.limit = limit
        self.auxiliary_weight = settings.auxiliary_weight
        self.extract = nn.GRU(width, width, batch_first=True)
        self.attention = AttentionUnit(width, width)
        self.evolve = AttentionalGru(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        history = rows.history(batch)
        candidates = rows.candidates(batch)
        evolved, penalty = self._evolved(history, candidates, batch)
        return replace(self.finish({"evolved": evolved}, batch, rows), penalty=penalty)

    def _evolved(
        self, history: Tensor, candidates: Tensor, batch: RankerBatch
    ) -> tuple[Tensor, Tensor]:
        """The last state of the second GRU, (impressions, width), and the auxiliary loss."""
        windows = group_windows(batch, self.limit)
        steps = windows.events.shape[1]
        if steps == 0:
            return torch.zeros_like(candidates), no_penalty(candidates)
        counts = batch.history_counts - windows.firsts
        states = gru_states(self.extract, history[windows.events], counts)
        penalty = no_penalty(candidates)
        if self.auxiliary_weight:
            penalty = self.auxiliary_weight * self._auxiliary(states, history, windows, batch)
        pairs = window_distinct_pairs(batch, self.limit, events_alike=False)
        # The interest after an event: the group's row, at the event's place in the window.
        groups = torch.repeat_interleave(batch.history_counts)[pairs.keys]
        places = pairs.keys - batch.history_starts[groups] - windows.firsts[groups]
        interests = states.flatten(0, 1).index_select(0, groups * steps + places)
        weights = self.attention.attend(candidates[pairs.queries], interests, pairs)[0]
        input_of = pairs.key_of[pairs.entries]
        return self.evolve(interests, input_of, weights, pairs.entry_offsets.diff()), penalty

    def _auxiliary(
        self, states: Tensor, history: Tensor, windows: PaddedWindows, batch: RankerBatch
    ) -> Tensor:
        """The next event scores above another one: the mean of eq. 6 (DIEN, section 4.2).

        `-log sigmoid(h_t . e_(t+1)) - log(1 - sigmoid(h_t . e'))`; e' is the event half a batch
        further on, which is as good as random and the same in every run; steps where it happens
        to be the same item are left out.
        """
        steps = torch.arange(states.shape[1], device=states.device)
        counts = batch.history_counts - windows.firsts
        followed = steps[:-1] < (counts - 1).unsqueeze(1)  # (groups, steps - 1)
        after = windows.events[:, 1:][followed]
        other = (after + batch.history_items.shape[0] // 2) % batch.history_items.shape[0]
        differs = batch.history_items[after] != batch.history_items[other]
        if not differs.any():
            return no_penalty(states)
        before = states[:, :-1][followed][differs]
        clicked = (before * history[after[differs]]).sum(1)
        missed = (before * history[other[differs]]).sum(1)
        return (functional.softplus(-clicked) + functional.softplus(missed)).mean()
