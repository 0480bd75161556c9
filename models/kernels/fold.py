"""The eight steps of the memory network on tiles of 16 users, compiled by numba.

The same equations as `uic.models.memory.network`, which is the slow twin that this one is tested
against. A tile's state stays in the cache through all its events, and no step allocates. Rows of
the state are in record order (`uic.models.memory.state`).

Weights are packed as (blocks of 8 outputs, inputs, 8), so that one pass over the inputs feeds
eight sums that stay in registers.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point
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
    sqrt,
    store,
    store_halves,
    tanh,
    where_equal,
    where_greater,
)

BLOCK = 8  # outputs of a packed matrix that are summed side by side


@njit(error_model="numpy")
def product(weight, bias, inputs, first, out):
    """Out = weight inputs[first:] + bias; out gets a multiple of 8 rows."""
    blocks, count, _ = weight.shape
    for block in range(blocks):
        s0 = splat(bias[block, 0])
        s1 = splat(bias[block, 1])
        s2 = splat(bias[block, 2])
        s3 = splat(bias[block, 3])
        s4 = splat(bias[block, 4])
        s5 = splat(bias[block, 5])
        s6 = splat(bias[block, 6])
        s7 = splat(bias[block, 7])
        for k in range(count):
            value = load(inputs, first + k)
            s0 = fma(splat(weight[block, k, 0]), value, s0)
            s1 = fma(splat(weight[block, k, 1]), value, s1)
            s2 = fma(splat(weight[block, k, 2]), value, s2)
            s3 = fma(splat(weight[block, k, 3]), value, s3)
            s4 = fma(splat(weight[block, k, 4]), value, s4)
            s5 = fma(splat(weight[block, k, 5]), value, s5)
            s6 = fma(splat(weight[block, k, 6]), value, s6)
            s7 = fma(splat(weight[block, k, 7]), value, s7)
        row = 8 * block
        store(out, row, s0)
        store(out, row + 1, s1)
        store(out, row + 2, s2)
        store(out, row + 3, s3)
        store(out, row + 4, s4)
        store(out, row + 5, s5)
        store(out, row + 6, s6)
        store(out, row + 7, s7)


@njit(error_model="numpy")
def _gru(gates, hidden, width, buffers):
    """buffers.fresh = GRU(inputs, inputs[width:]); torch's order of gates and formula."""
    inputs = buffers.inputs
    product(gates.both, gates.both_bias, inputs, 0, buffers.gates)
    product(gates.new, gates.new_bias, inputs, 0, buffers.fresh)
    product(gates.hidden, gates.hidden_bias, inputs, width, buffers.recurrent)
    for j in range(hidden):
        reset = sigmoid(load(buffers.gates, j))
        update = sigmoid(load(buffers.gates, hidden + j))
        new = tanh(fma(reset, load(buffers.recurrent, j), load(buffers.fresh, j)))
        old = load(inputs, width + j)
        store(buffers.fresh, j, fma(update, old - new, new))


@njit(error_model="numpy")
def softmax(values, first, count):
    """Softmax of rows [first, first + count) in place."""
    largest = load(values, first)
    for i in range(1, count):
        largest = maximum(largest, load(values, first + i))
    total = splat(0.0)
    for i in range(count):
        value = exp(load(values, first + i) - largest)
        total = total + value
        store(values, first + i, value)
    share = splat(1.0) / total
    for i in range(count):
        store(values, first + i, load(values, first + i) * share)


@njit(error_model="numpy")
def _address(sizes, buffers):
    """Step 3: both weights over the slots, on the memory before the write."""
    state, heads, width = buffers.state, buffers.heads, sizes.width
    read_norm = splat(0.0)
    write_norm = splat(0.0)
    for j in range(width):
        read_key = load(heads, j)
        write_key = load(heads, width + j)
        read_norm = fma(read_key, read_key, read_norm)
        write_norm = fma(write_key, write_key, write_norm)
    read_strength = load(heads, 4 * width)
    write_strength = load(heads, 4 * width + 1)
    epsilon = splat(np.float32(sizes.epsilon))
    for i in range(sizes.slots):
        norm = splat(0.0)
        read_dot = splat(0.0)
        write_dot = splat(0.0)
        for j in range(width):
            value = load(state, i * width + j)
            norm = fma(value, value, norm)
            read_dot = fma(value, load(heads, j), read_dot)
            write_dot = fma(value, load(heads, width + j), write_dot)
        read_cosine = read_dot / sqrt(fma(norm, read_norm, epsilon))
        write_cosine = write_dot / sqrt(fma(norm, write_norm, epsilon))
        to_read, to_write = load(buffers.routes, i), load(buffers.routes, sizes.slots + i)
        store(buffers.read_weights, i, fma(read_strength, read_cosine, to_read))
        store(buffers.write_weights, i, fma(write_strength, write_cosine, to_write))
    softmax(buffers.read_weights, 0, sizes.slots)
    softmax(buffers.write_weights, 0, sizes.slots)


@njit(error_model="numpy")
def _utilize(sizes, weights, buffers):
    """Step 4: write_weights become re-balanced; g and the totals move."""
    slots, state, logits = sizes.slots, buffers.state, buffers.logits
    product(weights.balance, weights.balance_bias, state, sizes.g, logits)
    for i in range(slots):
        softmax(logits, i * slots, slots)
    share = splat(1.0) / minimum(
        load(buffers.seen, 0), splat(np.float32(sizes.utilization_horizon))
    )
    for j in range(slots):
        total = splat(0.0)
        for i in range(slots):
            total = fma(load(buffers.write_weights, i), load(logits, i * slots + j), total)
        store(buffers.balanced, j, total)
    for j in range(slots):
        weight = load(buffers.balanced, j)
        store(buffers.write_weights, j, weight)
        store(buffers.totals, j, load(buffers.totals, j) + weight)
        g = load(state, sizes.g + j)
        store(state, sizes.g + j, round_to_half(fma(share, weight - g, g)))


@njit(error_model="numpy")
def _read_and_write(sizes, buffers):
    """Steps 5 and 6: r from the memory before the write, then erase and add."""
    slots, width, state, heads = sizes.slots, sizes.width, buffers.state, buffers.heads
    for j in range(width):
        erase = load(heads, 2 * width + j)
        add = load(heads, 3 * width + j)
        r = splat(0.0)
        for i in range(slots):
            row = i * width + j
            value = load(state, row)
            share = load(buffers.write_weights, i)
            r = fma(load(buffers.read_weights, i), value, r)
            erased = fma(negative(share * erase), value, value)
            store(state, row, round_to_half(fma(share, add, erased)))
        store(state, sizes.r + j, round_to_half(r))


@njit(error_model="numpy")
def _induce(sizes, weights, buffers):
    """Step 7: the channels of largest read weight see the event and their slot after the write.

    Lanes pick different channels: reading every slot and selecting the picked one is
    cheaper than reading 16 places one by one.
    """
    state, inputs, width, channel = buffers.state, buffers.inputs, sizes.width, sizes.channel
    memory_row = sizes.event
    hidden_row = sizes.event + width
    for _ in range(sizes.top_k):
        best = load(buffers.read_weights, 0)
        picked = splat(0.0)
        for i in range(1, sizes.slots):
            weight = load(buffers.read_weights, i)
            picked = where_greater(weight, best, splat(np.float32(i)), picked)
            best = maximum(weight, best)
        for j in range(width):
            value = load(state, j)
            for i in range(1, sizes.slots):
                slot = splat(np.float32(i))
                value = where_equal(slot, picked, load(state, i * width + j), value)
            store(inputs, memory_row + j, value)
        for j in range(channel):
            value = load(state, sizes.S + j)
            for i in range(1, sizes.slots):
                slot = splat(np.float32(i))
                value = where_equal(slot, picked, load(state, sizes.S + i * channel + j), value)
            store(inputs, hidden_row + j, value)
        _gru(weights.channel, channel, hidden_row, buffers)
        for i in range(sizes.slots):
            slot = splat(np.float32(i))
            weight = load(buffers.read_weights, i)
            # Picked once is picked: a weight is never negative.
            store(buffers.read_weights, i, where_equal(slot, picked, splat(-1.0), weight))
            for j in range(channel):
                row = sizes.S + i * channel + j
                fresh = round_to_half(load(buffers.fresh, j))
                store(state, row, where_equal(slot, picked, fresh, load(state, row)))


@njit(error_model="numpy")
def _control(sizes, weights, buffers):
    """Steps 1 and 2: the controller moves, and says what to read and what to write."""
    state, inputs, heads, width = buffers.state, buffers.inputs, buffers.heads, sizes.width
    for j in range(width):
        store(inputs, sizes.event + j, load(state, sizes.r + j))
    for j in range(sizes.controller):
        store(inputs, sizes.event + width + j, load(state, sizes.h + j))
    _gru(weights.controller, sizes.controller, sizes.event + width, buffers)
    for j in range(sizes.controller):
        store(state, sizes.h + j, round_to_half(load(buffers.fresh, j)))
    product(weights.heads, weights.heads_bias, buffers.fresh, 0, heads)
    high = splat(np.float32(sizes.clip))
    low = negative(high)
    for row in range(4 * width):
        value = maximum(minimum(load(heads, row), high), low)
        if 2 * width <= row < 3 * width:
            store(heads, row, sigmoid(value))
        else:
            store(heads, row, tanh(value))
    for row in range(4 * width, 4 * width + 2):
        strength = splat(1.0) + softplus(maximum(minimum(load(heads, row), high), low))
        store(heads, row, strength if sizes.sharpening else splat(1.0))


@njit(error_model="numpy")
def _step(sizes, weights, buffers):
    """One event for each lane; `buffers.inputs` begins with x."""
    state, inputs = buffers.state, buffers.inputs
    store(buffers.seen, 0, load(buffers.seen, 0) + splat(1.0))
    _control(sizes, weights, buffers)
    product(weights.route, weights.route_bias, inputs, 0, buffers.routes)
    _address(sizes, buffers)
    if sizes.utilization:
        _utilize(sizes, weights, buffers)
    _read_and_write(sizes, buffers)
    if sizes.induction:
        _induce(sizes, weights, buffers)
    # 8. Pool.
    share = splat(1.0) / minimum(load(buffers.seen, 0), splat(np.float32(sizes.pool_horizon)))
    for j in range(sizes.event):
        pool = load(state, sizes.pool + j)
        moved = fma(share, load(inputs, j) - pool, pool)
        store(state, sizes.pool + j, round_to_half(moved))


@njit(error_model="numpy")
def _load_tile(sizes, buffers, groups, counts, start):
    """The starting states of a tile's groups, one lane each.

    Lanes without a group keep what is there: finite numbers that are never read.
    """
    for lane in range(len(groups)):
        buffers.seen[0, lane] = counts[groups[lane]]
        for j in range(sizes.state):
            buffers.halves[j, lane] = start[groups[lane], j]
    for j in range(sizes.state):
        store(buffers.state, j, load_halves(buffers.halves, j))
    for i in range(sizes.slots):
        store(buffers.totals, i, splat(0.0))


@njit(error_model="numpy")
def _save_tile(sizes, buffers, events, save_rows, saved):
    """The states after the active lanes' events, where `save_rows` asks for them."""
    if np.all(save_rows[events] < 0):
        return
    for j in range(sizes.state):
        store_halves(buffers.halves, j, load(buffers.state, j))
    for lane in range(len(events)):
        row = save_rows[events[lane]]
        if row >= 0:
            for j in range(sizes.state):
                saved[row, j] = buffers.halves[j, lane]


@entry_point
def fold_tiles(
    sizes,
    weights,
    buffers,
    x,
    order,
    firsts,
    lengths,
    counts,
    start,
    save_rows,
    saved,
    totals,
):
    """Fold all groups (see `uic.models.memory.kernel.PackedNetwork.fold`).

    `order` are the groups that have events, longest first: in a tile, the lanes that still have
    one are always the first lanes. A lane whose events are done goes on with its last one; what
    it holds then is not saved and not read.
    """
    for tile in range(0, len(order), LANES):
        groups = order[tile : tile + LANES]
        active = len(groups)
        _load_tile(sizes, buffers, groups, counts, start)
        for k in range(lengths[groups[0]]):
            while lengths[groups[active - 1]] <= k:
                active -= 1
            events = firsts[groups[:active]] + k
            for lane in range(active):
                for j in range(sizes.event):
                    buffers.inputs[j, lane] = x[events[lane], j]
            _step(sizes, weights, buffers)
            _save_tile(sizes, buffers, events, save_rows, saved)
            for lane in range(active):
                if k + 1 == lengths[groups[lane]]:
                    for i in range(sizes.slots):
                        totals[groups[lane], i] = buffers.totals[i, lane]
