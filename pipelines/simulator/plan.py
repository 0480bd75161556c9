"""What to simulate: the sizes, the days and the seed, checked."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from uic.models.errors import BadInputError
from uic.models.settings import Section
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.sale_calendar import SaleCalendar

# Expected behaviours of a visit (4 clicks with their carts, favourites and buys) and of an
# impression. Only `sized` uses them, to turn numbers of rows into a number of users.
_BEHAVIORS_PER_VISIT: Final = 4.55
_BEHAVIORS_PER_IMPRESSION: Final = 0.217
# What can be switched on beside interests, each by a field `…_gain`; see `signals/`.
SIGNALS: Final = ("order", "session", "ages", "satiation", "return", "drift", "pair")
# How much of a signal there is: 1 as built, 0 not at all.
Gain = Annotated[float, Field(ge=0, le=3)]


# Plans to begin with: fields that are not left at their defaults.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    # What a mean of the history tells is worth little of what there is to know; of a size that a
    # model learns from in minutes.
    "signals": {
        "users": 1500, "items": 600, "days": 45, "visits_per_user_day": 0.8,
        "impressions_per_user_day": 4.0, "interest_gain": 0.7, "order_gain": 1.2,
        "session_gain": 1.2, "satiation_gain": 1.2, "pair_gain": 1.2,
    },
    # What a session is about and what leads to what, with few items: a model learns it in minutes.
    "sessions": {
        "users": 1500, "items": 200, "days": 45, "visits_per_user_day": 0.8,
        "impressions_per_user_day": 4.0, "interest_gain": 0.7, "order_gain": 1.2,
        "session_gain": 1.2,
    },
    # Users as seldom and as unlike one another as those of public logs, which have no silences.
    "public": {
        "visits_per_user_day": 0.35, "activity_spread": 1.0, "interest_gain": 0.7,
        "order_gain": 1.0, "session_gain": 1.0, "ages_gain": 1.0, "satiation_gain": 1.0,
        "drift_gain": 1.0, "pair_gain": 1.0,
    },
}  # fmt: skip


class SimulationPlanError(BadInputError):
    """An argument of the simulator is out of range or does not fit another one."""


class SimulationPlan(Section):
    """Everything that the simulated log depends on: two equal plans give the same bytes."""

    users: Annotated[int, Field(ge=10, le=1_000_000_000)] = Field(
        2000, description="users; count, 10 to 1e9"
    )
    items: Annotated[int, Field(ge=100, le=50_000_000)] = Field(
        2000, description="items; count, 100 to 5e7 (their vectors are held in memory)"
    )
    days: Annotated[int, Field(ge=2, le=3650)] = Field(
        70, description="calendar days from the first one; days, 2 to 3650"
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        1, description="same seed, same bytes; 0 to 2^63-1"
    )
    first_day: date = Field(date(2025, 1, 1), description="the first simulated day")
    sale_days: tuple[date, ...] = Field(
        (), description="days on which all users hunt bargains; within the simulated days"
    )
    time_zone: str = Field("UTC", description="the zone of the days, like that of the log")
    visits_per_user_day: Annotated[float, Field(ge=0.05, le=50)] = Field(
        1.5, description="visits of a user of average activity; a day, 0.05 to 50"
    )
    activity_spread: Annotated[float, Field(ge=0, le=2)] = Field(
        0.6,
        description="how unlike users are in how often they visit: standard deviation of the "
        "logarithm; 0 to 2",
    )
    impressions_per_user_day: Annotated[float, Field(ge=0, le=500)] = Field(
        2.0, description="impressions of a user of average activity; a day, 0 to 500"
    )
    late_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="behaviours whose event time is not their log time; share, 0 to 1"
    )

    photographs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="photographs of each class that items show; counts, none without --images"
    )
    new_item_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3, description="with photographs: items that appear after the first day; share, 0 to 1"
    )

    feature_gain: Annotated[float, Field(ge=0, le=3)] | None = Field(
        None,
        description="features beside ids, and how much they move the odds of a click: 1 as built, "
        "0 not at all; 0 to 3, none makes no features",
    )
    interest_gain: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="how much users' interests and items move the odds of a click: 1 as built, 0 "
        "not at all, so that ids say nothing; 0 to 1",
    )
    order_gain: Gain = Field(
        0.0,
        description="interests lead to one another: what follows on the category of a recent click "
        "is liked for three days (camera, then lens); 1 as built, 0 to 3",
    )
    session_gain: Gain = Field(
        0.0,
        description="visits have an intent that decays within minutes: what was clicked just now "
        "is liked; 1 as built, 0 to 3",
    )
    ages_gain: Gain = Field(
        0.0,
        description="a category that was clicked stays liked for a day, a week or a month, as the "
        "category goes; 1 as built, 0 to 3",
    )
    satiation_gain: Gain = Field(
        0.0,
        description="what was bought, item and category, is not wanted again for up to four weeks; "
        "1 as built, 0 to 3",
    )
    return_gain: Gain = Field(
        0.0,
        description="users are silent for 10 to 14 days at a time and come back to what they last "
        "did; 1 as built, 0 to 3",
    )
    drift_gain: Gain = Field(
        0.0,
        description="categories go in and out of fashion over weeks, new items replace old ones; "
        "1 as built, 0 to 3",
    )
    pair_gain: Gain = Field(
        0.0,
        description="the last purchase from a durable category decides which categories appeal "
        "for four weeks, pair by pair; 1 as built, 0 to 3",
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            msg = "not a time zone; use a name like UTC or Asia/Shanghai"
            raise ValueError(msg) from error
        return name

    @model_validator(mode="after")
    def _days_fit(self) -> Self:
        if not date(1970, 1, 2) <= self.first_day <= date(2200, 1, 1):
            msg = f"first_day {self.first_day} is not between 1970-01-02 and 2200-01-01"
            raise ValueError(msg)
        for day in self.sale_days:
            if not self.first_day <= day <= self.last_day:
                msg = (
                    f"sale day {day} is outside the simulated days, "
                    f"{self.first_day} to {self.last_day}"
                )
                raise ValueError(msg)
        if self.photographs and self.drift_gain:
            msg = "drift_gain does not go with photographs, which bring new items of their own"
            raise ValueError(msg)
        return self

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Check the arguments of a caller.

        Raises:
            SimulationPlanError: names the argument, what was found and what was expected.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise SimulationPlanError(_one_line(first)) from error

    @classmethod
    def preset(cls, name: str, **fields: Any) -> Self:
        """A plan of `PRESETS` with some fields of its own.

        Raises:
            SimulationPlanError: there is no such preset, or a field is out of range.
        """
        if name not in PRESETS:
            msg = f"simulate: --preset: found {name!r}: expected one of {', '.join(PRESETS)}"
            raise SimulationPlanError(msg)
        return cls.of(**{**PRESETS[name], **fields})

    @classmethod
    def sized(cls, behaviors: int, impressions: int, *, days: int = 70, seed: int = 1) -> Self:
        """A plan for about so many rows (within some 10 %), for benchmarks."""
        visits = cls.model_fields["visits_per_user_day"].default
        organic = max(behaviors - _BEHAVIORS_PER_IMPRESSION * impressions, 1)
        users = max(10, round(organic / (days * visits * _BEHAVIORS_PER_VISIT)))
        return cls.of(
            users=users,
            items=max(2000, users // 2),
            days=days,
            seed=seed,
            impressions_per_user_day=impressions / (users * days),
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest; what an older plan could not say is left out where it is not used."""
        newer = {
            "activity_spread",
            "feature_gain",
            "interest_gain",
            *(f"{name}_gain" for name in SIGNALS),
        }
        unused = {name for name in newer if getattr(self, name) == _default(name)}
        return self.model_dump(mode="json", exclude=unused)

    def gain(self, signal: str) -> float:
        """How much there is of one of `SIGNALS`."""
        return float(getattr(self, f"{signal}_gain"))

    @property
    def signals(self) -> tuple[str, ...]:
        """Those of `SIGNALS` that are switched on."""
        return tuple(name for name in SIGNALS if self.gain(name) > 0)

    @property
    def last_day(self) -> date:
        """The last simulated day."""
        return self.first_day + timedelta(days=self.days - 1)

    @property
    def sale_calendar(self) -> SaleCalendar:
        """The sale days as the calendar that belongs into the settings."""
        return SaleCalendar.of_days(self.sale_days, self.time_zone)

    def day(self, index: int) -> date:
        """The date of a day index, 0 = `first_day`."""
        return self.first_day + timedelta(days=index)

    def day_interval_ms(self, index: int) -> tuple[int, int]:
        """Start and end of a day in milliseconds since 1970 UTC; the end is not part of it."""
        days, first = CalendarDays(self.time_zone), day_number(self.first_day)
        return days.start_ms(first + index), days.start_ms(first + index + 1)


def _default(name: str) -> Any:
    return SimulationPlan.model_fields[name].default


def _one_line(error: ErrorDetails) -> str:
    """`--users: found 3, expected …` for the first error of a validation."""
    if not error["loc"]:  # from `_days_fit`: the message says everything
        return f"simulate: {error['msg'].removeprefix('Value error, ')}"
    option = str(error["loc"][0])
    expected = error["msg"].removeprefix("Value error, ")
    field = SimulationPlan.model_fields.get(option)
    meaning = f" ({field.description})" if field is not None else ""
    return f"simulate: --{option.replace('_', '-')}: found {error['input']!r}: {expected}{meaning}"
