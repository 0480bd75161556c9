"""The two parts that a step uses twice, with their gradients: the GRU and the addressing.

Compiled by numba for `uic.models.kernels.fold_backward`. The forward halves keep what the backward
halves need.
"""

import numpy as np
from numba import njit

from uic.models.kernels.fold import product, softmax
from uic.models.kernels.lanes import fma, load, negative, sigmoid, splat, sqrt, store, tanh


@njit(error_model="numpy")
def add_to(rows, row, value):
    """Add `value` to `rows[row]`."""
    store(rows, row, load(rows, row) + value)


@njit(error_model="numpy")
def gru_forward(gates, hidden, width, inputs, activations):
    """Fill `activations`: reset, update, new, recurrent part of new, result; `hidden` rows each."""
    product(gates.both, gates.both_bias, inputs, 0, activations)
    product(gates.new, gates.new_bias, inputs, 0, activations[2 * hidden :])
    product(gates.hidden, gates.hidden_bias, inputs, width, activations[3 * hidden :])
    for j in range(hidden):
        reset = sigmoid(load(activations, j))
        update = sigmoid(load(activations, hidden + j))
        new = tanh(fma(reset, load(activations, 3 * hidden + j), load(activations, 2 * hidden + j)))
        store(activations, j, reset)
        store(activations, hidden + j, update)
        store(activations, 2 * hidden + j, new)
        old = load(inputs, width + j)
        store(activations, 4 * hidden + j, fma(update, old - new, new))


@njit(error_model="numpy")
def gru_backward(transposed, hidden, width, inputs, activations, upstream, gates_out, inputs_out):
    """From the gradient `upstream` of the result to those of the gates' sums and of the inputs.

    `gates_out` gets reset, update, new, recurrent; `inputs_out` gets [input; hidden].
    """
    one = splat(1.0)
    for j in range(hidden):
        gradient = load(upstream, j)
        reset, update = load(activations, j), load(activations, hidden + j)
        new, recurrent = load(activations, 2 * hidden + j), load(activations, 3 * hidden + j)
        old = load(inputs, width + j)
        new_sum = gradient * (one - update) * (one - new * new)
        store(gates_out, j, new_sum * recurrent * reset * (one - reset))
        store(gates_out, hidden + j, gradient * (old - new) * update * (one - update))
        store(gates_out, 2 * hidden + j, new_sum)
        store(gates_out, 3 * hidden + j, new_sum * reset)
    product(transposed.weight, transposed.bias, gates_out, 0, inputs_out)
    for j in range(hidden):
        add_to(inputs_out, width + j, load(upstream, j) * load(activations, hidden + j))


@njit(error_model="numpy")
def address_forward(sizes, b, key_row, strength_row, routes_row, cosines, inverses, weights):
    """One weight over the slots; keeps the cosines and 1 / sqrt(|key|^2 |slot|^2 + epsilon)."""
    width = sizes.width
    key_norm = splat(0.0)
    for j in range(width):
        key = load(b.heads, key_row + j)
        key_norm = fma(key, key, key_norm)
    for i in range(sizes.slots):
        norm = splat(0.0)
        dot = splat(0.0)
        for j in range(width):
            value = load(b.state, i * width + j)
            norm = fma(value, value, norm)
            dot = fma(value, load(b.heads, key_row + j), dot)
        inverse = splat(1.0) / sqrt(fma(norm, key_norm, splat(np.float32(sizes.epsilon))))
        store(inverses, i, inverse)
        store(cosines, i, dot * inverse)
        strength = load(b.heads, strength_row)
        store(weights, i, fma(strength, dot * inverse, load(b.routes, routes_row + i)))
        store(b.norms, i, norm)
    store(b.norms, sizes.slots, key_norm)
    softmax(weights, 0, sizes.slots)


@njit(error_model="numpy")
def address_backward(
    sizes, b, key_row, strength_row, routes_row, cosines, inverses, weights, upstream
):
    """From the gradient `upstream` of the weights to those of key, strength, routes and memory."""
    slots, width = sizes.slots, sizes.width
    mean = splat(0.0)
    for i in range(slots):
        mean = fma(load(weights, i), load(upstream, i), mean)
    strength = load(b.heads, strength_row)
    strength_gradient = splat(0.0)
    key_norm_gradient = splat(0.0)
    key_norm = load(b.norms, slots)
    for j in range(width):
        store(b.heads_gradient, key_row + j, splat(0.0))
    for i in range(slots):
        score = load(weights, i) * (load(upstream, i) - mean)
        if sizes.routing:
            store(b.routes_gradient, routes_row + i, score)
        cosine, inverse = load(cosines, i), load(inverses, i)
        strength_gradient = fma(score, cosine, strength_gradient)
        dot_gradient = score * strength * inverse
        product = negative(splat(0.5) * dot_gradient * cosine * inverse)
        key_norm_gradient = fma(product, load(b.norms, i), key_norm_gradient)
        twice = splat(2.0) * product * key_norm
        for j in range(width):
            row = i * width + j
            value, key = load(b.state, row), load(b.heads, key_row + j)
            add_to(b.carry, row, fma(dot_gradient, key, twice * value))
            add_to(b.heads_gradient, key_row + j, dot_gradient * value)
    for j in range(width):
        key = load(b.heads, key_row + j)
        add_to(b.heads_gradient, key_row + j, splat(2.0) * key_norm_gradient * key)
    store(b.heads_gradient, strength_row, strength_gradient)
