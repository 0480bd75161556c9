"""Rings of the last events of users, compiled: the fold, the read and both in turn."""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point


@njit(error_model="numpy")
def _fold_one(ring, user, item, category, behavior, seconds):
    head, items, categories, times, behaviors = ring
    at = np.int64(head[user, 0]) % items.shape[1]  # a spoilt record writes no other memory
    items[user, at] = item
    categories[user, at] = category
    behaviors[user, at] = behavior
    # The clock of a ring never steps back.
    times[user, at] = max(np.uint32(seconds), np.uint32(head[user, 2]))
    head[user, 2] = times[user, at]
    head[user, 0] = np.uint32((at + 1) % items.shape[1])
    if np.int64(head[user, 1]) < items.shape[1]:
        head[user, 1] += np.uint32(1)


@njit(error_model="numpy")
def _read_one(ring, user, item, category, seconds, pause, out, row):
    """Gap in seconds, events of the session, place of item and category from the end, shares."""
    head, items, categories, times, _ = ring
    size = items.shape[1]
    held, end = min(np.int64(head[user, 1]), size), np.int64(head[user, 0]) % size
    for column in range(5):
        out[row, column] = np.nan
    out[row, 1] = 0
    if held == 0:
        return
    now = max(seconds, np.int64(head[user, 2]))
    out[row, 0] = np.float32(now - np.int64(head[user, 2]))
    session, before, same = 0, now, 0
    running = True
    for back in range(1, held + 1):
        at = (end - back + size) % size
        running = running and before - np.int64(times[user, at]) <= pause
        if running:
            session += 1
        before = np.int64(times[user, at])
        if items[user, at] == item and np.isnan(out[row, 2]):
            out[row, 2] = np.float32(back)
        if categories[user, at] == category:
            same += 1
            if np.isnan(out[row, 3]):
                out[row, 3] = np.float32(back)
    out[row, 1] = np.float32(session)
    out[row, 4] = np.float32(same) / np.float32(held)


@njit(error_model="numpy")
def _fold_range(ring, events, first, end):
    users, items, categories, behaviors, seconds, chosen = events
    for event in range(first, end):
        if chosen[event]:
            user, item, category = users[event], items[event], categories[event]
            _fold_one(ring, user, item, category, behaviors[event], seconds[event])


@entry_point
def fold(ring, users, items, categories, behaviors, seconds, chosen):
    """Fold events into rings.

    Args:
        ring: head (users, 4) uint32: next place, held events, seconds of the last; items and
            categories (users, size) int64; times (users, size) uint32; behaviours uint8.
        users: (events,), the ring of each.
        items: (events,) int64.
        categories: (events,) int64.
        behaviors: (events,) uint8.
        seconds: (events,) int64, log times.
        chosen: (events,) bool, which are kept.
    """
    events = (users, items, categories, behaviors, seconds, chosen)
    _fold_range(ring, events, 0, len(users))


@entry_point
def read(ring, users, items, categories, seconds, pause, out):
    """What rings say at a time; `out` is (rows, 5) float32, written."""
    for row in range(len(users)):
        _read_one(ring, users[row], items[row], categories[row], seconds[row], pause, out, row)


@entry_point
def walk(ring, events, asked, pause, out):
    """Events and questions in turn; see `uic.models.kernels.tallies.walk`."""
    whose, its_item, its_category, now, begins, cuts = asked
    for row in range(len(whose)):
        _fold_range(ring, events, begins[row], cuts[row])
        _read_one(ring, whose[row], its_item[row], its_category[row], now[row], pause, out, row)
