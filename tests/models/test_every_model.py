"""Every model of the catalogue trains, becomes a bundle, and scores the same when loaded."""

import numpy as np
import pytest

from uic.models.bundles.bundle import load_bundle, save_bundle
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


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_trains_and_comes_back_from_its_bundle(name, make_samples, make_rows, tmp_path):
    reader = SamplesReader(make_samples(make_rows(40)))
    settings, training = apply_settings(name, TrainSettings(), [*SMALL, *MORE.get(name, [])])
    days = split_days(reader.days(), None, None, 1, "small")
    spec = RunSpec(name, settings, training, days, 0, reader.name, reader.manifest_sha256())
    trained = Trainer(reader, spec).run()
    assert np.isfinite(trained.metrics.logloss)
    save_bundle(tmp_path / "bundles" / name / "0001", trained)
    loaded = load_bundle(tmp_path / "bundles" / name / "0001")
    plan = BatchPlan(shuffle=False)
    scores = [
        score(model, reader.batches(plan), Encoder(trained.vocabulary))[0]
        for model in (trained.model, loaded.model)
    ]
    assert np.array_equal(*scores)
