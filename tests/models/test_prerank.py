"""The pre-rank: its formula, two towers that meet in one product, its images, its bundle."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.rankers.dicm.batch_images import ImageSourceError, resolve_images
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.evaluation import score
from uic.models.training.run_spec import RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer


def _module(name):
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"prerank_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


family, literal, pictures = (_module(name) for name in ("family", "literal_prerank", "images"))

SMALL = (
    "image_widths=[5, 4]", "image_width=9", "image_id_rows=11", "history_limit=6",
    "vector_width=5",
)  # fmt: skip
BASELINE = ("ad_image=false", "behavior_images=false")
VARIANTS = {
    "images and ids": (),
    "baseline with image ids": BASELINE,
    "baseline without images": (*BASELINE, "image_ids=false"),
    "ad image": ("behavior_images=false",),
    "behaviour images": ("ad_image=false",),
    "without image ids": ("image_ids=false",),
    "linear towers": ("head_widths=[]",),
}


@pytest.fixture
def features(tmp_path):
    return pictures.publish_features(tmp_path / "images" / "small")


@pytest.fixture
def data(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(24, longest=11)))
    vocabulary = build_vocabulary(reader.batches(BatchPlan()), 2, 3, 2)
    (batch,) = reader.batches(BatchPlan())
    return batch, vocabulary


def build(vocabulary, features, *assignments):
    model = family.build("prerank", vocabulary, *SMALL, *assignments)
    model.attach_images(features)
    with torch.no_grad():
        model.bias.fill_(0.7)
        if model.image_embedding is not None:
            model.image_embedding.default.uniform_(-1, 1)
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_its_formula(variant, data, features):
    model = build(data[1], features, *VARIANTS[variant])
    pictures.check_formula(family, model, data, literal.prerank, features)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_loss(variant, data, features):
    batch, vocabulary = data
    model = build(vocabulary, features, *VARIANTS[variant], "adaptive_regularization=0.3")
    # Image embeddings begin with weights around 1: more curvature than elsewhere.
    family.check_gradients(model, family.encode(batch, vocabulary), tolerance=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_groups_order_and_company_change_nothing(variant, data, features):
    model = build(data[1], features, *VARIANTS[variant])
    pictures.check_company(family, model, data)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_logit_is_the_product_of_two_vectors_made_apart(variant, data, features):
    batch, vocabulary = data
    model = build(vocabulary, features, *VARIANTS[variant])
    encoded = family.encode(batch, vocabulary)
    images = model.attached_images(encoded)
    users = model.user_vectors(model.history_sums(encoded, images))
    items = model.item_vectors(encoded, images)
    assert users.shape == (encoded.cut_groups.shape[0], 5)
    assert items.shape == (batch.impressions, 5)
    with torch.no_grad():
        product = (users[encoded.cuts] * items).sum(1) + model.bias
        torch.testing.assert_close(model(encoded), product, rtol=0, atol=1e-12)
    # Other candidates leave the users' vectors alone, other histories the items'.
    others = family.encode(replace(batch, item_ids=batch.item_ids[::-1].copy()), vocabulary)
    other_users = model.user_vectors(model.history_sums(others, model.attached_images(others)))
    torch.testing.assert_close(other_users, users, rtol=0, atol=1e-12)
    forgot = replace(batch, history_lengths=np.zeros_like(batch.history_lengths))
    encoded = family.encode(forgot, vocabulary)
    same_items = model.item_vectors(encoded, model.attached_images(encoded))
    torch.testing.assert_close(same_items, items, rtol=0, atol=1e-12)


def test_later_events_change_nothing(data, features):
    batch, vocabulary = data
    model = build(vocabulary, features)
    group = int(np.argmax(np.diff(batch.history_offsets)))
    one = batch.select(np.array([group]))
    changed = one.select(np.array([0]))
    changed.history_item_ids[int(one.history_lengths.min()) :] += 1
    first = int(np.argmin(one.history_lengths))
    with torch.no_grad():
        before = model(family.encode(one, vocabulary))
        after = model(family.encode(changed, vocabulary))
    assert float((before - after)[first].abs()) < 1e-12
    assert float((before - after).abs().max()) > 1e-6


def test_it_trains_with_images_and_comes_back_from_its_bundle(
    make_samples, make_rows, features, tmp_path
):
    reader = SamplesReader(make_samples(make_rows(40)))
    settings, training = apply_settings(
        "prerank",
        TrainSettings(),
        ["images=small", *SMALL[:1], "epochs=1", "batch_impressions=16"],
    )
    settings, images = resolve_images(settings, tmp_path / "images")
    days = split_days(reader.days(), None, None, 1, "small")
    spec = RunSpec("prerank", settings, training, days, 0, reader.name, reader.manifest_sha256())
    trained = Trainer(reader, spec, images=images).run()
    assert float(trained.model.bias.detach()) != 0
    save_bundle(tmp_path / "bundles" / "prerank" / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / "prerank" / "0001")
    _, images = resolve_images(loaded.settings, tmp_path / "images", trained=True)
    loaded.model.attach_images(images)
    scores = [
        score(model, reader.batches(BatchPlan(shuffle=False)), Encoder(trained.vocabulary))[0]
        for model in (trained.model, loaded.model)
    ]
    assert np.array_equal(*scores)


def test_a_model_that_looks_at_images_needs_some(data):
    batch, vocabulary = data
    with pytest.raises(ImageSourceError, match="name image features with --set images=NAME"):
        family.build("prerank", vocabulary, "ad_image=true")
    assert not family.build("prerank", vocabulary).settings.wants_images
    model = family.build("prerank", vocabulary, *SMALL, "images=small")
    with pytest.raises(ImageSourceError, match="'small' are not attached"):
        model(family.encode(batch, vocabulary))
