"""SIM: search a long history, then attend to what was found (Pi et al., CIKM 2020).

General search unit: hard search keeps the newest events of the candidate's category (eq. 1,
first case); soft search keeps those with the largest `(W_b e) . (W_a q)` (second case), and is
trained by a click loss of its own over the whole history, U_r = sum r_i e_i (section 4.1).
Exact search unit: multi-head attention over what was kept (section 4.2),
`head = softmax((W_b z) . (W_a q)) z` with z = [e, elapsed time]. Beside it, DIN on the newest
events. The paper's head input is [item, sum of newest, attended newest, heads].
"""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.retrieval import Retrieved, masked_softmax, retrieve
from uic.models.layers.windows import window_pairs, window_sums
from uic.models.rankers.imn.views import check_times, elapsed_buckets
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class Search(StrEnum):
    """How the general search unit finds events."""

    HARD = "hard"
    SOFT = "soft"


class SimSettings(WindowedSettings):
    """Hyper-parameters of search and attention."""

    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="events that are searched; count"
    )
    recent_events: Annotated[int, Field(ge=1)] = Field(
        50, description="newest events that DIN looks at; count"
    )
    search: Search = Field(Search.HARD, description="general search unit: hard|soft")
    found_events: Annotated[int, Field(ge=1)] = Field(
        50, description="events that a search keeps; count"
    )
    attention_heads: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="heads of the exact search unit; count"
    )
    time_buckets: Annotated[int, Field(ge=0, le=64)] = Field(
        20, description="buckets of elapsed time, each twice as long; count, 0 = no times"
    )
    time_unit_seconds: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="what is elapsed time 1; seconds"
    )
    search_loss_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="factor on the click loss of the soft search"
    )


class Sim(Ranker):
    """Two stages over a long history, DIN over the newest events.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: SimSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        wide = width * (2 if settings.time_buckets else 1)
        own = {"newest": width, "attended": width, "found": settings.attention_heads * wide}
        limit = settings.history_limit
        super().__init__(settings, item_rows, category_rows, own, (ITEM, *own), limit=limit)
        self.settings = settings
        self.attention = AttentionUnit(width, width)
        self.times: nn.Embedding | None = None
        if settings.time_buckets:
            self.times = nn.Embedding(settings.time_buckets, width)
        self.asks = nn.Linear(width, settings.attention_heads * width, bias=False)  # W_a
        self.answers = nn.Linear(wide, settings.attention_heads * width, bias=False)  # W_b
        self.search_query = self.search_key = self.search_head = None
        if settings.search is Search.SOFT:
            self.search_query = nn.Linear(width, width, bias=False)
            self.search_key = nn.Linear(width, width, bias=False)
            self.search_head = nn.Linear(2 * width, 1)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`.

        Raises:
            MissingTimesError: time buckets are asked for, and a history has no times.
        """
        history, candidates = rows.history(batch), rows.candidates(batch)
        settings = self.settings
        queries = keys = None
        penalty = candidates.new_zeros(())
        if self.search_query is not None and self.search_key is not None:
            queries, keys = self.search_query(candidates), self.search_key(history)
            penalty = self._search_loss(history, candidates, queries, keys, batch)
        retrieved = retrieve(batch, settings.history_limit, settings.found_events, queries, keys)
        heads = self._exact(history, candidates, retrieved, batch)
        pairs = window_distinct_pairs(batch, settings.recent_events, events_alike=True)
        asked, keys = candidates[pairs.queries], history[pairs.keys]
        attended = self.attention.attend(asked, keys, pairs)[1]
        pooled = window_sums(rows, batch, settings.recent_events)
        own = {"newest": pooled, "attended": attended, "found": heads}
        outputs = self.finish(own, batch, rows)
        return replace(outputs, penalty=outputs.penalty + penalty)

    def _exact(
        self, history: Tensor, candidates: Tensor, retrieved: Retrieved, batch: RankerBatch
    ) -> Tensor:
        """The exact search unit: (impressions, heads * width of z)."""
        heads = self.settings.attention_heads
        z = functional.embedding(retrieved.events, history)
        if self.times is not None:
            z = torch.cat([z, self.times(self._elapsed(retrieved, batch))], dim=2)
        if not retrieved.events.shape[1]:
            return z.new_zeros(candidates.shape[0], heads * z.shape[2])
        asked = self.asks(candidates).unflatten(1, (heads, -1))  # (impressions, heads, width)
        answers = self.answers(z).unflatten(2, (heads, -1))  # (impressions, kept, heads, width)
        scores = torch.einsum("nhd,nkhd->nhk", asked, answers)
        weights = masked_softmax(scores, retrieved.used.unsqueeze(1))
        return torch.bmm(weights, z).flatten(1)

    def _elapsed(self, retrieved: Retrieved, batch: RankerBatch) -> Tensor:
        """Time buckets of kept events: (impressions, kept)."""
        source = batch.source
        check_times(source)
        events = retrieved.events.cpu().numpy()
        elapsed = source.event_times_ms[:, None] - source.history_times_ms[events]
        settings = self.settings
        buckets = elapsed_buckets(elapsed, settings.time_unit_seconds, settings.time_buckets)
        return torch.from_numpy(buckets).to(retrieved.events.device)

    def _search_loss(
        self,
        history: Tensor,
        candidates: Tensor,
        queries: Tensor,
        keys: Tensor,
        batch: RankerBatch,
    ) -> Tensor:
        """Cross-entropy of a click predicted from U_r alone."""
        if self.search_head is None or not batch.labels.numel():
            return candidates.new_zeros(())
        pairs = window_pairs(batch, self.settings.history_limit)
        relevance = (queries[pairs.impressions] * keys[pairs.events]).sum(1, keepdim=True)
        interest = pairs.sums(relevance * history.index_select(0, pairs.events))
        # U_r grows with the history; its mean does not.
        interest = interest / pairs.counts.clamp(min=1).unsqueeze(1)
        logits = self.search_head(torch.cat([candidates, interest], dim=1)).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        return self.settings.search_loss_weight * loss
