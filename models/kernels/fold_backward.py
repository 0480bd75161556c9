"""The gradients of the eight steps on tiles of 16 users, compiled by numba.

A tile walks its events from the last to the first. For each it repeats the step from the kept
state before it, then goes through the steps in reverse, carrying the gradient of the state in
`carry` (rows in record order). Gradients of weights are sums over all events of outer products;
what they are made of is written out for each event, and torch multiplies it at the end
(`uic.models.memory.gradient`). A lane without an event in this step carries zeros, and adds zeros.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point
from uic.models.kernels.fold import product, softmax
from uic.models.kernels.fold_parts_backward import (
    add_to,
    address_backward,
    address_forward,
    gru_backward,
    gru_forward,
)
from uic.models.kernels.lanes import (
    LANES,
    exp,
    fma,
    load,
    load_halves,
    maximum,
    minimum,
    negative,
    round_to_half,
    sigmoid,
    softplus,
    splat,
    store,
    tanh,
    where_equal,
    where_greater,
)


@njit(error_model="numpy")
def _repeat(sizes, weights, b):
    """Steps 1 to 4 again, from the state before the event."""
    width, slots = sizes.width, sizes.slots
    for j in range(width):
        store(b.inputs, sizes.event + j, load(b.state, sizes.r + j))
    for j in range(sizes.controller):
        store(b.inputs, sizes.event + width + j, load(b.state, sizes.h + j))
    hidden_row = sizes.event + width
    gru_forward(weights.controller, sizes.controller, hidden_row, b.inputs, b.controller)
    product(weights.heads, weights.heads_bias, b.controller, 4 * sizes.controller, b.heads)
    high = splat(np.float32(sizes.clip))
    low = negative(high)
    for row in range(4 * width + 2):
        # Outside the bounds there is no gradient; torch's clamp has one on them.
        value = load(b.heads, row)
        size = maximum(value, negative(value))
        store(b.slopes, row, where_greater(size, high, splat(0.0), splat(1.0)))
        value = maximum(minimum(value, high), low)
        if row >= 4 * width:
            strength = splat(1.0) + softplus(value)
            store(b.heads, row, strength if sizes.sharpening else splat(1.0))
        elif 2 * width <= row < 3 * width:
            store(b.heads, row, sigmoid(value))
        else:
            store(b.heads, row, tanh(value))
    product(weights.route, weights.route_bias, b.inputs, 0, b.routes)
    address_forward(sizes, b, 0, 4 * width, 0, b.read_cosines, b.read_inverses, b.read_weights)
    address_forward(
        sizes, b, width, 4 * width + 1, slots, b.write_cosines, b.write_inverses, b.write_weights
    )
    for j in range(slots):
        store(b.balanced, j, load(b.write_weights, j))
    if sizes.utilization:
        product(weights.balance, weights.balance_bias, b.state, sizes.g, b.logits)
        for i in range(slots):
            softmax(b.logits, i * slots, slots)
        for j in range(slots):
            total = splat(0.0)
            for i in range(slots):
                total = fma(load(b.write_weights, i), load(b.logits, i * slots + j), total)
            store(b.balanced, j, total)


@njit(error_model="numpy")
def _written(sizes, b, row):
    """The number at `row` of M after the write, as the forward pass rounded it."""
    i, j = row // sizes.width, row % sizes.width
    value, share = load(b.state, row), load(b.balanced, i)
    erase, add = load(b.heads, 2 * sizes.width + j), load(b.heads, 3 * sizes.width + j)
    return round_to_half(fma(share, add, fma(negative(share * erase), value, value)))


@njit(error_model="numpy")
def _induction_backward(sizes, weights, transposed, b):
    """Step 7 again, and back: carry of S, of M after the write, and the event's gradient."""
    width, channel, slots = sizes.width, sizes.channel, sizes.slots
    hidden_row = sizes.event + width
    for i in range(slots):
        store(b.left, i, load(b.read_weights, i))
    for pick in range(sizes.top_k):
        best = load(b.left, 0)
        picked = splat(0.0)
        for i in range(1, slots):
            weight = load(b.left, i)
            picked = where_greater(weight, best, splat(np.float32(i)), picked)
            best = maximum(weight, best)
        for j in range(width):
            value = _written(sizes, b, j)
            for i in range(1, slots):
                slot = splat(np.float32(i))
                value = where_equal(slot, picked, _written(sizes, b, i * width + j), value)
            store(b.inputs, sizes.event + j, value)
            store(b.channel_inputs, pick * (width + channel) + j, value)
        for j in range(channel):
            value = load(b.state, sizes.S + j)
            gradient = load(b.carry, sizes.S + j)
            for i in range(1, slots):
                slot, row = splat(np.float32(i)), sizes.S + i * channel + j
                value = where_equal(slot, picked, load(b.state, row), value)
                gradient = where_equal(slot, picked, load(b.carry, row), gradient)
            store(b.inputs, hidden_row + j, value)
            store(b.channel_inputs, pick * (width + channel) + width + j, value)
            store(b.upstream, j, gradient)
        gru_forward(weights.channel, channel, hidden_row, b.inputs, b.channel)
        gates = b.channel_gates[pick * 4 * channel :]
        gru_backward(
            transposed.channel, channel, hidden_row, b.inputs, b.channel, b.upstream, gates, b.back
        )
        for j in range(sizes.event):
            add_to(b.event_gradient, j, load(b.back, j))
        for i in range(slots):
            slot = splat(np.float32(i))
            store(b.left, i, where_equal(slot, picked, splat(-1.0), load(b.left, i)))
            for j in range(width):
                add = where_equal(slot, picked, load(b.back, sizes.event + j), splat(0.0))
                add_to(b.carry, i * width + j, add)
            for j in range(channel):
                row = sizes.S + i * channel + j
                fresh = load(b.back, hidden_row + j)
                store(b.carry, row, where_equal(slot, picked, fresh, load(b.carry, row)))


@njit(error_model="numpy")
def _write_backward(sizes, b):
    """Steps 6 and 5: the carry of M moves to before the write, and gets the read's part."""
    slots, width, heads = sizes.slots, sizes.width, b.heads
    for i in range(slots):
        store(b.read_gradient, i, splat(0.0))
        store(b.write_gradient, i, load(b.total_gradient, i))
    for j in range(width):
        erase, add = load(heads, 2 * width + j), load(heads, 3 * width + j)
        r = load(b.carry, sizes.r + j)
        erase_gradient = splat(0.0)
        add_gradient = splat(0.0)
        for i in range(slots):
            row = i * width + j
            value, upstream = load(b.state, row), load(b.carry, row)
            share = load(b.balanced, i)
            add_gradient = fma(upstream, share, add_gradient)
            erase_gradient = fma(negative(upstream * share), value, erase_gradient)
            add_to(b.write_gradient, i, upstream * (add - erase * value))
            add_to(b.read_gradient, i, r * value)
            unwritten = upstream * (splat(1.0) - share * erase)
            store(b.carry, row, fma(load(b.read_weights, i), r, unwritten))
        store(b.heads_gradient, 2 * width + j, erase_gradient)
        store(b.heads_gradient, 3 * width + j, add_gradient)


@njit(error_model="numpy")
def _utilize_backward(sizes, transposed, b):
    """Step 4: from re-balanced weights to weights, to the logits of P, and to g."""
    slots = sizes.slots
    share = splat(1.0) / minimum(load(b.seen, 0), splat(np.float32(sizes.utilization_horizon)))
    for i in range(slots):
        row = sizes.g + i
        upstream = load(b.carry, row)
        add_to(b.write_gradient, i, share * upstream)
        store(b.carry, row, upstream - share * upstream)
    for i in range(slots):
        mean = splat(0.0)
        for j in range(slots):
            mean = fma(load(b.logits, i * slots + j), load(b.write_gradient, j), mean)
        weight = load(b.write_weights, i)
        for j in range(slots):
            row = i * slots + j
            spread = load(b.write_gradient, j) - mean
            store(b.logits_gradient, row, load(b.logits, row) * weight * spread)
        store(b.upstream, i, mean)
    for i in range(slots):
        store(b.write_gradient, i, load(b.upstream, i))
    product(transposed.balance.weight, transposed.balance.bias, b.logits_gradient, 0, b.back)
    for i in range(slots):
        add_to(b.carry, sizes.g + i, load(b.back, i))


@njit(error_model="numpy")
def _control_backward(sizes, transposed, b):
    """Steps 2 and 1: through the heads' activations and the controller."""
    width, hidden = sizes.width, sizes.controller
    one = splat(1.0)
    for row in range(4 * width + 2):
        value = load(b.heads, row)
        if row >= 4 * width:
            # beta = 1 + softplus, whose slope is 1 - e ** -softplus.
            slope = one - exp(one - value) if sizes.sharpening else splat(0.0)
        elif 2 * width <= row < 3 * width:
            slope = value * (one - value)
        else:
            slope = one - value * value
        gradient = load(b.heads_gradient, row) * slope * load(b.slopes, row)
        store(b.heads_gradient, row, gradient)
    product(transposed.heads.weight, transposed.heads.bias, b.heads_gradient, 0, b.upstream)
    for j in range(hidden):
        add_to(b.upstream, j, load(b.carry, sizes.h + j))
    hidden_row = sizes.event + width
    for j in range(width):
        store(b.inputs, sizes.event + j, load(b.state, sizes.r + j))
    for j in range(hidden):
        store(b.inputs, hidden_row + j, load(b.state, sizes.h + j))
    gru_backward(
        transposed.controller,
        hidden,
        hidden_row,
        b.inputs,
        b.controller,
        b.upstream,
        b.controller_gates,
        b.back,
    )
    for j in range(sizes.event):
        add_to(b.event_gradient, j, load(b.back, j))
    for j in range(width):
        store(b.carry, sizes.r + j, load(b.back, sizes.event + j))
    for j in range(hidden):
        store(b.carry, sizes.h + j, load(b.back, hidden_row + j))


@njit(error_model="numpy")
def _step_backward(sizes, weights, transposed, b):
    """From the gradient of the state after the event to that of the state before it."""
    _repeat(sizes, weights, b)
    share = splat(1.0) / minimum(load(b.seen, 0), splat(np.float32(sizes.pool_horizon)))
    for j in range(sizes.event):
        moved = share * load(b.carry, sizes.pool + j)
        store(b.event_gradient, j, moved)
        add_to(b.carry, sizes.pool + j, negative(moved))
    if sizes.induction:
        _induction_backward(sizes, weights, transposed, b)
    _write_backward(sizes, b)
    if sizes.utilization:
        _utilize_backward(sizes, transposed, b)
    width = sizes.width
    # The stored norms are those of the write key; the slots' are the same for both.
    address_backward(
        sizes,
        b,
        width,
        4 * width + 1,
        sizes.slots,
        b.write_cosines,
        b.write_inverses,
        b.write_weights,
        b.write_gradient,
    )
    key_norm = splat(0.0)
    for j in range(width):
        key_norm = fma(load(b.heads, j), load(b.heads, j), key_norm)
    store(b.norms, sizes.slots, key_norm)
    address_backward(
        sizes, b, 0, 4 * width, 0, b.read_cosines, b.read_inverses, b.read_weights, b.read_gradient
    )
    if sizes.routing:
        product(transposed.route.weight, transposed.route.bias, b.routes_gradient, 0, b.back)
        for j in range(sizes.event):
            add_to(b.event_gradient, j, load(b.back, j))
    _control_backward(sizes, transposed, b)


@entry_point
def fold_tiles_backward(
    sizes,
    weights,
    transposed,
    b,
    parts,
    fold,
    cut_of_event,
    cut_gradient,
    total_gradient,
    carried,
    out,
):
    """Gradients of all tiles.

    `fold` is (x, order, firsts, lengths, counts, start, after) as in the forward pass; `parts` are
    the rows of `b.written` that go to `out[event]`; `carried[group]` gets the gradient of the
    starting state; `cut_of_event[event]` is the row of `cut_gradient` for the state after it.
    """
    x, order, firsts, lengths, counts, start, after = fold
    for tile in range(0, len(order), LANES):
        groups = order[tile : tile + LANES]
        active = 0
        # Lanes without an event divide by this too: 1 / 0 times nothing would be NaN.
        store(b.seen, 0, splat(1.0))
        for j in range(sizes.state):
            store(b.carry, j, splat(0.0))
        for i in range(sizes.slots):
            store(b.total_gradient, i, splat(0.0))
        for k in range(lengths[groups[0]] - 1, -1, -1):
            while active < len(groups) and lengths[groups[active]] > k:
                for i in range(sizes.slots):
                    b.total_gradient[i, active] = total_gradient[groups[active], i]
                active += 1
            events = firsts[groups[:active]] + k
            for lane in range(active):
                event, group = events[lane], groups[lane]
                b.seen[0, lane] = counts[group] + k + 1
                for j in range(sizes.event):
                    b.inputs[j, lane] = x[event, j]
                if k:
                    for j in range(sizes.state):
                        b.halves[j, lane] = after[event - 1, j]
                else:
                    for j in range(sizes.state):
                        b.halves[j, lane] = start[group, j]
                cut = cut_of_event[event]
                if cut >= 0:
                    for j in range(sizes.state):
                        b.carry[j, lane] += cut_gradient[cut, j]
            for j in range(sizes.state):
                store(b.state, j, load_halves(b.halves, j))
            _step_backward(sizes, weights, transposed, b)
            for lane in range(active):
                for j in range(parts):
                    out[events[lane], j] = b.written[j, lane]
        for lane in range(active):
            for j in range(sizes.state):
                carried[groups[lane], j] = b.carry[j, lane]
