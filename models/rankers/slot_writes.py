"""How evenly a memory's slots are written to (MIMN, figure 6; section 4.2)."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from uic.models.memory.network import MemoryNetwork, MemoryState, address
from uic.models.rankers.mimn import Mimn
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch


@torch.no_grad()
def slot_shares(
    model: Mimn, batches: Iterable[GroupBatch], encoder: Encoder, most_groups: int
) -> NDArray[np.float64]:
    """Share of all writes that each slot received: (slots,), sums to 1.

    Args:
        model: in evaluation mode.
        batches: whose histories are folded.
        encoder: of the model's vocabulary.
        most_groups: the first so many groups are enough for a picture.
    """
    totals = np.zeros(model.memory.config.slots)
    left = most_groups
    for whole in batches:
        if left <= 0:
            break
        raw = whole.select(np.arange(min(left, whole.groups)))
        left -= raw.groups
        batch = encoder.encode(raw)
        x = model.embedding.rows(batch).history(batch)
        totals += _writes(model.memory, x, batch.history_counts)
    shares: NDArray[np.float64] = totals / max(float(totals.sum()), 1e-12)
    return shares


def _writes(memory: MemoryNetwork, x: Tensor, counts: Tensor) -> NDArray[np.float64]:
    """Sum of the write weights of each slot over all events: (slots,)."""
    order = torch.argsort(counts, descending=True, stable=True)
    firsts = (counts.cumsum(0) - counts)[order]
    running = (counts.unsqueeze(1) > torch.arange(int(counts.max()))).sum(0).tolist()
    state = memory.initial(counts.shape[0])
    totals = torch.zeros(memory.config.slots, dtype=torch.float64)
    for step, active in enumerate(running):
        before = state.select(slice(0, active))
        events = x[firsts[:active] + step]
        state, balanced = memory.step_with_writes(before, events)
        weights = raw_write_weights(memory, before, events) if balanced is None else balanced
        totals += weights.double().sum(0)
    result: NDArray[np.float64] = totals.numpy()
    return result


def raw_write_weights(memory: MemoryNetwork, state: MemoryState, x: Tensor) -> Tensor:
    """The write weights of a memory without re-balancing, steps 1 to 3: (users, slots).

    Args:
        memory: the network.
        state: before the event.
        x: (users, event width).
    """
    config, width = memory.config, memory.config.memory_width
    h = memory.controller(torch.cat([x, state.r], dim=1), state.h)
    heads = memory.heads(h).clamp(-config.clip, config.clip)
    key = heads[:, width : 2 * width].tanh()
    strength = torch.ones_like(heads[:, 0])
    if config.sharpening:
        strength = 1 + functional.softplus(heads[:, 4 * width + 1])
    return address(key, strength, state.M, config.cosine_epsilon)
