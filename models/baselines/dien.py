"""DIEN, with its auxiliary loss or without (Zhou et al., AAAI 2019; MIMN, table 2: without).

A GRU over the history extracts interests, shared by a group; then, for each candidate, a GRU
whose update gate is scaled by attention (AUGRU) evolves them. The second depends on the
candidate, so nothing of it can be shared: that is the cost which MIMN removes.

Head input [item, evolved, sum, item * sum], as in MIMN's authors' `Model_DIEN`.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from models.attention import AttentionUnit
from models.batch import RankerBatch
from models.embedding import BatchRows
from models.ranker import Outputs, Ranker, no_penalty
from models.ranker_settings import WindowedSettings
from models.windows import PaddedWindows, group_windows, window_firsts, window_pairs, window_sums


class DienSettings(WindowedSettings):
    """Hyper-parameters of interest extraction and evolution."""

    auxiliary_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="factor on the auxiliary loss; 0 = without, as in MIMN's table 2"
    )


class AttentionalGru(nn.Module):
    """AUGRU (DIEN, eq. 14 to 16): a GRU cell whose update gate is scaled by attention.

    Args:
        inputs: width of an input.
        width: of the state.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.of_input = nn.Linear(inputs, 3 * width)
        self.of_state = nn.Linear(width, 3 * width, bias=False)

    def forward(self, projected: Tensor, attention: Tensor, state: Tensor) -> Tensor:
        """One step.

        Args:
            projected: (n, 3 * width), `of_input` of the step's inputs.
            attention: (n,), in [0, 1].
            state: (n, width).

        Returns:
            (n, width).
        """
        update_in, reset_in, new_in = projected.chunk(3, dim=1)
        update_state, reset_state, new_state = self.of_state(state).chunk(3, dim=1)
        update = torch.sigmoid(update_in + update_state) * attention.unsqueeze(1)
        reset = torch.sigmoid(reset_in + reset_state)
        new = torch.tanh(new_in + reset * new_state)
        return state + update * (new - state)


class Dien(Ranker):
    """Interests extracted once per group, evolved for each candidate.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: DienSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        super().__init__(settings, item_rows, category_rows, 4 * width)
        self.limit = settings.history_limit
        self.auxiliary_weight = settings.auxiliary_weight
        self.extract = nn.GRU(width, width, batch_first=True)
        self.attention = AttentionUnit(width, width)
        self.evolve = AttentionalGru(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        history = rows.history(batch)
        candidates = rows.candidates(batch)
        evolved, penalty = self._evolved(history, candidates, batch)
        pooled = window_sums(rows, batch, self.limit)
        features = torch.cat([candidates, evolved, pooled, candidates * pooled], dim=1)
        return Outputs(self.head(features), penalty)

    def _evolved(
        self, history: Tensor, candidates: Tensor, batch: RankerBatch
    ) -> tuple[Tensor, Tensor]:
        """The last state of the second GRU, (impressions, width), and the auxiliary loss."""
        windows = group_windows(batch, self.limit)
        steps = windows.events.shape[1]
        if steps == 0:
            return torch.zeros_like(candidates), no_penalty(candidates)
        states = self.extract(history[windows.events])[0]
        penalty = no_penalty(candidates)
        if self.auxiliary_weight:
            penalty = self.auxiliary_weight * self._auxiliary(states, history, windows, batch)
        interests = states.flatten(0, 1)
        # Each pair's interest: the group's row, at the event's place in the group's window.
        pairs = window_pairs(batch, self.limit)
        groups = batch.groups[pairs.impressions]
        first_events = batch.history_starts[groups] + windows.firsts[groups]
        places = groups * steps + pairs.events - first_events
        scores = self.attention(candidates, interests, pairs.impressions, places)
        weights = pairs.softmax(scores)
        projected = self.evolve.of_input(interests)
        # Longest windows first: step k runs on those that still have an event.
        counts = batch.lengths - window_firsts(batch, self.limit)
        order = torch.argsort(counts, descending=True, stable=True)
        starts = (pairs.counts.cumsum(0) - pairs.counts)[order]
        running = (counts[order].unsqueeze(1) > torch.arange(int(counts.max()))).sum(0)
        state = torch.zeros_like(candidates)
        for step, alive in enumerate(running.tolist()):
            at = starts[:alive] + step
            moved = self.evolve(projected[places[at]], weights[at], state[:alive])
            state = torch.cat([moved, state[alive:]])
        return torch.zeros_like(state).index_copy(0, order, state), penalty

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
