"""All models: against their papers' formulas, and grouped against one row per impression."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from uic.models.layers.head import Dice, RunningNorm
from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.mimn import Mimn
from uic.models.records.record import empty_records
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings

_SPEC = importlib.util.spec_from_file_location(
    "literal_models", Path(__file__).parent / "literal_models.py"
)
literal = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(literal)

SMALL = ["item_width=3", "category_width=2", "head_widths=[7, 4]", "embedding_std=0.6"]
LIMITED = {"din", "gru4rec", "dien"}
MIMN_SMALL = ["slots=3", "controller=4", "channel_width=6", "initial_memory_std=0.7"]
LIMIT = 4


def build(name: str, vocabulary, *more: str):
    assignments = [*SMALL, *more]
    if name in LIMITED:
        assignments.append(f"history_limit={LIMIT}")
    if name == "mimn":
        said = {word.split("=")[0] for word in more}
        assignments += [word for word in MIMN_SMALL if word.split("=")[0] not in said]
    if name in {"dicm", "prerank"}:  # with images: test_dicm.py, test_prerank.py
        assignments += ["ad_image=false", "behavior_images=false", "image_ids=false"]
    if name == "ubr4ctr":
        assignments.append("attention_heads=1")
    if name == "lr":
        assignments = [word for word in assignments if not word.startswith("head_widths")]
    settings, _ = apply_settings(name, TrainSettings(), assignments)
    torch.manual_seed(5)
    model = MODELS[name].build(settings, vocabulary.item.rows, vocabulary.category.rows).double()
    # Values that a normalised input would have after some training, not 0 and 1.
    for module in model.modules():
        if isinstance(module, RunningNorm):
            module.mean.uniform_(-0.3, 0.3)
            module.variance.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def data(make_samples, make_rows):
    rows = make_rows(24, longest=11)
    reader = SamplesReader(make_samples(rows))
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    (batch,) = reader.batches(BatchPlan())
    return batch, vocabulary


def encode(batch: GroupBatch, vocabulary):
    return Encoder(vocabulary, dtype=torch.float64).encode(batch)


@pytest.mark.parametrize("name", ["average_pooling", "dien", "din", "gru4rec", "sum_pooling"])
def test_a_baseline_is_its_formula(name, data):
    batch, vocabulary = data
    model = build(name, vocabulary, "head_inputs=paper").eval()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    tables = weights["embedding.item"], weights["embedding.category"]

    def embed(items, categories):
        return np.concatenate(
            [
                tables[0][vocabulary.item.lookup(items)],
                tables[1][vocabulary.category.lookup(categories)],
            ],
            axis=1,
        )

    with torch.no_grad():
        found = model(encode(batch, vocabulary)).numpy()
    candidates = embed(batch.item_ids, batch.category_ids)
    for group in range(batch.groups):
        start = batch.history_offsets[group]
        shown = range(*batch.impression_offsets[group : group + 2])
        context = {
            "limit": LIMIT,
            "earliest": min(batch.history_lengths[index] for index in shown),
        }
        for index in shown:
            seen = slice(start, start + batch.history_lengths[index])
            history = embed(batch.history_item_ids[seen], batch.history_category_ids[seen])
            expected = getattr(literal, name)(weights, candidates[index], history, context)
            assert found[index] == pytest.approx(expected, abs=1e-9)


def loss_and_gradients(model, batch, vocabulary):
    """Loss, gradients of dense weights, and of the whole embedding tables."""
    model.zero_grad()
    encoded = encode(batch, vocabulary)
    rows = model.embedding.rows(encoded)
    outputs = model.outputs(encoded, rows)
    loss = binary_cross_entropy_with_logits(outputs.logits, encoded.labels)
    loss.backward()
    found = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    for name, index, leaf, table in (
        ("item", encoded.items, rows.items, model.embedding.item),
        ("category", encoded.categories, rows.categories, model.embedding.category),
    ):
        found[name] = torch.zeros_like(table).index_add(0, index, leaf.grad)
    return outputs.logits.detach(), loss.detach(), found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_grouped_loss_and_gradients_are_the_ungrouped(name, data):
    batch, vocabulary = data
    if name in {"gru4rec", "dien"}:
        # A GRU's window starts at its group's first impression; long enough, it is the same.
        batch = batch.select(np.flatnonzero(np.diff(batch.history_offsets) <= LIMIT))
    # Evaluation mode: running values must not move between the two.
    model = build(name, vocabulary).eval()
    logits, loss, gradients = loss_and_gradients(model, batch, vocabulary)
    single = loss_and_gradients(model, batch.ungrouped(), vocabulary)
    torch.testing.assert_close(single[0], logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(single[1], loss, rtol=0, atol=1e-12)
    assert gradients.keys() == single[2].keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(single[2][key], gradient, rtol=0, atol=1e-9, msg=key)
    assert any(float(gradient.abs().max()) > 1e-4 for gradient in gradients.values())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_order_and_company_change_nothing(name, data):
    batch, vocabulary = data
    model = build(name, vocabulary).eval()
    with torch.no_grad():
        together = model(encode(batch, vocabulary))
        order = np.random.default_rng(1).permutation(batch.groups)
        shuffled = model(encode(batch.select(order), vocabulary))
        alone = torch.cat(
            [model(encode(batch.select(np.array([g])), vocabulary)) for g in range(batch.groups)]
        )
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)
    places = np.concatenate(
        [np.arange(*batch.impression_offsets[group : group + 2]) for group in order]
    )
    torch.testing.assert_close(shuffled, together[torch.from_numpy(places)], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_comes_after_an_impression_changes_nothing(name, data):
    """No event at or after an impression may reach it."""
    batch, vocabulary = data
    model = build(name, vocabulary).eval()
    group = int(np.argmax(np.diff(batch.history_offsets)))
    one = batch.select(np.array([group]))
    changed = one.select(np.array([0]))
    changed.history_item_ids[int(one.history_lengths.min()) :] += 1
    with torch.no_grad():
        before = model(encode(one, vocabulary))
        after = model(encode(changed, vocabulary))
    first = int(np.argmin(one.history_lengths))
    assert before[first] == after[first]


@pytest.mark.parametrize("switches", [[], ["induction=false"], ["utilization=false"]])
def test_mimn_reads_packed_memories_as_training_does(switches, data):
    batch, vocabulary = data
    model = build("mimn", vocabulary, *switches).eval().float()
    assert isinstance(model, Mimn)
    encoded = Encoder(vocabulary).encode(batch)
    with torch.no_grad():
        rows = model.embedding.rows(encoded)
        states = model.fold(encoded, rows).states
        trained = model.outputs(encoded, rows).logits
        # What the store would hold, and what the ranking service would do with it.
        layout = model.memory.layout
        records = empty_records(states.users, layout.floats)
        states.pack(records)
        served = model.readout(
            type(states).unpack(records, layout), encoded.cuts, rows.candidates(encoded)
        )
    assert torch.equal(served, trained)


@pytest.mark.parametrize(("products", "controller"), [(False, 0), (True, 0), (True, 5), (True, 6)])
@pytest.mark.parametrize("routing", [False, True])
def test_mimn_readout_is_its_formula(data, routing, products, controller):
    batch, vocabulary = data
    more = [f"routing={routing}", f"readout_products={products}", "channel_width=6"]
    more += [f"readout_controller={controller > 0}", f"controller={controller or 3}"]
    model = build("mimn", vocabulary, *more).eval()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    encoded = encode(batch, vocabulary)
    with torch.no_grad():
        rows = model.embedding.rows(encoded)
        states = model.fold(encoded, rows).states
        found = model(encoded).numpy()
    candidates = rows.candidates(encoded).numpy()
    for index in range(batch.impressions):
        cut = int(encoded.cuts[index])
        state = {name: getattr(states, name)[cut].numpy() for name in ("M", "S", "pool")}
        state["h"] = states.h[cut].numpy() if controller else None
        expected = literal.mimn_readout(weights, candidates[index], state, products=products)
        assert found[index] == pytest.approx(expected, abs=1e-9)


def test_l_reg_is_the_penalty_of_mimn(data):
    batch, vocabulary = data
    encoded = encode(batch, vocabulary)
    penalties = {}
    for weight in (0.0, 0.5):
        model = build("mimn", vocabulary, f"utilization_loss_weight={weight}")
        penalties[weight] = model.outputs(encoded, model.embedding.rows(encoded)).penalty.item()
    assert penalties[0.0] == 0
    assert penalties[0.5] > 0


def test_running_norm_serves_what_it_trained():
    torch.manual_seed(0)
    norm = RunningNorm(3)
    values = torch.randn(500, 3, dtype=torch.float64) * 4 + 2
    norm.double().train()
    for part in values.split(50):
        trained = norm(part)
    assert norm.mean.numpy() == pytest.approx(values.mean(0).numpy(), abs=1e-9)
    assert norm.variance.numpy() == pytest.approx(values.var(0).numpy(), rel=0.1)
    assert torch.equal(norm.eval()(part), trained)


def test_dice_is_its_formula():
    dice = Dice(2)
    with torch.no_grad():
        dice.slope.copy_(torch.tensor([0.5, -1.0]))
    dice.eval()
    p = 1 / (1 + np.exp(-2.0 / np.sqrt(1 + 1e-6)))
    found = dice(torch.tensor([[2.0, 2.0]]))[0].tolist()
    assert found == pytest.approx([p * 2 + (1 - p) * 1.0, p * 2 - (1 - p) * 2], abs=1e-6)


def test_settings_of_every_model_have_a_unit_and_a_range():
    for kind in MODELS.values():
        for name, field in kind.settings.model_fields.items():
            assert field.description, name
