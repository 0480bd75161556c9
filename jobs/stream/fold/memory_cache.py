"""A worker's bounded cache of memories: what it has just written it need not read again.

Records live in one array, so that a batch goes in and out by fancy indexing. When the cache is
full, the quarter that was not used for longest leaves at once: one partial sort for many
evictions, instead of a linked list that Python would walk user by user.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.records.record import Records

_FIRST_ROWS: Final = 1024


class MemoryCache:
    """The most recently used memories.

    Args:
        capacity: users, at most; 0 keeps nothing.
        record_bytes: width of a record.
    """

    def __init__(self, capacity: int, record_bytes: int) -> None:
        self._capacity = capacity
        rows = min(capacity, _FIRST_ROWS)
        self._records: Records = np.empty((rows, record_bytes), dtype=np.uint8)
        self._users: NDArray[np.int64] = np.empty(rows, dtype=np.int64)
        self._used: NDArray[np.int64] = np.empty(rows, dtype=np.int64)
        self._row_of: dict[int, int] = {}
        self._free: list[int] = list(range(rows))
        self._tick = 0

    def __len__(self) -> int:
        """Users held."""
        return len(self._row_of)

    def get(self, user_ids: NDArray[np.int64], records: Records) -> NDArray[np.bool_]:
        """Copy what is cached into the rows of `records`.

        Args:
            user_ids: (users,).
            records: (users, record_bytes), written where the user is cached.

        Returns:
            (users,): whether each was cached.
        """
        row_of = self._row_of
        rows = np.array([row_of.get(user, -1) for user in user_ids.tolist()], dtype=np.int64)
        known = rows >= 0
        records[known] = self._records[rows[known]]
        self._tick += 1
        self._used[rows[known]] = self._tick
        return known

    def put(self, user_ids: NDArray[np.int64], records: Records) -> None:
        """Keep the records of distinct users, in place of older ones."""
        if not self._capacity:
            return
        user_ids, records = user_ids[-self._capacity :], records[-self._capacity :]
        users = user_ids.tolist()
        new = sum(user not in self._row_of for user in users)
        self._tick += 1
        self._make_room(new, keep=users)
        rows = np.array([self._row(user) for user in users], dtype=np.int64)
        self._records[rows] = records
        self._users[rows] = user_ids
        self._used[rows] = self._tick

    def drop(self, user_ids: NDArray[np.int64]) -> None:
        """Forget these users."""
        for user in user_ids.tolist():
            row = self._row_of.pop(user, None)
            if row is not None:
                self._free.append(row)

    def clear(self) -> None:
        """Forget everyone."""
        self._row_of.clear()
        self._free = list(range(len(self._users)))

    def _row(self, user: int) -> int:
        row = self._row_of.get(user)
        if row is None:
            row = self._row_of[user] = self._free.pop()
        return row

    def _make_room(self, new: int, keep: list[int]) -> None:
        while len(self._free) < new and len(self._users) < self._capacity:
            self._grow()
        missing = new - len(self._free)
        if missing <= 0:
            return
        held = np.fromiter(self._row_of.values(), dtype=np.int64, count=len(self._row_of))
        # Those of this batch are written next, so they stay.
        staying = [self._row_of[user] for user in keep if user in self._row_of]
        self._used[staying] = self._tick
        leaving = min(len(held) - len(staying), max(missing, len(held) // 4))
        oldest = held[np.argpartition(self._used[held], leaving - 1)[:leaving]]
        self.drop(self._users[oldest])

    def _grow(self) -> None:
        rows = len(self._users)
        more = min(rows, self._capacity - rows)
        self._records = np.concatenate([self._records, np.empty_like(self._records[:more])])
        self._users = np.concatenate([self._users, np.empty_like(self._users[:more])])
        self._used = np.concatenate([self._used, np.empty_like(self._used[:more])])
        self._free.extend(range(rows, rows + more))
