"""`rates`: of the exposures to a key, which share succeeded (bought over clicked), smoothed."""

from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from uic.models.features.definition import Scale
from uic.models.records.positions import EVENT_KINDS, SHOWN
from uic.models.settings import Section
from uic.models.state.counts import Behavior
from uic.models.state.part import Features, PartFeature
from uic.models.state.tables import WHOLE_USER, TablePart, TallyTable, kinds_of
from uic.models.state.times import Duration, refuse_short_unit, refuse_unfit_half_life


class RatesSettings(Section):
    """Successes over exposures by key."""

    by: str = Field("user", description="key: user|item|category|a further column of events")
    successes: tuple[Behavior, ...] = Field(
        ("buy",), min_length=1, description="events that succeed, by behaviour"
    )
    exposures: tuple[Behavior, ...] = Field(
        ("click",), min_length=1, description="events that expose, by behaviour"
    )
    half_life: Duration | None = Field(None, description="of both; 30d, ...; none is for ever")
    prior: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="share that is taken without any event; 0 to 1"
    )
    prior_weight: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        10.0, description="exposures that the prior is worth"
    )
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="of shown: share of the requests that are read, each then so much heavier",
    )
    size: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="keys that are kept; of user: one; 1 to 4096"
    )
    fingerprint_bits: Literal[16, 32, 64] = Field(
        16, description="bits of a key's fingerprint; 64 is the id itself: no false match"
    )
    resolution: Duration = Field(3_600_000, description="unit of time")

    @model_validator(mode="after")
    def _resolves(self) -> Self:
        refuse_short_unit(self.resolution)
        if self.half_life is not None:
            refuse_unfit_half_life(self.half_life, self.resolution)
        both = set(self.successes) & set(self.exposures)
        if both:
            msg = f"{', '.join(sorted(both))} is in successes and in exposures; leave it in one"
            raise ValueError(msg)
        if SHOWN in self.successes:
            msg = "successes: shown is an exposure, not a success; leave it out"
            raise ValueError(msg)
        if self.sample < 1 and SHOWN not in self.exposures:
            msg = "sample is of shown items, and shown is not in exposures; leave one out"
            raise ValueError(msg)
        return self


class Rates(TablePart):
    """Successes over exposures by key: `exposures` and `rate`.

    `rate` is (successes + prior prior_weight) / (exposures + prior_weight), both decayed; it may be
    above 1 where successes come without exposures.
    """

    settings_type = RatesSettings
    settings: RatesSettings

    @cached_property
    def table(self) -> TallyTable:
        """Exposures and successes."""
        own = self.settings
        of_user = own.by == WHOLE_USER
        half_life = own.half_life or 0
        return TallyTable(
            by=own.by,
            size=1 if of_user else own.size,
            fingerprint_bits=64 if of_user else own.fingerprint_bits,
            count_bits=8,
            half_lives_ms=(half_life, half_life),
            value_bytes=4,
            resolution_ms=own.resolution,
            adds=((1.0 / own.sample, 0.0), (1.0, 0.0), (0.0, 1.0)),
            kinds=kinds_of(EVENT_KINDS, [self._shown, own.exposures, own.successes]),
        )

    @property
    def _shown(self) -> tuple[str, ...]:
        return (SHOWN,) if SHOWN in self.settings.exposures else ()

    @property
    def shown_share(self) -> float:
        """The sample, if what is shown is an exposure."""
        return self.settings.sample if self._shown else 0.0

    @property
    def described(self) -> tuple[PartFeature, ...]:
        """See the class."""
        own = self.settings
        candidate = own.by != WHOLE_USER
        of = f"of the candidate's {own.by}" if candidate else "of the user"
        tried, done = "/".join(own.exposures), "/".join(own.successes)
        return (
            PartFeature("exposures", f"{tried} events {of}, decayed", of_candidate=candidate),
            PartFeature("rate", f"{done} over {tried} {of}, smoothed", Scale.NONE, candidate),
        )

    def told(self, read: Features) -> Features:
        """Exposures and the rate."""
        own = self.settings
        exposed, succeeded = read[:, 1].astype(np.float64), read[:, 2].astype(np.float64)
        rate = (succeeded + own.prior * own.prior_weight) / (exposed + own.prior_weight)
        return np.asarray(np.stack([exposed, rate], axis=1), np.float32)
