"""Simple baselines of a test, and what is said of a model that is not above them."""

import math
from datetime import date

import numpy as np
import pytest

from uic.models.training.metrics import Metrics, auc, auc_interval, gauc
from uic.models.training.popularity import SimpleBaselines, remarks, simple_baselines


class Shown:
    """Items and labels by day, as a reader gives them."""

    def __init__(self, days):
        self.days = days

    def shown_items(self, plan):
        items, labels = zip(
            *[v for d, v in self.days.items() if plan.first <= d <= plan.last], strict=True
        )
        return np.concatenate(items), np.concatenate(labels)


FIRST, SECOND, THIRD = date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 3)


def test_popularity_is_counted_on_the_training_days_alone():
    reader = Shown(
        {
            FIRST: (np.array([1, 1, 2, 3]), np.array([True, True, False, True])),
            SECOND: (np.array([2, 2, 2]), np.array([False, False, False])),
            THIRD: (np.array([1, 2, 3, 9]), np.array([True, False, True, False])),
        }
    )
    measured = simple_baselines(reader, (FIRST, SECOND), (THIRD, THIRD))
    # Clicks of 1, 2, 3, 9 are 2, 0, 1, 0: both clicked ones are above both others.
    assert measured.popularity_auc == 1.0
    assert measured.click_share_auc == 1.0
    rate = 3 / 7
    assert measured.rate_logloss == pytest.approx(-(math.log(rate) + math.log(1 - rate)) / 2)


def metrics(value, impressions=5000, logloss=0.4):
    return Metrics(value, value, logloss, impressions, impressions // 5, impressions)


def test_a_model_above_its_baselines_has_no_remark():
    assert remarks(metrics(0.7), SimpleBaselines(0.6, 0.62, 0.5)) == []


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (metrics(0.464), "below a coin"),
        (metrics(0.61), "counting an item's clicks has AUC 0.6200"),
        (metrics(0.7, logloss=0.6), "worse than a constant"),
        (metrics(0.7, impressions=68), "68 test impressions are few"),
        (metrics(math.nan), "there is no AUC"),
    ],
)
def test_what_a_person_should_know_is_said(measured, says):
    assert any(says in line for line in remarks(measured, SimpleBaselines(0.6, 0.62, 0.5)))


def test_scores_that_are_not_numbers_have_no_auc():
    scores, labels = np.array([0.1, np.nan, 0.3]), np.array([True, False, False])
    assert math.isnan(auc(scores, labels))
    assert math.isnan(gauc(scores, labels, np.zeros(3, np.int64))[0])


def test_the_interval_is_that_of_hanley_and_mcneil():
    # 34 clicked and 34 others at AUC 0.6938, as on a shop's 68 test impressions.
    low, high = auc_interval(Metrics(0.6938, 0.0, 0.6, 68, 34, 68))
    assert (low, high) == (pytest.approx(0.568, abs=2e-3), pytest.approx(0.820, abs=2e-3))
    assert all(math.isnan(bound) for bound in auc_interval(Metrics(0.5, 0.5, 0.6, 9, 0, 0)))
