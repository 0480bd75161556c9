"""Paired intervals: what is said of a difference, and of none."""

import numpy as np
import pytest

from uic.models.training.metrics import auc
from uic.models.training.paired import (
    Difference,
    RankedScores,
    difference,
    resampled_auc,
    standard_error,
    user_draws,
)


@pytest.fixture
def test_set():
    generator = np.random.default_rng(1)
    labels = generator.random(4000) < 0.3
    users = generator.integers(0, 300, 4000)
    signal = labels + generator.normal(0, 1.5, 4000)
    return labels, users, signal, generator


def test_the_auc_under_equal_weights_is_the_auc(test_set):
    labels, _, signal, _ = test_set
    rounded = np.round(signal, 1)  # with ties
    assert RankedScores.of(rounded, labels).auc(np.ones(4000)) == pytest.approx(
        auc(rounded, labels)
    )


def test_a_weight_is_a_repetition(test_set):
    labels, _, signal, generator = test_set
    times = generator.integers(0, 3, 4000)
    repeated = auc(np.repeat(signal, times), np.repeat(labels, times))
    assert RankedScores.of(signal, labels).auc(times.astype(float)) == pytest.approx(repeated)


def test_a_better_ranking_is_above_and_the_worse_below(test_set):
    labels, users, signal, generator = test_set
    worse = signal + generator.normal(0, 1, 4000)
    found = difference([signal], [worse], labels, users)
    assert found.word == "above"
    assert 0 < found.low < found.mean < found.high
    turned = difference([worse], [signal], labels, users)
    assert turned.word == "below"
    assert (turned.mean, turned.low) == pytest.approx((-found.mean, -found.high))


def test_two_rankings_with_equal_noise_are_not_told_apart(test_set):
    labels, users, signal, generator = test_set
    ours, theirs = (signal + generator.normal(0, 0.05, 4000) for _ in range(2))
    found = difference([ours], [theirs], labels, users)
    assert found.word == "not told apart"
    assert "not told apart" in found.describe()
    itself = difference([ours], [ours], labels, users)
    assert (itself.mean, itself.low, itself.high) == (0, 0, 0)


def test_pairing_is_narrower_than_two_intervals(test_set):
    labels, users, signal, generator = test_set
    ours = signal + generator.normal(0, 0.2, 4000)
    found = difference([ours], [signal], labels, users)
    alone = np.percentile(resampled_auc([signal], labels, users), [2.5, 97.5])
    assert found.high - found.low < (alone[1] - alone[0]) / 2


def test_all_impressions_of_a_user_are_drawn_together(test_set):
    """Each impression ten times is no new knowledge, and no narrower interval."""
    labels, users, signal, generator = test_set
    worse = signal + generator.normal(0, 1, 4000)
    once = difference([signal], [worse], labels, users)
    ten = difference(*([np.tile(one, 10)] for one in (signal, worse)), np.tile(labels, 10),
                     np.tile(users, 10))  # fmt: skip
    assert ten.high - ten.low == pytest.approx(once.high - once.low, rel=0.02)


def test_seeds_are_averaged_and_draws_are_the_same_at_each_call(test_set):
    labels, users, signal, generator = test_set
    seeds = [signal + generator.normal(0, 0.5, 4000) for _ in range(3)]
    mean = np.mean([resampled_auc([one], labels, users) for one in seeds], axis=0)
    np.testing.assert_allclose(resampled_auc(seeds, labels, users), mean)
    assert all((a == b).all() for a, b in zip(user_draws(9), user_draws(9), strict=True))


def test_one_user_with_one_class_has_no_interval():
    found = difference([np.arange(3.0)], [np.arange(3.0)], np.ones(3, bool), np.zeros(3, np.int64))
    assert np.isnan(found.low)
    assert found.word == "not told apart"


def test_a_standard_error_needs_two_seeds():
    assert standard_error([0.7]) is None
    assert standard_error([0.7, 0.72]) == pytest.approx(0.01)
    assert Difference(0.1, 0.05, 0.2).describe() == "+0.1000 [+0.0500, +0.2000] above"
