"""Sections of `uic.yaml` that configure the event log, samples and quality gates.

Light on purpose: the command line reads settings before it knows whether it needs Beam.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from uic.models.features.definition import CLICK, NAME_PATTERN
from uic.models.settings import ADVANCED, Section


def _is_not_the_click(name: str) -> str:
    if name == CLICK:
        msg = "the click is a label already; expected the name of another"
        raise ValueError(msg)
    return name


LabelName = Annotated[str, Field(pattern=NAME_PATTERN), AfterValidator(_is_not_the_click)]


class Cut(StrEnum):
    """What an impression may see of the history of its day."""

    IMPRESSION = "impression"
    DAY_START = "day_start"


class Keep(StrEnum):
    """Whether events of a sale day stay."""

    KEEP = "keep"
    DROP = "drop"


class LogSettings(Section):
    """The event log and what its parser accepts."""

    partitions: Annotated[int, Field(ge=1, le=4096)] = Field(
        4, description="partitions of an import; count, 1 to 4096"
    )
    max_clock_skew_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        300,
        description="how far an event time may lie after its log time; seconds, 0 to 86400",
    )
    max_event_age_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        7, description="how far an event time may lie before its log time; days, 1 to 36500"
    )
    max_payload_bytes: Annotated[int, Field(ge=256, le=16_777_216)] = Field(
        65_536,
        description="a larger event is refused unread; bytes, 256 to 16777216",
        json_schema_extra=ADVANCED,
    )


class SaleSettings(Section):
    """Sale days, and whether their behaviours and impressions are used (MIMN section 5.6.2)."""

    calendar: Path | None = Field(
        None, description="path of a sale calendar (YAML); none means that no day is a sale day"
    )
    behaviors: Keep = Field(
        Keep.DROP, description="behaviours of sale days in samples, memories and stream: keep|drop"
    )
    impressions: Keep = Field(
        Keep.DROP, description="impressions of sale days in training rows: keep|drop"
    )


class SamplesSettings(Section):
    """Grouped training samples (MIMN section 5.1: 60 days, 1,000 events)."""

    window_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        60, description="how far back a history reaches; days, 1 to 3650"
    )
    history_cap: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000,
        description="events of history before a group's first impression; count, 1 to 100000",
    )
    cut: Cut = Field(
        Cut.IMPRESSION,
        description="what an impression sees: all before it (impression), or all before its day",
    )
    max_events_per_day: Annotated[int, Field(ge=1)] = Field(
        5000,
        description="a user with more behaviours in one day is taken for a machine and left out, "
        "with a count in the manifest; events, at least 1",
    )
    labels: tuple[LabelName, ...] = Field(
        (),
        description="labels of the impression log that stand beside the click in samples: names, "
        "such as buy for its column label.buy",
    )
    buckets: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="user buckets of a run; count, 0 = chosen from the number of rows",
        json_schema_extra=ADVANCED,
    )


class QualitySettings(Section):
    """Quality gates: what a log or a set of samples must be like before anything is made of it.

    The defaults let real, uneven data pass (a day at a thirtieth of its week is in the public
    ones) and stop what is broken; a steady production log deserves tighter volume limits.
    """

    max_faulty_rows: Annotated[int, Field(ge=0)] = Field(
        0,
        description="rows of one day (or file of samples) that may break a rule of rows: nulls, "
        "ids, times, positions; rows, at least 0",
    )
    max_missing_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        0, description="days of the range that may have no row; days, 0 to 36500"
    )
    trailing_days: Annotated[int, Field(ge=1, le=365)] = Field(
        7,
        description="a day's volume is held against the median of this many; days, 1 to 365",
        json_schema_extra=ADVANCED,
    )
    min_trailing_days: Annotated[int, Field(ge=1, le=365)] = Field(
        3,
        description="days with rows that such a median needs; days, 1 to 365",
        json_schema_extra=ADVANCED,
    )
    min_volume_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="rows of a day over that median, at least; ratio, 0 to 1"
    )
    max_volume_ratio: Annotated[float, Field(ge=1)] = Field(
        20.0,
        description="rows of a day over that median, at most, sale days apart; ratio, at least 1",
    )
    min_click_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0005, description="clicks over impressions, at least; ratio, 0 to 1"
    )
    max_click_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="clicks over impressions, at most; ratio, 0 to 1"
    )
    min_judged_rows: Annotated[int, Field(ge=1)] = Field(
        200,
        description="rates and volumes of fewer rows are not judged; rows, at least 1",
        json_schema_extra=ADVANCED,
    )
    examples: Annotated[int, Field(ge=0, le=100)] = Field(
        3,
        description="rows shown for a check that fails; rows, 0 to 100",
        json_schema_extra=ADVANCED,
    )


class MemoriesSettings(Section):
    """Memories built from the event log (MIMN section 4.5: warm-up over 120 days)."""

    warm_up_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        120, description="days that a build from nothing folds; days, 1 to 3650"
    )
    snapshots_kept: Annotated[int, Field(ge=1, le=3650)] = Field(
        7, description="snapshots of a generation that a prune leaves; count, 1 to 3650"
    )
    buckets: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="user buckets of a build; count, 0 = chosen from the number of rows",
        json_schema_extra=ADVANCED,
    )
