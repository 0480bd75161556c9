"""Photographs of simulated items: what an item looks like, and which items are new on a day.

An item shows one photograph of some class (hat, shirt, …), whatever its category is; users have a
taste for classes (`UserBlock.class_taste`), which shows in what they click. A share of the items
appears only on a later day, each with a photograph that was never shown before that day: their ids
say nothing yet, their images do.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Photographs that items of the first day show; the others are introduced day by day.
_FIRST_DAY_SHARE: Final = 0.5


@dataclass(frozen=True)
class Gallery:
    """Which photograph each item shows, and since when.

    Args:
        photograph_of_row: (items,), int64: index into all photographs, class after class.
        class_of_row: (items,), int64.
        launch_day_of_row: (items,), int64: day index on which the item appears.
        launch_order: (items,), int64: rows by launch day.
        launch_starts: (days + 1,), int64: where each day begins in `launch_order`.
    """

    photograph_of_row: Ints
    class_of_row: Ints
    launch_day_of_row: Ints
    launch_order: Ints
    launch_starts: Ints

    @classmethod
    def draw(
        cls,
        stream: np.random.Generator,
        photographs: tuple[int, ...],
        days: int,
        new_items: Ints,
        items: int,
    ) -> "Gallery":
        """Give every item a photograph.

        Args:
            stream: of random numbers.
            photographs: of each class; counts.
            days: of the simulation.
            new_items: rows that appear on a day after the first.
            items: how many there are.
        """
        launch = np.zeros(items, dtype=np.int64)
        launch[new_items] = stream.integers(1, days, size=len(new_items))
        classes = np.repeat(np.arange(len(photographs)), photographs)
        introduced = _introductions(stream, len(classes), days)
        shown = np.zeros(items, dtype=np.int64)
        for day in np.unique(launch).tolist():
            rows = np.flatnonzero(launch == day)
            # The newest photographs that there are: those of the day, if it has any.
            newest = introduced[introduced <= day].max()
            choice = np.flatnonzero(introduced == newest)
            shown[rows] = choice[stream.integers(len(choice), size=len(rows))]
        order = np.argsort(launch, kind="stable")
        starts = np.searchsorted(launch[order], np.arange(days + 1))
        return cls(shown, classes[shown], launch, order, starts.astype(np.int64))

    def launched_on(self, day: int) -> Ints:
        """Rows that appear on a day."""
        rows: Ints = self.launch_order[self.launch_starts[day] : self.launch_starts[day + 1]]
        return rows


def _introductions(stream: np.random.Generator, count: int, days: int) -> Ints:
    """The day on which each photograph is first seen; later days get equal shares."""
    order = stream.permutation(count)
    first = max(1, round(count * _FIRST_DAY_SHARE))
    introduced = np.zeros(count, dtype=np.int64)
    introduced[order[first:]] = 1 + np.arange(count - first) % (days - 1)
    return introduced
