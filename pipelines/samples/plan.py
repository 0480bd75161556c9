"""What one run of the samples pipeline makes: days, window, cap, cut, sale days, guard.

A plan travels to every worker, so it is plain data and holds no path.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np

from uic.pipelines.days import DAY_MS, CalendarDays, day_number, day_of_number
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.samples.days import DayRange
from uic.pipelines.settings import Cut, SamplesSettings


@dataclass(frozen=True)
class SamplesPlan:
    """Everything that decides the content of the samples of the days `first` to `last`.

    The samples of a day do not depend on which other days are made in the same run.

    Args:
        first: first day whose impressions are grouped, in `time_zone`.
        last: last such day.
        time_zone: IANA name.
        samples: window, cap, cut and guard.
        dropped_behaviors: the sale days whose behaviours are left out; empty for none.
        dropped_impressions: the sale days whose impressions are left out; empty for none.
        buckets: into how many parts the users are split, at least 1; changes no group.
        state_first: first day that a record's parts are folded from; None without parts.
    """

    first: date
    last: date
    time_zone: str
    samples: SamplesSettings
    dropped_behaviors: SaleCalendar
    dropped_impressions: SaleCalendar
    buckets: int
    state_first: date | None = None

    @cached_property
    def days(self) -> DayRange:
        """The days whose impressions are grouped."""
        return DayRange.between(self.first, self.last, self.time_zone)

    @cached_property
    def log_days(self) -> DayRange:
        """The days whose behaviours are read."""
        return DayRange.between(self.history_first, self.last, self.time_zone)

    @property
    def window_ms(self) -> int:
        """The window in milliseconds; a day of it is 24 hours."""
        return self.samples.window_days * DAY_MS

    @property
    def history_first(self) -> date:
        """The day of the oldest instant that a window can reach."""
        days = CalendarDays(self.time_zone)
        oldest = days.start_ms(day_number(self.first)) - self.window_ms
        first = day_of_number(days.numbers(np.array([oldest]))[0])
        return first if self.state_first is None else min(first, self.state_first)

    @property
    def cuts_at_day_start(self) -> bool:
        """Whether an impression sees only what was before its day."""
        return self.samples.cut is Cut.DAY_START
