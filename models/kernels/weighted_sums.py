"""IMN's weighted sums of events for queries (m, v), compiled by numba: forward and gradient.

A query is a small matrix E = S + C diag(m) + D diag(v) and a vector c
(`uic.models.rankers.imn.attention`); a pair's score is `b2 + W2 sigmoid(E x + c)` and its weight
the sigmoid of that. Lanes are events. The E of some queries of a view, stacked, times a tile of its
events, turned, is one product whose result stays in the cache; nothing that is as many as pairs is
ever written, and backward repeats a tile's forward pass.

A sigmoid is a hyperbolic tangent, `sigmoid(z) = (1 + tanh(z / 2)) / 2`; the halves are taken once,
in E, c, W2 and b2. So `weight = (1 + tanh(bend + slope tanh(E x / 2 + c / 2))) / 2` with
`slope = W2 / 4` and `bend = b2 / 2 + the sum of slope`.

All arrays are float32, C-contiguous, and the width of an event a multiple of 16, padded with zeros
(`uic.models.rankers.imn.sums`). The slow twin is `uic.models.rankers.imn.tiles.tiled_sums`.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point
from uic.models.kernels.lanes import LANES, fma, load, splat, store, tanh
from uic.models.kernels.products import multiply, total
from uic.models.kernels.turn import turn

TILE = 48  # events; a multiple of 16, and what `multiply` takes at once
STACK = 64  # rows of a product, that is hidden units of queries, unless one query has more


@njit(error_model="numpy")
def _turn_view(events, reach, columns, rest, turned):
    """The first `reach` events, tile after tile: (width, columns of the tile) each, then zeros.

    `columns` is `reach` rounded up to lanes, `rest` room for the last lane's events.
    """
    width = events.shape[1]
    for first in range(0, columns, TILE):
        wide = min(TILE, columns - first)
        for at in range(first, first + wide, LANES):
            source, row = events, at
            if at + LANES > reach:
                rest[:] = 0
                rest[: reach - at] = events[at:reach]
                source, row = rest, 0
            for k in range(0, width, LANES):
                place = first * width + k * wide + at - first
                turn(source, row * width + k, width, turned, place, wide)


@njit(error_model="numpy")
def _stack(members, scorer, stack, shift):
    """Half of E and c of some queries, one below the other."""
    memory, target, common, by_memory, by_target, constant, _, _ = scorer
    hidden, lanes = len(common), common.shape[1] // LANES
    half = splat(0.5)
    for place in range(len(members)):
        member, first = members[place], place * hidden
        for lane in range(lanes):
            m, v = load(memory, member * lanes + lane), load(target, member * lanes + lane)
            for unit in range(hidden):
                at = unit * lanes + lane
                value = fma(m, load(by_memory, at), load(common, at))
                value = fma(v, load(by_target, at), value)
                store(stack, (first + unit) * lanes + lane, value * half)
        for unit in range(hidden):
            shift[first + unit] = np.float32(0.5) * constant[member, unit]


@njit(error_model="numpy")
def _add(rows, row, value):
    """`rows[row]` grows by `value`."""
    store(rows, row, load(rows, row) + value)


@njit(error_model="numpy")
def _stack_backward(members, scorer, by_stack, gradients):
    """What E is made of gets the gradients of the halves of some queries."""
    memory, target, common, by_memory, by_target, _, _, _ = scorer
    to_memory, to_target, to_common, to_by_memory, to_by_target = gradients[1:6]
    hidden, lanes = len(common), common.shape[1] // LANES
    half = splat(0.5)
    for place in range(len(members)):
        for lane in range(lanes):
            row = members[place] * lanes + lane
            m, v = load(memory, row), load(target, row)
            for unit in range(hidden):
                at = unit * lanes + lane
                given = load(by_stack, (place * hidden + unit) * lanes + lane) * half
                _add(to_common, at, given)
                _add(to_by_memory, at, given * m)
                _add(to_by_target, at, given * v)
                _add(to_memory, row, given * load(by_memory, at))
                _add(to_target, row, given * load(by_target, at))


@njit(error_model="numpy")
def _span(members, firsts, ends):
    """The first event that one of some queries sees, and the event after the last."""
    low, high = ends[members[0]], firsts[members[0]]
    for member in members:
        if firsts[member] < ends[member]:
            low, high = min(low, firsts[member]), max(high, ends[member])
    return low, high


@njit(error_model="numpy")
def _clear(row, columns, first, end):
    """Zeros in what lies before `first` and from `end` on."""
    row[: min(max(first, 0), columns)] = 0
    row[min(max(end, 0), columns) : columns] = 0


@njit(error_model="numpy")
def _bends(second, bias, slope):
    """`slope`, and returns `bend`."""
    bend = np.float32(0.5) * bias[0]
    for unit in range(len(second)):
        slope[unit] = np.float32(0.25) * second[unit]
        bend += slope[unit]
    return bend


@njit(error_model="numpy")
def _views_end(order, at, view_of, ends):
    """Where the queries of a view end in `order`, and how far they see."""
    view, reach, stop = view_of[order[at]], 0, at
    while stop < len(order) and view_of[order[stop]] == view:
        reach = max(reach, ends[order[stop]])
        stop += 1
    return stop, reach


@entry_point
def weighted_sums(x, scorer, sight, sums):
    """The sum of what each query sees, weighted.

    Args:
        x: (views, steps, width).
        scorer: m and v (queries, width), S, C and D (hidden, width), of which E is made,
            c (queries, hidden), W2 (hidden,), b2 (1,).
        sight: (queries,) int64 each: queries by view, and each query's view, first step and end.
        sums: (queries, width), zeros, added to.
    """
    second, bias = scorer[6:]
    order, view_of, firsts, ends = sight
    hidden, width = scorer[2].shape
    at_once = max(STACK // hidden, 1)
    slope = np.empty(hidden, np.float32)
    bend = splat(_bends(second, bias, slope))
    turned = np.empty((x.shape[1] + LANES) * width, np.float32)
    rest = np.empty((LANES, width), np.float32)
    stack = np.empty((at_once * hidden, width), np.float32)
    shift = np.empty(at_once * hidden, np.float32)
    layer = np.empty(at_once * hidden * TILE, np.float32)
    weights = np.empty(at_once * TILE, np.float32)
    none = np.zeros(TILE, np.float32)
    block_sums = np.empty((at_once, width), np.float32)
    half = splat(0.5)
    at = 0
    while at < len(order):
        stop, reach = _views_end(order, at, view_of, ends)
        view, columns = view_of[order[at]], (reach + LANES - 1) // LANES * LANES
        _turn_view(x[view], reach, columns, rest, turned)
        for begin in range(at, stop, at_once):
            members = order[begin : min(begin + at_once, stop)]
            _stack(members, scorer, stack, shift)
            block_sums[:] = 0
            low, high = _span(members, firsts, ends)
            for first in range(low // TILE * TILE, high, TILE):
                wide = min(TILE, columns - first)
                lanes = wide // LANES
                multiply(
                    stack, width, 1, turned[first * width :], layer, none, 0,
                    len(members) * hidden, width, wide,
                )  # fmt: skip
                for place in range(len(members)):
                    for lane in range(lanes):
                        score = bend
                        for unit in range(hidden):
                            row = place * hidden + unit
                            value = tanh(load(layer, row * lanes + lane) + splat(shift[row]))
                            score = fma(splat(slope[unit]), value, score)
                        store(weights, place * lanes + lane, fma(half, tanh(score), half))
                    member = members[place]
                    _clear(
                        weights[place * wide :], wide, firsts[member] - first, ends[member] - first
                    )
                multiply(
                    weights, wide, 1, x[view, first:], block_sums, block_sums, width,
                    len(members), min(wide, reach - first), width,
                )  # fmt: skip
            for place in range(len(members)):
                sums[members[place]] = block_sums[place]
        at = stop


@njit(error_model="numpy")
def _pair_backward(layer, place, count, shift, slope, bend, wide, unseen, by_units):
    """One query and one tile, in place: units become gradients, the query's last row weights.

    `layer` has rows of units of `count` queries, then a row of each query with the gradient of its
    weights. `unseen` is where the query's sight begins and ends in the tile, `by_units` the
    gradients by slope, shift and bend, lanes apart.
    """
    by_slope, by_shift, by_bend, slants = by_units
    hidden, lanes = len(slope), wide // LANES
    half, one = splat(0.5), splat(1.0)
    last = count * hidden + place
    for lane in range(lanes):
        score = bend
        for unit in range(hidden):
            row = place * hidden + unit
            value = tanh(load(layer, row * lanes + lane) + splat(shift[row]))
            store(layer, row * lanes + lane, value)
            score = fma(splat(slope[unit]), value, score)
        value = tanh(score)
        given = load(layer, last * lanes + lane) * half
        store(slants, lane, given * (one - value * value))
        store(layer, last * lanes + lane, fma(half, value, half))
    _clear(layer[last * wide :], wide, *unseen)
    _clear(slants, wide, *unseen)
    summed = load(by_bend, 0)
    for lane in range(lanes):
        summed = summed + load(slants, lane)
    store(by_bend, 0, summed)
    for unit in range(hidden):
        row, factor = place * hidden + unit, splat(slope[unit])
        slope_sum, shift_sum = load(by_slope, unit), load(by_shift, row)
        for lane in range(lanes):
            value, slant = load(layer, row * lanes + lane), load(slants, lane)
            slope_sum = fma(slant, value, slope_sum)
            back = slant * factor * (one - value * value)
            shift_sum = shift_sum + back
            store(layer, row * lanes + lane, back)
        store(by_slope, unit, slope_sum)
        store(by_shift, row, shift_sum)


@njit(error_model="numpy")
def _units_backward(members, by_units, gradients):
    """c, W2 and b2 get the gradients of the parts of some queries' units."""
    by_constant, by_second, by_bias = gradients[6:]
    by_slope, by_shift, by_bend, _ = by_units
    hidden = len(by_second)
    half, quarter = np.float32(0.5), np.float32(0.25)
    by_bias[0] += half * total(load(by_bend, 0))
    for unit in range(hidden):
        by_second[unit] += quarter * (total(load(by_bend, 0)) + total(load(by_slope, unit)))
    for place in range(len(members)):
        first = place * hidden
        for unit in range(hidden):
            by_constant[members[place], unit] = half * total(load(by_shift, first + unit))


@entry_point
def weighted_sums_backward(x, scorer, sight, given, gradients):
    """The gradient of `weighted_sums`, whose arguments come first.

    `given` is the gradient of the sums, (queries, width). `gradients` are those of x and of what
    `scorer` has: zeros, added to.
    """
    second, bias = scorer[6:]
    order, view_of, firsts, ends = sight
    by_x = gradients[0]
    hidden, width = scorer[2].shape
    at_once = max(STACK // hidden, 1)
    slope = np.empty(hidden, np.float32)
    bend = splat(_bends(second, bias, slope))
    turned = np.empty((x.shape[1] + LANES) * width, np.float32)
    rest = np.empty((LANES, width), np.float32)
    stack = np.empty((at_once * (hidden + 1), width), np.float32)
    shift = np.empty(at_once * hidden, np.float32)
    layer = np.empty(at_once * (hidden + 1) * TILE, np.float32)
    none = np.zeros(TILE, np.float32)
    by_stack = np.empty((at_once * hidden, width), np.float32)
    by_slope = np.empty((hidden, LANES), np.float32)
    by_shift = np.empty((at_once * hidden, LANES), np.float32)
    by_bend = np.empty((1, LANES), np.float32)
    by_units = by_slope, by_shift, by_bend, np.empty(TILE, np.float32)
    at = 0
    while at < len(order):
        stop, reach = _views_end(order, at, view_of, ends)
        view, columns = view_of[order[at]], (reach + LANES - 1) // LANES * LANES
        _turn_view(x[view], reach, columns, rest, turned)
        for begin in range(at, stop, at_once):
            members = order[begin : min(begin + at_once, stop)]
            units, rows = len(members) * hidden, len(members) * (hidden + 1)
            _stack(members, scorer, stack, shift)
            stack[units:rows] = given[members]
            by_stack[:] = 0
            by_slope[:], by_shift[:], by_bend[:] = 0, 0, 0
            low, high = _span(members, firsts, ends)
            for first in range(low // TILE * TILE, high, TILE):
                wide = min(TILE, columns - first)
                seen = min(wide, reach - first)
                multiply(
                    stack, width, 1, turned[first * width :], layer, none, 0, rows, width, wide
                )
                for place in range(len(members)):
                    member = members[place]
                    unseen = firsts[member] - first, ends[member] - first
                    _pair_backward(
                        layer, place, len(members), shift, slope, bend, wide, unseen, by_units
                    )
                multiply(
                    layer, wide, 1, x[view, first:], by_stack, by_stack, width, units, seen, width
                )
                tile = by_x[view, first:]
                multiply(layer, 1, wide, stack, tile, tile, width, seen, rows, width)
            _stack_backward(members, scorer, by_stack, gradients)
            _units_backward(members, by_units, gradients)
        at = stop
