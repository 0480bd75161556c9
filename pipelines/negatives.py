"""Items that are drawn as negatives, with the probability of their share of some events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# One who has every second event's item of their own is without a negative once in 2^50.
ROUNDS: Final = 50

Random = Callable[[int, NDArray[np.int64]], NDArray[np.int64]]
"""(round, draws that are open) -> for each a number of 0 to before `ItemPool.events`."""


@dataclass(frozen=True)
class ItemPool:
    """Items, and how many events each has.

    Attributes:
        items: (items,) int64, ascending, without repeats.
        categories: (items,) int64.
        counts: (items,) int64, at least 1 each.
    """

    items: NDArray[np.int64]
    categories: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def events(self) -> int:
        """How many events the items have together."""
        return int(self.counts.sum())

    def outside(
        self,
        owners: NDArray[np.int64],
        owned: tuple[NDArray[np.int64], NDArray[np.int64]],
        random: Random,
    ) -> NDArray[np.int64]:
        """For each draw a row of an item that its owner does not have.

        Args:
            owners: (draws,), at least 0.
            owned: (owner, item) of what must not be drawn, (pairs,) each; items that are not of
                the pool are ignored.
            random: where numbers come from.

        Returns:
            (draws,) rows; -1 where every one of `ROUNDS` was the owner's.
        """
        drawn = np.full(len(owners), -1, np.int64)
        width = len(self.items)
        if not width:
            return drawn
        rows = np.searchsorted(self.items, owned[1]).clip(max=width - 1)
        there = self.items[rows] == owned[1]
        own = np.unique(owned[0][there] * width + rows[there])  # a pair as one number
        cumulative = np.cumsum(self.counts)
        for attempt in range(ROUNDS):
            still = np.flatnonzero(drawn < 0)
            if not still.size:
                break
            items = np.searchsorted(cumulative, random(attempt, still), side="right")
            pairs = owners[still] * width + items
            at = np.searchsorted(own, pairs).clip(max=max(len(own) - 1, 0))
            free = own[at] != pairs if len(own) else np.ones(len(pairs), np.bool_)
            drawn[still[free]] = items[free]
        return drawn
