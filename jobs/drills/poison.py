"""A day of behaviours with poison in it: what a broken producer and a crawler put into the log.

Two faults at once, one for each kind of exclude rule:

* the app release `app-7` writes its users' clicks with the ids of items that they never saw,
* a crawler, one new user, clicks through the whole catalogue.

Both begin some time into the day. The drill keeps every poisoned payload, so that it can tell the
clean log without asking the rules that are under test.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import yaml

from uic.jobs.replay.day import HeldDay
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines, scan_folder
from uic.jobs.stream.topics.produce import Outgoing, payload_of

BROKEN_PRODUCER: Final = "app-7"
# Beyond every simulated user.
CRAWLER: Final = 987_654_321


@dataclass(frozen=True)
class PoisonedDay:
    """The events of a day in order of log time, the poisoned ones among them.

    Args:
        outgoing: all of them.
        poisoned: payloads that should never have been written.
        begins_ms: log time of the first of those.
    """

    outgoing: Outgoing
    poisoned: frozenset[bytes]
    begins_ms: int

    @classmethod
    def make(
        cls,
        day: HeldDay,
        categories: dict[int, int],
        *,
        wrong_clicks: int,
        crawler_clicks: int,
        seed: int,
    ) -> Self:
        """Mix poison into the day's own events, from an eighth of the day on.

        Args:
            day: held back.
            categories: of each item of the catalogue.
            wrong_clicks: by the broken producer, for each user of the day.
            crawler_clicks: in all.
            seed: of users, items and moments.
        """
        draw = np.random.default_rng(seed)
        begins_ms = day.start_ms + (day.end_ms - day.start_ms) // 8
        clean = list(day.events(day.start_ms, day.end_ms))
        users = np.concatenate([batch.user_ids for batch in clean])
        times = np.concatenate([batch.log_times_ms for batch in clean])
        payloads = [payload for batch in clean for payload in batch.payloads]
        several = np.repeat(np.unique(users), wrong_clicks)
        victims = np.concatenate([several, np.full(crawler_clicks, CRAWLER, np.int64)])
        items = draw.choice(np.fromiter(categories, np.int64), len(victims))
        moments = draw.integers(begins_ms, day.end_ms, len(victims))
        bad = [
            payload_of(
                user,
                item,
                categories[item],
                "click",
                moment,
                source=None if user == CRAWLER else BROKEN_PRODUCER,
            )
            for user, item, moment in zip(
                victims.tolist(), items.tolist(), moments.tolist(), strict=True
            )
        ]
        log_times = np.concatenate([times, moments])
        order = np.argsort(log_times, kind="stable")
        everything = [*payloads, *bad]
        return cls(
            Outgoing(
                [everything[at] for at in order.tolist()],
                np.concatenate([users, victims])[order],
                log_times[order],
            ),
            frozenset(bad),
            begins_ms,
        )

    def between(self, start_ms: int, end_ms: int) -> Outgoing:
        """The events that the log gets from `start_ms` until before `end_ms`."""
        first, end = np.searchsorted(self.outgoing.log_times_ms, [start_ms, end_ms]).tolist()
        return Outgoing(
            self.outgoing.payloads[first:end],
            self.outgoing.user_ids[first:end],
            self.outgoing.log_times_ms[first:end],
        )

    def clean(self, events: Path) -> Iterator[LoggedPayload]:
        """The log of a world without the poison: the event files less what was poisoned.

        Offsets stay those that the events have, so whole records can be compared.
        """
        for files in scan_folder(events).values():
            for file in files:
                yield from (
                    row for row in read_lines(file.path) if row.payload not in self.poisoned
                )


def write_rules(path: Path) -> None:
    """The exclude rules that an operator writes once the fault is found."""
    rules = [
        {"name": "wrong item ids of the new app", "sources": [BROKEN_PRODUCER]},
        {"name": "a crawler", "users": [CRAWLER]},
    ]
    path.write_text(yaml.safe_dump(rules, sort_keys=False), encoding="utf-8")
