"""More baselines as their papers write them: numpy, float64, one impression at a time.

Each takes (weights, item, history, context), as in `literal_family`.
"""

import numpy as np

from tests.models import literal_models as base

sigmoid, softmax, linear, head, prelu = (
    base.sigmoid,
    base.softmax,
    base.linear,
    base.head,
    base.prelu,
)


def _window(history, limit):
    return history[max(0, len(history) - limit) :]


def _group_start(context):
    """Where the state of a recurrent or causal model starts: shared by a group."""
    return max(0, context["earliest"] - context["settings"].history_limit)


def _attended(weights, name, item, keys, values):
    if not len(keys):
        return np.zeros_like(item)
    scores = [base.attention_score(weights, name, item, k) for k in keys]
    return softmax(np.array(scores)) @ np.asarray(values)


def lr(weights, item, history, context):
    mean = history.mean(0) if len(history) else np.zeros_like(item)
    out = linear(weights, "head.layers.1", np.concatenate([item, mean]))
    return out[1] - out[0]


def arnn(weights, item, history, context):
    limit = context["settings"].history_limit
    h, states = np.zeros_like(item), []
    for x in history[_group_start(context) :]:
        h = base.gru_step(weights, "gru", x, h)
        states.append(h)
    seen = _window(states, min(limit, len(history)))
    attended = _attended(weights, "attention", item, seen, seen)
    return head(weights, np.concatenate([item, _window(history, limit).sum(0), h, attended]))


def rum(weights, item, history, context):
    """WSDM 2018, feature level: erase and add, addressed by global features."""
    settings, features = context["settings"], weights["features"]
    memory = np.zeros_like(features)
    for q in history[_group_start(context) :]:
        z = softmax(settings.sharpness * features @ q)
        erase, add = sigmoid(linear(weights, "erase", q)), np.tanh(linear(weights, "add", q))
        for k in range(settings.slots):
            memory[k] = memory[k] * (1 - z[k] * erase) + z[k] * add
    read = softmax(settings.sharpness * features @ item) @ memory
    pooled = _window(history, settings.history_limit).sum(0)
    return head(weights, np.concatenate([item, pooled, read]))


def layer_norm(weights, name, x):
    normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def self_attention(weights, project, xs, heads, limit):
    """Causal, over the last `limit` steps; (steps, width)."""
    mixed = []
    q, k, v = np.split(np.array([linear(weights, project, x) for x in xs]), 3, axis=1)
    size = q.shape[1] // heads
    for step in range(len(xs)):
        seen = slice(max(0, step - limit + 1), step + 1)
        parts = []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            a = softmax(k[seen, own] @ q[step, own] / np.sqrt(size))
            parts.append(a @ v[seen, own])
        mixed.append(np.concatenate(parts))
    return mixed


def sasrec(weights, item, history, context):
    settings = context["settings"]
    limit = settings.history_limit
    xs = [
        x + weights["positions"][min(step, limit - 1)]
        for step, x in enumerate(history[_group_start(context) :])
    ]
    for block in range(settings.blocks):
        name = f"blocks.{block}"
        if not xs:
            break
        normal = [layer_norm(weights, f"{name}.before_attention", x) for x in xs]
        mixed = self_attention(weights, f"{name}.project", normal, settings.attention_heads, limit)
        xs = [x + y for x, y in zip(xs, mixed, strict=True)]
        for step, x in enumerate(xs):
            y = linear(weights, f"{name}.first", layer_norm(weights, f"{name}.before_network", x))
            xs[step] = x + linear(weights, f"{name}.second", np.maximum(y, 0))
    state = layer_norm(weights, "norm", xs[-1]) if xs else np.zeros_like(item)
    pooled = _window(history, limit).sum(0)
    return head(weights, np.concatenate([item, pooled, state, item * state]))


def sim_kept(weights, item, history, context):
    """General search unit: indices of kept events, best first."""
    settings = context["settings"]
    first = max(0, len(history) - settings.history_limit)
    newest_first = list(range(len(history) - 1, first - 1, -1))
    if settings.search == "hard":
        same = context["history_category_rows"] == context["category_row"]
        return [j for j in newest_first if same[j]][: settings.found_events]
    query = weights["search_query.weight"] @ item
    scores = {j: query @ (weights["search_key.weight"] @ history[j]) for j in newest_first}
    return sorted(newest_first, key=lambda j: -scores[j])[: settings.found_events]


def sim(weights, item, history, context):
    settings = context["settings"]
    z = []
    kept = sim_kept(weights, item, history, context)
    for j in kept:
        e = history[j]
        if settings.time_buckets:
            ms = context["time_ms"] - context["history_times_ms"][j]
            units = max(ms, 0) / 1000 / settings.time_unit_seconds
            bucket = 0
            while units >= 2**bucket:
                bucket += 1
            e = np.concatenate([e, weights["times.weight"][min(bucket, settings.time_buckets - 1)]])
        z.append(e)
    heads = []
    wide = item.size * (2 if settings.time_buckets else 1)
    for h in range(settings.attention_heads):
        own = slice(h * item.size, (h + 1) * item.size)
        if not z:
            heads.append(np.zeros(wide))
            continue
        asked = weights["asks.weight"][own] @ item
        scores = np.array([(weights["answers.weight"][own] @ e) @ asked for e in z])
        heads.append(softmax(scores) @ np.array(z))
    recent = _window(history, settings.recent_events)
    attended = _attended(weights, "attention", item, recent, recent)
    return head(weights, np.concatenate([item, recent.sum(0), attended, *heads]))


def sim_search_logit(weights, item, history, context):
    """The soft search's own prediction: U_r = sum r_i e_i, as a mean."""
    window = _window(history, context["settings"].history_limit)
    query = weights["search_query.weight"] @ item
    interest = np.zeros_like(item)
    for e in window:
        interest += (query @ (weights["search_key.weight"] @ e)) * e / len(window)
    return linear(weights, "search_head", np.concatenate([item, interest]))[0]


def ubr4ctr(weights, item, history, context):
    settings = context["settings"]
    limit, start = settings.history_limit, _group_start(context)
    keys = self_attention_or_nothing(weights, history[start:], settings)
    query = linear(weights, "query", item)
    first = max(0, len(history) - limit)
    newest_first = list(range(len(history) - 1, first - 1, -1))
    scores = {j: query @ keys[j - start] for j in newest_first}
    kept = sorted(newest_first, key=lambda j: -scores[j])[: settings.found_events]
    attended, pooled = np.zeros_like(item), np.zeros_like(item)
    if kept:
        a = softmax(
            np.array([base.attention_score(weights, "attention", item, history[j]) for j in kept])
        )
        for weight, j in zip(a, kept, strict=True):
            attended += weight * sigmoid(scores[j]) * history[j]
            pooled += history[j]
    return head(weights, np.concatenate([item, pooled, attended]))


def self_attention_or_nothing(weights, xs, settings):
    if not len(xs):
        return []
    return self_attention(weights, "project", xs, settings.attention_heads, settings.history_limit)


def dien_auxiliary(weights, windows, items):
    """DIEN, section 4.2: each state should be nearer to the next event than to another.

    `windows` are (first index, events) of each group; the other event lies half a batch on.
    """
    terms = []
    events = np.concatenate([events for _, events in windows])
    history = {}
    for first, own in windows:
        history |= {first + j: e for j, e in enumerate(own)}
    del events
    for first, own in windows:
        h = np.zeros(own.shape[1])
        for j, x in enumerate(own[:-1]):
            h = base.gru_step(weights, "extract", x, h)
            other = (first + j + 1 + len(items) // 2) % len(items)
            if items[other] != items[first + j + 1]:
                clicked, missed = sigmoid(h @ own[j + 1]), sigmoid(h @ history[other])
                terms.append(-np.log(clicked) - np.log(1 - missed))
    return np.mean(terms)
