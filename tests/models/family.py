"""What the tests of IMN, LMN and further baselines share: data, models, literal scores."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from uic.models.layers.head import RunningNorm
from uic.models.layers.row_table import RowTable
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings

_SPEC = importlib.util.spec_from_file_location(
    "literal_family", Path(__file__).parent / "literal_family.py"
)
literal = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(literal)

SMALL = (
    "item_width=3",
    "category_width=2",
    "head_widths=[7, 4]",
    "embedding_std=0.6",
    "head_inputs=paper",  # the literal forms are the papers'; test_head_contract.py has the common
)


def build(name, vocabulary, *assignments, seed=5):
    """A small float64 model with weights large enough that every part matters."""
    settings, _ = apply_settings(name, TrainSettings(), [*SMALL, *assignments])
    torch.manual_seed(seed)
    model = MODELS[name].build(settings, vocabulary.item.rows, vocabulary.category.rows).double()
    with torch.no_grad():
        for module in model.modules():
            # Values that a normalised input would have after some training, not 0 and 1.
            if isinstance(module, RunningNorm):
                module.mean.uniform_(-0.3, 0.3)
                module.variance.uniform_(0.5, 2.0)
        for key, weight in model.named_parameters():
            if not key.startswith(("embedding.", "head.")) and "users" not in key:
                weight.mul_(2)
    return model


def with_times(batch, seed=0):
    """The batch with histories over some days, and impressions at moments of their own."""
    random = np.random.default_rng(seed)
    history = np.sort(random.integers(0, 400_000_000, batch.events))
    shown = np.sort(random.integers(400_000_000, 500_000_000, batch.impressions))
    return replace(batch, history_times_ms=history, event_times_ms=shown)


def encode(batch, vocabulary):
    return Encoder(vocabulary, dtype=torch.float64).encode(batch)


def literal_logits(model, settings, batch, vocabulary, formula, **more):
    """The literal formula for each impression: (impressions,)."""
    weights = {key: value.numpy() for key, value in model.state_dict().items()}

    def embed(items, categories):
        return np.concatenate(
            [
                weights["embedding.item"][vocabulary.item.lookup(items)],
                weights["embedding.category"][vocabulary.category.lookup(categories)],
            ],
            axis=1,
        )

    candidates = embed(batch.item_ids, batch.category_ids)
    found = []
    for index, group in enumerate(batch.impression_groups):
        start = batch.history_offsets[group]
        seen = slice(start, start + batch.history_lengths[index])
        shown = slice(*batch.impression_offsets[group : group + 2])
        context = {
            "settings": settings,
            "earliest": int(batch.history_lengths[shown].min()),
            "history_times_ms": batch.history_times_ms[seen],
            "history_category_ids": batch.history_category_ids[seen],
            "history_item_ids": batch.history_item_ids[seen],
            "time_ms": batch.event_times_ms[index],
            "user_id": batch.user_ids[group],
            "item_id": batch.item_ids[index],
            "category_id": batch.category_ids[index],
            **more,
        }
        history = embed(batch.history_item_ids[seen], batch.history_category_ids[seen])
        found.append(formula(weights, candidates[index], history, context))
    return np.array(found)


def total_loss(model, encoded):
    """Cross-entropy and penalty, and the leaves that its gradient ends in."""
    rows = model.embedding.rows(encoded)
    outputs = model.outputs(encoded, rows)
    loss = binary_cross_entropy_with_logits(outputs.logits, encoded.labels) + outputs.penalty
    return loss, rows


def check_gradients(model, encoded, step=1e-6, tolerance=1e-6):
    """Central differences along one random direction through all weights and embeddings."""
    model.zero_grad()
    loss, rows = total_loss(model, encoded)
    loss.backward()
    generator = torch.Generator().manual_seed(3)
    moves, slope = [], 0.0
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    pairs = [(weight, weight.grad) for weight in weights]
    for table, index, leaf in (
        (model.embedding.item, encoded.items, rows.items),
        (model.embedding.category, encoded.categories, rows.categories),
    ):
        if leaf.grad is not None:
            pairs.append((table, torch.zeros_like(table).index_add(0, index, leaf.grad)))
    for module in model.modules():
        if isinstance(module, RowTable):
            taken = module.taken()
            gradient = torch.zeros_like(module.weight)
            pairs.append((module.weight, gradient.index_add(0, taken.rows, taken.leaf.grad)))
    for weight, gradient in pairs:
        direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        moves.append((weight, direction))
        if gradient is not None:
            slope += float((gradient * direction).sum())

    def at(distance):
        with torch.no_grad():
            for weight, direction in moves:
                weight.add_(direction, alpha=distance)
            value = float(total_loss(model, encoded)[0])
            for weight, direction in moves:
                weight.add_(direction, alpha=-distance)
        return value

    numeric = (at(step) - at(-step)) / (2 * step)
    assert abs(numeric - slope) < tolerance * max(1.0, abs(slope)), (numeric, slope)
    assert abs(slope) > 1e-3
