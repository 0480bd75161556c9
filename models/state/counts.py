"""`counts`: how often and how lately this user met this very item, this category."""

from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from uic.models.records.positions import BEHAVIORS, EVENT_KINDS, SHOWN
from uic.models.settings import Section
from uic.models.state.part import PartFeature, States
from uic.models.state.tables import TablePart, TallyTable, kinds_of
from uic.models.state.times import Duration, refuse_short_unit, refuse_unfit_half_life, written

Behavior = Literal["click", "cart", "favourite", "buy", "shown"]
HalfLives = Annotated[tuple[Duration, ...], Field(max_length=6)]


class CountsSettings(Section):
    """A table of counts by key."""

    by: str = Field("item", description="key: item|category|a further column of events")
    behaviors: tuple[Behavior, ...] = Field(
        BEHAVIORS, min_length=1, description="events that count, by behaviour"
    )
    half_lives: HalfLives = Field((), description="a decayed count each; 1h, 7d, ...")
    size: Annotated[int, Field(ge=1, le=4096)] = Field(
        128, description="keys that are kept; the least valuable goes out; 1 to 4096"
    )
    fingerprint_bits: Literal[16, 32, 64] = Field(
        16, description="bits of a key's fingerprint; 64 is the id itself: no false match"
    )
    count_bits: Literal[8, 16, 32] = Field(8, description="bits of a count, which then stays")
    resolution: Duration = Field(
        3_600_000, description="unit of time; ages reach to 65,535 of them (7.5 years of 1h)"
    )

    @model_validator(mode="after")
    def _resolves(self) -> Self:
        refuse_short_unit(self.resolution)
        for half_life in self.half_lives:
            refuse_unfit_half_life(half_life, self.resolution)
        if len(set(self.half_lives)) < len(self.half_lives):
            msg = f"half_lives: {written(self.half_lives[0])} ... has one twice; leave one out"
            raise ValueError(msg)
        return self


class Counts(TablePart):
    """Counts by key: for ever, decayed, and the time of the last.

    A candidate's features: `count`, `decayed_H` for each half-life, `age` in hours since the last
    event of its key (NaN for none in the table). A user's: `distinct` keys in the table, and
    `evictions`, so that "never met" is not claimed where keys went out.
    """

    settings_type = CountsSettings
    settings: CountsSettings

    @cached_property
    def table(self) -> TallyTable:
        """One value a half-life."""
        own = self.settings
        return TallyTable(
            by=own.by,
            size=own.size,
            fingerprint_bits=own.fingerprint_bits,
            count_bits=own.count_bits,
            half_lives_ms=own.half_lives,
            value_bytes=2,
            resolution_ms=own.resolution,
            adds=((1.0,) * len(own.half_lives),),
            kinds=kinds_of(EVENT_KINDS, [own.behaviors]),
        )

    def fingerprints(self, keys: NDArray[np.int64]) -> NDArray[Any]:
        """Of keys, as `entries` gives them: (n,)."""
        return self.table.fingerprints(keys)

    def entries(self, states: States) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """The bag of keys that a state is.

        Returns:
            Fingerprints and counts, (users, size) each, and how many are taken, (users,).
        """
        return self.table.entries(states)

    @property
    def shown_share(self) -> float:
        """All, if they count."""
        return float(SHOWN in self.settings.behaviors)

    @property
    def described(self) -> tuple[PartFeature, ...]:
        """See the class."""
        key = self.settings.by
        decayed = (
            PartFeature(
                f"decayed_{written(half_life)}",
                f"events of the candidate's {key}, halved every {written(half_life)}",
                of_candidate=True,
            )
            for half_life in self.settings.half_lives
        )
        return (
            PartFeature("count", f"events of the candidate's {key}", of_candidate=True),
            *decayed,
            PartFeature("age", f"hours since the last event of its {key}", of_candidate=True),
            PartFeature("distinct", f"different keys ({key}) in the table"),
            PartFeature("evictions", "keys that went out of the full table"),
        )
