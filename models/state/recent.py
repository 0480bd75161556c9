"""`recent`: the last events of a user, for order and sessions."""

from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from uic.models.features.definition import Scale
from uic.models.kernels import recents
from uic.models.records.positions import BEHAVIORS, EVENT_KINDS, SHOWN, EventBatch
from uic.models.settings import Section
from uic.models.state.counts import Behavior
from uic.models.state.part import (
    Asked,
    Cuts,
    Features,
    PartFeature,
    StatePart,
    States,
    fields_of,
    laid_out,
)
from uic.models.state.times import Duration, written

_COLUMNS = 5


class RecentSettings(Section):
    """A ring of events."""

    size: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="events that are kept; 21 bytes each; 1 to 1024"
    )
    behaviors: tuple[Behavior, ...] = Field(
        BEHAVIORS, min_length=1, description="events that are kept, by behaviour"
    )
    pause: Duration = Field(1_800_000, description="a longer gap ends a session")


class Recent(StatePart):
    """The last events: `gap`, `session`, and where the candidate stands among them."""

    settings_type = RecentSettings
    settings: RecentSettings

    @cached_property
    def _placed(self) -> tuple[dict[str, tuple[int, Any, int]], int]:
        size = self.settings.size
        return laid_out(
            [
                ("head", np.uint32, 4),
                ("items", np.int64, size),
                ("categories", np.int64, size),
                ("times", np.uint32, size),
                ("behaviors", np.uint8, size),
            ]
        )

    @property
    def bytes(self) -> int:
        """Of a state."""
        return self._placed[1]

    @property
    def shown_share(self) -> float:
        """All, if they are kept."""
        return float(SHOWN in self.settings.behaviors)

    @property
    def described(self) -> tuple[PartFeature, ...]:
        """See the class."""
        size, pause = self.settings.size, written(self.settings.pause)
        return (
            PartFeature("gap", "hours since the last event"),
            PartFeature("session", f"events since a pause of more than {pause}, of {size}"),
            PartFeature(
                "item_back", f"events since the candidate's item, of {size}", of_candidate=True
            ),
            PartFeature(
                "category_back", f"events since its category, of {size}", of_candidate=True
            ),
            PartFeature(
                "category_share", f"share of its category, of {size}", Scale.NONE, of_candidate=True
            ),
        )

    def _ring(self, states: States) -> tuple[NDArray[Any], ...]:
        fields = fields_of(states, self._placed[0])
        return tuple(fields[n] for n in ("head", "items", "categories", "times", "behaviors"))

    def _events(self, events: EventBatch) -> tuple[NDArray[Any], ...]:
        codes = [EVENT_KINDS.index(name) for name in self.settings.behaviors]
        return (
            events.user_index,
            events.item_ids,
            events.category_ids,
            events.behaviors.astype(np.uint8),
            _seconds(events.log_times_ms),
            np.isin(events.behaviors, codes),
        )

    def _hours(self, out: Features) -> Features:
        out[:, 0] /= 3600
        return out

    def fold(self, states: States, events: EventBatch) -> None:
        """See `StatePart.fold`."""
        recents.fold(self._ring(states), *self._events(events))

    def features(self, states: States, asked: Asked) -> Features:
        """See `StatePart.features`."""
        out = np.empty((len(asked), _COLUMNS), np.float32)
        recents.read(
            self._ring(states),
            asked.owners,
            asked.item_ids,
            asked.category_ids,
            _seconds(asked.now_ms),
            self.settings.pause / 1000,
            out,
        )
        return self._hours(out)

    def walk(self, states: States, events: EventBatch, asked: Asked, cuts: Cuts) -> Features:
        """See `StatePart.walk`."""
        out = np.empty((len(asked), _COLUMNS), np.float32)
        wanted = (
            asked.owners,
            asked.item_ids,
            asked.category_ids,
            _seconds(asked.now_ms),
            cuts.begins,
            cuts.ends,
        )
        recents.walk(
            self._ring(states), self._events(events), wanted, self.settings.pause / 1000, out
        )
        return self._hours(out)


def _seconds(times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.clip(times_ms // 1000, 0, 2**32 - 1)
