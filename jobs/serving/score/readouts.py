"""Which bundle reads which memory, and the one forward pass over all candidates.

A record carries the hash of the bundle that folded it. The current bundle reads it if it is its
own, or if its manifest says that it was trained on from that bundle (`readout_compatible_with`);
else a loaded bundle of exactly that hash reads it; otherwise the user is scored with the initial
memory.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.score.items import ItemCache
from uic.models.bundles.bundle import Bundle
from uic.models.memory.network import address
from uic.models.memory.state import MemoryState, StateLayout
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import BUNDLE_HASH, HEADER, Records, empty_records, record_bytes


@dataclass(frozen=True)
class Ask:
    """One user's candidates and memory, ready to be scored.

    Args:
        item_ids: distinct candidates.
        record: the user's memory, None for the memory of somebody new.
        explain: whether reasons for each score are asked for.
        moment_ms: when they are shown, milliseconds since 1970 UTC; default: now. A model that
            reads a history with its times (IMN, SIM) measures from here.
        user_id: of the user, for a model that has weights for users (LMN).
    """

    item_ids: list[int]
    record: bytes | None = None
    explain: bool = False
    moment_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    user_id: int = 0


@dataclass(frozen=True)
class Scored:
    """Logits of one user's candidates.

    Args:
        logits: (candidates,), float32.
        known: (candidates,), bool: in the item table.
        bundle: `model/version` that scored them.
        without_memory: (candidates,), the logits of somebody new; None unless asked for.
        slot_weights: (candidates, slots), how much each slot of M was read; None unless asked for.
        reasons: why these scores are not what they could be.
        without_image: candidates and events that were scored with the default image; count.
    """

    logits: NDArray[np.float32]
    known: NDArray[np.bool_]
    bundle: str
    without_memory: NDArray[np.float32] | None = None
    slot_weights: NDArray[np.float32] | None = None
    reasons: tuple[Reason, ...] = ()
    without_image: int = 0


class Readout:
    """A bundle that is loaded, with its item cache: memories and candidates to logits.

    Args:
        bundle: with a memory.
        items: cache of its vectors.
    """

    def __init__(self, bundle: Bundle, items: ItemCache) -> None:
        model = bundle.model
        if not isinstance(model, Mimn):  # `Bundle.memory` says it in words
            raise TypeError(bundle.memory)
        self.bundle = bundle
        self.items = items
        self.label = f"{bundle.name}/{bundle.version}"
        self._model = model
        self._layout: StateLayout = bundle.memory.layout
        self.record_bytes = record_bytes(self._layout.floats)
        self._new = empty_records(1, self._layout.floats)
        with torch.no_grad():
            bundle.memory.initial(1).pack(self._new)

    def understands(self, record: bytes) -> bool:
        """Whether the record is as wide as this model's; its hash is the caller's business."""
        return len(record) == self.record_bytes

    def with_items(self, items: ItemCache) -> "Readout":
        """The same bundle with another item cache."""
        return Readout(self.bundle, items)

    def state_of(self, records: Records) -> MemoryState:
        """The states of records, float32."""
        return MemoryState.unpack(records, self._layout)

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `score`: everything is in memory."""
        return self.score(asks)

    @torch.inference_mode()
    def score(self, asks: Sequence[Ask]) -> list[Scored]:
        """One forward pass over the candidates of some users."""
        sizes = [len(ask.item_ids) for ask in asks]
        candidates, known = self.items.lookup([item for ask in asks for item in ask.item_ids])
        owners = torch.repeat_interleave(torch.tensor(sizes))
        state = self.state_of(self._records(asks))
        logits = self._model.readout(state, owners, candidates).numpy()
        new, weights = None, None
        if any(ask.explain for ask in asks):
            new = self._model.readout(
                self.state_of(self._new), torch.zeros_like(owners), candidates
            ).numpy()
            weights = self._slot_weights(state, owners, candidates).numpy()
        ends = np.cumsum(sizes)
        answers = []
        for ask, first, last in zip(asks, ends - sizes, ends, strict=True):
            rows = slice(first, last)
            answers.append(
                Scored(
                    logits[rows],
                    known[rows],
                    self.label,
                    new[rows] if new is not None and ask.explain else None,
                    weights[rows] if weights is not None and ask.explain else None,
                )
            )
        return answers

    def _records(self, asks: Sequence[Ask]) -> Records:
        new = self._new.tobytes()
        joined = bytearray().join(ask.record or new for ask in asks)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(asks), self.record_bytes)

    def _slot_weights(self, state: MemoryState, owners: Tensor, candidates: Tensor) -> Tensor:
        """How the content read of M divides its attention: (n, slots)."""
        reading = self._model.reading
        asked = reading.query(candidates)
        strength = 1 + torch.nn.functional.softplus(asked[:, -1])
        slots = state.M.index_select(0, owners)
        return address(asked[:, :-1].tanh(), strength, slots, reading.epsilon)


@dataclass(frozen=True)
class Readouts:
    """The current bundle's readout and those of other generations' bundles; never changed.

    Args:
        current: reads its own memories, those it is compatible with, and users without any.
        by_hash: further bundles, by their hash.
    """

    current: Readout
    by_hash: Mapping[bytes, Readout] = field(default_factory=dict)

    def choose(self, record: bytes) -> Readout | None:
        """The readout for a record, by the bundle hash in its header; None if nobody can."""
        named = record[BUNDLE_HASH]
        bundle = self.current.bundle
        if named in bundle.readout_compatible_with and self.current.understands(record):
            return self.current
        found = self.by_hash.get(named)
        return found if found is not None and found.understands(record) else None

    def facts(self, record: bytes) -> "RecordFacts":
        """What the record's header says."""
        return RecordFacts.of(record)

    def all(self) -> list[Readout]:
        """Every readout, the current one first."""
        return [self.current, *self.by_hash.values()]


@dataclass(frozen=True)
class RecordFacts:
    """What an answer says of the memory that it was scored with."""

    generation: int
    events: int
    last_event_time_ms: int
    bundle: str
    epoch: int
    partition: int
    offset: int

    @classmethod
    def of(cls, record: bytes) -> "RecordFacts":
        """From a record's header."""
        header = np.frombuffer(record, dtype=HEADER, count=1)[0]
        return cls(
            generation=int(header["generation"]),
            events=int(header["events"]),
            last_event_time_ms=int(header["last_event_time_ms"]),
            bundle=bytes(header["bundle"]).hex(),
            epoch=int(header["epoch"]),
            partition=int(header["partition"]),
            offset=int(header["offset"]),
        )
