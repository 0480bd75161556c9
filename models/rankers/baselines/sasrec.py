"""SASRec: self-attention over the history (Kang and McAuley, ICDM 2018, section 3).

The blocks are causal, so they run once per group and an impression reads the output at its last
event: `x + Attention(LN(x))`, then `x + FFN(LN(x))`, a layer norm at the end. Positions are
learned and count from the window's start; those past the table share its last row. There is no
dropout here: a run is a function of its seed. To the head it adds
[state, item * state], the paper's score being the inner product of state and item; in the form that
the other baselines have of MIMN's authors, beside [item, sum].
"""

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, SUM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.windows import group_windows
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class SasRecSettings(WindowedSettings):
    """Hyper-parameters of the transformer."""

    blocks: Annotated[int, Field(ge=1, le=12)] = Field(2, description="blocks; count (paper: 2)")
    attention_heads: Annotated[int, Field(ge=1, le=16)] = Field(
        1, description="heads of each block; count, a divisor of the width (paper: 1)"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        width = self.item_width + self.category_width
        if width % self.attention_heads:
            msg = f"attention_heads={self.attention_heads} does not divide the width {width}"
            raise ValueError(msg)
        return self


def causal_attention(projected: Tensor, heads: int, limit: int) -> Tensor:
    """Softmax attention of each step over itself and the `limit` - 1 steps before it.

    Args:
        projected: (groups, steps, 3 * width), queries, keys and values side by side.
        heads: a divisor of the width.
        limit: steps.

    Returns:
        (groups, steps, width).
    """
    groups, steps, triple = projected.shape
    split = projected.view(groups, steps, 3, heads, triple // (3 * heads))
    query, key, value = split.permute(2, 0, 3, 1, 4)  # (groups, heads, steps, width / heads) each
    if steps <= limit:
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        ahead = torch.arange(steps, device=projected.device)
        distance = ahead.unsqueeze(1) - ahead
        seen = (distance >= 0) & (distance < limit)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return mixed.transpose(1, 2).reshape(groups, steps, triple // 3)


class AttentionBlock(nn.Module):
    """One block: attention, then a point-wise network, each with a residual (section 3.2 and 3.3).

    Args:
        width: of a state.
        heads: a divisor of the width.
        limit: events that a state looks at.
    """

    def __init__(self, width: int, heads: int, limit: int) -> None:
        super().__init__()
        self.heads, self.limit = heads, limit
        self.before_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.before_network = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(groups, steps, width) to the same."""
        x = x + causal_attention(self.project(self.before_attention(x)), self.heads, self.limit)
        moved: Tensor = self.second(functional.relu(self.first(self.before_network(x))))
        return x + moved


class SasRec(Ranker):
    """A causal transformer over the history, read at the last event.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: SasRecSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        own = {"state": width, "item * state": width}
        limit = settings.history_limit
        super().__init__(settings, item_rows, category_rows, own, (ITEM, SUM, *own), limit=limit)
        self.limit = limit
        self.positions = nn.Parameter(torch.randn(self.limit, width) * settings.embedding_std)
        self.blocks = nn.Sequential(
            *(
                AttentionBlock(width, settings.attention_heads, self.limit)
                for _ in range(settings.blocks)
            )
        )
        self.norm = nn.LayerNorm(width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        candidates = rows.candidates(batch)
        windows = group_windows(batch, self.limit)
        steps = windows.events.shape[1]
        state = torch.zeros_like(candidates)
        if steps:
            places = torch.arange(steps, device=candidates.device).clamp(max=self.limit - 1)
            x = rows.history(batch)[windows.events] + self.positions[places]
            states = functional.pad(self.norm(self.blocks(x)), (0, 0, 1, 0))
            state = states[batch.groups, batch.lengths - windows.firsts[batch.groups]]
        return self.finish({"state": state, "item * state": candidates * state}, batch, rows)
