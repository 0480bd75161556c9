"""A batch as a ranker takes it: torch tensors, ids replaced by rows.

Every distinct item of a batch is looked up in the embedding table once. The rows of a batch are a
small table of their own, which receives a small dense gradient; the large table is touched only
where the batch touched it, however many million rows it has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.samples.groups import GroupBatch
from uic.models.samples.vocabulary import IdTable, Vocabulary


@dataclass(frozen=True)
class RankerBatch:
    """Groups, their histories and impressions; ragged, on one device.

    Attributes:
        items: (distinct items,) int64, rows of the item table.
        categories: (distinct categories,) int64, rows of the category table.
        history_items: (events,) int64, indices into `items`, one group after the other.
        history_categories: (events,) int64, indices into `categories`.
        history_starts: (groups,) int64, first event of each group.
        history_counts: (groups,) int64, events of each group.
        candidate_items: (impressions,) int64, indices into `items`.
        candidate_categories: (impressions,) int64, indices into `categories`.
        groups: (impressions,) int64, the group of each impression.
        lengths: (impressions,) int64, events that each impression may see.
        cut_groups: (cuts,) int64, group of each distinct (group, length).
        cut_lengths: (cuts,) int64, its length.
        cuts: (impressions,) int64, the cut of each impression.
        labels: (impressions,) float, 1 = clicked.
        source: the raw ids, for messages and for metrics by user.
        features: of each impression, in the vocabulary's order: rows of a table, (impressions,) or
            (impressions, most) int64, or numbers, (impressions, numbers).
        extra_labels: labels beside the click by name, each (impressions,) int8: 1, 0, or
            `uic.models.samples.groups.NOT_KNOWN`.
        embedded_features: (impressions, width), where a server has them embedded already; then
            `features` are not looked at.
    """

    items: Tensor
    categories: Tensor
    history_items: Tensor
    history_categories: Tensor
    history_starts: Tensor
    history_counts: Tensor
    candidate_items: Tensor
    candidate_categories: Tensor
    groups: Tensor
    lengths: Tensor
    cut_groups: Tensor
    cut_lengths: Tensor
    cuts: Tensor
    labels: Tensor
    source: GroupBatch
    features: tuple[Tensor, ...] = ()
    extra_labels: Mapping[str, Tensor] = field(default_factory=dict)
    embedded_features: Tensor | None = None


class Encoder:
    """Turns raw batches into a ranker's, on one device.

    Args:
        vocabulary: id to row.
        device: where tensors go.
        dtype: of the labels, and so of the loss.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._item = _Distinct(vocabulary.item)
        self._category = _Distinct(vocabulary.category)
        self._features = vocabulary.features.fitted
        self._device = torch.device(device)
        self._dtype = dtype

    def encode(self, batch: GroupBatch) -> RankerBatch:
        """Look ids up and find the distinct rows and cuts."""
        events = batch.events
        items, item_places = self._item.of(batch.history_item_ids, batch.item_ids)
        categories, category_places = self._category.of(
            batch.history_category_ids, batch.category_ids
        )
        groups = batch.impression_groups
        stride = int(batch.history_lengths.max(initial=0)) + 1
        keys, cuts = np.unique(groups * stride + batch.history_lengths, return_inverse=True)
        return RankerBatch(
            items=self._tensor(items),
            categories=self._tensor(categories),
            history_items=self._tensor(item_places[:events]),
            history_categories=self._tensor(category_places[:events]),
            history_starts=self._tensor(batch.history_offsets[:-1]),
            history_counts=self._tensor(np.diff(batch.history_offsets)),
            candidate_items=self._tensor(item_places[events:]),
            candidate_categories=self._tensor(category_places[events:]),
            groups=self._tensor(groups),
            lengths=self._tensor(batch.history_lengths),
            cut_groups=self._tensor(keys // stride),
            cut_lengths=self._tensor(keys % stride),
            cuts=self._tensor(cuts),
            labels=self._tensor(batch.labels).to(self._dtype),
            source=batch,
            features=tuple(
                self._tensor(feature.encode(batch.features[feature.named.key]))
                for feature in self._features
            ),
            extra_labels={name: self._tensor(own) for name, own in batch.extra_labels.items()},
        )

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


class _Distinct:
    """Finds the distinct rows of a batch by marking a table: no sort of the batch's ids."""

    def __init__(self, table: IdTable) -> None:
        self._table = table
        self._place = np.zeros(table.rows, dtype=np.int64)

    def of(
        self, history: NDArray[np.int64], shown: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Distinct rows, ascending, and the index of each id's row among them."""
        rows = self._table.lookup(np.concatenate([history, shown]))
        seen = np.zeros(self._table.rows, dtype=np.bool_)
        seen[rows] = True
        distinct = np.flatnonzero(seen)
        self._place[distinct] = np.arange(distinct.size)
        return distinct, self._place[rows]
