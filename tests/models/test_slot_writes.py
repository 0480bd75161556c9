"""Figure 6's vector: the same writes that the fold makes."""

import numpy as np
import pytest
import torch

from uic.models.memory.slot_use import SlotUse
from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.slot_writes import slot_use
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
    found = slot_use(model, batches, encoder, 10**6).shares
    assert found == pytest.approx(expected.tolist(), abs=1e-3)


def test_without_rebalancing_they_are_the_addressing_of_the_write_key(parts):
    build, batches, encoder = parts
    shares = slot_use(build("utilization=false"), batches, encoder, 10**6).shares
    assert sum(shares) == pytest.approx(1.0)
    memory = build("utilization=false").memory
    x = torch.randn(5, 6)
    # Eq. 4 with these weights must give the memory after the event.
    before = memory.initial(5)
    with torch.no_grad():
        control = memory.control(before, x)
        _, weights = memory.addressed(before, x, control)
        after, _ = memory.step_with_writes(before, x, rounding=False)
        erase, add = control.erase, control.add
        expected = before.M - weights.unsqueeze(2) * erase.unsqueeze(1) * before.M
        expected = expected + weights.unsqueeze(2) * add.unsqueeze(1)
    torch.testing.assert_close(after.M, expected)


def test_the_first_groups_are_enough(parts):
    build, batches, encoder = parts
    model = build()
    few = slot_use(model, batches, encoder, 12)
    alone = slot_use(model, [batches[0].select(np.arange(12))], encoder, 10**6)
    assert few == alone


def test_slots_of_one_vector_have_collapsed_and_routed_ones_have_not(parts):
    build, batches, encoder = parts
    model = build()
    with torch.no_grad():
        model.memory.initial_memory.copy_(model.memory.initial_memory[:1].expand(3, -1))
        model.memory.balance.weight.zero_()
    alike = slot_use(model, batches, encoder, 10**6)
    assert alike.effective_rank == pytest.approx(1, abs=0.05)
    assert alike.slot_cosine == pytest.approx(1, abs=1e-3)
    assert alike.write_peak == pytest.approx(1 / 3, abs=1e-3)
    assert alike.collapsed
    assert "routing=true" in str(alike.remark())
    routed = slot_use(build("routing=true", "routing_std=20"), batches, encoder, 10**6)
    assert routed.effective_rank > 1.5
    assert routed.write_peak > 0.8
    assert not routed.collapsed
    assert routed.remark() is None
    assert SlotUse(1.0, 1.0, 1.0, 1.0, (1.0,)).remark() is None  # one slot cannot collapse


def test_no_event_at_all_is_said(parts):
    build, _, encoder = parts
    assert slot_use(build(), [], encoder, 10) is None
