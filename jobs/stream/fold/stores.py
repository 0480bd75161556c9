"""What the stream's function needs of the stores that it reads and writes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.markers import Marker
from uic.feature_repo.store.writer import MarkerMove
from uic.models.memory.fold import EventBatch
from uic.models.records.record import Records


class MemoryStore(Protocol):
    """What the function needs of `uic.feature_repo.store.packed.PackedStore`."""

    def read(
        self, generation: int, user_ids: NDArray[np.int64], record_bytes: int | None = None
    ) -> tuple[Records, NDArray[np.bool_]]:
        """Records of users, and which were found."""

    def write(
        self,
        generation: int,
        user_ids: NDArray[np.int64],
        records: Records,
        moves: Sequence[MarkerMove] | None = None,
    ) -> NDArray[np.bool_]:
        """Write records and move markers; which records landed."""

    def markers(self, generation: int, epoch: int) -> dict[int, Marker]:
        """How far each partition is folded."""


class SourceGuard(Protocol):
    """Knows whether the source is still the one that the offsets are of."""

    def ask(self) -> None:
        """Begin to find out."""

    def confirm(self) -> None:
        """Raise a `UicError` if it is not, or if that cannot be told; for what `ask` began."""


class SequenceStore(Protocol):
    """What the function needs of `uic.feature_repo.store.sequence_writer.SequenceWriter`."""

    def append(self, user_ids: NDArray[np.int64], events: EventBatch) -> int:
        """Add events that a sequence has not seen; how many fit into none."""
