"""Counts of a user's earlier events with the same id, as of each row: the race's own reckoning.

`counters` and `repeat` are made of these. They are plain sums over the log without any bound, so
they also say what a record's bounded tables lose.
"""

import numba
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .logs import HOUR_MS, RaceLog

HALF_LIVES_HOURS = (24.0, 168.0, 720.0, np.inf)
NEVER_HOURS = 1e6  # "the last time" of what never happened


def tally(
    events: pd.DataFrame, rows: pd.DataFrame, key: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The user's events strictly before each row, with the row's value of `key`.

    Args:
        events: `user`, `time_ms`, and `key`.
        rows: likewise.
        key: an id column; None counts all events of the user.

    Returns:
        (rows, half-lives) decayed counts, and (rows,) hours since the last such event.
    """
    user = np.r_[rows.user.to_numpy(), events.user.to_numpy()]
    time = np.r_[rows.time_ms.to_numpy(), events.time_ms.to_numpy()]
    if key is None:
        value = np.zeros(user.size, dtype=np.int64)
    else:
        value = np.r_[rows[key].to_numpy(), events[key].to_numpy()]
    is_event = np.repeat([False, True], [len(rows), len(events)])
    # At one time the rows come first: what happens at a row's own time is not yet known.
    order = np.lexsort((is_event, time, value, user))
    new = np.r_[True, (np.diff(user[order]) != 0) | (np.diff(value[order]) != 0)]
    hours = time[order] / HOUR_MS
    counts, age = _scan(new, hours, is_event[order], np.array(HALF_LIVES_HOURS))
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return counts[back[: len(rows)]], age[back[: len(rows)]]


def counters(log: RaceLog) -> NDArray[np.float32]:
    """log(1 + decayed count) of the same item and the same value of each key: (rows, features)."""
    found = [tally(log.taken(), log.rows, key)[0] for key in ("item", *log.keys)]
    return np.log1p(np.concatenate(found, axis=1)).astype(np.float32)


def repeat(log: RaceLog) -> NDArray[np.float64]:
    """How lately the user took this very item, as a score: (rows,)."""
    return -tally(log.taken(), log.rows, "item")[1]


def popularity(log: RaceLog) -> NDArray[np.float64]:
    """The item's share clicked, or its number of events, before the validation days: (rows,)."""
    trained = log.rows[log.rows.split == 0]
    if log.shows:
        shown = np.bincount(trained.item, minlength=log.sizes["item"])
        clicked = np.bincount(trained.item, trained.label, minlength=log.sizes["item"])
        worth = (clicked + 10 * trained.label.mean()) / (shown + 10)
    else:
        known = log.events[log.events.time_ms <= trained.time_ms.max()]
        worth = np.bincount(known.item, minlength=log.sizes["item"]).astype(np.float64)
    return worth[log.rows.item.to_numpy()]


@numba.njit(cache=False)
def _scan(new, hours, is_event, half_lives):
    counts = np.zeros((new.size, half_lives.size))
    age = np.full(new.size, NEVER_HOURS)
    now = np.zeros(half_lives.size)
    last = 0.0
    seen = False
    for place in range(new.size):
        if new[place]:
            now[:] = 0.0
            seen = False
        elif seen:
            now *= 2.0 ** (-(hours[place] - hours[place - 1]) / half_lives)
        if is_event[place]:
            now += 1.0
            last = hours[place]
            seen = True
        else:
            counts[place] = now
            if seen:
                age[place] = hours[place] - last
    return counts, age
