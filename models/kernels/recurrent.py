"""A GRU with an update gate scaled by attention, over ragged sequences, compiled by numba.

`h' = h + a u (n - h)`, `u = sigmoid(x_u + U_u h)`, `r = sigmoid(x_r + U_r h)`,
`n = tanh(x_n + r (U_n h + b_n))` (DIEN, eq. 14 to 16). With a = 1 it is `torch.nn.GRU`, whose
update gate is 1 - u (`uic.models.layers.recurrent`).

Sequences are taken in tiles, longest first: in a tile those that still have a step are always the
first rows. All arrays are float32, C-contiguous, and the width a multiple of 16. Rows of three
times the width hold update, reset, new.
"""

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point
from uic.models.kernels.lanes import LANES, fma, load, sigmoid, splat, store, tanh
from uic.models.kernels.products import multiply, total

TILE = 16  # sequences


@entry_point
def run(order, firsts, counts, projected, row_of, attention, weight, bias, states):
    """The state after every step.

    Args:
        order: (sequences,), longest first.
        firsts: (sequences,), number of the first step of each.
        counts: (sequences,), its steps.
        projected: (rows, 3 width), what a step gets from its input.
        row_of: (steps,), the row of each step.
        attention: (steps,), a.
        weight: (width, 3 width), U transposed.
        bias: (3 width,), added to U h.
        states: (steps, width), written.
    """
    width = weight.shape[0]
    lanes = width // LANES
    before = np.zeros((TILE, width), np.float32)
    sums = np.empty((TILE, 3 * width), np.float32)
    for tile in range(0, len(order), TILE):
        members = order[tile : tile + TILE]
        active = len(members)
        before[:] = 0
        for step in range(counts[members[0]]):
            while counts[members[active - 1]] <= step:
                active -= 1
            multiply(before, width, 1, weight, sums, bias, 0, active, width, 3 * width)
            for place in range(active):
                at = firsts[members[place]] + step
                x, u = row_of[at] * 3 * lanes, place * 3 * lanes
                scale = splat(attention[at])
                for lane in range(lanes):
                    reset = sigmoid(
                        load(projected, x + lanes + lane) + load(sums, u + lanes + lane)
                    )
                    recurrent = load(sums, u + 2 * lanes + lane)
                    new = tanh(fma(reset, recurrent, load(projected, x + 2 * lanes + lane)))
                    update = sigmoid(load(projected, x + lane) + load(sums, u + lane)) * scale
                    old = load(before, place * lanes + lane)
                    fresh = fma(update, new - old, old)
                    store(before, place * lanes + lane, fresh)
                    store(states, at * lanes + lane, fresh)


@njit(error_model="numpy")
def _step_backward(old, gates, inputs, scale, carry, grad_sums, grad_inputs, place, x, lanes):
    """One step of one sequence; returns the gradient of its attention.

    `carry`, the gradient by the new state, becomes the part of that by the old one that does not
    go through U.
    """
    one, grad_scale = splat(1.0), splat(0.0)
    u = place * 3 * lanes
    for lane in range(lanes):
        recurrent = load(gates, u + 2 * lanes + lane)
        update = sigmoid(load(inputs, x + lane) + load(gates, u + lane))
        reset = sigmoid(load(inputs, x + lanes + lane) + load(gates, u + lanes + lane))
        new = tanh(fma(reset, recurrent, load(inputs, x + 2 * lanes + lane)))
        upstream = load(carry, place * lanes + lane)
        grad_update = upstream * (new - load(old, place * lanes + lane))
        grad_scale = fma(grad_update, update, grad_scale)
        grad_update = grad_update * scale * update * (one - update)
        share = update * scale
        grad_new = upstream * share * (one - new * new)
        grad_reset = grad_new * recurrent * reset * (one - reset)
        store(carry, place * lanes + lane, upstream - upstream * share)
        store(grad_sums, u + lane, grad_update)
        store(grad_sums, u + lanes + lane, grad_reset)
        store(grad_sums, u + 2 * lanes + lane, grad_new * reset)
        store(grad_inputs, x + lane, load(grad_inputs, x + lane) + grad_update)
        store(grad_inputs, x + lanes + lane, load(grad_inputs, x + lanes + lane) + grad_reset)
        store(grad_inputs, x + 2 * lanes + lane, load(grad_inputs, x + 2 * lanes + lane) + grad_new)
    return total(grad_scale)


@njit(error_model="numpy")
def _states_before(states, firsts, members, step, out):
    """The states that a step of each sequence began with."""
    for place in range(len(members)):
        if step:
            out[place] = states[firsts[members[place]] + step - 1]
        else:
            out[place] = 0


@njit(error_model="numpy")
def _add_upstream(upstream, firsts, members, step, carry):
    """The gradients that the states after a step get from outside."""
    for place in range(len(members)):
        carry[place] += upstream[firsts[members[place]] + step]


@njit(error_model="numpy")
def _add_rows(rows, count, out):
    """The sum of the first rows joins `out`."""
    lanes = len(out) // LANES
    for lane in range(lanes):
        summed = load(out, lane)
        for place in range(count):
            summed = summed + load(rows, place * lanes + lane)
        store(out, lane, summed)


@entry_point
def run_backward(
    order, firsts, counts, projected, row_of, attention, weight, bias, states, upstream, every, sums
):
    """The gradient of `run`, whose arguments come first.

    `upstream` is the gradient of all states (steps, width), or, unless `every`, of the last of each
    sequence (sequences, width). `sums` are the gradients of projected, attention, weight and bias:
    zeros, added to.
    """
    grad_projected, grad_attention, grad_weight, grad_bias = sums
    width = weight.shape[0]
    lanes = width // LANES
    turned = np.ascontiguousarray(weight.T)
    before = np.zeros((TILE, width), np.float32)
    gates = np.empty((TILE, 3 * width), np.float32)
    grad_gates = np.empty((TILE, 3 * width), np.float32)
    carry = np.empty((TILE, width), np.float32)
    for tile in range(0, len(order), TILE):
        members = order[tile : tile + TILE]
        active = 0
        carry[:] = 0
        if not every:
            carry[: len(members)] = upstream[members]
        for step in range(counts[members[0]] - 1, -1, -1):
            while active < len(members) and counts[members[active]] > step:
                active += 1
            _states_before(states, firsts, members[:active], step, before)
            if every:
                _add_upstream(upstream, firsts, members[:active], step, carry)
            multiply(before, width, 1, weight, gates, bias, 0, active, width, 3 * width)
            for place in range(active):
                at = firsts[members[place]] + step
                grad_attention[at] = _step_backward(
                    before, gates, projected, splat(attention[at]), carry,
                    grad_gates, grad_projected, place, row_of[at] * 3 * lanes, lanes,
                )  # fmt: skip
            multiply(
                grad_gates, 3 * width, 1, turned, carry, carry, width, active, 3 * width, width
            )
            multiply(
                before, 1, width, grad_gates, grad_weight, grad_weight, 3 * width,
                width, active, 3 * width,
            )  # fmt: skip
            _add_rows(grad_gates, active, grad_bias)
