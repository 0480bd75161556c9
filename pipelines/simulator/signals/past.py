"""What signals look at of the past of a block's users: the last time of a few things, by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from uic.pipelines.simulator.signals.last_seen import LastTimes, Moments
from uic.pipelines.simulator.signals.own_acts import OwnActs
from uic.pipelines.simulator.signals.rules import DAY_MS, BlockDay
from uic.pipelines.simulator.visits import BUY, CLICK
from uic.pipelines.simulator.world import Catalogue, Ints

# Nothing older than this moves a click: the longest satiation, and a past is made of so many days.
MEMORY_DAYS: Final = 28


class Trace(Enum):
    """What is remembered the last time of."""

    CLICKED = "a click of a user on a category"
    LATEST = "a click of a user"
    BOUGHT = "a buy of a user in a category"
    OWNED = "a buy of an item by a user"
    DURABLE = "a buy of a user of something durable"


@dataclass(frozen=True)
class Past:
    """What was last done by the users of a block before a day, up to `MEMORY_DAYS` old.

    Args:
        day: before which.
        last: each trace.
    """

    day: int
    last: Mapping[Trace, LastTimes]

    @classmethod
    def none(cls, day: int) -> "Past":
        """Nothing was done before a day."""
        return cls(day, {trace: LastTimes.none() for trace in Trace})

    def followed(self, scene: BlockDay, own: OwnActs) -> "Past":
        """The past of the day after, `own` done on the day itself."""
        day = self.day + 1
        since_ms = scene.rules.plan.day_interval_ms(day)[0] - MEMORY_DAYS * DAY_MS
        return Past(
            day,
            {
                trace: last.followed(*_entries(trace, scene, own), since_ms)
                for trace, last in self.last.items()
            },
        )

    def moments(self, trace: Trace, scene: BlockDay, own: OwnActs) -> Moments:
        """A trace within the day, to be asked for any time of it."""
        start_ms = scene.rules.plan.day_interval_ms(self.day)[0]
        return Moments.of(self.last[trace], *_entries(trace, scene, own), start_ms)


def keys_of(trace: Trace, catalogue: Catalogue, users: Ints, categories: Ints, rows: Ints) -> Ints:
    """Users, with the category or the item that a trace is about, as one number; (acts,), int64."""
    if trace in (Trace.CLICKED, Trace.BOUGHT):
        return users * catalogue.categories + categories
    return users * len(catalogue.item_ids) + rows if trace is Trace.OWNED else users


def _entries(trace: Trace, scene: BlockDay, own: OwnActs) -> tuple[Ints, Ints, Ints]:
    """Keys, times and rows of what a trace is made of."""
    chosen = own.behaviors == (CLICK if trace in (Trace.CLICKED, Trace.LATEST) else BUY)
    categories = scene.catalogue.category_of_row[own.acts.rows]
    if trace is Trace.DURABLE:
        chosen = chosen & (categories >= scene.rules.first_durable)
    if not own.counted:
        chosen = np.zeros_like(chosen)
    users, rows = own.acts.users[chosen], own.acts.rows[chosen]
    keys = keys_of(trace, scene.catalogue, users, categories[chosen], rows)
    return keys, own.acts.times_ms[chosen], rows
