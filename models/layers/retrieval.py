"""Picking a few events of a long history for each candidate: the first stage of SIM and UBR4CTR."""

from dataclasses import dataclass

import torch
from torch import Tensor

from uic.models.layers.product_keys import best
from uic.models.layers.windows import window_firsts
from uic.models.samples.batch import RankerBatch

# Scores computed at a time; a few megabytes.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Retrieved:
    """The events that each impression keeps, best first.

    Attributes:
        events: (impressions, kept) int64, indices in the batch; an unused place repeats an event.
        used: (impressions, kept) bool.
    """

    events: Tensor
    used: Tensor


@torch.no_grad()
def retrieve(
    batch: RankerBatch, limit: int, count: int, queries: Tensor | None, keys: Tensor | None
) -> Retrieved:
    """The `count` best of the last `limit` events before each impression.

    With queries and keys, by their inner product (soft search); without, the newest events of the
    candidate's category (hard search). Equal ones are taken newest first.

    Args:
        batch: whose impressions.
        limit: events looked at.
        count: events kept.
        queries: (impressions, width), or None.
        keys: (events, width), or None.
    """
    first = window_firsts(batch, limit)
    sizes = batch.lengths - first
    steps = int(sizes.max()) if sizes.numel() else 0
    count = min(count, steps)
    device = batch.lengths.device
    if not count:
        empty = torch.zeros(sizes.shape[0], 0, dtype=torch.int64, device=device)
        return Retrieved(empty, empty.bool())
    # Step 0 is the newest event: equal scores go to the lowest index.
    back = torch.arange(steps, device=device)
    newest = batch.history_starts[batch.groups] + batch.lengths - 1
    found_events, found_used = [], []
    every = torch.arange(sizes.shape[0], device=device)
    for part in torch.split(every, max(_CHUNK // steps, 1)):
        seen = back < sizes[part].unsqueeze(1)
        events = (newest[part].unsqueeze(1) - back).clamp(min=0)
        if queries is None or keys is None:
            # Rows of the table: a request's places are not searched for repeats.
            category = batch.categories[batch.candidate_categories[part]].unsqueeze(1)
            same = batch.categories[batch.history_categories[events]] == category
            scores = (seen & same).float()
        else:
            scores = torch.einsum("nd,nsd->ns", queries[part], keys[events])
            scores = scores.masked_fill(~seen, -torch.inf)
        values, places = best(scores, count)
        found_events.append(events.gather(1, places))
        found_used.append(values > (0 if queries is None else -torch.inf))
    return Retrieved(torch.cat(found_events), torch.cat(found_used))


def masked_softmax(scores: Tensor, used: Tensor) -> Tensor:
    """Softmax over the used places of the last dimension; 0 where none is used."""
    scores = scores.masked_fill(~used, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) * used
