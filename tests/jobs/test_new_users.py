"""What a network says of a user without events, where all users of its log have many."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import torch

from uic.jobs.workspace.workspace import Workspace
from uic.models.bundles.bundle import load_bundle
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    made = Workspace(tmp_path_factory.mktemp("new-users"))
    made.simulate(users=150, items=100, days=40)
    made.samples(date(2025, 2, 3), date(2025, 2, 9))
    return made


def said_of_a_new_user(workspace, share):
    """Mean probability of the last day's impressions without any history, over their click rate."""
    settings = {"short_history_share": share}
    trained = workspace.train("mimn", samples="default", epochs=4, settings=settings)
    bundle = load_bundle(trained.path)
    reader = SamplesReader(workspace.path / "samples" / "default")
    encoder, day = Encoder(bundle.vocabulary), reader.days()[-1]
    said, clicked = [], []
    for batch in reader.batches(BatchPlan(first=day, last=day)):
        new = replace(batch, history_lengths=np.zeros_like(batch.history_lengths))
        with torch.no_grad():
            logits = bundle.model(encoder.encode(new.select(np.arange(batch.groups))))
        said.append(logits.sigmoid().numpy())
        clicked.append(batch.labels)
    return np.concatenate(said).mean() / np.concatenate(clicked).mean()


def test_it_is_near_the_rate_of_clicks(workspace):
    assert 0.5 < said_of_a_new_user(workspace, 0.05) < 2


def test_without_short_histories_it_is_anything(workspace):
    """The control: this log has no new users to learn from."""
    assert not 0.5 < said_of_a_new_user(workspace, 0) < 2
