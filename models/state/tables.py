"""The table that `counts` and `rates` keep: entries by key, in a record's bytes.

The layout of a state, each field at a multiple of its size (`uic.models.kernels.tallies`):

| field | bytes |
|---|---|
| head: clock in units, evictions, events, used entries | 4 x 4 |
| fingerprints of keys | size x 2, 4 or 8 |
| counts | size x 1, 2 or 4 |
| values: decayed, one after the other | values x size x 2 or 4 |
| ages before the clock, in units | size x 2 |
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.models.kernels import tallies
from uic.models.records.positions import EventBatch
from uic.models.state.part import (
    MOST_CLOCK,
    Asked,
    Cuts,
    Features,
    StatePart,
    States,
    fields_of,
    laid_out,
)

_SEED: Final = 11
_PRINTS: Final[dict[int, Any]] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_COUNTS: Final[dict[int, Any]] = {8: np.uint8, 16: np.uint16, 32: np.uint32}
WHOLE_USER: Final = "user"


@dataclass(frozen=True)
class TallyTable:
    """Where a table lies, and how events and questions reach it.

    Attributes:
        by: `item`, `category`, `user` (one entry), or a further column of events.
        size: entries.
        fingerprint_bits: 16, 32, or 64 for the id itself.
        count_bits: 8, 16 or 32.
        half_lives_ms: of the values; 0 for ever.
        value_bytes: 2 for a code, 4 for a float32.
        resolution_ms: a unit of time.
        adds: (kinds of event, values): what an event of each kind adds.
        kinds: (behaviours,): the kind of each behaviour's events; below 0 is none.
    """

    by: str
    size: int
    fingerprint_bits: int
    count_bits: int
    half_lives_ms: tuple[int, ...]
    value_bytes: int
    resolution_ms: int
    adds: tuple[tuple[float, ...], ...]
    kinds: tuple[int, ...]

    @cached_property
    def _placed(self) -> tuple[dict[str, tuple[int, Any, int]], int]:
        value = np.uint16 if self.value_bytes == 2 else np.float32
        return laid_out(
            [
                ("head", np.uint32, 4),
                ("prints", _PRINTS[self.fingerprint_bits], self.size),
                ("counts", _COUNTS[self.count_bits], self.size),
                ("values", value, self.size * len(self.half_lives_ms)),
                ("ages", np.uint16, self.size),
            ]
        )

    @property
    def bytes(self) -> int:
        """Of a state."""
        return self._placed[1]

    @property
    def columns(self) -> int:
        """Of a read: count, values, age in units, distinct keys, evictions."""
        return 4 + len(self.half_lives_ms)

    @property
    def further(self) -> frozenset[str]:
        """The further column of events that the key is."""
        known = {"item", "category", WHOLE_USER}
        return frozenset() if self.by in known else frozenset({self.by})

    def _tables(self, states: States) -> tuple[NDArray[Any], ...]:
        fields = fields_of(states, self._placed[0])
        return tuple(fields[name] for name in ("head", "prints", "ages", "counts", "values"))

    def fingerprints(self, keys: NDArray[np.int64]) -> NDArray[Any]:
        """Of keys: (n,), unsigned, as entries hold them."""
        if self.fingerprint_bits == 64:
            return keys.astype(np.uint64)
        shift = np.uint64(64 - self.fingerprint_bits)
        return (stable_hash(keys, seed=_SEED) >> shift).astype(_PRINTS[self.fingerprint_bits])

    def _keys(self, of: EventBatch | Asked) -> NDArray[np.int64]:
        """The key of each row; of a column that a question lacks, one that is nowhere."""
        if self.by == "item":
            return of.item_ids
        if self.by == "category":
            return of.category_ids
        if self.by == WHOLE_USER:
            return np.zeros(len(of), np.int64)
        if self.by in of.columns:
            return of.columns[self.by]
        return np.full(len(of), np.iinfo(np.int64).min)

    def _units(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        # Twice as fast as `np.clip` for the rows of a request.
        return np.minimum(np.maximum(times_ms // self.resolution_ms, 0), MOST_CLOCK)

    @cached_property
    def _half_lives(self) -> NDArray[np.float64]:
        return np.array(self.half_lives_ms, np.float64) / self.resolution_ms

    @cached_property
    def _adds(self) -> NDArray[np.float64]:
        return np.array(self.adds, np.float64).reshape(len(self.adds), len(self.half_lives_ms))

    def _events(self, events: EventBatch) -> tuple[NDArray[Any], ...]:
        keys = self._keys(events)
        kinds = np.array(self.kinds, np.int64)[events.behaviors]
        if self.further:  # an event without a key is none of this table's
            kinds = np.where(keys == np.iinfo(np.int64).min, -1, kinds)
        units = self._units(events.log_times_ms)
        return events.user_index, self.fingerprints(keys), units, kinds

    @property
    def _most_count(self) -> int:
        return (1 << self.count_bits) - 1

    def fold(self, states: States, events: EventBatch) -> None:
        """As `StatePart.fold`."""
        users, prints, units, kinds = self._events(events)
        tallies.fold(
            self._tables(states),
            users,
            prints,
            units,
            self._adds,
            kinds,
            self._half_lives,
            self._most_count,
        )

    def read(self, states: States, asked: Asked) -> Features:
        """(rows, columns): see `columns`."""
        out = np.empty((len(asked), self.columns), np.float32)
        prints, units = self.fingerprints(self._keys(asked)), self._units(asked.now_ms)
        tallies.read(self._tables(states), asked.owners, prints, units, self._half_lives, out)
        return self._said(out, asked)

    def walk(self, states: States, events: EventBatch, asked: Asked, cuts: Cuts) -> Features:
        """As `StatePart.walk`, with the columns of `read`."""
        out = np.empty((len(asked), self.columns), np.float32)
        wanted = (
            asked.owners,
            self.fingerprints(self._keys(asked)),
            self._units(asked.now_ms),
            cuts.begins,
            cuts.ends,
        )
        tallies.walk(
            self._tables(states),
            self._events(events),
            self._adds,
            self._half_lives,
            self._most_count,
            wanted,
            out,
        )
        return self._said(out, asked)

    def _said(self, out: Features, asked: Asked) -> Features:
        """Ages in hours; of a candidate whose key is not known nothing is said: NaN, not 0."""
        age = 1 + len(self.half_lives_ms)
        out[:, age] *= self.resolution_ms / 3_600_000
        if self.further:
            unknown = self._keys(asked) == np.iinfo(np.int64).min
            out[unknown, : age + 1] = np.nan
        return out

    def entries(self, states: States) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """What tables hold: fingerprints and counts, (users, size), and how many, (users,)."""
        head, prints, _, counts, _ = self._tables(states)
        return prints, counts, head[:, 3].astype(np.int64)

    def facts(self) -> dict[str, str]:
        """What a reader of the file wants to know."""
        said = {"entries": f"{self.size}"}
        if self.fingerprint_bits < 64:
            chance = 1 - (1 - 2.0**-self.fingerprint_bits) ** self.size
            said["false match of a full table"] = f"{chance:.2%}"
        said["largest error of a time"] = f"{self.resolution_ms / 3_600_000:g} h"
        return said


class TablePart(StatePart):
    """A part that is one table."""

    @property
    @abstractmethod
    def table(self) -> TallyTable:
        """Where it lies, and what an event adds."""

    def told(self, read: Features) -> Features:
        """The part's features of the columns of a read: (rows, columns) to (rows, features)."""
        return read

    @property
    def bytes(self) -> int:
        """Of a state."""
        return self.table.bytes

    @property
    def reads(self) -> frozenset[str]:
        """The further column that is the key."""
        return self.table.further

    @property
    def reads_ids(self) -> bool:
        """A key is a category."""
        return True

    @property
    def facts(self) -> dict[str, str]:
        """Entries, false matches, error of times."""
        return self.table.facts()

    def fold(self, states: States, events: EventBatch) -> None:
        """See `StatePart.fold`."""
        self.table.fold(states, events)

    def features(self, states: States, asked: Asked) -> Features:
        """See `StatePart.features`."""
        return self.told(self.table.read(states, asked))

    def walk(self, states: States, events: EventBatch, asked: Asked, cuts: Cuts) -> Features:
        """See `StatePart.walk`."""
        return self.told(self.table.walk(states, events, asked, cuts))


def kinds_of(behaviors: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """The kind of each behaviour: the first of `wanted` that has it, -1 for none."""
    return tuple(
        next((kind for kind, names in enumerate(wanted) if behavior in names), -1)
        for behavior in behaviors
    )
