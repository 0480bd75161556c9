"""Sliding windows as rings of tiles, compiled: the fold, the read and both in turn.

Time is cut into tiles of equal length; a ring keeps the last `tiles` of them, and a tile's place is
its number modulo their count. The clock is the number of the newest tile; it never steps back. A
window reaches back to the tile that holds its beginning, whole: what it says is of its length and
at most one tile more.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point

# Columns of what a read gives, for each window.
MEASURES = ("count", "sum", "mean", "min", "max", "variance", "first", "last", "distinct")


@njit(error_model="numpy")
def _clear(ring, user, at, words):
    counts, sums, squares, bits = ring[0], ring[1], ring[2], ring[7]
    counts[user, at] = 0
    if sums.shape[1]:
        sums[user, at] = 0.0
    if squares.shape[1]:
        squares[user, at] = 0.0
    for word in range(words):
        bits[user, at * words + word] = 0


@njit(error_model="numpy")
def _advance(head, ring, user, tile, tiles, words):
    """The clock after an event of `tile`; tiles that were passed over are empty."""
    clock = np.int64(head[user, 0])
    if head[user, 1] == 0:
        clock = tile
    elif tile > clock:
        for step in range(min(tile - clock, tiles)):
            _clear(ring, user, (tile - step) % tiles, words)
        clock = tile
    head[user, 0] = np.uint32(clock)
    head[user, 1] = np.uint32(1)
    return clock


@njit(error_model="numpy")
def _note(ring, user, at, number, fresh):
    lows, highs, firsts, lasts = ring[3], ring[4], ring[5], ring[6]
    if lows.shape[1] and (fresh or number < lows[user, at]):
        lows[user, at] = number
    if highs.shape[1] and (fresh or number > highs[user, at]):
        highs[user, at] = number
    if firsts.shape[1] and fresh:
        firsts[user, at] = number
    if lasts.shape[1]:
        lasts[user, at] = number


@njit(error_model="numpy")
def _fold_one(head, ring, user, tile, value, key, tiles, words):
    """`value` NaN is an event that is counted nowhere; `key` is a hash, for distinct."""
    at = _advance(head, ring, user, tile, tiles, words) % tiles
    if np.isnan(value):
        return
    counts, sums, squares, bits = ring[0], ring[1], ring[2], ring[7]
    _note(ring, user, at, np.float32(value), counts[user, at] == 0)
    if counts[user, at] < np.uint32(0xFFFFFFFF):
        counts[user, at] += np.uint32(1)
    if sums.shape[1]:
        sums[user, at] += value
    if squares.shape[1]:
        squares[user, at] += value * value
    if words:
        bit = np.int64(key % np.uint64(words * 64))
        bits[user, at * words + bit // 64] |= np.uint64(1) << np.uint64(bit % 64)


@njit(error_model="numpy")
def _ones(word):
    count = 0
    while word != np.uint64(0):
        word &= word - np.uint64(1)
        count += 1
    return count


@njit(error_model="numpy")
def _distinct(bits, user, oldest, clock, tiles, words):
    """Linear counting (Whang et al., 1990), rounded; a full map says its most."""
    zeros = 0
    for word in range(words):
        joined = np.uint64(0)
        for number in range(oldest, clock + 1):
            joined |= bits[user, (number % tiles) * words + word]
        zeros += 64 - _ones(joined)
    cells = 64.0 * words
    return np.rint(-cells * np.log(max(zeros, 1) / cells))


@njit(error_model="numpy")
def _window(ring, user, oldest, clock, tiles, out, row, base):
    """Write all measures but `distinct` of the tiles from `oldest` to the clock's."""
    counts, sums, squares = ring[0], ring[1], ring[2]
    lows, highs, firsts, lasts = ring[3], ring[4], ring[5], ring[6]
    count, total, square = 0, 0.0, 0.0
    low, high, first, last = np.inf, -np.inf, np.nan, np.nan
    for number in range(oldest, clock + 1):
        at = number % tiles
        if counts[user, at] == 0:
            continue
        total += sums[user, at] if sums.shape[1] else 0.0
        square += squares[user, at] if squares.shape[1] else 0.0
        low = min(low, np.float64(lows[user, at])) if lows.shape[1] else low
        high = max(high, np.float64(highs[user, at])) if highs.shape[1] else high
        first = np.float64(firsts[user, at]) if firsts.shape[1] and count == 0 else first
        last = np.float64(lasts[user, at]) if lasts.shape[1] else last
        count += np.int64(counts[user, at])
    mean = total / count if count else np.nan
    out[row, base] = count
    out[row, base + 1] = total
    out[row, base + 2] = mean
    out[row, base + 3] = low if count else np.nan
    out[row, base + 4] = high if count else np.nan
    out[row, base + 5] = max(square / count - mean * mean, 0.0) if count else np.nan
    out[row, base + 6] = first
    out[row, base + 7] = last
    return count


@njit(error_model="numpy")
def _read_one(head, ring, user, tile, spans, tiles, words, out, row):
    """For each window the columns of `MEASURES`; what no event tells is NaN."""
    clock = np.int64(head[user, 0])
    now = max(tile, clock)
    for window in range(len(spans)):
        oldest = max(now - spans[window], clock - tiles + 1, 0)
        if head[user, 1] == 0:
            oldest = clock + 1
        base = window * 9
        count = _window(ring, user, oldest, clock, tiles, out, row, base)
        distinct = 0.0
        if words and count:
            distinct = _distinct(ring[7], user, oldest, clock, tiles, words)
        out[row, base + 8] = distinct


@entry_point
def fold(head, ring, users, tile_of, values, keys, tiles, words):
    """Fold events into rings.

    Args:
        head: (users, 2) uint32: clock, and whether there was an event.
        ring: counts uint32, sums float64, squares float64, lows, highs, firsts, lasts float32,
            each (users, tiles) or (users, 0) where it is not kept; bits (users, tiles * words)
            uint64.
        users: (events,), the ring of each.
        tile_of: (events,) int64, log times in tiles.
        values: (events,) float64; NaN is counted nowhere.
        keys: (events,) uint64, hashes.
        tiles: of a ring.
        words: of 64 bits for distinct keys, a tile.
    """
    for event in range(len(users)):
        _fold_one(
            head, ring, users[event], tile_of[event], values[event], keys[event], tiles, words
        )


@entry_point
def read(head, ring, users, tile_of, spans, tiles, words, out):
    """What windows of `spans` tiles say at a time; `out` is (rows, windows * 9) float64."""
    for row in range(len(users)):
        _read_one(head, ring, users[row], tile_of[row], spans, tiles, words, out, row)


@entry_point
def walk(head, ring, events, asked, spans, tiles, words, out):
    """Events and questions in turn; see `uic.models.kernels.tallies.walk`."""
    users, tile_of, values, keys = events
    whose, now, begins, cuts = asked
    for row in range(len(whose)):
        for event in range(begins[row], cuts[row]):
            _fold_one(
                head, ring, users[event], tile_of[event], values[event], keys[event], tiles, words
            )
        _read_one(head, ring, whose[row], now[row], spans, tiles, words, out, row)
