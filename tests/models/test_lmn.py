"""LMN: against its formulas, forward, loss and gradients; plugged into every base."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from uic.models.hashing import stable_hash
from uic.models.layers.row_table import RowTable, distinct_rows
from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.mimn import Mimn
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.optimizer import Optimizer
from uic.models.training.run_spec import SettingError, apply_settings, shared_assignments
from uic.models.training.settings import TrainSettings

_SPEC = importlib.util.spec_from_file_location("family", Path(__file__).parent / "family.py")
family = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(family)

SIZES = ("memory=lmn", "lmn_keys=4", "lmn_top_k=3", "lmn_user_rows=5")
VARIANTS = {
    "paper": (),
    "heads": ("lmn_heads=2", "lmn_pooling=sum"),
    "attention": ("lmn_pooling=attention",),
    "added": ("lmn_merge=add", "lmn_width=3"),
    "no user": ("lmn_user=none",),
    "candidate": ("lmn_query=candidate",),
    "all values": ("lmn_top_k=16",),
}


@pytest.fixture
def data(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(14, longest=7)))
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    (batch,) = reader.batches(BatchPlan())
    return batch, vocabulary


def user_row(user_id):
    return int(stable_hash(user_id, seed=2) % 5)


def build(base, vocabulary, *more):
    limit = ("history_limit=4",) if base in {"din", "lmn"} else ()
    model = family.build(base, vocabulary, *SIZES, *limit, *more).eval()
    settings, _ = apply_settings(base, TrainSettings(), [*family.SMALL, *SIZES, *limit, *more])
    return model, settings


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("base", ["lmn", "average_pooling"])
def test_it_is_its_formula(base, variant, data):
    batch, vocabulary = data
    model, settings = build(base, vocabulary, *VARIANTS[variant])
    formula = getattr(family.literal, {"lmn": "din_lmn"}.get(base, f"{base}_lmn"))
    expected = family.literal_logits(model, settings, batch, vocabulary, formula, user_row=user_row)
    with torch.no_grad():
        found = model(family.encode(batch, vocabulary)).numpy()
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("variant", ["paper", "heads", "attention", "candidate"])
def test_gradients_are_the_slopes_of_the_loss(variant, data):
    batch, vocabulary = data
    model, _ = build("lmn", vocabulary, *VARIANTS[variant])
    family.check_gradients(model, family.encode(batch, vocabulary))


@pytest.mark.parametrize("detach", ["none", "query", "output"])
def test_the_penalty_is_smooth_l1_over_the_events_that_asked(detach, data):
    """Eq. 11 and 12; each event within some window asks once."""
    batch, vocabulary = data
    more = ("lmn_loss_weight=0.7", "lmn_loss_beta=0.5", f"lmn_loss_detach={detach}")
    model, settings = build("lmn", vocabulary, *more)
    encoded = family.encode(batch, vocabulary)
    rows = model.embedding.rows(encoded)
    penalty = model.outputs(encoded, rows).penalty
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    history = rows.history(encoded).detach().numpy()
    outputs, queries = [], []
    for group in range(batch.groups):
        shown = slice(*batch.impression_offsets[group : group + 2])
        first = max(0, batch.history_lengths[shown].min() - 4)
        start, end = batch.history_offsets[group : group + 2]
        context = {"settings": settings, "user_row": user_row, "user_id": batch.user_ids[group]}
        own = family.literal.lmn_queries(weights, history[start + first : end], context)
        queries += own
        outputs += list(family.literal.lmn_memory(weights, own, settings.memory))
    expected = 0.7 * family.literal.smooth_l1(outputs, queries, 0.5)
    assert penalty.item() == pytest.approx(expected, abs=1e-12)
    penalty.backward()
    moved = model.large.block.values.taken() is not None
    assert moved == (detach != "output")


def test_mimn_with_a_large_memory_serves_what_it_trained(data):
    batch, vocabulary = data
    model = family.build("mimn", vocabulary, *SIZES, "slots=3", "controller=4").eval().float()
    assert isinstance(model, Mimn)
    encoded = family.Encoder(vocabulary).encode(batch)
    rows = model.embedding.rows(encoded)
    with torch.no_grad():
        outputs = model.outputs(encoded, rows)
        states = model.fold(encoded, rows).states
        served = model.readout(states, encoded.cuts, rows.candidates(encoded))
    assert torch.equal(served, outputs.logits)
    assert outputs.penalty > 0


def test_mimn_cannot_ask_with_a_history():
    for setting in ("lmn_query=history", "lmn_user=id"):
        with pytest.raises(SettingError, match="set lmn_query=candidate and lmn_user=none"):
            apply_settings("mimn", TrainSettings(), ["memory=lmn", setting])


def test_more_values_than_the_table_has_are_refused():
    with pytest.raises(SettingError, match=r"lmn_top_k=17 is more than the table's 16 values"):
        apply_settings("din", TrainSettings(), ["memory=lmn", "lmn_keys=4", "lmn_top_k=17"])


def test_settings_of_a_bundle_of_version_0_1_mean_the_same():
    """They had every key of the memory beside the ranker's own, used or not."""
    settings = MODELS["average_pooling"].settings
    unused = {"item_width": 8, "memory": "none", "lmn_keys": 300, "lmn_user": "id"}
    assert settings.model_validate(unused) == settings(item_width=8)
    used = settings.model_validate({"memory": "lmn", "lmn_keys": 7, "lmn_query": "candidate"})
    assert used.memory.lmn_keys == 7
    assert settings.model_validate(used.model_dump(mode="json")) == used
    lmn = MODELS["lmn"].settings
    assert lmn.model_validate({"memory": "none"}).memory is None
    assert lmn.model_validate({"lmn_keys": 9}).memory.lmn_keys == 9
    assert lmn.model_validate(lmn().model_dump(mode="json")) == lmn()


def test_keys_of_a_memory_need_one():
    with pytest.raises(SettingError, match="lmn_keys is of a large memory; set memory=lmn too"):
        apply_settings("average_pooling", TrainSettings(), ["lmn_keys=4"])
    with pytest.raises(SettingError, match="memory is 'big', expected none or lmn"):
        apply_settings("average_pooling", TrainSettings(), ["memory=big"])
    assert shared_assignments("din", ["lmn_keys=4", "item_width=3"]) == ["item_width=3"]
    assert shared_assignments("lmn", ["lmn_keys=4"]) == ["lmn_keys=4"]


def test_a_step_moves_the_values_that_were_read_and_no_others(data):
    batch, vocabulary = data
    model, _ = build("lmn", vocabulary, "lmn_keys=12", "lmn_top_k=1")
    table = model.large.block.values
    before = table.weight.clone()
    optimizer = Optimizer(
        model, learning_rate=0.01, decay_rate=1.0, decay_steps=1, gradient_clip=0.0
    )
    encoded = family.encode(batch, vocabulary)
    loss, rows = family.total_loss(model, encoded)
    loss.backward()
    read = table._taken[0].rows
    optimizer.step(encoded, rows)
    moved = torch.nonzero((table.weight != before).any(1)).squeeze(1)
    assert set(moved.tolist()) <= set(read.tolist())
    assert 0 < moved.numel() < 144
    assert {"rows.large.block.values.mean", "rows.large.users.mean"} <= set(optimizer.tensors())


def test_rows_read_twice_get_one_gradient():
    table = RowTable(5, 1, 1.0)
    loss = table.take(torch.tensor([1, 3, 1])).sum()
    loss = loss + table.weighted_sum(torch.tensor([[3, 4]]), torch.tensor([[10.0, 20.0]])).sum()
    loss.backward()
    taken = table.taken()
    assert taken.rows.tolist() == [1, 3, 4]
    assert taken.leaf.grad.squeeze(1).tolist() == [2, 11, 20]
    assert table.taken() is None


@pytest.mark.parametrize("count", [8, 10_000])
def test_distinct_rows_are_ascending(count):
    rows = torch.tensor([[5, 2], [5, 7]])
    distinct, index = distinct_rows(rows, count)
    assert distinct.tolist() == [2, 5, 7]
    assert index.tolist() == [[1, 0], [1, 2]]


def test_a_million_values_train_here(data):
    """1,000 keys an axis; a step reads and moves a few thousand of the million."""
    batch, vocabulary = data
    settings, _ = apply_settings("lmn", TrainSettings(), [*family.SMALL, "lmn_keys=1000"])
    model = family.MODELS["lmn"].build(settings, vocabulary.item.rows, vocabulary.category.rows)
    assert model.large.block.values.weight.shape[0] == 1_000_000
    encoded = family.Encoder(vocabulary).encode(batch)
    optimizer = Optimizer(
        model, learning_rate=0.01, decay_rate=1.0, decay_steps=1, gradient_clip=1.0
    )
    losses = []
    for _ in range(5):
        loss, rows = family.total_loss(model, encoded)
        loss.backward()
        optimizer.step(encoded, rows)
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
