"""Images of behaviours to one vector an impression (DICM, section 5.2, figure 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.windows import Pairs, value_sums
from uic.models.rankers.dicm.settings import Aggregator, AttentionWeights, DicmSettings
from uic.models.samples.batch import RankerBatch


class ImageAggregator(nn.Module):
    """The five aggregators; an empty history gives zeros.

    - concatenate: the newest `concatenate_events`, newest first, padded with zeros.
    - max, sum: over the last `history_limit` events, number by number.
    - attentive: weighted sum, the query is the candidate's image (DIN's unit; `attention_weights`).
    - multi_query: two channels side by side, queries are the candidate's image and an ID field;
      each has its own unit and weights. Without the candidate's image, the ID channel alone.

    Args:
        settings: which one, and its sizes.
        width: of an image's vector.
    """

    def __init__(self, settings: DicmSettings, width: int) -> None:
        super().__init__()
        self.kind, self.limit = settings.aggregator, settings.history_limit
        self.newest = settings.concatenate_events
        self.softmax = settings.attention_weights is AttentionWeights.SOFTMAX
        attends = self.kind in {Aggregator.ATTENTIVE, Aggregator.MULTI_QUERY}
        self.by_image = AttentionUnit(width, width) if attends and settings.ad_image else None
        self.by_id = None
        if self.kind is Aggregator.MULTI_QUERY:
            self.by_id = AttentionUnit(settings.query_width, width)
        channels = sum(unit is not None for unit in (self.by_image, self.by_id))
        if self.kind is Aggregator.CONCATENATE:
            channels = self.newest
        self.features = width * max(channels, 1)

    def forward(
        self, events: Tensor, ads: Tensor, ids: Tensor, batch: RankerBatch, pairs: Pairs
    ) -> Tensor:
        """Vectors of impressions.

        Args:
            events: (events, width), image vectors.
            ads: (impressions, width), image vectors of the candidates.
            ids: (impressions, query width), the ID field that asks.
            batch: whose history it is.
            pairs: of `history_limit`.

        Returns:
            (impressions, features).
        """
        if self.kind is Aggregator.SUM:
            return value_sums(events, batch, self.limit)
        if self.kind is Aggregator.MAX:
            return _largest(events, pairs)
        if self.kind is Aggregator.CONCATENATE:
            return self._side_by_side(events, batch)
        # What a kind of item and category shows is one image: like pairs have one score.
        distinct = window_distinct_pairs(batch, self.limit, events_alike=True)
        keys = events.index_select(0, distinct.keys)
        channels = []
        for unit, queries in ((self.by_image, ads), (self.by_id, ids)):
            if unit is not None:
                asked = queries.index_select(0, distinct.queries)
                if self.softmax:
                    channels.append(unit.attend(asked, keys, distinct)[1])
                else:
                    channels.append(unit.attend_raw(asked, keys, distinct))
        return torch.cat(channels, dim=1)

    def _side_by_side(self, events: Tensor, batch: RankerBatch) -> Tensor:
        """The newest events of each impression, newest first."""
        places = torch.arange(self.newest, device=events.device)
        age = batch.lengths.unsqueeze(1) - 1 - places  # (impressions, newest)
        starts = batch.history_starts[batch.groups].unsqueeze(1)
        # Row -1, behind all events, is the padding.
        padded = functional.pad(events, (0, 0, 0, 1))
        seen = (age >= 0) & (places < self.limit)
        index = torch.where(seen, starts + age, events.shape[0])
        return functional.embedding(index, padded).flatten(1)


def _largest(events: Tensor, pairs: Pairs) -> Tensor:
    """Largest of each number over an impression's events: (events, w) to (impressions, w)."""
    values = events.index_select(0, pairs.events)
    empty = values.new_zeros(pairs.counts.shape[0], values.shape[1])
    owners = pairs.impressions.unsqueeze(1).expand_as(values)
    return empty.scatter_reduce(0, owners, values, "amax", include_self=False)
