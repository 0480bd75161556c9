"""The days of a run, as the instants at which they begin.

A run looks at a few hundred days at most, so a time's day is one binary search among them.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.days import CalendarDays, day_number


@dataclass(frozen=True)
class DayRange:
    """The days `first` to `last`, both included.

    Attributes:
        first: the day with index 0.
        bounds_ms: int64 (days + 1,): where each day begins, and where the last one ends,
            milliseconds since 1970 UTC.
    """

    first: date
    bounds_ms: NDArray[np.int64]

    @classmethod
    def between(cls, first: date, last: date, time_zone: str) -> "DayRange":
        """The days from `first` to `last` in a zone; `last` must not be before `first`."""
        days = CalendarDays(time_zone)
        numbers = range(day_number(first), day_number(last) + 2)
        return cls(first, np.array([days.start_ms(number) for number in numbers], dtype=np.int64))

    @property
    def count(self) -> int:
        """How many days these are."""
        return len(self.bounds_ms) - 1

    def index_of(self, times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of each time's day; -1 before the first day, `count` after the last."""
        return np.searchsorted(self.bounds_ms, times_ms, side="right").astype(np.int64) - 1

    def day(self, index: int) -> date:
        """The day with this index."""
        return self.first + timedelta(days=index)

    def all(self) -> list[date]:
        """Every one of them, in order."""
        return [self.day(index) for index in range(self.count)]

    def bounds_of(self, day: date) -> tuple[int, int]:
        """The first instant of one of these days, and the first of the next."""
        index = (day - self.first).days
        return int(self.bounds_ms[index]), int(self.bounds_ms[index + 1])
