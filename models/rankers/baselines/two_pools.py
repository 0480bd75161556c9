"""Two pools of unlike half-life: all events alike, and the last few (issue 21).

The plainest row that knows more than a mean. What a memory learns has to be worth more than this: a
mean of all events, a mean whose weights halve from event to event, each with its product with the
item, and how much each of them holds. There is no paper; on the log of Online Retail it was above
every learned memory that was tried there.
"""

from dataclasses import replace
from typing import Annotated, Final, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from uic.models.layers.embedding import BatchRows
from uic.models.layers.ranker_settings import HeadInputs, RankerSettings
from uic.models.layers.windows import window_pairs
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch

# An event of weight 2^-24 beside one of weight 1 is below float32's rounding.
_HALVINGS: Final = 24


class TwoPoolsSettings(RankerSettings):
    """Hyper-parameters of the second pool."""

    half_life_events: Annotated[float, Field(ge=0.1, le=1000)] = Field(
        1.0,
        description="events after which an event's weight in the second pool halves; 0.1 to 1000",
    )
    head_inputs: Literal[HeadInputs.COMMON] = Field(
        HeadInputs.COMMON, description="what the head is fed: common, since there is no paper"
    )


class TwoPools(Ranker):
    """The mean of all events, and one of the newest; to the head [pool, item * pool, masses].

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: TwoPoolsSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        own = {"newest": width, "item * newest": width, "log masses": 2}
        super().__init__(settings, item_rows, category_rows, own)
        self.half_life = settings.half_life_events

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        item = rows.candidates(batch)
        newest, mass = self._newest(batch, rows)
        masses = torch.stack([batch.lengths.to(item.dtype), mass], dim=1).log1p()
        own = {"newest": newest, "item * newest": item * newest, "log masses": masses}
        return self.finish(own, batch, rows)

    def _newest(self, batch: RankerBatch, rows: BatchRows) -> tuple[Tensor, Tensor]:
        """The mean, 0 without events, and the mass of each impression: (n, width) and (n,)."""
        cuts = replace(batch, groups=batch.cut_groups, lengths=batch.cut_lengths)
        pairs = window_pairs(cuts, int(_HALVINGS * self.half_life) + 1)
        ends = batch.history_starts[batch.cut_groups] + batch.cut_lengths
        ages = ends[pairs.impressions] - 1 - pairs.events  # (pairs,), 0 = the newest
        weights = torch.exp2(-ages.to(rows.items.dtype) / self.half_life)
        offsets = pairs.counts.cumsum(0) - pairs.counts
        pools = [
            functional.embedding_bag(
                events[pairs.events], table, offsets, mode="sum", per_sample_weights=weights
            )
            for events, table in (
                (batch.history_items, rows.items),
                (batch.history_categories, rows.categories),
            )
        ]
        mass = pairs.sums(weights.unsqueeze(1))  # (cuts, 1)
        mean = torch.cat(pools, dim=1) / mass.clamp(min=1)  # an event's own weight is 1
        return mean.index_select(0, batch.cuts), mass.squeeze(1).index_select(0, batch.cuts)
