"""How much of the log lies before a day that a window or a warm-up begins with, and whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.pipelines.log.event_log import EventLog, LogFile

# Users of a larger log are not counted: it would read the ids of all of its rows.
COUNTED_ROWS: Final = 20_000_000


@dataclass(frozen=True)
class OlderEvents:
    """Behaviours before a day.

    Attributes:
        events: how many.
        users: who have one; None where the log has more than `COUNTED_ROWS` rows.
        only_older: of these, who have none on the day and later.
    """

    events: int
    users: int | None
    only_older: int | None

    def __str__(self) -> str:
        """Events and users in words."""
        if self.users is None:
            return f"{self.events:,} older events"
        return (
            f"{self.events:,} older events of {self.users:,} users ({self.only_older:,} of them "
            "have no others)"
        )


def older_events(log: EventLog, first: date) -> OlderEvents:
    """Count the behaviours before a day and their users; reads manifests, and ids of users."""
    files = log.behavior_files()
    older = [file for file in files if file.dt < first]
    events = sum(file.rows for file in older)
    if sum(file.rows for file in files) > COUNTED_ROWS:
        return OlderEvents(events, None, None)
    users = _users(older)
    others = _users([file for file in files if file.dt >= first]) if events else users
    return OlderEvents(events, len(users), len(np.setdiff1d(users, others, assume_unique=True)))


def _users(files: Sequence[LogFile]) -> NDArray[np.int64]:
    """Each user once, ascending."""
    users = np.empty(0, np.int64)
    for file in files:
        with pq.ParquetFile(file.path) as opened:
            found = opened.read(columns=["user_id"])["user_id"].to_numpy()
        users = np.union1d(users, found)
    return users
