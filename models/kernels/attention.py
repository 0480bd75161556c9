"""The activation unit on pairs, compiled by numba: scores, their gradient, and weighted sums.

A query's pairs are taken in tiles that stay in the cache, and nothing as wide as a hidden layer is
ever written for all pairs. The first layer on [q, k, q - k, q * k] is, for one query, one matrix on
its keys: `k (W_key - W_difference + diag(q) W_product) + q (W_query + W_difference) + bias`; so no
product of a pair exists either. Backward repeats a tile's forward pass from the keys.

All arrays are float32, C-contiguous, and their widths multiples of 16, padded with zeros
(`uic.models.layers.attention`). The slow twin is `AttentionUnit.forward`.
"""

import math

import numpy as np
from numba import njit

from uic.models.kernels.compiled import entry_point
from uic.models.kernels.lanes import LANES, fma, load, splat, store, where_greater
from uic.models.kernels.products import multiply, total

TILE = 64  # pairs; a multiple of 8, the rows that `multiply` takes at once


@njit(error_model="numpy")
def _query_matrix(query, common, product, out):
    """Out = common + diag(query) product: (key width, hidden width)."""
    lanes = out.shape[1] // LANES
    for row in range(out.shape[0]):
        scale = splat(query[row])
        for at in range(row * lanes, (row + 1) * lanes):
            store(out, at, fma(scale, load(product, at), load(common, at)))


@njit(error_model="numpy")
def _gather(keys, rows, out):
    """The rows of keys that a tile looks at."""
    lanes = keys.shape[1] // LANES
    for place in range(len(rows)):
        first = rows[place] * lanes
        for lane in range(lanes):
            store(out, place * lanes + lane, load(keys, first + lane))


@njit(error_model="numpy")
def _prelu(values, rows, slope, out):
    """Out = values, where they are positive, else slope * values."""
    lanes = len(slope) // LANES
    zero = splat(0.0)
    for lane in range(lanes):
        factor = load(slope, lane)
        for at in range(lane, rows * lanes, lanes):
            value = load(values, at)
            store(out, at, where_greater(value, zero, value, factor * value))


@njit(error_model="numpy")
def _prelu_backward(values, rows, slope, gradient, slope_gradient, bias_gradient):
    """`gradient` by the outputs becomes that by the values; slopes and biases add theirs."""
    lanes = len(slope) // LANES
    zero, one = splat(0.0), splat(1.0)
    for lane in range(lanes):
        factor = load(slope, lane)
        slope_sum, bias_sum = load(slope_gradient, lane), load(bias_gradient, lane)
        for at in range(lane, rows * lanes, lanes):
            value, upstream = load(values, at), load(gradient, at)
            slope_sum = slope_sum + where_greater(value, zero, zero, upstream * value)
            upstream = upstream * where_greater(value, zero, one, factor)
            bias_sum = bias_sum + upstream
            store(gradient, at, upstream)
        store(slope_gradient, lane, slope_sum)
        store(bias_gradient, lane, bias_sum)


@entry_point
def score_pairs(queries, proj_q, keys, offsets, key_of, weights, scores):
    """Scores of pairs.

    Args:
        queries: (queries, key width).
        proj_q: (queries, hidden width), what the first layer makes of each, bias included.
        keys: (keys, key width).
        offsets: (queries + 1,), the first pair of each query.
        key_of: (pairs,), the key of each pair.
        weights: common (key width, hidden), product (key width, hidden), slope (hidden,),
            second (hidden, narrow), its bias (narrow,) and slope, last (narrow,), its bias (1,).
        scores: (pairs,), written.
    """
    common, product, slope, second, second_bias, second_slope, last, last_bias = weights
    width, hidden, narrow = common.shape[0], common.shape[1], second.shape[1]
    matrix = np.empty((width, hidden), np.float32)
    tile_keys = np.zeros((TILE, width), np.float32)
    first = np.empty((TILE, hidden), np.float32)
    then = np.empty((TILE, narrow), np.float32)
    for query in range(len(queries)):
        if offsets[query] == offsets[query + 1]:
            continue
        _query_matrix(queries[query], common, product, matrix)
        for at in range(offsets[query], offsets[query + 1], TILE):
            rows = min(TILE, offsets[query + 1] - at)
            _gather(keys, key_of[at : at + rows], tile_keys)
            multiply(tile_keys, width, 1, matrix, first, proj_q[query], 0, rows, width, hidden)
            _prelu(first, rows, slope, first)
            multiply(first, hidden, 1, second, then, second_bias, 0, rows, hidden, narrow)
            for row in range(rows):
                scores[at + row] = last_bias[0] + _last(then, row, second_slope, last)


@njit(error_model="numpy")
def _last(then, row, slope, last):
    """The last layer of one pair, without its bias."""
    lanes = len(last) // LANES
    zero = splat(0.0)
    summed = zero
    for lane in range(lanes):
        value = load(then, row * lanes + lane)
        value = where_greater(value, zero, value, load(slope, lane) * value)
        summed = fma(value, load(last, lane), summed)
    return total(summed)


@njit(error_model="numpy")
def _last_backward(then, rows, slope, last, upstream, gradient, grad_last, grad_slope, grad_bias):
    """From the gradients of a tile's scores to those of the second layer's sums."""
    lanes = len(last) // LANES
    zero, one = splat(0.0), splat(1.0)
    for lane in range(lanes):
        weight, factor = load(last, lane), load(slope, lane)
        last_sum, slope_sum, bias_sum = (
            load(grad_last, lane),
            load(grad_slope, lane),
            load(grad_bias, lane),
        )
        for row in range(rows):
            value, score = load(then, row * lanes + lane), splat(upstream[row])
            derivative = where_greater(value, zero, one, factor)
            back = score * weight
            last_sum = fma(score, derivative * value, last_sum)
            slope_sum = slope_sum + where_greater(value, zero, zero, back * value)
            back = back * derivative
            bias_sum = bias_sum + back
            store(gradient, row * lanes + lane, back)
        store(grad_last, lane, last_sum)
        store(grad_slope, lane, slope_sum)
        store(grad_bias, lane, bias_sum)


@njit(error_model="numpy")
def _query_backward(query, product, gradient, grad_common, grad_product, grad_query):
    """Backpropagates the per-query matrix into `common`, `product` and the query."""
    lanes = gradient.shape[1] // LANES
    for row in range(gradient.shape[0]):
        scale, summed = splat(query[row]), splat(0.0)
        for at in range(row * lanes, (row + 1) * lanes):
            value = load(gradient, at)
            store(grad_common, at, load(grad_common, at) + value)
            store(grad_product, at, fma(scale, value, load(grad_product, at)))
            summed = fma(value, load(product, at), summed)
        grad_query[row] = total(summed)


@entry_point
def score_pairs_backward(
    queries, proj_q, keys, offsets, key_of, weights, second_transposed, upstream, gradients
):
    """The gradient of `score_pairs`, whose arguments come first.

    `second_transposed` is (narrow, hidden), `upstream` the gradient of the scores, (pairs,).
    `gradients` are those of queries, proj_q, keys and each of `weights`: zeros, added to.
    """
    common, product, slope, second, second_bias, second_slope, last, _ = weights
    grad_queries, grad_proj_q, grad_keys, grad_weights = gradients
    (
        grad_common,
        grad_product,
        grad_slope,
        grad_second,
        grad_bias,
        grad_second_slope,
        grad_last,
        grad_last_bias,
    ) = grad_weights
    width, hidden, narrow = common.shape[0], common.shape[1], second.shape[1]
    matrix = np.empty((width, hidden), np.float32)
    grad_matrix = np.empty((width, hidden), np.float32)
    tile_keys = np.zeros((TILE, width), np.float32)
    grad_tile = np.empty((TILE, width), np.float32)
    sums, first = np.empty((TILE, hidden), np.float32), np.empty((TILE, hidden), np.float32)
    grad_first = np.empty((TILE, hidden), np.float32)
    then, grad_then = np.empty((TILE, narrow), np.float32), np.empty((TILE, narrow), np.float32)
    none = np.zeros(max(hidden, width), np.float32)
    lanes = width // LANES
    for query in range(len(queries)):
        if offsets[query] == offsets[query + 1]:
            continue
        _query_matrix(queries[query], common, product, matrix)
        turned = np.ascontiguousarray(matrix.T)
        grad_matrix[:] = 0
        for at in range(offsets[query], offsets[query + 1], TILE):
            rows = min(TILE, offsets[query + 1] - at)
            _gather(keys, key_of[at : at + rows], tile_keys)
            multiply(tile_keys, width, 1, matrix, sums, proj_q[query], 0, rows, width, hidden)
            _prelu(sums, rows, slope, first)
            multiply(first, hidden, 1, second, then, second_bias, 0, rows, hidden, narrow)
            _last_backward(
                then,
                rows,
                second_slope,
                last,
                upstream[at:],
                grad_then,
                grad_last,
                grad_second_slope,
                grad_bias,
            )
            grad_last_bias[0] += upstream[at : at + rows].sum()
            multiply(
                first, 1, hidden, grad_then, grad_second, grad_second, narrow, hidden, rows, narrow
            )
            # Narrow is padded with zeros, which would only be multiplied.
            multiply(
                grad_then, narrow, 1, second_transposed, grad_first, none, 0,
                rows, second_transposed.shape[0], hidden,
            )  # fmt: skip
            _prelu_backward(sums, rows, slope, grad_first, grad_slope, grad_proj_q[query])
            multiply(
                tile_keys,
                1,
                width,
                grad_first,
                grad_matrix,
                grad_matrix,
                hidden,
                width,
                rows,
                hidden,
            )
            multiply(grad_first, hidden, 1, turned, grad_tile, none, 0, rows, hidden, width)
            for row in range(rows):
                place = key_of[at + row] * lanes
                for lane in range(lanes):
                    value = load(grad_keys, place + lane) + load(grad_tile, row * lanes + lane)
                    store(grad_keys, place + lane, value)
        _query_backward(
            queries[query], product, grad_matrix, grad_common, grad_product, grad_queries[query]
        )


@entry_point
def blend(scores, keys, key_of, offsets, entries, times, weights, sums):
    """Softmax over the entries of each impression, and the sum of their keys.

    Args:
        scores: (pairs,).
        keys: (keys, key width).
        key_of: (pairs,), the key of each pair.
        offsets: (impressions + 1,), the first entry of each impression.
        entries: (entries,), the pair of each entry.
        times: (entries,), how often the impression has it.
        weights: (entries,), written; those of an impression add up to 1.
        sums: (impressions, key width), zeros, added to.
    """
    lanes = keys.shape[1] // LANES
    for impression in range(len(offsets) - 1):
        first, end = offsets[impression], offsets[impression + 1]
        largest = np.float32(-np.inf)
        for entry in range(first, end):
            largest = max(largest, scores[entries[entry]])
        whole = np.float32(0.0)
        for entry in range(first, end):
            power = times[entry] * math.exp(scores[entries[entry]] - largest)
            weights[entry] = power
            whole += power
        for entry in range(first, end):
            weights[entry] /= whole
            share = splat(weights[entry])
            key = key_of[entries[entry]] * lanes
            for lane in range(lanes):
                at = impression * lanes + lane
                store(sums, at, fma(share, load(keys, key + lane), load(sums, at)))


@entry_point
def blend_backward(
    keys, key_of, offsets, entries, weights, grad_weights, grad_sums, grad_scores, grad_keys
):
    """The gradient of `blend`: `grad_scores` (pairs,) and `grad_keys` are zeros, added to."""
    lanes = keys.shape[1] // LANES
    grad_shares = np.empty(len(weights), np.float32)
    for impression in range(len(offsets) - 1):
        first, end = offsets[impression], offsets[impression + 1]
        mean = np.float32(0.0)
        for entry in range(first, end):
            key = key_of[entries[entry]] * lanes
            share, dot = splat(weights[entry]), splat(0.0)
            for lane in range(lanes):
                upstream = load(grad_sums, impression * lanes + lane)
                dot = fma(upstream, load(keys, key + lane), dot)
                store(grad_keys, key + lane, fma(share, upstream, load(grad_keys, key + lane)))
            grad_shares[entry] = total(dot) + grad_weights[entry]
            mean += weights[entry] * grad_shares[entry]
        for entry in range(first, end):
            grad_scores[entries[entry]] += weights[entry] * (grad_shares[entry] - mean)
