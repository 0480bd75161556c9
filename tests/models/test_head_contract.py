"""What each model feeds its head, by name: one contract, and what a model alone knows beside it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.test_every_model import MORE, with_features
from uic.jobs.drills.hostile.bundle_damage import reseal
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.layers.head_inputs import COMMON
from uic.models.layers.ranker_settings import HeadInputs
from uic.models.layers.windows import window_sums
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import score
from uic.models.training.run_spec import RunSpec, SettingError, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer

# What a model of the contract adds to it. A new model is listed here, with what its docstring says.
ADDS = {
    "arnn": ["state", "attended"],
    "average_pooling": [],
    "dicm": [],  # its images are switched off here; test_dicm.py has them
    "dien": ["evolved"],
    "din": ["attended"],
    "gru4rec": ["state"],
    "imn": ["interest"],
    "lmn": ["attended", "recalled"],
    "mimn": ["memory", "recalled"],  # `MORE` plugs a large memory in
    "rum": ["read"],
    "sasrec": ["state", "item * state"],
    "sim": ["newest", "attended", "found"],
    "sum_pooling": ["sum"],
    "two_pools": ["newest", "item * newest", "log masses"],
    "ubr4ctr": ["found", "attended"],
}
# What a model has instead, and why it cannot keep the contract.
INSTEAD = {
    "lr": (["item", "mean"], "it is linear, and a product is not"),
    "dnn": (["item"], "it has no history, so it has no mean of one"),
    "prerank": ([], "item and history meet in the product of two towers alone: it has no head"),
}
PAPERS = {
    "arnn": ["item", "sum", "state", "attended"],
    "average_pooling": ["item", "mean"],
    "dicm": ["item", "sum"],
    "dien": ["item", "evolved", "sum", "item * sum"],
    "din": ["item", "sum", "attended"],
    "gru4rec": ["item", "sum", "state"],
    "imn": ["item", "interest"],
    "lmn": ["item", "sum", "attended", "recalled"],
    "mimn": ["item", "mean", "item * mean", "memory", "recalled"],
    "rum": ["item", "sum", "read"],
    "sasrec": ["item", "sum", "state", "item * state"],
    "sim": ["item", "newest", "attended", "found"],
    "sum_pooling": ["item", "sum"],
    "ubr4ctr": ["item", "found", "attended"],
}
# The newest events that a model's mean is over; all of them where it has no window.
LIMIT = 4
# Settings that a bundle of before does not have.
YOUNGER = ["head_inputs", "walk_sum"]
RECORD = FeatureSet.from_json(
    [
        {"owner": "item", "name": "text", "type": "embedding", "width": 2},
        {"owner": "state", "name": "items.count", "type": "number", "scale": "log"},
        {"owner": "state", "name": "shelves.rate", "type": "number"},
    ]
)


def with_a_record(rows):
    draw = np.random.default_rng(2)
    for row in with_features(rows):
        shown = len(row["item_ids"])
        row["state.items.count"] = draw.integers(0, 9, shown).astype(float).tolist()
        row["state.shelves.rate"] = draw.random(shown).tolist()
    return rows


def settings_of(name, *more):
    words = ["item_width=3", "category_width=3", "embedding_std=0.6", "epochs=1"]
    if "history_limit" in MODELS[name].settings.model_fields:
        words.append(f"history_limit={LIMIT}")
    return apply_settings(name, TrainSettings(), [*words, *MORE.get(name, []), *more])


def train(name, reader, *more):
    settings, training = settings_of(name, *more)
    days = split_days(reader.days(), None, None, 1, "small")
    spec = RunSpec(name, settings, training, days, 0, reader.name, reader.manifest_sha256())
    return Trainer(reader, spec).run()


def built(name, *more):
    settings, _ = settings_of(name, *more)
    torch.manual_seed(0)
    return MODELS[name].build(settings, 50, 20)


def test_every_model_is_listed_with_what_it_feeds_its_head():
    assert set(MODELS) == ADDS.keys() | INSTEAD.keys()
    for name, added in ADDS.items():
        assert list(built(name).head_features()) == [*COMMON, *added], name
    for name, (names, reason) in INSTEAD.items():
        assert list(built(name).head_features()) == names, (name, reason)


def test_the_papers_own_input_is_a_setting():
    # `two_pools` has no paper.
    assert PAPERS.keys() == ADDS.keys() - {"two_pools"}
    for name, names in PAPERS.items():
        assert list(built(name, "head_inputs=paper").head_features()) == names, name


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_a_model_that_cannot_keep_the_contract_refuses_the_setting(name):
    with pytest.raises(SettingError, match="head_inputs"):
        settings_of(name, "head_inputs=common")


@pytest.mark.parametrize("name", sorted(ADDS))
def test_a_head_gets_item_mean_and_product_first(name, make_samples, make_rows):
    """Of what the model is given: all events, or its window."""
    reader = SamplesReader(make_samples(make_rows(12, longest=9)))
    trained = train(name, reader)
    (batch,) = reader.batches(BatchPlan(shuffle=False))
    encoded = Encoder(trained.vocabulary).encode(batch)
    model = trained.model.eval()
    seen = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(encoded)
        rows = model.embedding.rows(encoded)
        item, history = rows.candidates(encoded), rows.history(encoded)
    assert seen[0].shape[1] == sum(model.head_features().values())
    limit = LIMIT if "history_limit" in MODELS[name].settings.model_fields else 100
    for at in range(batch.impressions):
        start = int(encoded.history_starts[encoded.groups[at]])
        length = int(encoded.lengths[at])
        events = history[start : start + length][-limit:] if length else item[:1] * 0
        mean = events.mean(0)
        expected = torch.cat([item[at], mean, item[at] * mean])
        # A record's pool is float16.
        tolerance = 2e-3 if name == "mimn" else 1e-6
        torch.testing.assert_close(seen[0][at, :18], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"prerank"}))
def test_the_record_and_all_other_features_join_every_head(name, make_samples, make_rows):
    """The pre-rank refuses a record's (test_prerank.py): its item tower is computed ahead."""
    reader = SamplesReader(make_samples(with_a_record(make_rows(30)), features=RECORD))
    model = train(name, reader).model
    expected = [*COMMON, *ADDS[name]] if name in ADDS else INSTEAD[name][0]
    joined = ["item.text", "state.items.count", "state.shelves.rate"]
    assert list(model.head_features()) == [*expected, *joined]
    assert model.head_features()["state.items.count"] == 2  # the number, and whether it is there
    first = next(layer for layer in model.head.layers if isinstance(layer, torch.nn.Linear))
    assert first.in_features == sum(model.head_features().values())


@pytest.mark.parametrize("name", sorted(PAPERS.keys() | {"lr", "dnn"}))
def test_a_bundle_from_before_the_contract_keeps_its_scores(
    name, make_samples, make_rows, tmp_path
):
    reader = SamplesReader(make_samples(make_rows(20)))
    papers = ["walk_sum=sum"] if name == "imn" else []
    trained = train(name, reader, "head_inputs=paper", *papers)
    path = tmp_path / "bundles" / name / "0001"
    save_bundle(path, trained)
    document = json.loads((path / "config.json").read_text())
    for key in YOUNGER:
        document["settings"].pop(key, None)
    (path / "config.json").write_text(json.dumps(document))
    reseal(path)
    loaded = load_bundle(path)
    assert loaded.settings.head_inputs is HeadInputs.PAPER
    scores = [
        score(model, reader.batches(BatchPlan(shuffle=False)), Encoder(trained.vocabulary))[0]
        for model in (trained.model, loaded.model)
    ]
    assert np.array_equal(*scores)


def test_a_warm_start_from_before_the_contract_says_how(make_samples, make_rows, tmp_path):
    reader = SamplesReader(make_samples(make_rows(20)))
    path = tmp_path / "bundles" / "din" / "0001"
    save_bundle(path, train("din", reader, "head_inputs=paper"))
    bundle = load_bundle(path)
    start = warm_start(bundle, except_ids=False)
    with pytest.raises(
        BundleError, match=r"train as it was trained, with --set head_inputs=paper, or"
    ):
        start(built("din"), bundle.vocabulary)


def test_a_part_that_was_not_declared_is_refused(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(4)))
    trained = train("din", reader)
    (batch,) = reader.batches(BatchPlan(shuffle=False))
    encoded = Encoder(trained.vocabulary).encode(batch)
    rows = trained.model.embedding.rows(encoded)
    with pytest.raises(BadInputError, match=r"computed state for its head, and declared attended"):
        trained.model.finish({"state": rows.candidates(encoded)}, encoded, rows)


@pytest.mark.parametrize("half_life", [0.5, 1.0, 3.0])
def test_two_pools_is_its_formula(half_life, make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(12, longest=60)))
    model = train("two_pools", reader, f"half_life_events={half_life}")
    (batch,) = reader.batches(BatchPlan(shuffle=False))
    encoded = Encoder(model.vocabulary).encode(batch)
    seen = []
    model.model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.model.eval()(encoded)
        rows = model.model.embedding.rows(encoded)
        item, history = rows.candidates(encoded), rows.history(encoded).double()
    for at in range(batch.impressions):
        start, length = int(encoded.history_starts[encoded.groups[at]]), int(encoded.lengths[at])
        weights = 0.5 ** (torch.arange(length - 1, -1, -1).double() / half_life)
        pool = (weights @ history[start : start + length]) / max(float(weights.sum()), 1e-9)
        masses = torch.tensor([length, float(weights.sum())]).log1p()
        expected = torch.cat([pool, item[at] * pool, masses]).float()
        torch.testing.assert_close(seen[0][at, 18:], expected, rtol=0, atol=1e-5)


def test_the_mean_costs_one_pass_over_the_events(make_samples, make_rows, monkeypatch):
    """Sum, mean and products are of one sum, and a model without a history takes none."""
    reader = SamplesReader(make_samples(make_rows(6)))
    trained = {name: train(name, reader) for name in ("average_pooling", "dnn")}
    (batch,) = reader.batches(BatchPlan(shuffle=False))
    calls = []

    def counted(*args):
        calls.append(args)
        return window_sums(*args)

    monkeypatch.setattr("uic.models.layers.head_inputs.window_sums", counted)
    for name, expected in (("average_pooling", 1), ("dnn", 0)):
        calls.clear()
        trained[name].model(Encoder(trained[name].vocabulary).encode(replace(batch)))
        assert len(calls) == expected, name
