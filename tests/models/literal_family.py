"""IMN and LMN as their papers write them: numpy, float64, one impression at a time.

Each takes (weights, item, history, context): `history` holds the embeddings of all events before
the impression, oldest first; `context` holds what else the formula needs, by name.
"""

import importlib.util
from pathlib import Path

import numpy as np

_SPEC = importlib.util.spec_from_file_location(
    "literal_models", Path(__file__).parent / "literal_models.py"
)
base = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(base)

sigmoid, softmax, linear, head, prelu = (
    base.sigmoid,
    base.softmax,
    base.linear,
    base.head,
    base.prelu,
)


def gru_cell(weights, name, x, h):
    """`torch.nn.GRUCell`."""
    i = weights[f"{name}.weight_ih"] @ x + weights[f"{name}.bias_ih"]
    s = weights[f"{name}.weight_hh"] @ h + weights[f"{name}.bias_hh"]
    (ir, iz, new_i), (sr, sz, new_s) = np.split(i, 3), np.split(s, 3)
    r, z = sigmoid(ir + sr), sigmoid(iz + sz)
    n = np.tanh(new_i + r * new_s)
    return (1 - z) * n + z * h


# ------------------------------------------------------------------------------------------ IMN
def imn_encoded(weights, history, context):
    """Eq. 1: item, time bucket and position, summed."""
    settings, limit = context["settings"], context["settings"].history_limit
    window = history[max(0, len(history) - limit) :]
    times = context["history_times_ms"][max(0, len(history) - limit) :]
    encoded = []
    for j, x in enumerate(window):
        e = x.copy()
        if settings.time_buckets:
            clock = 1000 * settings.ranking_clock_seconds
            now = context["time_ms"] // clock * clock
            units = max(now - times[j], 0) / 1000 / settings.time_unit_seconds
            bucket = 0
            while units >= 2**bucket:
                bucket += 1
            # [0, 1) is 0, [1, 2) is 1, [2, 4) is 2.
            e += weights["encoder.times.weight"][min(bucket, settings.time_buckets - 1)]
        if settings.positions == "newest":
            e += weights["encoder.positions.weight"][len(window) - 1 - j]
        if settings.positions == "oldest":
            e += weights["encoder.positions.weight"][j]
        encoded.append(e)
    return encoded


def imn_alpha(settings, x, m, v):
    """Eq. 2 and its ablations."""
    if settings.distance == "dot":
        return np.array([x @ m, x @ v][: 2 if settings.cross == "early" else 1])
    if settings.cross == "delayed":
        near = x * m if settings.distance == "hadamard" else x - m
        return np.concatenate([near, x * m])
    if settings.distance == "hadamard":
        return np.concatenate([x * m, x * v, x * m, x * v])
    return np.concatenate([x - m, x - v, x * m, x * v])


def imn_walk(weights, name, encoded, v, m, *, settings):
    """Eq. 3 to 6."""
    for t in range(max(settings.iterations, 1)):
        unit = f"{name}.attentions.{0 if settings.shared_attention else t}"
        scores = np.array(
            [
                linear(
                    weights,
                    f"{unit}.second",
                    sigmoid(linear(weights, f"{unit}.first", imn_alpha(settings, x, m, v))),
                )[0]
                for x in encoded
            ]
        )
        v_u = np.zeros_like(v)
        if len(encoded):
            a = softmax(scores) if settings.attention == "softmax" else sigmoid(scores)
            v_u = sum(a_j * x for a_j, x in zip(a, encoded, strict=True))
        if settings.walk_sum != "sum" and settings.attention == "sigmoid":
            v_u = v_u / max(len(encoded), 1)
        if settings.walk_sum == "norm":
            norm = f"{name}.norms.{t}"
            v_u = (v_u - weights[f"{norm}.mean"]) / np.sqrt(weights[f"{norm}.variance"] + 1e-6)
        if not settings.iterations:
            return v_u
        m = gru_cell(weights, f"{name}.update", v_u, m)
    return m


def imn(weights, item, history, context):
    settings = context["settings"]
    encoded = imn_encoded(weights, history, context)
    mean = np.mean(encoded, axis=0) if encoded else np.zeros_like(item)
    if settings.attention == "none":
        return head(weights, np.concatenate([item, mean]))
    if settings.segment_events:
        size = settings.segment_events
        pieces = [encoded[j : j + size] for j in range(0, len(encoded), size)]
        vectors = [
            imn_walk(weights, "walk", piece, item, item, settings=settings) for piece in pieces
        ]
        m = imn_walk(weights, "over_pieces", vectors, item, item, settings=settings)
    else:
        start = mean if settings.cross == "delayed" else item  # eq. 4
        m = imn_walk(weights, "walk", encoded, item, start, settings=settings)
    for _ in range(settings.enhancement_steps):  # eq. 7
        x = np.concatenate([weights["enhancement.map.weight"] @ m, item])
        m = gru_cell(weights, "enhancement.update", x, m)
    return head(weights, np.concatenate([item, m]))


# ------------------------------------------------------------------------------------------ LMN
def relu_mlp(weights, name, x):
    return linear(weights, f"{name}.2", np.maximum(linear(weights, f"{name}.0", x), 0))


def lmn_memory(weights, queries, settings):
    """Eq. 5 to 10 by the full grid of scores: M_Q to M_O, one query at a time."""
    outputs = []
    for m_q in queries:
        output = np.zeros_like(m_q)
        rows = linear(weights, "large.block.row_query", m_q)
        columns = linear(weights, "large.block.column_query", m_q)
        for head_index in range(settings.lmn_heads):
            part = slice(head_index * m_q.size, (head_index + 1) * m_q.size)
            s_row = weights["large.block.row_keys"][head_index] @ rows[part]
            s_col = weights["large.block.column_keys"][head_index] @ columns[part]
            s = (s_row[None, :] + s_col[:, None]).ravel()
            top = np.argsort(-s, kind="stable")[: settings.lmn_top_k]
            output += softmax(s[top]) @ weights["large.block.values.weight"][top]
        outputs.append(output / settings.lmn_heads)
    return np.array(outputs)


def lmn_queries(weights, items, context):
    """Eq. 4."""
    settings = context["settings"].memory
    queries = []
    for x in items:
        merged = x
        if settings.lmn_user == "id":
            u = weights["large.users.weight"][context["user_row"](context["user_id"])]
            merged = x + u if settings.lmn_merge == "add" else np.concatenate([x, u])
        queries.append(relu_mlp(weights, "large.query", merged))
    return queries


def lmn_recalled(weights, item, history, context):
    """What an impression finds: pooled M_O of its events, or the M_O of the candidate."""
    settings = context["settings"].memory
    width = settings.lmn_width or item.size
    if settings.lmn_query == "candidate":
        return lmn_memory(weights, lmn_queries(weights, [item], context), settings)[0]
    limit = getattr(context["settings"], "history_limit", len(history))
    window = history[max(0, len(history) - limit) :]
    if not len(window):
        return np.zeros(width)
    found = lmn_memory(weights, lmn_queries(weights, window, context), settings)
    if settings.lmn_pooling == "sum":
        return found.sum(0)
    if settings.lmn_pooling == "mean":
        return found.mean(0)
    scores = [base.attention_score(weights, "large.attention", item, k) for k in found]
    return softmax(np.array(scores)) @ found


def smooth_l1(a, b, beta):
    """Eq. 11, the mean over all numbers."""
    distance = np.abs(np.asarray(a) - np.asarray(b))
    return np.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2).mean()


def din_lmn(weights, item, history, context):
    window = history[max(0, len(history) - context["settings"].history_limit) :]
    attended = np.zeros_like(item)
    if len(window):
        scores = [base.attention_score(weights, "attention", item, k) for k in window]
        attended = softmax(np.array(scores)) @ window
    recalled = lmn_recalled(weights, item, history, context)
    return head(weights, np.concatenate([item, window.sum(0), attended, recalled]))


def average_pooling_lmn(weights, item, history, context):
    mean = history.mean(0) if len(history) else np.zeros_like(item)
    recalled = lmn_recalled(weights, item, history, context)
    return head(weights, np.concatenate([item, mean, recalled]))
