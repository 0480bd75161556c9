"""Which bundle reads which memory, and the one forward pass over all candidates.

A record carries the hash of the bundle that folded it. The current bundle reads it if it is its
own, or if its manifest says that it was trained on from that bundle (`readout_compatible_with`);
otherwise a loaded bundle of exactly that hash reads it; otherwise the user is scored with the
initial memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from uic.jobs.serving.score.asks import (
    Ask,
    RecordFacts,
    Scored,
    by_task,
    candidates_of,
    header_facts,
    part_of_tasks,
    rows_by_ask,
)
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.items import FoundItems, ItemCache
from uic.jobs.serving.score.state import RecordFeatures
from uic.models.bundles.bundle import Bundle
from uic.models.memory.fold import MemoryFolder
from uic.models.memory.state import MemoryState, StateLayout
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import BUNDLE_HASH, Records, record_bytes

_STATE_PARTS: Final = ("M", "S", "h", "r", "g", "pool")


class MemoryScorer:
    """A bundle that is loaded, with its item cache: memories and candidates to logits.

    Args:
        bundle: with a memory.
        items: cache of its vectors.
    """

    item_version: Final = None  # memories are scored without images

    def __init__(self, bundle: Bundle, items: ItemCache) -> None:
        model = bundle.model
        if not isinstance(model, Mimn):  # `Bundle.memory` says it in words
            raise TypeError(bundle.memory)
        self.bundle, self.items, self.table = bundle, items, items.table
        self.features = items.features or ServedFeatures(bundle, items.table.features)
        self.label = f"{bundle.name}/{bundle.version}"
        self._model = model
        self._layout: StateLayout = bundle.memory.layout
        self._parts = RecordFeatures(bundle, items.table)
        self.record_bytes = record_bytes(self._layout.floats, self._parts.bytes)
        self._new = MemoryFolder(bundle, 0).initial_records(1)

    def understands(self, record: bytes) -> bool:
        """Whether the record is as wide as this model's; its hash is the caller's business."""
        return len(record) == self.record_bytes

    def state_of(self, records: Records) -> MemoryState:
        """The states of records, float32."""
        return MemoryState.unpack(records, self._layout)

    def cache_counts(self) -> tuple[int, int]:
        """Candidates that the cache had, and that it lacked, since it was made."""
        return self.items.rows.hits, self.items.rows.misses

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `answer_now`: nothing is read from the store."""
        return self.answer_now(asks)

    def answer_now(self, asks: Sequence[Ask]) -> list[Scored]:
        """Scores from the vectors of the item cache."""
        return self.score(asks, self.items.lookup(candidates_of(asks)))

    @torch.inference_mode()
    def score(self, asks: Sequence[Ask], items: FoundItems) -> list[Scored]:
        """One forward pass over the candidates of some users.

        Args:
            asks: users with their memories.
            items: all their candidates.
        """
        candidates, known = items.vectors, items.known
        records = self._records(asks)
        of_parts = self._parts.of(asks, records, items.categories)
        features = self.features.of(asks, items.features, items.lacking, of_parts)
        beside = features.embedded
        owners = torch.repeat_interleave(torch.tensor([len(ask.item_ids) for ask in asks]))
        state = self.state_of(records)
        all_logits = self._model.readout_all(state, owners, candidates, beside).numpy()
        logits, tasks = by_task(all_logits, self._model.tasks)
        without, weights = None, None
        if any(ask.explain for ask in asks):
            new = self.state_of(self._new)
            new_user = torch.zeros_like(owners)
            without = self._model.readout(new, new_user, candidates, beside).numpy()
            weights = self._slot_weights(state, owners, candidates).numpy()
        return [
            Scored(
                logits[rows],
                known[rows],
                self.label,
                without[rows] if without is not None and ask.explain else None,
                weights[rows] if weights is not None and ask.explain else None,
                reasons=tuple(features.faults[at].reasons()),
                faults=features.faults[at],
                features=features.values(at, ask),
                tasks=part_of_tasks(tasks, rows),
                record=ask.record,
            )
            for at, (ask, rows) in enumerate(zip(asks, rows_by_ask(asks), strict=True))
        ]

    def _records(self, asks: Sequence[Ask]) -> Records:
        new = self._new.tobytes()
        joined = bytearray().join(ask.record or new for ask in asks)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(asks), self.record_bytes)

    def _slot_weights(self, state: MemoryState, owners: Tensor, candidates: Tensor) -> Tensor:
        """How the content read of M divides its attention: (n, slots)."""
        return self._model.reading.slot_weights(state.M.index_select(0, owners), candidates)


@dataclass(frozen=True)
class MemoryScorers:
    """The current bundle's scorer and those of other generations' bundles; never changed.

    Args:
        current: reads its own memories, those it is compatible with, and users without any.
        by_hash: further bundles, by their hash.
    """

    current: MemoryScorer
    by_hash: Mapping[bytes, MemoryScorer] = field(default_factory=dict)

    @property
    def bundle(self) -> Bundle:
        """The current bundle."""
        return self.current.bundle

    @property
    def label(self) -> str:
        """`model/version` of the current bundle."""
        return self.current.label

    @property
    def others(self) -> list[MemoryScorer]:
        """Scorers of other bundles' memories."""
        return list(self.by_hash.values())

    def choose(self, record: bytes) -> MemoryScorer | None:
        """The scorer for a record, by the bundle hash in its header; None if no bundle reads it."""
        hash8 = record[BUNDLE_HASH]
        if hash8 in self.bundle.readout_compatible_with and self.current.understands(record):
            return self.current
        other = self.by_hash.get(hash8)
        return other if other is not None and other.understands(record) else None

    def facts(self, record: bytes) -> RecordFacts:
        """What the record's header says."""
        return header_facts(record)

    @property
    def reads_parts(self) -> bool:
        """No: see `beside`."""
        return False

    def beside(self, record: bytes | None) -> tuple[None, None]:  # noqa: ARG002 - as `SequenceScorer`
        """Nothing: a memory's record has the exact parts itself."""
        return None, None

    def state_numbers(self, record: bytes) -> dict[str, list[float]] | None:
        """Parts of a record's state by name, as nested lists; None if no bundle here reads it."""
        scorer = self.choose(record)
        if scorer is None:
            return None
        state = scorer.state_of(np.frombuffer(record, dtype=np.uint8).reshape(1, -1).copy())
        parts = {name: getattr(state, name) for name in _STATE_PARTS}
        return {name: part[0].tolist() for name, part in parts.items() if part is not None}
