"""When something was last done, by key: over days (`LastTimes`) and within one (`Moments`)."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from uic.pipelines.simulator.world import Ints

# Before any time: an age from here is longer than any memory.
NEVER_MS: Final = -(1 << 50)


@dataclass(frozen=True)
class LastTimes:
    """The last time of each key, and the item then.

    Args:
        keys: (K,), int64, ascending and all different.
        times_ms, rows: (K,), int64.
    """

    keys: Ints
    times_ms: Ints
    rows: Ints

    @classmethod
    def none(cls) -> "LastTimes":
        """Nothing was done yet."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty)

    def followed(self, keys: Ints, times_ms: Ints, rows: Ints, since_ms: int) -> "LastTimes":
        """With what came later, in any order; what is older than `since_ms` is forgotten."""
        new = np.lexsort((rows, times_ms, keys))
        keys = np.concatenate([self.keys, keys[new]])
        times_ms = np.concatenate([self.times_ms, times_ms[new]])
        rows = np.concatenate([self.rows, rows[new]])
        # Two runs in order: a stable sort only merges them, the later of equal keys behind.
        order = np.argsort(keys, kind="stable")
        keys, times_ms, rows = keys[order], times_ms[order], rows[order]
        last = np.append(keys[1:] != keys[:-1], np.ones(min(len(keys), 1), dtype=np.bool_))
        kept = last & (times_ms >= since_ms)
        return LastTimes(keys[kept], times_ms[kept], rows[kept])

    def at(self, keys: Ints) -> tuple[Ints, Ints]:
        """Time and row of each key, each of the shape of `keys`; `NEVER_MS` and -1 if unknown."""
        if not len(self.keys):
            return np.full(keys.shape, NEVER_MS), np.full(keys.shape, -1)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[at] == keys
        return np.where(known, self.times_ms[at], NEVER_MS), np.where(known, self.rows[at], -1)

    def spans(self, first_keys: Ints, width: int) -> tuple[Ints, Ints]:
        """Where the keys from each of `first_keys` on begin and how many there are in `width`."""
        begin = np.searchsorted(self.keys, first_keys)
        return begin, np.searchsorted(self.keys, first_keys + width) - begin


@dataclass(frozen=True)
class Moments:
    """All that was done on one day, by key and time.

    Args:
        before: what was known when the day began.
        keys, times_ms, rows: (acts,), int64, sorted by key, then time.
        names: (names,), int64, the keys, ascending and all different.
        places: (acts,), int64, ascending: (number of the key in `names`, time in the day) as one.
        start_ms: when the day begins.
    """

    before: LastTimes
    keys: Ints
    times_ms: Ints
    rows: Ints
    names: Ints
    places: Ints
    start_ms: int

    @classmethod
    def of(
        cls, before: LastTimes, keys: Ints, times_ms: Ints, rows: Ints, start_ms: int
    ) -> "Moments":
        """Sort the acts of a day."""
        order = np.lexsort((rows, times_ms, keys))
        keys, times_ms, rows = keys[order], times_ms[order], rows[order]
        first = np.append(np.ones(min(len(keys), 1), dtype=np.bool_), keys[1:] != keys[:-1])
        places = _place(np.cumsum(first) - 1, times_ms, start_ms)
        return cls(before, keys, times_ms, rows, keys[first], places, start_ms)

    def last_before(self, keys: Ints, times_ms: Ints) -> tuple[Ints, Ints]:
        """Time and row of the last act of each key strictly before a time of the day.

        Args:
            keys: (questions,).
            times_ms: (questions,), of the day.

        Returns:
            Both (questions,), int64; `NEVER_MS` and -1 where there is none.
        """
        times, rows = self.before.at(keys)
        if not len(self.keys):
            return times, rows
        numbers = np.minimum(np.searchsorted(self.names, keys), len(self.names) - 1)
        # The last place below (key, time): of that key if there is one today.
        at = np.searchsorted(self.places, _place(numbers, times_ms, self.start_ms)) - 1
        found = (at >= 0) & (self.keys[at] == keys)
        return np.where(found, self.times_ms[at], times), np.where(found, self.rows[at], rows)


def _place(numbers: Ints, times_ms: Ints, start_ms: int) -> Ints:
    # A day has less than 2^27 ms, also with an hour more.
    places: Ints = (numbers << 27) + (times_ms - start_ms)
    return places
