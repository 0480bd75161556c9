"""The models as their papers write them: numpy, float64, one impression at a time, no sharing."""

from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def linear(weights: Weights, name: str, x):
    bias = weights.get(f"{name}.bias")
    return weights[f"{name}.weight"] @ x + (0 if bias is None else bias)


def prelu(weights: Weights, name: str, x):
    return np.where(x > 0, x, weights[f"{name}.weight"] * x)


def head(weights: Weights, features, hidden: int = 2):
    """Input normalised by running values, then linear and PReLU, then two outputs."""
    mean, variance = weights["head.layers.0.mean"], weights["head.layers.0.variance"]
    x = (features - mean) / np.sqrt(variance + 1e-6)
    for layer in range(hidden):
        x = linear(weights, f"head.layers.{1 + 2 * layer}", x)
        x = prelu(weights, f"head.layers.{2 + 2 * layer}", x)
    out = linear(weights, f"head.layers.{1 + 2 * hidden}", x)
    return out[1] - out[0]


def attention_score(weights: Weights, name: str, q, k):
    """DIN's activation unit: an MLP over [q, k, q - k, q * k]."""
    if f"{name}.match.weight" in weights:
        q = linear(weights, f"{name}.match", q)
    x = linear(weights, f"{name}.first", np.concatenate([q, k, q - k, q * k]))
    x = prelu(weights, f"{name}.rest.0", x)
    x = linear(weights, f"{name}.rest.1", x)
    x = prelu(weights, f"{name}.rest.2", x)
    return linear(weights, f"{name}.rest.3", x)[0]


def gru_step(weights: Weights, name: str, x, h):
    """`torch.nn.GRU`'s cell."""
    i = weights[f"{name}.weight_ih_l0"] @ x + weights[f"{name}.bias_ih_l0"]
    s = weights[f"{name}.weight_hh_l0"] @ h + weights[f"{name}.bias_hh_l0"]
    (ir, iz, new_i), (sr, sz, new_s) = np.split(i, 3), np.split(s, 3)
    r, z = sigmoid(ir + sr), sigmoid(iz + sz)
    n = np.tanh(new_i + r * new_s)
    return (1 - z) * n + z * h


def sum_pooling(weights, item, history, context):
    return head(weights, np.concatenate([item, history.sum(0)]))


def average_pooling(weights, item, history, context):
    mean = history.mean(0) if len(history) else np.zeros_like(item)
    return head(weights, np.concatenate([item, mean]))


def din(weights, item, history, context):
    window = history[max(0, len(history) - context["limit"]) :]
    attended = np.zeros_like(item)
    if len(window):
        scores = np.array([attention_score(weights, "attention", item, k) for k in window])
        attended = softmax(scores) @ window
    return head(weights, np.concatenate([item, window.sum(0), attended]))


def _gru_states(weights, name, history, context):
    """States after each event, from `limit` events before the group's first impression on."""
    first = max(0, context["earliest"] - context["limit"])
    h = np.zeros(history.shape[1])
    states = []
    for x in history[first:]:
        h = gru_step(weights, name, x, h)
        states.append(h)
    return states


def gru4rec(weights, item, history, context):
    states = _gru_states(weights, "gru", history, context)
    last = states[-1] if states else np.zeros_like(item)
    pooled = history[max(0, len(history) - context["limit"]) :].sum(0)
    return head(weights, np.concatenate([item, pooled, last]))


def dien(weights, item, history, context):
    """AUGRU: the update gate is scaled by attention (DIEN, eq. 14 to 16)."""
    limit = context["limit"]
    interests = _gru_states(weights, "extract", history, context)
    count = min(len(history), limit)
    interests = interests[len(interests) - count :]
    h = np.zeros_like(item)
    if count:
        scores = [attention_score(weights, "attention", item, k) for k in interests]
        for a, x in zip(softmax(np.array(scores)), interests, strict=True):
            iu, ir, new_i = np.split(linear(weights, "evolve.of_input", x), 3)
            su, sr, new_s = np.split(linear(weights, "evolve.of_state", h), 3)
            u = a * sigmoid(iu + su)
            n = np.tanh(new_i + sigmoid(ir + sr) * new_s)
            h = (1 - u) * h + u * n
    pooled = history[max(0, len(history) - limit) :].sum(0)
    return head(weights, np.concatenate([item, h, pooled, item * pooled]))


def mimn_readout(
    weights: Weights, item, state: dict[str, Any], *, products: bool, epsilon: float = 1e-8
):
    """[item, pool, item * pool, content read of M, attended channels of S].

    With `reading.route` the slots have a score for the item itself; with products the item times
    each read that is as wide follows, and with h the controller's state, and its product likewise.
    """
    asked = linear(weights, "reading.query", item)
    key, strength = np.tanh(asked[:-1]), 1 + np.log1p(np.exp(asked[-1]))
    cosines = [m @ key / np.sqrt((m @ m) * (key @ key) + epsilon) for m in state["M"]]
    routes = np.zeros(len(cosines))
    if "reading.route.weight" in weights:
        routes = weights["reading.route.weight"] @ item
    reads = [softmax(strength * np.array(cosines) + routes) @ state["M"]]
    if state.get("S") is not None:
        scores = [attention_score(weights, "reading.channels", item, s) for s in state["S"]]
        reads.append(softmax(np.array(scores) + routes) @ state["S"])
    parts = [item, state["pool"], item * state["pool"], *reads]
    if products:
        parts += [item * read for read in reads if len(read) == len(item)]
    if state.get("h") is not None:
        parts.append(state["h"])
        parts += [item * state["h"]] if len(state["h"]) == len(item) else []
    return head(weights, np.concatenate(parts))
