"""Compiles every kernel that training, memories and serving use, before anyone waits for it.

    python -m uic.models.training.compile_ahead

A kernel is compiled when it is first called, which takes seconds; the folder that keeps the result
is `uic.models.kernels.compiled.CACHE_FOLDER`. An image that runs this as the user of its processes,
on the CPU that they will have, starts pods that fold their first event at once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.kernels.compiled import CACHE_FOLDER, folded_by
from uic.models.memory.fold import MemoryFolder
from uic.models.memory.network import MemoryNetwork
from uic.models.rankers.catalogue import model_kind
from uic.models.rankers.mimn import Mimn
from uic.models.records.positions import EventBatch
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.samples.vocabulary import IdTable, Vocabulary

# Between them they call every kernel: the fold; pairs, attention and recurrences.
_MODELS = ("mimn", "dien")


@dataclass(frozen=True)
class _MemoryBundle:
    """A bundle that was never trained."""

    memory: MemoryNetwork
    hash8: bytes = b"compiled"
    has_memory: bool = True
    state: None = None

    def embed(self, item_ids: NDArray[np.int64], category_ids: NDArray[np.int64]) -> Tensor:
        """(events, event width), zeros."""
        return torch.zeros(len(item_ids) + 0 * len(category_ids), self.memory.config.event_width)


def compile_kernels() -> None:
    """Call every kernel once, on one user, forward and backward, as training and serving do."""
    ids = IdTable(np.arange(2), 1)
    batch = Encoder(Vocabulary(ids, ids)).encode(_one_group())
    for name in _MODELS:
        kind = model_kind(name)
        with torch.random.fork_rng(devices=[]):
            model = kind.build(kind.settings(), ids.rows, ids.rows)
        _train_and_score(model, batch)
        if isinstance(model, Mimn):
            _fold(model.memory)


def _train_and_score(model: torch.nn.Module, batch: RankerBatch) -> None:
    model.train()
    model(batch).sum().backward()
    with torch.inference_mode():
        model.eval()(batch)


def _fold(memory: MemoryNetwork) -> None:
    folder = MemoryFolder(_MemoryBundle(memory.requires_grad_(requires_grad=False)), generation=1)
    one = np.ones(1, dtype=np.int64)
    folder.fold(
        folder.initial_records(1),
        EventBatch(
            user_index=0 * one,
            item_ids=one,
            category_ids=one,
            behaviors=one.astype(np.int8),
            event_times_ms=one,
            log_times_ms=one,
            epochs=one,
            partitions=one,
            offsets=one,
        ),
    )


def _one_group() -> GroupBatch:
    """A user with a history of two events and two impressions."""
    two, one = np.arange(2), np.ones(1, dtype=np.int64)
    return GroupBatch(
        user_ids=one,
        days=np.array(["2025-01-01"], dtype="datetime64[D]"),
        history_offsets=offsets_of(2 * one),
        history_item_ids=two,
        history_category_ids=two,
        history_behaviors=two.astype(np.int8),
        history_times_ms=two,
        impression_offsets=offsets_of(2 * one),
        item_ids=two,
        category_ids=two,
        event_times_ms=two + 2,
        labels=two == 1,
        history_lengths=two + 1,
    )


if __name__ == "__main__":
    compile_kernels()
    kernels = folded_by()
    where = CACHE_FOLDER or "nowhere: no folder is writable"
    print(f"kernels {kernels['kernels']} for {kernels['cpu']}: {where}")  # noqa: T201 - its output
