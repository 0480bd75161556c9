"""AUC against its definition: the share of pairs that are in the right order."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.models.training.metrics import Metrics, auc, calibration, gauc, logloss, measure


def pairwise_auc(scores, labels) -> float:
    """Over all (clicked, not clicked) pairs: 1 if the clicked one scores higher, 1/2 if equal."""
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, clicked in zip(scores, labels, strict=True)
        for b, other in zip(scores, labels, strict=True)
        if clicked and not other
    ]
    return sum(wins) / len(wins) if wins else math.nan


ROWS = st.lists(
    # Few distinct scores, so that ties are common.
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)),
    max_size=40,
)


def columns(rows):
    scores = np.array([row[0] for row in rows], dtype=np.float64)
    labels = np.array([row[1] for row in rows], dtype=np.bool_)
    return scores, labels, np.array([row[2] for row in rows], dtype=np.int64)


@given(ROWS)
def test_auc_is_the_share_of_ordered_pairs(rows):
    scores, labels, _ = columns(rows)
    assert auc(scores, labels) == pytest.approx(pairwise_auc(scores, labels), nan_ok=True)


@given(ROWS)
def test_gauc_is_the_mean_of_users_weighted_by_impressions(rows):
    scores, labels, users = columns(rows)
    total = weight = 0
    for user in set(users.tolist()):
        own = users == user
        area = pairwise_auc(scores[own], labels[own])
        if not math.isnan(area):
            total += area * own.sum()
            weight += own.sum()
    expected = total / weight if weight else math.nan
    assert gauc(scores, labels, users) == (pytest.approx(expected, nan_ok=True), weight)


def test_users_of_one_class_are_left_out():
    scores = np.array([1.0, 2.0, 5.0, 4.0, 3.0])
    labels = np.array([False, True, True, True, False])
    users = np.array([7, 7, 8, 8, 9])
    assert gauc(scores, labels, users) == (1.0, 2)


def test_literal_metrics():
    scores = np.array([0.0, math.log(3), -math.log(3)])
    labels = np.array([True, True, False])
    found = measure(scores, labels, np.array([1, 1, 1]))
    assert found.auc == 1.0
    # -log 1/2, -log 3/4, -log 3/4
    assert found.logloss == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3)
    assert (found.impressions, found.clicks, found.gauc_impressions) == (3, 2, 3)


def test_logloss_of_a_huge_logit_is_finite():
    assert logloss(np.array([1e4, -1e4]), np.array([False, False])) == pytest.approx(5e3)


def test_nothing_has_no_metrics_and_survives_json():
    found = measure(np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.int64))
    assert found.to_json()["auc"] is None
    assert math.isnan(Metrics.from_json(found.to_json()).auc)


def test_calibration_says_what_each_tenth_was_said_to_be_and_what_came_true():
    said = np.repeat([0.1, 0.9], 10)
    labels = np.array([True] + [False] * 9 + [True] * 8 + [False] * 2)
    order = np.random.default_rng(0).permutation(20)
    tenths = calibration(np.log(said / (1 - said))[order], labels[order])
    assert [round(tenth[0], 6) for tenth in tenths] == [0.1] * 5 + [0.9] * 5
    assert [tenth[2] for tenth in tenths] == [2] * 10
    assert sum(tenth[1] for tenth in tenths[:5]) == pytest.approx(0.5)
    assert sum(tenth[1] for tenth in tenths[5:]) == pytest.approx(4.0)
    assert calibration(np.zeros(9), np.zeros(9, np.bool_)) == ()
    found = measure(np.log(said / (1 - said)), labels, np.zeros(20, np.int64))
    assert Metrics.from_json(found.to_json()) == found
