"""Figure 6's vector: the same writes that the fold makes."""

import numpy as np
import pytest
import torch

from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.slot_writes import raw_write_weights, slot_shares
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings

SMALL = ["item_width=4", "category_width=2", "slots=3", "controller=4", "embedding_std=1.0"]


@pytest.fixture
def parts(make_samples, make_rows):
    reader = SamplesReader(make_samples(make_rows(20)))
    batches = list(reader.batches(BatchPlan()))
    vocabulary = build_vocabulary(batches, 1, 1, 1)

    def build(*more):
        torch.manual_seed(0)
        settings, _ = apply_settings("mimn", TrainSettings(), [*SMALL, *more])
        kind = MODELS["mimn"]
        return kind.build(settings, vocabulary.item.rows, vocabulary.category.rows).eval()

    return build, batches, Encoder(vocabulary)


def test_shares_are_those_of_the_fold(parts):
    build, batches, encoder = parts
    model = build()
    totals = np.zeros(3)
    with torch.no_grad():
        for raw in batches:
            batch = encoder.encode(raw)
            totals += model.fold(batch, model.embedding.rows(batch)).write_totals.sum(0).numpy()
    expected = totals / totals.sum()
    assert slot_shares(model, batches, encoder, 10**6) == pytest.approx(expected, abs=1e-3)


def test_without_rebalancing_they_are_the_addressing_of_the_write_key(parts):
    build, batches, encoder = parts
    shares = slot_shares(build("utilization=false"), batches, encoder, 10**6)
    assert shares.sum() == pytest.approx(1.0)
    memory = build("utilization=false").memory
    x = torch.randn(5, 6)
    # Eq. 4 with these weights must give the memory after the event.
    before = memory.initial(5)
    with torch.no_grad():
        weights = raw_write_weights(memory, before, x)
        after, _ = memory.step_with_writes(before, x, rounding=False)
        heads = memory.heads(after.h)
        erase, add = heads[:, 12:18].sigmoid(), heads[:, 18:24].tanh()
        expected = before.M - weights.unsqueeze(2) * erase.unsqueeze(1) * before.M
        expected = expected + weights.unsqueeze(2) * add.unsqueeze(1)
    torch.testing.assert_close(after.M, expected)


def test_the_first_groups_are_enough(parts):
    build, batches, encoder = parts
    model = build()
    few = slot_shares(model, batches, encoder, 2)
    alone = slot_shares(model, [batches[0].select(np.arange(2))], encoder, 10**6)
    assert few.tolist() == alone.tolist()
