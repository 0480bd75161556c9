"""Each distinct (candidate, event) pair of a batch, once, however many impressions have it.

A score of a pair depends on the two vectors alone, and on a shop's log people come back to the
same items. A softmax over events is then one over distinct pairs, each counted as often as it
occurs. Finding them is one pass over the pairs with a mark for each kind of event, so that it
costs next to nothing where all pairs are distinct.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uic.models.kernels.pair_marks import find_pairs, kinds_of
from uic.models.layers.windows import window_firsts, window_pairs
from uic.models.samples.batch import RankerBatch


@dataclass(frozen=True)
class DistinctPairs:
    """Pairs of distinct queries and distinct keys, and what each impression has of them.

    Attributes:
        queries: (queries,) int64, an impression of each distinct candidate.
        keys: (keys,) int64, an event of each distinct kind that some impression looks at.
        offsets: (queries + 1,) int64, the first pair of each query.
        key_of: (pairs,) int64, the key of each pair.
        entry_offsets: (impressions + 1,) int64, the first entry of each impression.
        entries: (entries,) int64, the pair of each entry, in the order of the first such event.
        times: (entries,) int64, events of the impression that are this pair.
    """

    queries: Tensor
    keys: Tensor
    offsets: Tensor
    key_of: Tensor
    entry_offsets: Tensor
    entries: Tensor
    times: Tensor


def window_distinct_pairs(
    batch: RankerBatch, limit: int | None, *, events_alike: bool, candidates_alike: bool = True
) -> DistinctPairs:
    """The pairs of (impression, event that it looks at), as in `window_pairs`.

    Args:
        batch: whose; anywhere else than on the CPU every pair is taken as distinct.
        limit: newest events that an impression looks at; None for all.
        events_alike: keys of the same item and category are equal: embeddings are, the states of
            a recurrent network are not.
        candidates_alike: queries of the same item and category are equal.
    """
    if batch.lengths.device.type != "cpu":
        return _all_pairs(batch, limit)
    kinds = torch.arange(batch.history_items.shape[0])
    if events_alike:
        kinds = _kinds_of(batch.history_items, batch.history_categories, len(batch.items))
    candidates = torch.arange(batch.lengths.shape[0])
    if candidates_alike:
        candidates = _kinds_of(batch.candidate_items, batch.candidate_categories, len(batch.items))
    firsts = window_firsts(batch, limit)
    starts = batch.history_starts[batch.groups] + firsts
    parts = find_pairs(
        np.argsort(candidates.numpy(), kind="stable"),
        candidates.numpy(),
        starts.numpy(),
        (batch.lengths - firsts).numpy(),
        kinds.numpy(),
    )
    return DistinctPairs(*(torch.from_numpy(part) for part in parts))


def _all_pairs(batch: RankerBatch, limit: int | None) -> DistinctPairs:
    """Every pair for itself, by torch alone."""
    pairs = window_pairs(batch, limit)
    device = pairs.counts.device
    offsets = torch.nn.functional.pad(pairs.counts.cumsum(0), (1, 0))
    entries = torch.arange(pairs.events.shape[0], device=device)
    return DistinctPairs(
        queries=torch.arange(pairs.counts.shape[0], device=device),
        keys=torch.arange(batch.history_items.shape[0], device=device),
        offsets=offsets,
        key_of=pairs.events,
        entry_offsets=offsets,
        entries=entries,
        times=torch.ones_like(entries),
    )


def _kinds_of(items: Tensor, categories: Tensor, distinct_items: int) -> Tensor:
    """(rows,) int64: a number for each row, the same for rows of the same item and category."""
    return torch.from_numpy(kinds_of(items.numpy(), categories.numpy(), distinct_items))
