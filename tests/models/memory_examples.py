"""Small networks, bundles and event batches that the tests of the memory share."""

import numpy as np
import torch

from uic.models.memory.fold import EventBatch
from uic.models.memory.network import MemoryConfig, MemoryNetwork


def network(seed=0, **settings):
    """A network whose weights are large enough that every part matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        memory = MemoryNetwork(MemoryConfig(**settings))
        with torch.no_grad():
            for name, weight in memory.named_parameters():
                if name not in {"initial_memory", "balance.weight"}:
                    weight.mul_(3)
    return memory


class TableBundle:
    """An embedding table and a memory network: what a fold needs of a bundle."""

    hash8 = bytes.fromhex("0123456789abcdef")
    has_memory = True
    state = None

    def __init__(self, memory, items=100):
        self.memory = memory
        random = np.random.default_rng(1)
        table = random.normal(0, 0.5, (items, memory.config.event_width))
        self.table = torch.from_numpy(table.astype(np.float32))

    def embed(self, item_ids, category_ids):
        return self.table[torch.from_numpy((item_ids + category_ids) % len(self.table))]


def events(users, items, offsets, partitions=0, epochs=1):
    """A batch of clicks; what is one number is the same for all of them."""
    users = np.asarray(users, dtype=np.int64)
    column = np.zeros_like(users)
    offsets = np.asarray(offsets) + column
    return EventBatch(
        user_index=users,
        item_ids=np.asarray(items) + column,
        category_ids=column,
        behaviors=column.astype(np.int8),
        event_times_ms=1_700_000_000_000 + offsets,
        log_times_ms=1_700_000_000_000 + offsets,
        epochs=np.asarray(epochs) + column,
        partitions=np.asarray(partitions) + column,
        offsets=offsets,
    )
