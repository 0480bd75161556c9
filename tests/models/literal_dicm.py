"""DICM as its paper writes it: numpy, float64, one impression at a time, every image by itself.

Weights by their names in the bundle; `image_of` gives an item's feature vector or None, and
`image_id_of` the row of its image's id.
"""

import importlib.util
from pathlib import Path

import numpy as np

_SPEC = importlib.util.spec_from_file_location(
    "literal_models", Path(__file__).parent / "literal_models.py"
)
base = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(base)


def embed_image(weights, settings, feature):
    """Section 5.1: features of length 1, fully connected, PReLU in between; or the default."""
    if feature is None:
        return weights["image_embedding.default"]
    x = feature / max(np.linalg.norm(feature), 1e-12)
    for layer in range(len(settings.image_widths)):
        x = base.linear(weights, f"image_embedding.layers.{2 * layer}", x)
        if layer + 1 < len(settings.image_widths):
            x = base.prelu(weights, f"image_embedding.layers.{2 * layer + 1}", x)
    return x


def attended(weights, name, query, keys, *, softmax=True):
    """DIN's unit over keys, their weighted sum."""
    if not keys:
        return None
    scores = np.array([base.attention_score(weights, name, query, key) for key in keys])
    return (base.softmax(scores) if softmax else scores) @ np.array(keys)


def aggregate(weights, settings, images, ad, query):
    """Section 5.2, figure 3."""
    width = settings.image_widths[-1]
    kind = settings.aggregator
    if kind == "concatenate":
        newest = images[::-1][: settings.concatenate_events]
        padding = [np.zeros(width)] * (settings.concatenate_events - len(newest))
        return np.concatenate([*newest, *padding])
    if kind == "sum":
        return np.sum(images, axis=0) if images else np.zeros(width)
    if kind == "max":
        return np.max(images, axis=0) if images else np.zeros(width)
    asked = [("by_image", ad)] if settings.ad_image else []
    asked += [("by_id", query)] if kind == "multi_query" else []
    softmax = settings.attention_weights == "softmax"
    channels = [
        attended(weights, f"aggregator.{name}", query, images, softmax=softmax)
        for name, query in asked
    ]
    return np.concatenate([np.zeros(width) if part is None else part for part in channels])


def dicm(weights, item, history, context):
    settings = context["settings"]
    window = slice(max(0, len(history) - settings.history_limit), None)
    history = history[window]
    seen = context["history_item_ids"][window]
    count = max(len(history), 1)
    pooled = history.sum(0)
    if settings.basic_net == "lr":
        pooled = pooled / count
    parts = [item, pooled]
    if settings.basic_net == "din":
        found = attended(weights, "attention", item, list(history))
        parts.append(np.zeros_like(item) if found is None else found)
    if settings.image_ids:
        table = weights["image_ids.table.weight"]
        ids = np.array([table[context["image_id_of"](one)] for one in seen])
        total = ids.sum(0) if len(ids) else np.zeros(table.shape[1])
        if settings.basic_net == "lr":
            total = total / count
        parts += [table[context["image_id_of"](context["item_id"])], total]
    if settings.ad_image or settings.behavior_images:
        ad = embed_image(weights, settings, context["image_of"](context["item_id"]))
        if settings.ad_image:
            parts.append(ad)
        if settings.behavior_images:
            images = [embed_image(weights, settings, context["image_of"](one)) for one in seen]
            query = item[settings.item_width :]
            if settings.id_query == "item":
                query = item[: settings.item_width]
            parts.append(aggregate(weights, settings, images, ad, query))
    features = np.concatenate(parts)
    if settings.basic_net == "lr":
        out = base.linear(weights, "head.layers.1", features)
        return out[1] - out[0]
    return base.head(weights, features)
