"""LMN: one large memory, shared by all users, read by top-K product keys (LMN, section 2.2).

It is plugged into a base ranker: what the events of a history find in the memory is pooled and
joins the features of the base's head. Keys and values are trained, never written back to.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.hashing import stable_hash
from uic.models.layers.attention import AttentionUnit
from uic.models.layers.batch_sums import BatchSums
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.product_keys import best_products
from uic.models.layers.row_table import RowTable
from uic.models.layers.windows import group_windows, value_sums, window_firsts
from uic.models.rankers.lmn.settings import (
    Detach,
    LargeMemorySettings,
    Merge,
    Pooling,
    Query,
    QueryUser,
)
from uic.models.samples.batch import RankerBatch

# Independent of the hashes that place users in partitions and ids in spare rows.
_USER_SEED = 2


class TrainedRows(Protocol):
    """Where rows live: `layers.row_table.RowTable`, or `sharding.table.ShardedTable`."""

    def take(self, rows: Tensor) -> Tensor:
        """Rows by index: (n,) int64 to (n, width)."""

    def weighted_sum(self, rows: Tensor, weights: Tensor) -> Tensor:
        """`sum_k weights[:, k] table[rows[:, k]]`: (n, k), (n, k) to (n, width)."""

    def forget(self) -> None:
        """Drop what forward passes without a step have read."""


class ProductKeyMemory(nn.Module):
    """Queries to weighted sums of the values that they activate (LMN, eq. 5 to 10).

    Args:
        keys: on each axis, sqrt(n).
        width: of queries, keys and values, d: keys are of full width.
        top_k: values that a head reads.
        heads: each has queries and keys of its own; values are shared, and heads averaged.
        values: keys * keys rows; None for a table of this process alone.
    """

    def __init__(
        self, keys: int, width: int, top_k: int, heads: int, values: TrainedRows | None = None
    ) -> None:
        super().__init__()
        self.top_k, self.heads = top_k, heads
        self.row_query = nn.Linear(width, heads * width)
        self.column_query = nn.Linear(width, heads * width)
        scale = width**-0.5
        self.row_keys = nn.Parameter(torch.randn(heads, keys, width) * scale)
        self.column_keys = nn.Parameter(torch.randn(heads, keys, width) * scale)
        self.values: TrainedRows = values or RowTable(keys * keys, width, scale)

    def forward(self, queries: Tensor) -> Tensor:
        """M_Q to M_O: (n, width) to (n, width)."""
        weights, index = self.activate(queries)
        return self.values.weighted_sum(index, weights)

    def activate(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and rows of the values that each query reads: (n, heads * top_k) each.

        Weights are a softmax over the K of a head, divided by the number of heads.
        """
        count, width = queries.shape
        scores = [
            torch.bmm(query(queries).view(count, self.heads, width).transpose(0, 1), keys.mT)
            for query, keys in (
                (self.row_query, self.row_keys),
                (self.column_query, self.column_keys),
            )
        ]
        rows, columns = (score.flatten(0, 1) for score in scores)  # (heads * n, keys)
        best, index = best_products(rows, columns, self.top_k)
        weights = torch.softmax(best, dim=1) / self.heads
        return tuple(  # type: ignore[return-value] # two of them
            part.view(self.heads, count, self.top_k).transpose(0, 1).flatten(1)
            for part in (weights, index)
        )


@dataclass(frozen=True)
class Recalled:
    """What a batch found in the memory.

    Attributes:
        features: (impressions, width), for the head.
        loss: scalar, the weighted memory loss (LMN, eq. 11 and 12).
    """

    features: Tensor
    loss: Tensor


class LargeMemory(BatchSums):
    """User-aware queries, the memory, its loss, and pooling (LMN, section 2.2).

    Args:
        settings: sizes, query, pooling, loss.
        width: of an event.
        limit: events before an impression that ask; None for all.
    """

    def __init__(self, settings: LargeMemorySettings, width: int, limit: int | None) -> None:
        super().__init__()
        self.settings, self.limit = settings, limit
        self.features = settings.lmn_width or width
        self.users: TrainedRows | None = None
        inputs = width
        if settings.lmn_user is QueryUser.ID:
            self.users = RowTable(settings.lmn_user_rows, width, 0.1)
            inputs += width if settings.lmn_merge is Merge.CONCATENATE else 0
        self.query = nn.Sequential(
            nn.Linear(inputs, self.features),
            nn.ReLU(),
            nn.Linear(self.features, self.features),
        )
        self.block = ProductKeyMemory(
            settings.lmn_keys, self.features, settings.lmn_top_k, settings.lmn_heads
        )
        self.attention: AttentionUnit | None = None
        if settings.lmn_pooling is Pooling.ATTENTION and settings.lmn_query is Query.HISTORY:
            self.attention = AttentionUnit(width, self.features)

    def forward(self, batch: RankerBatch, rows: BatchRows) -> Recalled:
        """What each impression recalls; an empty history recalls 0."""
        self.block.values.forget()
        if self.users is not None:
            self.users.forget()
        candidates = rows.candidates(batch)
        if self.settings.lmn_query is Query.CANDIDATE:
            return self.recall(candidates, self._users(batch, batch.groups))
        # Only the events that some impression looks at ask.
        groups = torch.repeat_interleave(batch.history_counts)
        first = torch.zeros_like(batch.history_starts)
        if self.limit is not None:
            first = group_windows(batch, self.limit).firsts
        start = (batch.history_starts + first)[groups]
        asking = torch.nonzero(
            torch.arange(groups.shape[0], device=groups.device) >= start
        ).squeeze(1)
        history = rows.history(batch).index_select(0, asking)
        asked = self.recall(history, self._users(batch, groups[asking]))
        recalled = asked.features.new_zeros(groups.shape[0], self.features)
        recalled = recalled.index_copy(0, asking, asked.features)
        return Recalled(self._pool(recalled, candidates, batch), asked.loss)

    def recall(self, items: Tensor, users: Tensor | None) -> Recalled:
        """M_O of each item as asked by a user, and the memory loss.

        Args:
            items: (n, event width).
            users: (n, event width), or None.
        """
        if users is None:
            merged = items
        elif self.settings.lmn_merge is Merge.ADD:
            merged = items + users
        else:
            merged = torch.cat([items, users], dim=1)
        queries = self.query(merged)  # M_Q
        output = self.block(queries)  # M_O
        detach = self.settings.lmn_loss_detach
        loss = functional.smooth_l1_loss(
            output.detach() if detach is Detach.OUTPUT else output,
            queries.detach() if detach is Detach.QUERY else queries,
            beta=self.settings.lmn_loss_beta,
            reduction="sum",
        )
        # A rank's part of the mean over the batch: parts add up.
        asked = self.over_ranks(loss.new_tensor(queries.numel())).clamp(min=1)
        return Recalled(output, self.settings.lmn_loss_weight * loss / asked)

    def _users(self, batch: RankerBatch, groups: Tensor) -> Tensor | None:
        """The user's vector of each group in `groups`: (n, event width)."""
        if self.users is None:
            return None
        hashed = stable_hash(batch.source.user_ids, seed=_USER_SEED)
        rows = (hashed % self.settings.lmn_user_rows).astype("int64")
        vectors = self.users.take(torch.from_numpy(rows).to(groups.device))  # (groups, width)
        return vectors.index_select(0, groups)

    def _pool(self, recalled: Tensor, candidates: Tensor, batch: RankerBatch) -> Tensor:
        """(events, width) to (impressions, width)."""
        if self.attention is not None:
            # What an event recalls may depend on its user, so equal events are not alike.
            pairs = window_distinct_pairs(batch, self.limit, events_alike=False)
            return self.attention.attend(candidates[pairs.queries], recalled[pairs.keys], pairs)[1]
        sums = value_sums(recalled, batch, self.limit)
        if self.settings.lmn_pooling is Pooling.MEAN:
            counts = batch.lengths - window_firsts(batch, self.limit)
            sums = sums / counts.clamp(min=1).unsqueeze(1)
        return sums
