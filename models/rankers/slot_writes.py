"""What the slots of a memory hold, and how they are used, over the histories of some users."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uic.models.memory.network import MemoryNetwork
from uic.models.memory.slot_use import SlotUse
from uic.models.rankers.mimn import Mimn
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch


@torch.no_grad()
def slot_use(
    model: Mimn, batches: Iterable[GroupBatch], encoder: Encoder, most_groups: int
) -> SlotUse | None:
    """Fold histories, and look at the slots on the way and at the end.

    Args:
        model: in evaluation mode.
        batches: whose histories are folded.
        encoder: of the model's vocabulary.
        most_groups: the first so many groups are enough for a picture.

    Returns:
        None if there is no event in any of them.
    """
    walks, left = [], most_groups
    for whole in batches:
        if left <= 0:
            break
        raw = whole.select(np.arange(min(left, whole.groups)))
        left -= raw.groups
        batch = encoder.encode(raw)
        x = model.told(batch, model.embedding.rows(batch))
        walks.append(_walk(model.memory, x, batch.history_counts))
    if not walks or not sum(walk.events for walk in walks):
        return None
    ended, channels = (
        torch.cat([getattr(walk, name) for walk in walks]) for name in ("ended", "channels")
    )
    totals = torch.stack([walk.totals for walk in walks]).sum(0)
    values = torch.linalg.svdvals(ended.double())
    parts = (values / values.sum(1, keepdim=True).clamp(min=1e-12)).clamp(min=1e-12)
    unit = torch.nn.functional.normalize(ended.double(), dim=2)
    slots = ended.shape[1]
    pairs = max(slots * (slots - 1), 1)
    cosines = ((unit @ unit.transpose(1, 2)).sum((1, 2)) - slots) / pairs
    return SlotUse(
        effective_rank=float((-(parts * parts.log()).sum(1)).exp().mean()),
        slot_cosine=float(cosines.median()) if slots > 1 else 1.0,
        write_peak=sum(walk.peaks for walk in walks) / sum(walk.events for walk in walks),
        commonest_channel=float((channels.max(1).values / channels.sum(1)).mean()),
        shares=tuple((totals / totals.sum().clamp(min=1e-12)).tolist()),
    )


@dataclass(frozen=True)
class _Walk:
    """A batch's histories, folded.

    Attributes:
        ended: (users, slots, memory width), M after the last event.
        channels: (users, slots), events whose most read slot it was.
        totals: (slots,) float64, sums of the weights written with.
        peaks: sum over events of the largest of them.
        events: folded.
    """

    ended: Tensor
    channels: Tensor
    totals: Tensor
    peaks: float
    events: int


def _walk(memory: MemoryNetwork, x: Tensor, counts: Tensor) -> _Walk:
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[counts[order] > 0]
    firsts = (counts.cumsum(0) - counts)[order]
    longest = int(counts.max()) if len(order) else 0
    steps = torch.arange(longest, device=x.device)
    running = (counts[order].unsqueeze(1) > steps).sum(0).tolist()
    slots, users = memory.config.slots, len(order)
    state = memory.initial(users)
    ended = state.M.clone()
    totals, peaks = torch.zeros(slots, dtype=torch.float64, device=x.device), 0.0
    channels = torch.zeros(users, slots, device=x.device)
    for step, active in enumerate(running):
        before = state.select(slice(0, active))
        events = x[firsts[:active] + step]
        read, written = memory.addressed(before, events, memory.control(before, events))
        state, balanced = memory.step_with_writes(before, events)
        written = written if balanced is None else balanced
        totals += written.double().sum(0)
        peaks += float(written.max(1).values.sum())
        channels[torch.arange(active), read.argmax(1)] += 1
        ended[:active] = state.M
    return _Walk(ended, channels, totals, peaks, len(x))
