"""LR, ARNN, RUM, SASRec, SIM, UBR4CTR and DIEN's auxiliary loss: against their formulas."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import literal_baselines
from uic.models.rankers.imn.views import MissingTimesError
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.run_spec import SettingError, apply_settings
from uic.models.training.settings import TrainSettings

_SPEC = importlib.util.spec_from_file_location("family", Path(__file__).parent / "family.py")
family = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(family)

CASES = {
    "lr": (),
    "arnn": ("history_limit=4",),
    "rum": ("history_limit=4", "slots=3", "sharpness=2"),
    "sasrec": ("history_limit=4", "item_width=4"),
    "sasrec, 3 heads": ("history_limit=20", "item_width=4", "attention_heads=3", "blocks=1"),
    "sim": ("history_limit=9", "recent_events=3", "found_events=2"),
    "sim, soft": ("history_limit=5", "recent_events=3", "found_events=2", "search=soft"),
    "sim, no times": ("time_buckets=0", "recent_events=3", "found_events=50"),
    "ubr4ctr": ("history_limit=5", "found_events=3", "item_width=4"),
    "ubr4ctr, all": ("found_events=50", "item_width=4", "attention_heads=3"),
}
# 3 heads need a width that 3 divides.
WIDTHS = {"sasrec, 3 heads": ("category_width=2",), "ubr4ctr, all": ("category_width=2",)}


@pytest.fixture
def data(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(16, longest=9)))
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    (batch,) = reader.batches(BatchPlan())
    return family.with_times(batch), vocabulary


def build(case, vocabulary, *more):
    name = case.split(",")[0]
    assignments = [*CASES[case], *WIDTHS.get(case, ()), *more]
    small = [word for word in family.SMALL if name != "lr" or not word.startswith("head")]
    settings, _ = apply_settings(name, TrainSettings(), [*small, *assignments])
    if name != "lr":
        return name, settings, family.build(name, vocabulary, *assignments).eval()
    torch.manual_seed(2)
    kind = family.MODELS[name]
    model = kind.build(settings, vocabulary.item.rows, vocabulary.category.rows)
    return name, settings, model.double().eval()


def logits(formula, settings, model, batch, vocabulary):
    """Literal scores; categories are compared as the rows that the vocabulary gives them."""

    def with_rows(weights, item, history, context):
        context["history_category_rows"] = vocabulary.category.lookup(
            context["history_category_ids"]
        )
        context["category_row"] = vocabulary.category.lookup(np.array([context["category_id"]]))[0]
        return formula(weights, item, history, context)

    return family.literal_logits(model, settings, batch, vocabulary, with_rows)


@pytest.mark.parametrize("case", CASES)
def test_it_is_its_formula(case, data):
    batch, vocabulary = data
    name, settings, model = build(case, vocabulary)
    expected = logits(getattr(literal_baselines, name), settings, model, batch, vocabulary)
    with torch.no_grad():
        found = model(family.encode(batch, vocabulary)).numpy()
    assert found == pytest.approx(expected, abs=1e-9)
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_slopes_of_the_loss(case, data):
    batch, vocabulary = data
    _, _, model = build(case, vocabulary)
    family.check_gradients(model, family.encode(batch, vocabulary))


def test_soft_search_learns_from_clicks(data):
    batch, vocabulary = data
    _, settings, model = build("sim, soft", vocabulary, "search_loss_weight=0.5")
    encoded = family.encode(batch, vocabulary)
    found = model.outputs(encoded, model.embedding.rows(encoded)).penalty.item()
    own = logits(literal_baselines.sim_search_logit, settings, model, batch, vocabulary)
    expected = np.mean(np.logaddexp(0, own) - own * batch.labels) / 2
    assert found == pytest.approx(expected, abs=1e-12)


def test_diens_auxiliary_loss_is_its_formula(data):
    batch, vocabulary = data
    model = family.build("dien", vocabulary, "history_limit=3", "auxiliary_weight=0.5").eval()
    encoded = family.encode(batch, vocabulary)
    rows = model.embedding.rows(encoded)
    penalty = model.outputs(encoded, rows).penalty.item()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    history = rows.history(encoded).detach().numpy()
    events = []
    for group in range(batch.groups):
        shown = slice(*batch.impression_offsets[group : group + 2])
        start, end = batch.history_offsets[group : group + 2]
        first = start + max(0, batch.history_lengths[shown].min() - 3)
        if end > first:
            events.append((first, history[first:end]))
    # The other event may lie before a group's window, so literal indices cover all events.
    covered = {first + j for first, own in events for j in range(len(own))}
    windows = [*events, *((j, history[j : j + 1]) for j in range(len(history)) if j not in covered)]
    items = encoded.history_items.numpy()
    expected = literal_baselines.dien_auxiliary(weights, windows, items)
    assert penalty == pytest.approx(0.5 * expected, abs=1e-12)
    family.check_gradients(model, encoded)


def test_without_it_dien_has_no_penalty(data):
    batch, vocabulary = data
    model = family.build("dien", vocabulary)
    encoded = family.encode(batch, vocabulary)
    assert model.outputs(encoded, model.embedding.rows(encoded)).penalty == 0


def test_a_search_without_times_says_so(data, make_row):
    from dataclasses import replace

    batch, vocabulary = data
    _, _, model = build("sim", vocabulary)
    with pytest.raises(MissingTimesError, match=r"history_times: .* time_buckets=0"):
        model(family.encode(replace(batch, history_times_ms=np.zeros(0, np.int64)), vocabulary))


def test_heads_must_divide_the_width():
    for name in ("sasrec", "ubr4ctr"):
        with pytest.raises(SettingError, match="attention_heads=3 does not divide the width 32"):
            apply_settings(name, TrainSettings(), ["attention_heads=3"])
    with pytest.raises(SettingError, match="head_widths"):
        apply_settings("lr", TrainSettings(), ["head_widths=[8]"])
