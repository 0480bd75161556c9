"""Calendar days of the workspace's time zone: the one way from a time to its `dt`.

A day begins once, at the first instant whose local date is that day, and lasts to the beginning
of the next. So days never fall as time goes on, even where a clock is set back over midnight.
"""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - _EPOCH).days


def day_of_number(number: int) -> date:
    """The date that is `number` days after 1970-01-01."""
    return _EPOCH + timedelta(days=int(number))


class CalendarDays:
    """Days of one time zone.

    Args:
        time_zone: IANA name, as in `Config.time_zone`.
    """

    def __init__(self, time_zone: str) -> None:
        self.time_zone = time_zone
        self._zone = ZoneInfo(time_zone)
        self._starts: dict[int, int] = {}

    def start_ms(self, number: int) -> int:
        """When a day begins: milliseconds since 1970 UTC."""
        start = self._starts.get(number)
        if start is None:
            day = day_of_number(number)
            # Where midnight does not exist or comes twice, fold=0 gives the first such instant.
            midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
            start = self._starts[number] = round(midnight.timestamp() * 1000)
        return start

    def starts_ms(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each day begins; same shape."""
        distinct, at = np.unique(numbers, return_inverse=True)
        starts = np.array([self.start_ms(number) for number in distinct.tolist()], np.int64)
        return starts[at]

    def numbers(self, times_ms: NDArray[np.int64]) -> NDArray[np.int32]:
        """The day of each time, as days since 1970-01-01; same shape, int32."""
        guess = np.floor_divide(times_ms, DAY_MS)
        if self.time_zone == "UTC" or not guess.size:
            return guess.astype(np.int32)
        # A zone is at most 14 hours from UTC: the local day is the UTC day or a neighbour.
        low, high = int(guess.min()), int(guess.max())
        starts = np.array([self.start_ms(number) for number in range(low, high + 2)], np.int64)
        near = guess - low
        before = (times_ms < starts[near]).astype(np.int32)
        after = (times_ms >= starts[near + 1]).astype(np.int32)
        local: NDArray[np.int32] = guess.astype(np.int32) - before + after
        return local
