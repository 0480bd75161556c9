"""Impressions that training shows as those of newer users."""

import numpy as np
import pytest

from uic.models.samples.groups import longest
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.short_histories import with_short_histories


@pytest.fixture
def batch(make_samples, make_rows):
    [found] = SamplesReader(make_samples(make_rows(40))).batches(BatchPlan())
    assert found.impressions > 40
    return found


def test_a_share_sees_a_part_of_its_history_and_nothing_else_changes(batch):
    short = with_short_histories(batch, 1.0, (1, 2, 3))
    assert (short.history_lengths >= 0).all()
    assert (short.history_lengths <= batch.history_lengths).all()
    assert (short.history_lengths < batch.history_lengths).mean() > 0.3
    assert (short.history_lengths == 0).any()
    for name in ("user_ids", "impression_offsets", "item_ids", "event_times_ms", "labels"):
        assert getattr(short, name).tolist() == getattr(batch, name).tolist()
    # Each group keeps the first events of its history, as many as its impressions see.
    seen = longest(short.history_lengths, short.impression_offsets)
    assert np.diff(short.history_offsets).tolist() == seen.tolist()
    for group, first in enumerate(batch.history_offsets[:-1]):
        kept = short.history_item_ids[slice(*short.history_offsets[group : group + 2])]
        assert kept.tolist() == batch.history_item_ids[first : first + seen[group]].tolist()


def test_none_is_the_batch_itself_and_a_draw_is_of_its_seed(batch):
    assert with_short_histories(batch, 0.0, (1,)) is batch
    first, again, other = (
        with_short_histories(batch, 0.5, seed).history_lengths for seed in ((1, 0), (1, 0), (1, 1))
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_few_events_are_as_common_as_many_on_a_scale_of_logarithms(batch):
    lengths = np.concatenate(
        [with_short_histories(batch, 1.0, (seed,)).history_lengths for seed in range(40)]
    )
    before = np.tile(batch.history_lengths, 40)
    long = before >= 8
    assert np.mean(lengths[long] < np.sqrt(1 + before[long]) - 1) == pytest.approx(0.5, abs=0.05)
