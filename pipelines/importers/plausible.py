"""Which times can be true: one absurd row is a reject, a file of them is refused with a guess.

A column of seconds that is read as milliseconds makes a log of January 1970 in which every number
is right but the days. So times before 2000 and later than tomorrow are looked at here, for every
importer (`uic.pipelines.importers.checked.accept`), before anything is published.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.days import DAY_MS
from uic.pipelines.log.events import MAX_TIME_MS

YEAR_2000_MS: Final = 946_684_800_000
# What a shop numbers its days or steps with stays below; seconds of 1970-01-02 are above.
_LARGEST_COUNTER: Final = 86_400


class TimeUnit(StrEnum):
    """What a time column of numbers counts since 1970 UTC, or that it holds ISO 8601 texts."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"
    ISO = "iso"


UNITS_A_SECOND: Final = {
    TimeUnit.SECONDS: 1,
    TimeUnit.MILLISECONDS: 1_000,
    TimeUnit.MICROSECONDS: 1_000_000,
    TimeUnit.NANOSECONDS: 1_000_000_000,
}
# What an option says, to the unit; `s` and `ms` are what a person writes.
UNIT_OF_WORD: Final = {
    "s": TimeUnit.SECONDS,
    "ms": TimeUnit.MILLISECONDS,
    **{unit.value: unit for unit in TimeUnit},
}
_WORD_OF_UNIT: Final = {unit: word for word, unit in reversed(UNIT_OF_WORD.items())}


def milliseconds(numbers: NDArray[np.int64], units_a_second: int) -> NDArray[np.int64]:
    """Times in a unit as milliseconds, cut off towards the past; same shape."""
    if units_a_second > 1_000:
        return numbers // (units_a_second // 1_000)
    scale = 1_000 // units_a_second
    # Clipped so that milliseconds fit int64; what was clipped is out of range still.
    return numbers.clip(-(2**62) // scale, 2**62 // scale) * scale


# Days that are written as one number, year first.
_FIRST_DATE: Final = 20_000_101
_LAST_DATE: Final = 20_991_231


class ImplausibleTimesError(BadInputError):
    """Most times of a file cannot be true: another unit, or no times at all."""


@dataclass
class PlausibleTimes:
    """Judges times, and remembers those that cannot be true.

    Attributes:
        first_ms, last_ms: of what can be true, both included.
        option: whether the unit is the caller's choice (`--time-unit`), and may be advised.
        unit: of the numbers that were read; None if they were dates or texts.
    """

    first_ms: int = YEAR_2000_MS
    last_ms: int = MAX_TIME_MS
    option: bool = False
    unit: TimeUnit | None = None
    _good: int = 0
    _bad: int = 0
    _low: int = 0
    _high: int = 0
    _median: int = 0

    @classmethod
    def until_tomorrow(cls) -> "PlausibleTimes":
        """From 2000 to one day after now: clocks differ, and so do zones."""
        return cls(last_ms=int(time.time() * 1000) + DAY_MS)

    @classmethod
    def any_time(cls) -> "PlausibleTimes":
        """All that the log can hold."""
        return cls(first_ms=0)

    def implausible(
        self, times_ms: NDArray[np.int64], judged: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which of the `judged` rows have a time that cannot be true; shapes (rows,)."""
        bad = judged & ((times_ms < self.first_ms) | (times_ms > self.last_ms))
        rows = int(np.count_nonzero(bad))
        self._good += int(np.count_nonzero(judged)) - rows
        if rows:
            times = times_ms[bad]
            low, high = int(times.min()), int(times.max())
            if not self._bad:
                self._low, self._high, self._median = low, high, int(np.median(times))
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._bad += rows
        return bad

    @property
    def none_good(self) -> bool:
        """Whether no row with a plausible time has come yet."""
        return not self._good

    def refuse_most(self, path: Path) -> None:
        """Refuse a file most of whose times cannot be true.

        Raises:
            ImplausibleTimesError: says which times were read, and what they look like.
        """
        if self._bad <= self._good:
            return
        span = f"{_shown(self._low)} to {_shown(self._high)}"
        possible = self._low >= 0 and self._high <= MAX_TIME_MS
        way_out = "; --any-time takes them as they are" if possible else ""
        msg = (
            f"{path}: {self._bad:,} of {self._bad + self._good:,} times cannot be true (read as "
            f"{span}; expected {_shown(self.first_ms)[:10]} to now); nothing was written: "
            f"{self._guess()}{way_out}"
        )
        raise ImplausibleTimesError(msg)

    def _guess(self) -> str:
        if self.unit is None:
            return "are these the times of the events?"
        advice = " --time-unit says what the numbers count" if self.option else ""
        scale = UNITS_A_SECOND[self.unit] / 1000
        number = self._median * scale
        for unit, units in UNITS_A_SECOND.items():
            if YEAR_2000_MS <= number * 1000 / units <= min(self.last_ms, MAX_TIME_MS):
                word = _WORD_OF_UNIT[unit]
                if not self.option:
                    return f"these look like {word}, this format has {_WORD_OF_UNIT[self.unit]}"
                return f"these look like {unit.name.lower()}: say `--time-unit {word}`"
        low, high = (int(value * scale) for value in (self._low, self._high))
        if self.option and _FIRST_DATE <= low <= high <= _LAST_DATE:
            return "these look like dates: say `--time-unit '%Y%m%d'`"
        if low >= 0 and high < _LARGEST_COUNTER:
            return (
                f"{low} to {high} look like numbers of days or steps; make a column of dates of "
                "them first"
            )
        return f"are these the times of the events?{advice}"


def _shown(time_ms: int) -> str:
    if not 0 <= time_ms <= MAX_TIME_MS:
        return "before 1970" if time_ms < 0 else "after the year 9999"
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
