"""What each impression sees of its group's history, without copying the history.

A model that is limited to N events looks at `history[max(0, L - N):L]`. Sums over such windows
are differences of running sums, computed once per event; attention over them works on pairs
(impression, event), which are indices into the group's embeddings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from uic.models.layers.embedding import BatchRows
from uic.models.samples.batch import RankerBatch


def window_sums(rows: BatchRows, batch: RankerBatch, limit: int | None = None) -> Tensor:
    """Sum of the embeddings of the last `limit` events before each impression.

    Between two neighbouring ends of windows the events are summed once, straight from the rows
    of the batch; a window is then a difference of running sums over these few stretches.

    Args:
        rows: embeddings of the batch.
        batch: whose impressions.
        limit: events; None for all.

    Returns:
        (impressions, event width). Running sums are float64: a difference of two float32 sums
        over a whole batch would lose four digits.
    """
    starts = batch.history_starts[batch.groups]
    ends = torch.stack([starts + window_firsts(batch, limit), starts + batch.lengths])
    places, index = torch.unique(ends, return_inverse=True)  # (places,), (2, impressions)
    stretches = places.shape[0] - 1
    if stretches < 1:
        return rows.items.new_zeros(batch.lengths.shape[0], rows.width)
    first, last = int(places[0]), int(places[-1])
    offsets = places[:-1] - first
    parts = [
        functional.embedding_bag(events[first:last], table, offsets, mode="sum")
        for events, table in (
            (batch.history_items, rows.items),
            (batch.history_categories, rows.categories),
        )
    ]
    sums = torch.cat(parts, dim=1).double()  # (stretches, event width)
    running = functional.pad(sums.cumsum(0), (0, 0, 1, 0))  # (places, event width)
    return (running[index[1]] - running[index[0]]).to(rows.items.dtype)


def value_sums(values: Tensor, batch: RankerBatch, limit: int | None = None) -> Tensor:
    """`window_sums` of any value per event: (events, width) to (impressions, width)."""
    running = functional.pad(values.double().cumsum(0), (0, 0, 1, 0))  # (events + 1, width)
    starts = batch.history_starts[batch.groups]
    sums = running[starts + batch.lengths] - running[starts + window_firsts(batch, limit)]
    return sums.to(values.dtype)


def window_firsts(batch: RankerBatch, limit: int | None) -> Tensor:
    """Position of the first event that each impression looks at: (impressions,) int64."""
    if limit is None:
        return torch.zeros_like(batch.lengths)
    return (batch.lengths - limit).clamp(min=0)


@dataclass(frozen=True)
class Pairs:
    """Every (impression, event that it looks at), impression after impression.

    Attributes:
        impressions: (pairs,) int64, index of the impression.
        events: (pairs,) int64, index of the event in the batch.
        counts: (impressions,) int64, events that each looks at.
    """

    impressions: Tensor
    events: Tensor
    counts: Tensor

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax over the events of each impression: (pairs,) to (pairs,)."""
        impressions = self.counts.shape[0]
        # The largest score only guards against overflow; the result does not depend on it.
        largest = scores.new_full((impressions,), -torch.inf).scatter_reduce(
            0, self.impressions, scores.detach(), "amax"
        )
        powers = (scores - largest[self.impressions]).exp()
        totals = powers.new_zeros(impressions).index_add(0, self.impressions, powers)
        return powers / totals[self.impressions]

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the events of each impression: (pairs, width) to (impressions, width)."""
        empty = values.new_zeros(self.counts.shape[0], values.shape[1])
        return empty.index_add(0, self.impressions, values)


def window_pairs(batch: RankerBatch, limit: int | None) -> Pairs:
    """The pairs of a batch; `limit` as in `window_sums`."""
    first = window_firsts(batch, limit)
    counts = batch.lengths - first
    impressions = torch.repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    steps = torch.arange(impressions.shape[0], device=counts.device) - before[impressions]
    starts = batch.history_starts[batch.groups] + first
    return Pairs(impressions, starts[impressions] + steps, counts)


@dataclass(frozen=True)
class PaddedWindows:
    """The part of each group's history that some impression looks at, for a recurrent network.

    Padding is at the end and never looked at, so it needs no mask.

    Attributes:
        events: (groups, steps) int64, indices of events in the batch; padding repeats an event.
        firsts: (groups,) int64, position in the history of step 0.
    """

    events: Tensor
    firsts: Tensor


def group_windows(batch: RankerBatch, limit: int) -> PaddedWindows:
    """From `limit` events before a group's earliest impression to its last event.

    A recurrent state cannot forget the events before a window, so all impressions of a group
    share one start: the rule of `history_cap` in the samples.
    """
    groups = batch.history_counts.shape[0]
    earliest = batch.history_counts.scatter_reduce(0, batch.groups, batch.lengths, "amin")
    firsts = (earliest - limit).clamp(min=0)
    steps = int((batch.history_counts - firsts).max()) if groups else 0
    places = firsts.unsqueeze(1) + torch.arange(steps, device=firsts.device)  # (groups, steps)
    last = (batch.history_counts - 1).clamp(min=0).unsqueeze(1)
    events = batch.history_starts.unsqueeze(1) + torch.minimum(places, last)
    # An empty last history would point behind the last event of the batch.
    return PaddedWindows(events.clamp(max=max(batch.history_items.shape[0] - 1, 0)), firsts)
