"""Tables of decayed tallies by key, compiled: the fold, the read and both in turn.

A user's table has `size` entries without gaps, `used` of them taken. An entry is a fingerprint of
its key, an age in whole units before the table's clock, a count, and values that decay by
half-lives. A clock is the unit number of the user's last event; it never steps back.

A value is a float32, or a 16-bit code of round(2048 log2(1 + value)), which keeps it to 0.03 %.
When a new key comes and the table is full, the entry with the least value goes out: by the value of
the longest half-life, decayed to now; without values by the oldest; then by the smaller count.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point

CODES = 2048.0
MOST_AGE = 65535


@njit(error_model="numpy")
def _decoded(values, user, at):
    if values.itemsize == 2:
        return np.exp2(values[user, at] / CODES) - 1.0
    return np.float64(values[user, at])


@njit(error_model="numpy")
def _store(values, user, at, value):
    if values.itemsize == 2:
        code = np.floor(CODES * np.log2(1.0 + value) + 0.5)
        values[user, at] = np.uint16(min(code, 65535.0))
    else:
        values[user, at] = np.float32(value)


@njit(error_model="numpy")
def _kept(age, half_life):
    """The share that is left of a value; a half-life of 0 is for ever."""
    if half_life == 0.0:
        return 1.0
    if age >= MOST_AGE:  # or older: at least 16 half-lives (`uic.models.state.times`)
        return 0.0
    return np.exp2(-age / half_life)


@njit(error_model="numpy")
def _find(prints, used, user, wanted):
    for at in range(used):
        if prints[user, at] == wanted:
            return at
    return -1


@njit(error_model="numpy")
def _least(ages, counts, values, half_lives, used, size, user):
    """The entry that goes out."""
    longest = 0
    for value in range(len(half_lives)):
        if half_lives[value] == 0.0 or (
            half_lives[longest] != 0.0 and half_lives[value] > half_lives[longest]
        ):
            longest = value
    found = 0
    worth = np.inf
    for at in range(used):
        if len(half_lives):
            stored = _decoded(values, user, longest * size + at)
            mine = stored * _kept(np.float64(ages[user, at]), half_lives[longest])
        else:
            mine = -np.float64(ages[user, at])
        if mine < worth or (mine == worth and counts[user, at] < counts[user, found]):
            found, worth = at, mine
    return found


@njit(error_model="numpy")
def _count(head, user, field):
    if head[user, field] < np.uint32(0xFFFFFFFF):
        head[user, field] += np.uint32(1)


@njit(error_model="numpy")
def _advance(head, ages, used, user, unit):
    """Set the clock to an event's unit, and make all entries older by what has passed."""
    if head[user, 2] == 0:
        head[user, 0] = np.uint32(unit)
    passed = unit - np.int64(head[user, 0])
    if passed > 0:
        for at in range(used):
            ages[user, at] = np.uint16(min(np.int64(ages[user, at]) + passed, MOST_AGE))
        head[user, 0] = np.uint32(unit)
    _count(head, user, 2)


@njit(error_model="numpy")
def _fold_one(tables, user, wanted, unit, adds, half_lives, most_count):
    head, prints, ages, counts, values = tables
    size = prints.shape[1]
    used = min(np.int64(head[user, 3]), size)  # a spoilt record reads no other memory
    _advance(head, ages, used, user, unit)
    place = _find(prints, used, user, wanted)
    if place < 0:
        if used < size:
            place = used
            head[user, 3] = np.uint32(used + 1)
        else:
            place = _least(ages, counts, values, half_lives, used, size, user)
            _count(head, user, 1)
        prints[user, place] = wanted
        counts[user, place] = 0
        for value in range(len(half_lives)):
            values[user, value * size + place] = 0
    age = np.float64(ages[user, place])
    for value in range(len(half_lives)):
        at = value * size + place
        left = _decoded(values, user, at)
        if left > 0.0:
            left *= _kept(age, half_lives[value])
        _store(values, user, at, left + adds[value])
    ages[user, place] = 0
    if np.int64(counts[user, place]) < most_count:
        counts[user, place] += 1


@njit(error_model="numpy")
def _read_one(tables, user, wanted, unit, half_lives, out, row):
    """count, value by half-life, age in units (NaN for none), distinct keys, evictions."""
    head, prints, ages, counts, values = tables
    size = prints.shape[1]
    used = min(np.int64(head[user, 3]), size)  # a spoilt record reads no other memory
    kinds = len(half_lives)
    for column in range(1 + kinds):
        out[row, column] = 0.0
    out[row, 1 + kinds] = np.nan
    out[row, 2 + kinds] = np.float32(used)
    out[row, 3 + kinds] = np.float32(head[user, 1])
    place = _find(prints, used, user, wanted)
    if place < 0:
        return
    passed = max(unit - np.int64(head[user, 0]), 0)
    age = np.float64(min(np.int64(ages[user, place]) + passed, MOST_AGE))
    out[row, 0] = np.float32(counts[user, place])
    for value in range(kinds):
        left = _decoded(values, user, value * size + place) * _kept(age, half_lives[value])
        out[row, 1 + value] = np.float32(left)
    out[row, 1 + kinds] = np.float32(age)


@njit(error_model="numpy")
def _fold_range(tables, events, first, end, adds, half_lives, most_count):
    users, prints, units, chosen = events
    for event in range(first, end):
        kind = chosen[event]
        if kind >= 0:
            user, wanted, unit = users[event], prints[event], units[event]
            _fold_one(tables, user, wanted, unit, adds[kind], half_lives, most_count)


@entry_point
def fold(tables, users, prints, units, adds, chosen, half_lives, most_count):
    """Fold events into tables.

    Args:
        tables: head (users, 4) uint32: clock, evictions, events, used; prints, ages, counts, each
            (users, size); values (users, values * size).
        users: (events,), the table of each.
        prints: (events,), fingerprints of their keys.
        units: (events,), int64, log times in units.
        adds: (kinds of event, values), what each adds.
        chosen: (events,), its kind; below 0 is no event of this table.
        half_lives: (values,), in units; 0 for ever.
        most_count: at which a count stays.
    """
    events = (users, prints, units, chosen)
    _fold_range(tables, events, 0, len(users), adds, half_lives, most_count)


@entry_point
def read(tables, users, prints, units, half_lives, out):
    """What tables say of keys at a time; `out` is (rows, values + 4) float32, written."""
    for row in range(len(users)):
        _read_one(tables, users[row], prints[row], units[row], half_lives, out, row)


@entry_point
def walk(tables, events, adds, half_lives, most_count, asked, out):
    """Events and questions in turn: question i sees the events `begins[i]` to before `cuts[i]`.

    Args:
        tables: as of `fold`; one a user of the questions, fresh.
        events: users, prints, units, chosen, each (events,), one user after the other.
        adds: as of `fold`.
        half_lives: as of `fold`.
        most_count: as of `fold`.
        asked: users, prints, units, begins and cuts, each (questions,): the events that this
            question sees and the one before did not.
        out: as of `read`.
    """
    whose, wanted, now, begins, cuts = asked
    for row in range(len(whose)):
        _fold_range(tables, events, begins[row], cuts[row], adds, half_lives, most_count)
        _read_one(tables, whose[row], wanted[row], now[row], half_lives, out, row)
