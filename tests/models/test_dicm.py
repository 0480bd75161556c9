"""DICM: its formula, its images (each once), its switches, and what it refuses."""

import importlib.util
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.images import write_image_features
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.warm_start import warm_start
from uic.models.images.embedding import ImageEmbedding, ImageEmbeddingError
from uic.models.rankers.dicm.adaptive_regularization import AdaptiveRegularization
from uic.models.rankers.dicm.batch_images import ImageSourceError, images_of, resolve_images
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.evaluation import score
from uic.models.training.run_spec import RunSpec, SettingError, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer


def _module(name):
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"dicm_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


family, literal, pictures = (_module(name) for name in ("family", "literal_dicm", "images"))

SMALL = ("image_widths=[5, 4]", "image_width=9", "image_id_rows=11", "history_limit=6")
BASELINE = ("ad_image=false", "behavior_images=false")
VARIANTS = {
    "joint": (),
    "baseline": BASELINE,
    "ad image": ("behavior_images=false",),
    "behaviour images, sum": ("ad_image=false", "aggregator=sum"),
    "behaviour images, asked by id": ("ad_image=false", "id_query=item"),
    "without image ids": ("image_ids=false",),
    "concatenate": ("aggregator=concatenate", "concatenate_events=3"),
    "concatenate more than the limit": ("aggregator=concatenate", "concatenate_events=8"),
    "max": ("aggregator=max",),
    "sum": ("aggregator=sum",),
    "attentive": ("aggregator=attentive",),
    "attentive, softmax": ("aggregator=attentive", "attention_weights=softmax"),
    "two queries, softmax": ("attention_weights=softmax",),
    "din": ("basic_net=din",),
    "lr": ("basic_net=lr",),
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
    model = family.build("dicm", vocabulary, *SMALL, *assignments)
    model.attach_images(features)
    with torch.no_grad():
        if model.image_embedding is not None:
            model.image_embedding.default.uniform_(-1, 1)
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_its_formula(variant, data, features):
    model = build(data[1], features, *VARIANTS[variant])
    pictures.check_formula(family, model, data, literal.dicm, features)


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


@pytest.mark.parametrize("aggregator", ["concatenate", "max", "sum", "multi_query"])
def test_images_of_later_events_change_nothing(aggregator, data, features):
    batch, vocabulary = data
    model = build(vocabulary, features, f"aggregator={aggregator}")
    group = int(np.argmax(np.diff(batch.history_offsets)))
    one = batch.select(np.array([group]))
    changed = one.select(np.array([0]))
    changed.history_item_ids[int(one.history_lengths.min()) :] += 1
    first = int(np.argmin(one.history_lengths))
    with torch.no_grad():
        before = model(family.encode(one, vocabulary))
        after = model(family.encode(changed, vocabulary))
    # Not to the bit: another number of distinct images is another order of sums in BLAS.
    assert float((before - after)[first].abs()) < 1e-12
    assert float((before - after).abs().max()) > 1e-6


def test_an_image_is_embedded_once_a_batch_however_often_it_is_wanted(data, features):
    batch, vocabulary = data
    model = build(vocabulary, features, "history_limit=100")
    seen = []
    model.image_embedding.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[0]))
    with torch.no_grad():
        model(family.encode(batch, vocabulary))
    rows = features.rows_of(np.concatenate([batch.history_item_ids, batch.item_ids]))
    shown = rows[rows >= 0]
    assert seen == [np.unique(shown).size]
    counts = model.vectors.counts
    assert (counts.wanted, counts.embedded) == (shown.size, np.unique(shown).size)
    assert counts.missing == rows.size - shown.size
    assert counts.missing > 0
    assert counts.wanted > 5 * counts.embedded


def test_events_that_nobody_looks_at_are_not_embedded(data, features):
    batch, vocabulary = data
    encoded = family.encode(batch, vocabulary)
    short, all_ = (images_of(encoded, features, limit) for limit in (1, None))
    assert short.wanted < all_.wanted
    only_ads = images_of(encoded, features, None, history=False)
    rows = features.rows_of(batch.item_ids)
    np.testing.assert_array_equal(only_ads.rows, np.unique(rows[rows >= 0]))
    assert int(only_ads.history.min()) == only_ads.rows.size


def train(reader, features_root, *assignments, prepare=None, epochs=2):
    settings, training = apply_settings(
        "dicm",
        TrainSettings(),
        ["images=small", *SMALL[:1], f"epochs={epochs}", "batch_impressions=16", *assignments],
    )
    settings, images = resolve_images(settings, features_root)
    days = split_days(reader.days(), None, None, 1, "small")
    spec = RunSpec("dicm", settings, training, days, 0, reader.name, reader.manifest_sha256())
    return Trainer(reader, spec, prepare=prepare, images=images).run()


def test_it_trains_and_comes_back_from_its_bundle(make_samples, make_rows, features, tmp_path):
    reader = SamplesReader(make_samples(make_rows(40)))
    trained = train(reader, tmp_path / "images")
    save_bundle(tmp_path / "bundles" / "dicm" / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / "dicm" / "0001")
    assert loaded.settings.images_sha256 == trained.spec.settings.images_sha256 != ""
    assert loaded.settings.image_encoder == pictures.ENCODER
    _, images = resolve_images(loaded.settings, tmp_path / "images", trained=True)
    loaded.model.attach_images(images)
    scores = [
        score(model, reader.batches(BatchPlan(shuffle=False)), Encoder(trained.vocabulary))[0]
        for model in (trained.model, loaded.model)
    ]
    assert np.array_equal(*scores)
    start = train(reader, tmp_path / "images", epochs=1).model.image_embedding.layers[0].weight
    assert (loaded.model.image_embedding.layers[0].weight - start).abs().max() > 1e-5


def test_warm_up_partial_leaves_ids_random_and_full_does_not(
    make_samples, make_rows, features, tmp_path
):
    reader = SamplesReader(make_samples(make_rows(40)))
    save_bundle(tmp_path / "b" / "dicm" / "0001", train(reader, tmp_path / "images"))
    bundle = load_bundle(tmp_path / "b" / "dicm" / "0001")
    started = {}
    for mode in ("none", "partial", "full"):

        def prepare(model, vocabulary, mode=mode):
            if mode != "none":
                warm_start(bundle, except_ids=mode == "partial")(model, vocabulary)
            started[mode] = {key: value.clone() for key, value in model.state_dict().items()}

        train(reader, tmp_path / "images", prepare=prepare, epochs=1)
    old = bundle.model.state_dict()

    def taken(mode, prefix):
        same = [torch.equal(old[key], value) for key, value in started[mode].items()
                if key.startswith(prefix) and old[key].abs().sum() > 0]  # fmt: skip
        assert same
        return same

    for prefix in ("image_embedding.layers", "head.", "aggregator."):
        assert all(taken("partial", prefix))
        assert all(taken("full", prefix))
        assert not any(taken("none", prefix))
    for prefix in ("embedding.", "image_ids."):
        assert not any(taken("partial", prefix))
    assert all(taken("full", "image_ids."))
    known = slice(0, 5)
    assert torch.equal(started["full"]["embedding.item"][known], old["embedding.item"][known])
    for mode in started:
        assert started[mode]["regularization.item"].sum() == 0


def test_rare_ids_are_pulled_harder():
    regularization = AdaptiveRegularization(0.5, {"item": 4}).train()
    rows = torch.tensor([[2.0, 0.0], [2.0, 0.0]], requires_grad=True)
    regularization.penalty({"item": (torch.tensor([0, 2]), rows)})
    rows.grad = None
    regularization.penalty({"item": (torch.tensor([0, 3]), rows)}).backward()
    assert regularization.item.tolist() == [2, 0, 1, 1]
    # lambda row / n
    assert rows.grad.tolist() == [[0.5, 0.0], [1.0, 0.0]]


def test_images_tell_what_ids_of_new_items_cannot(make_samples, make_row, tmp_path):
    """Users click what looks like their history; on the test day all items shown are new."""
    random = np.random.default_rng(4)
    looks = random.integers(0, 3, 400)  # 0 to 299: training days; 300 to 399: new on the test day
    rows = []
    for user in range(210):
        day = user % 3
        liked = int(random.integers(3))
        seen = np.flatnonzero((looks == liked) & (np.arange(400) < 300))
        history = random.choice(seen, 4).tolist()
        first, last = (300, 400) if day == 2 else (0, 300)
        shown = random.integers(first, last, 8)
        labels = looks[shown] == liked
        impressions = [(int(i), int(c), 4) for i, c in zip(shown, labels, strict=True)]
        rows.append(make_row(user, date(2024, 1, 1 + day), history, impressions))
    # The category says nothing (item modulo 10); each item has a picture of its own.
    features = np.eye(9, dtype=np.float32)[looks] + random.normal(0, 0.2, (400, 9))
    write_image_features(
        tmp_path / "images" / "small",
        features.astype(np.float32),
        [f"{row:064x}" for row in range(400)],
        np.arange(400),
        np.arange(400),
        encoder=pictures.ENCODER,
    )
    reader = SamplesReader(make_samples(rows))
    more = ("learning_rate=0.01", "item_width=4", "category_width=2", "batch_impressions=64")
    joint, baseline = (
        train(reader, tmp_path / "images", *more, *switches, epochs=4).metrics
        for switches in ((), (*BASELINE, "aggregator=sum"))
    )
    assert joint.auc > 0.9
    assert baseline.auc < 0.6


def test_the_papers_embedding_has_its_weights():
    model = ImageEmbedding()
    layers = sum(p.numel() for name, p in model.named_parameters() if "layers" in name)
    prelu = 256 + 64
    assert layers - prelu == 1_066_060
    assert model.width == 12
    with pytest.raises(ImageEmbeddingError, match="features are 1000 wide, the model embeds 4096"):
        model(torch.zeros(2, 1000))


def refused(root, *assignments):
    settings, _ = apply_settings("dicm", TrainSettings(), list(assignments))
    with pytest.raises(ImageSourceError) as caught:
        resolve_images(settings, root)
    return str(caught.value)


def test_features_that_are_not_there_or_do_not_fit_are_refused(features, tmp_path):
    root = tmp_path / "images"
    assert "no such image features; there is: small" in refused(root, "images=smal")
    assert "there is: none" in refused(tmp_path / "nowhere", "images=small")
    message = refused(root, "images=small", "image_width=4096")
    assert "features are 9 wide, image_width is 4096" in message
    message = refused(root, "images=small", "image_encoder=vgg16")
    assert "features of encoder 'test-encoder sha256:0', the model is for 'vgg16'" in message


def test_added_images_are_understood_and_another_encoder_is_not(features, tmp_path):
    settings, _ = apply_settings("dicm", TrainSettings(), ["images=small"])
    trained, _ = resolve_images(settings, tmp_path / "images")
    pictures.publish_features(tmp_path / "images" / "small", images=30)
    again, images = resolve_images(trained, tmp_path / "images", trained=True)
    assert len(images) == 30
    assert again.images_sha256 == trained.images_sha256
    pictures.publish_features(tmp_path / "images" / "small", encoder="another")
    with pytest.raises(ImageSourceError, match="features of encoder 'another'"):
        resolve_images(trained, tmp_path / "images", trained=True)


def test_a_model_that_looks_at_images_needs_some(data, features):
    batch, vocabulary = data
    with pytest.raises(ImageSourceError, match="name image features with --set images=NAME"):
        family.build("dicm", vocabulary)
    model = family.build("dicm", vocabulary, *SMALL, "images=small")
    with pytest.raises(ImageSourceError, match="'small' are not attached"):
        model(family.encode(batch, vocabulary))


def test_attention_without_a_query_is_refused():
    with pytest.raises(SettingError, match="asks with the candidate's image, and ad_image=false"):
        apply_settings("dicm", TrainSettings(), ["ad_image=false", "aggregator=attentive"])
    with pytest.raises(SettingError, match="asks with the category, and category_width=0"):
        apply_settings("dicm", TrainSettings(), ["category_width=0"])
