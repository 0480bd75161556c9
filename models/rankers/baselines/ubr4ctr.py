"""UBR4CTR: retrieve by a learned search, then DIN (Qin et al., SIGIR 2020; IMN, section 5.2).

The original selects fields of the target to search an inverted index with. Where items have no
side information, IMN's authors strengthened stage 1 with multi-head self-attention over the
sequence itself, and so does this: an event's key is its self-attention output (causal, once per
group), the candidate's query is linear, and the `found_events` largest inner products are kept.
Stage 2 weights what was kept with DIN's unit, times sigmoid of the stage 1 score: through that
factor the search is learned, where the original used policy gradients.

The paper's head input is [item, sum of the kept events, attended].
"""

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.retrieval import masked_softmax, retrieve
from uic.models.layers.windows import group_windows
from uic.models.rankers.baselines.sasrec import causal_attention
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Ubr4CtrSettings(WindowedSettings):
    """Hyper-parameters of retrieval."""

    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="events that are searched; count"
    )
    found_events: Annotated[int, Field(ge=1)] = Field(
        50, description="events that stage 2 looks at; count"
    )
    attention_heads: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="heads of stage 1; count, a divisor of the width"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        width = self.item_width + self.category_width
        if width % self.attention_heads:
            msg = f"attention_heads={self.attention_heads} does not divide the width {width}"
            raise ValueError(msg)
        return self


class Ubr4Ctr(Ranker):
    """Stage 1 finds a few events for each candidate, stage 2 attends to them.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: Ubr4CtrSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        own, limit = {"found": width, "attended": width}, settings.history_limit
        super().__init__(settings, item_rows, category_rows, own, (ITEM, *own), limit=limit)
        self.settings = settings
        self.project = nn.Linear(width, 3 * width)
        self.query = nn.Linear(width, width)
        self.attention = AttentionUnit(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        history, candidates = rows.history(batch), rows.candidates(batch)
        settings = self.settings
        windows = group_windows(batch, settings.history_limit)
        pooled = attended = torch.zeros_like(candidates)
        if windows.events.shape[1]:
            encoded = causal_attention(
                self.project(history[windows.events]),
                settings.attention_heads,
                settings.history_limit,
            )
            # Back to one row an event; padding lies behind a group's last event.
            places = torch.arange(windows.events.shape[1], device=candidates.device)
            counts = batch.history_counts - windows.firsts
            real = places < counts.unsqueeze(1)
            keys = torch.zeros_like(history).index_copy(0, windows.events[real], encoded[real])
            queries = self.query(candidates)
            retrieved = retrieve(
                batch, settings.history_limit, settings.found_events, queries, keys
            )
            count = retrieved.events.shape[1]
            vectors = functional.embedding(retrieved.events, history)  # (impressions, kept, width)
            search = torch.einsum(
                "nd,nkd->nk", queries, functional.embedding(retrieved.events, keys)
            )
            of = torch.arange(candidates.shape[0], device=candidates.device)
            scores = self.attention(
                candidates, history, of.repeat_interleave(count), retrieved.events.flatten()
            ).view(-1, count)
            weights = masked_softmax(scores, retrieved.used) * torch.sigmoid(search)
            attended = torch.bmm(weights.unsqueeze(1), vectors).squeeze(1)
            pooled = (vectors * retrieved.used.unsqueeze(2)).sum(1)
        return self.finish({"found": pooled, "attended": attended}, batch, rows)
