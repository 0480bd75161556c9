"""Rankings of a few lines, on histories small enough to count by hand."""

from datetime import date

import numpy as np
import pytest

from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.metrics import auc
from uic.models.training.simple_rows import counted, logistic, simple_scores

DAY = date(2024, 1, 1)


def test_a_candidate_is_counted_in_what_the_impression_may_see(make_samples, make_row):
    history = [7, 17, 7, 3]  # categories are items modulo 10
    shown = [(7, 1, 4), (7, 0, 1), (17, 0, 0), (13, 0, 4), (17, 1, 3)]
    row = make_row(1, DAY, history, shown)
    reader = SamplesReader(make_samples([row, make_row(2, DAY, [], [(7, 0, 0)])], files=1))
    found = counted(reader.batches(BatchPlan(shuffle=False)))
    order = np.argsort(found.users, kind="stable")
    assert found.of_item[order].tolist() == [2, 1, 0, 0, 1, 0]
    assert found.of_category[order].tolist() == [3, 1, 0, 1, 3, 0]
    assert found.length[order].tolist() == [4, 1, 0, 4, 3, 0]
    assert found.since[order].tolist() == [1, 0, 1e9, 1e9, 1, 1e9]


def test_logistic_regression_finds_the_weights_that_made_the_labels():
    generator = np.random.default_rng(0)
    features = np.c_[generator.normal(size=(20_000, 2)), np.ones(20_000)]
    weights = np.array([1.0, -0.5, -1.0])
    labels = generator.random(20_000) < 1 / (1 + np.exp(-(features @ weights)))
    assert logistic(features, labels) == pytest.approx(weights, abs=0.06)


def test_each_ranks_by_what_it_knows(make_samples, make_row):
    """Who took an item takes it again; one item is clicked by all."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(300):
        history = generator.integers(0, 50, 8).tolist()
        taken, other = history[index % 8], int(generator.integers(60, 90))
        shown = [(taken, int(index % 4 != 0), 8), (other, int(index % 4 == 0), 8)]
        day = date(2024, 1, 1 + index % 3)
        rows.append(make_row(index, day, history, [*shown, (99, 1, 8), (98, 0, 8)]))
    reader = SamplesReader(make_samples(rows))
    scores, tested = simple_scores(reader, (DAY, date(2024, 1, 2)), (date(2024, 1, 3),) * 2)
    areas = {name: auc(one, tested.labels) for name, one in scores.items()}
    assert sorted(areas) == ["counters", "popularity", "repeat"]
    own = np.isin(tested.items, [98, 99])
    for name in ("repeat", "counters"):
        assert auc(scores[name][~own], tested.labels[~own]) == pytest.approx(0.75, abs=0.06)
    assert auc(scores["popularity"][own], tested.labels[own]) == 1.0
