"""What goes with what: an item-to-item term read against the items that a user took last.

A learned part in its simplest form: counted, not trained. Two items go together by how often one
was taken while the other was among its user's newest, over the geometric mean of how often each
was taken (the cosine of item-based neighbours: Deshpande and Karypis, TOIS 2004). Pairs are counted
in the days before a row's own, so that no row sees itself; the user's newest items are those of
strictly before the row.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .logs import DAY_MS, RaceLog

NEWEST = 16  # distinct items of a user: what a record would hold, as 4-byte ids 64 bytes
RELATED_BYTES = 4 * NEWEST
_PRIOR = 5.0  # events that an item is taken to have had, so that one pair alone says little
_FADES = 0.8  # a weight from one of the newest to the next older
_SCALE = 20.0
FEATURES = 4


class _Pairs:
    """Counts of pairs and of items, and each user's newest items, up to some moment."""

    def __init__(self, items: int) -> None:
        self.pairs = np.zeros((items, items), dtype=np.float32)
        self.taken = np.zeros(items, dtype=np.float32)
        self.newest: dict[int, list[int]] = {}
        self.pending: list[tuple[int, list[int]]] = []

    def take(self, user: int, item: int) -> None:
        """An event: the user's newest move now, the counts when the day ends."""
        own = self.newest.setdefault(user, [])
        self.pending.append((item, [other for other in own if other != item]))
        if item in own:
            own.remove(item)
        own.append(item)
        del own[:-NEWEST]

    def end_of_day(self) -> None:
        """The day's pairs count from now on."""
        for item, others in self.pending:
            self.taken[item] += 1
            self.pairs[others, item] += 1
            self.pairs[item, others] += 1
        self.pending.clear()

    def features(self, user: int, candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Largest, mean, faded mean, and of the newest item: (candidates, 4)."""
        own = self.newest.get(user)
        if not own:
            return np.zeros((candidates.size, FEATURES), dtype=np.float32)
        newest = np.array(own[::-1])
        often = np.sqrt(np.outer(self.taken[newest] + _PRIOR, self.taken[candidates] + _PRIOR))
        close = self.pairs[np.ix_(newest, candidates)] / often
        close[newest[:, None] == candidates] = 0.0
        faded = _FADES ** np.arange(newest.size)
        columns = [close.max(0), close.mean(0), faded @ close / faded.sum(), close[0]]
        return np.stack(columns, axis=1)


def related(log: RaceLog) -> NDArray[np.float32]:
    """log(1 + scaled cosine) of the candidate with the user's newest items: (rows, 4)."""
    events = _in_order(log.taken())
    rows = _in_order(log.rows)
    known = _Pairs(log.sizes["item"])
    found = np.zeros((len(log.rows), FEATURES), dtype=np.float32)
    user, item, time = (events[name].to_numpy() for name in ("user", "item", "time_ms"))
    candidates, places = rows.item.to_numpy(), rows.index.to_numpy()
    moments = rows.groupby(["time_ms", "user"], sort=True).indices
    at, day = 0, int(time[0]) // DAY_MS
    for (moment, owner), own in moments.items():
        while at < time.size and time[at] < moment:
            if time[at] // DAY_MS > day:
                known.end_of_day()
                day = int(time[at]) // DAY_MS
            known.take(int(user[at]), int(item[at]))
            at += 1
        if moment // DAY_MS > day:
            known.end_of_day()
            day = moment // DAY_MS
        found[places[own]] = known.features(owner, candidates[own])
    return np.log1p(_SCALE * found)


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("time_ms", kind="stable")
