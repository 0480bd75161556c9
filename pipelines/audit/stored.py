"""What the store has: which sampled users, and their memories as they are served."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.errors import typed_errors
from uic.feature_repo.store.layout import ids_of_keys
from uic.feature_repo.store.opened import OpenedStore
from uic.models.records.record import Records
from uic.pipelines.audit.sampled import UserSample

_SCAN_KEYS: Final = 5000


class FeastReader(Protocol):
    """Reads memories through Feast's API."""

    def read(
        self, user_ids: NDArray[np.int64], record_bytes: int
    ) -> tuple[Records, NDArray[np.bool_]]:
        """As `PackedStore.read`, of the live generation."""
        ...


def stored_users(
    store: OpenedStore, generation: int, sample: UserSample
) -> tuple[NDArray[np.int64], UserSample]:
    """Sampled users who have a memory, by one scan; (users,), ascending.

    If the sample takes none of them, it is made to take one, and is returned so.
    """
    pattern = store.memories.keys.prefix(generation) + b"*"
    parts = [np.zeros(0, dtype=np.int64)]
    lowest = np.zeros(0, dtype=np.int64)
    with typed_errors(str(store.address)):
        cursor = 0
        while True:
            cursor, keys = store.memories.client.scan(cursor, match=pattern, count=_SCAN_KEYS)
            ids = ids_of_keys(keys)
            parts.append(ids[sample.takes(ids)])
            lowest = np.concatenate([lowest, ids])
            lowest = lowest if not len(lowest) else np.array([sample.lowest(lowest)])
            if cursor == 0:
                break
    stored = np.unique(np.concatenate(parts))
    if len(stored) or not len(lowest):
        return stored, sample
    return lowest, UserSample(sample.rate, int(lowest[0]))


@dataclass
class StoredMemories:
    """Reads served memories: the first ones through Feast, the others below it."""

    store: OpenedStore
    generation: int
    record_bytes: int
    feast: FeastReader | None
    through_feast_left: int
    through_feast: int = 0

    def read(self, users: NDArray[np.int64]) -> tuple[Records, NDArray[np.bool_]]:
        """(users, record_bytes) and (users,): found."""
        share = min(len(users), self.through_feast_left) if self.feast else 0
        below, found_below = self.store.memories.read(
            self.generation, users[share:], self.record_bytes
        )
        if self.feast is None or not share:
            return below, found_below
        through, found = self.feast.read(users[:share], self.record_bytes)
        self.through_feast_left -= share
        self.through_feast += share
        return np.concatenate([through, below]), np.concatenate([found, found_below])
