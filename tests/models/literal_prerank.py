"""The pre-rank in words of one impression: numpy, float64, every image by itself.

Weights by their names in the bundle; `image_of` gives an item's feature vector or None, and
`image_id_of` the row of its image's id.
"""

import importlib.util
from pathlib import Path

import numpy as np

_SPEC = importlib.util.spec_from_file_location(
    "literal_dicm", Path(__file__).parent / "literal_dicm.py"
)
dicm = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dicm)
linear, prelu = dicm.base.linear, dicm.base.prelu


def tower(weights, name, settings, x):
    """Running norm, fully connected with PReLU, a linear layer at the end."""
    mean = weights[f"{name}.layers.0.mean"]
    x = (x - mean) / np.sqrt(weights[f"{name}.layers.0.variance"] + 1e-6)
    hidden = len(settings.head_widths)
    for layer in range(hidden):
        x = linear(weights, f"{name}.layers.{1 + 2 * layer}", x)
        x = prelu(weights, f"{name}.layers.{2 + 2 * layer}", x)
    return linear(weights, f"{name}.layers.{1 + 2 * hidden}", x)


def prerank(weights, item, history, context):
    settings = context["settings"]
    window = slice(max(0, len(history) - settings.history_limit), None)
    seen = list(context["history_item_ids"][window])
    shown = context["item_id"]
    of_item, of_user = [item], [history[window].sum(0)]
    if settings.image_ids:
        table = weights["image_ids.table.weight"]
        of_item.append(table[context["image_id_of"](shown)])
        of_user.append(
            sum((table[context["image_id_of"](one)] for one in seen), np.zeros(table.shape[1]))
        )

    def embed(one):
        return dicm.embed_image(weights, settings, context["image_of"](one))

    if settings.ad_image:
        of_item.append(embed(shown))
    if settings.behavior_images:
        total = np.zeros(settings.image_widths[-1])
        for one in seen:
            total = total + embed(one)
        of_user.append(total)
    user = tower(weights, "user_tower", settings, np.concatenate(of_user))
    candidate = tower(weights, "item_tower", settings, np.concatenate(of_item))
    assert user.shape == candidate.shape == (settings.vector_width,)
    return user @ candidate + weights["bias"]
