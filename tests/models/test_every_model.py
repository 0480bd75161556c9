"""Every model of the catalogue trains, becomes a bundle, and scores the same when loaded."""

import dataclasses

import numpy as np
import pytest

from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.features.raw import MISSING
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import score
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer

SMALL = ["item_width=4", "category_width=4", "epochs=1"]
MORE = {
    "mimn": ["slots=2", "controller=4", "memory=lmn", "lmn_keys=3"],
    "lmn": ["lmn_keys=20"],
    "dien": ["auxiliary_weight=0.1"],
    "sim": ["search=soft"],
    # With images: test_dicm.py, test_prerank.py.
    "dicm": ["ad_image=false", "behavior_images=false", "image_ids=false"],
    "prerank": ["ad_image=false", "behavior_images=false", "image_ids=false"],
}


FEATURES = FeatureSet.from_json(
    [
        {"owner": "user", "name": "band", "type": "categorical", "min_count": 1},
        {"owner": "item", "name": "tags", "type": "categories", "most": 2, "min_count": 1},
        {"owner": "item", "name": "text", "type": "embedding", "width": 2},
        {"owner": "context", "name": "hint", "type": "number"},
        {"owner": "context", "name": "place", "type": "number", "scale": "buckets"},
    ]
)


def with_features(rows):
    """Rows whose `hint` says what was clicked, and whose items say nothing."""
    draw = np.random.default_rng(1)
    for row in rows:
        shown = len(row["item_ids"])
        row["labels"] = (draw.random(shown) < 0.5).tolist()
        row["user.band"] = [7, 8]
        row["user_versions"] = [at % 2 for at in range(shown)]
        row["item.tags"] = draw.integers(0, 5, (shown, 2)).tolist()
        row["item.text"] = draw.normal(size=(shown, 2)).tolist()
        row["context.hint"] = [float(label) for label in row["labels"]]
        row["context.place"] = list(map(float, range(shown)))
    return rows


def spec_of(name: str, reader: SamplesReader, *more: str) -> RunSpec:
    settings, training = apply_settings(name, TrainSettings(), [*SMALL, *MORE.get(name, []), *more])
    days = split_days(reader.days(), None, None, 1, "small")
    return RunSpec(name, settings, training, days, 0, reader.name, reader.manifest_sha256())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_sees_features_and_brings_them_back(name, make_samples, make_rows, tmp_path):
    rows = with_features(make_rows(200))
    reader = SamplesReader(make_samples(rows, features=FEATURES))
    faster = ("learning_rate=0.02", "batch_impressions=32")
    trained = Trainer(reader, spec_of(name, reader, "epochs=3", *faster)).run()
    assert trained.metrics.auc > 0.9
    blind = Trainer(reader, spec_of(name, reader, "features=false", *faster)).run()
    assert blind.metrics.auc < 0.7
    save_bundle(tmp_path / "bundles" / name / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / name / "0001")
    scores = [
        score(one.model, reader.batches(BatchPlan(shuffle=False)), Encoder(one.vocabulary))[0]
        for one in (trained, loaded)
    ]
    assert np.array_equal(*scores)


def test_a_feature_that_was_not_there_in_training_is_as_if_it_were_missing(
    make_samples, make_rows, tmp_path
):
    """Categories of a request that training never saw have spare rows; nothing is out of range."""
    rows = with_features(make_rows(60))
    reader = SamplesReader(make_samples(rows, features=FEATURES))
    trained = Trainer(reader, spec_of("dnn", reader)).run()
    (batch,) = reader.batches(BatchPlan(shuffle=False, batch_impressions=10_000))
    odd = {
        "user.band": np.full(batch.impressions, 12_345),
        "item.tags": np.full((batch.impressions, 2), MISSING),
        "item.text": np.full((batch.impressions, 2), np.nan, np.float32),
        "context.hint": np.full(batch.impressions, np.nan, np.float32),
        "context.place": np.full(batch.impressions, 1e30, np.float32),
    }
    strange = dataclasses.replace(batch, features=odd)
    logits, _, _ = score(trained.model, [strange], Encoder(trained.vocabulary))
    assert np.isfinite(logits).all()


def test_samples_without_a_models_features_are_refused_by_name(make_samples, make_rows):
    reader = SamplesReader(make_samples(with_features(make_rows(9)), features=FEATURES))
    reader.require(FEATURES, "dnn/1")
    entries = [{"owner": "user", "name": "band", "type": "number"}]
    with pytest.raises(BadInputError, match=r"user\.band is categorical, dnn/1 wants number"):
        reader.require(FeatureSet.from_json(entries), "dnn/1")
    with pytest.raises(BadInputError, match=r"user\.age is not there"):
        reader.require(FeatureSet.from_json([{**entries[0], "name": "age"}]), "dnn/1")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_trains_and_comes_back_from_its_bundle(name, make_samples, make_rows, tmp_path):
    reader = SamplesReader(make_samples(make_rows(40)))
    trained = Trainer(reader, spec_of(name, reader)).run()
    assert np.isfinite(trained.metrics.logloss)
    save_bundle(tmp_path / "bundles" / name / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / name / "0001")
    plan = BatchPlan(shuffle=False)
    scores = [
        score(model, reader.batches(plan), Encoder(trained.vocabulary))[0]
        for model in (trained.model, loaded.model)
    ]
    assert np.array_equal(*scores)
