"""The race of `benchmarks/worth.py`: what a row may see, its judge, and the form of its line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.race import tallies
from benchmarks.race.batches import Batches
from benchmarks.race.judge import Judge, Result, Rows, Scores
from benchmarks.race.logs import HOUR_MS, TEST, TRAIN, RaceLog
from benchmarks.race.record import record_features, table_bags
from benchmarks.race.related import related
from uic.models.state.definition import StateDefinition
from uic.models.training.metrics import auc

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop() -> RaceLog:
    """Two users; the first took item 1 at hours 0 and 24, item 2 at hour 24."""
    events = pd.DataFrame(
        {
            "user": [0, 0, 0, 1],
            "time_ms": [0, 24 * HOUR_MS, 24 * HOUR_MS, 0],
            "behavior": "buy",
            "item": [1, 1, 2, 1],
            "category": [0, 0, 1, 0],
        }
    )
    rows = pd.DataFrame(
        {
            "user": [0, 0, 0, 1],
            "time_ms": np.array([0, 24, 48, 0]) * HOUR_MS,
            "item": [1, 1, 1, 2],
            "category": [0, 0, 0, 1],
            "label": np.float32([1, 1, 0, 0]),
            "split": [TRAIN, TRAIN, TEST, TRAIN],
            "request": [0, 1, 2, 3],
        }
    )
    return RaceLog("shop", events, rows, ("category",), {"item": 3, "category": 2})


def test_counts_are_of_events_strictly_before_the_row(shop):
    counts, age = tallies.tally(shop.events, shop.rows, "item")
    of_a_day, for_ever = counts[:, 0], counts[:, -1]
    assert for_ever.tolist() == [0, 1, 2, 0]
    assert of_a_day.tolist() == [0, 0.5, 0.75, 0]  # halved after 24 hours, quartered after 48
    assert age.tolist() == [tallies.NEVER_HOURS, 24, 24, tallies.NEVER_HOURS]


def test_a_history_ends_before_its_moment(shop):
    (batch,) = Batches(shop, {}).of(TRAIN, size=100)
    assert batch.counts.tolist() == [0, 1, 0]
    assert batch.event_items.tolist() == [1]
    (last,) = Batches(shop, {}).of(TEST, size=100)
    assert last.event_items.tolist() == [1, 1, 2]
    assert last.age_hours.tolist() == [48, 24, 24]
    assert last.ranks.tolist() == [2, 1, 0]


def test_a_record_sees_what_the_unbounded_counters_see_while_it_fits(shop):
    state = StateDefinition.of_document(
        {"version": 1, "parts": {"items": {"kind": "counts", "by": "item", "size": 8}}}, "here"
    )
    found = record_features(shop, state)
    names = ["count", "age", "age is missing", "distinct", "evictions"]
    of_row = {name: found[:, place] for place, name in enumerate(names)}
    np.testing.assert_allclose(of_row["count"], np.log1p([0, 1, 2, 0]))
    np.testing.assert_allclose(of_row["age"], np.log1p([0, 24, 24, 0]))
    assert of_row["age is missing"].tolist() == [1, 0, 0, 1]


def test_a_table_of_items_is_a_bag_of_them_at_each_moment(shop):
    state = StateDefinition.of_document(
        {"version": 1, "parts": {"items": {"kind": "counts", "by": "item", "size": 8}}}, "here"
    )
    bags = table_bags(shop, state)
    assert bags.counts.tolist() == [0, 1, 2, 0]
    assert bags.items.tolist() == [1, 1, 2]
    assert bags.weights.tolist() == [1, 2, 1]
    assert bags.categories.tolist() == [0, 0, 1]


def judged(labels, users, requests):
    rows = Rows(labels, users, requests)
    return Judge(rows, rows)


def test_pairs_count_from_the_next_day_and_the_newest_items_are_of_before_the_row(shop):
    hours = np.array([0, 1, 2, 24])
    events = pd.DataFrame({"user": [0, 0, 1, 1], "time_ms": hours * HOUR_MS, "item": [1, 2, 1, 0]})
    asked = np.array([3, 23, 24, 25, 30])  # user 1 has taken item 1, and item 0 from hour 25 on
    rows = pd.DataFrame({"user": 1, "time_ms": asked * HOUR_MS, "item": 2})
    log = replace(shop, events=events.assign(behavior="buy"), rows=rows)
    largest = related(log)[:, 0]
    once_of_two_and_one = np.log1p(20 / np.sqrt((2 + 5) * (1 + 5)))
    assert largest == pytest.approx([0, 0, *[once_of_two_and_one] * 3], rel=1e-6)
    of_the_newest = related(log)[:, 3]
    assert of_the_newest[2] > 0
    assert of_the_newest[3:].tolist() == [0, 0]  # item 0 went with nothing yet


def test_an_interval_of_a_row_to_itself_is_nothing_and_of_a_better_one_above_zero():
    generator = np.random.default_rng(0)
    labels = generator.random(2000) < 0.3
    judge = judged(labels, np.repeat(np.arange(200), 10), np.repeat(np.arange(400), 5))
    noise, other = generator.normal(size=(2, 2000))
    base, better = Result([Scores(noise, noise)], {}), Result([Scores(*[labels + other] * 2)], {})
    itself, row = base.row(judge, base), better.row(judge, base)
    assert (itself["low"], itself["high"]) == (0, 0)
    assert 0 < row["low"] < row["auc"] - itself["auc"] < row["high"]
    assert 0 < row["within_low"] < row["auc_within"] - itself["auc_within"] < row["within_high"]


def test_a_draw_of_every_user_once_is_the_plain_auc_with_ties():
    generator = np.random.default_rng(1)
    labels, scores = generator.random(500) < 0.4, generator.integers(0, 5, 500).astype(float)
    alone = np.zeros(500, dtype=np.int64)
    areas, within = judged(labels, alone, alone).resampled(Scores(scores, scores))
    np.testing.assert_allclose(areas, auc(scores, labels))  # one user: each draw is that user
    np.testing.assert_allclose(within, auc(scores, labels))


@pytest.mark.slow
def test_prints_one_line_on_real_data(shared_data):
    command = [sys.executable, ROOT / "benchmarks/worth.py", "--data", "kuairand", "--quick"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    line = json.loads(printed.stdout)
    assert {
        "popularity",
        "repeat",
        "counters",
        "mean_product",
        "two_pools",
        "mimn",
        "din_flags",
        "record_exact",
        "record",
    } <= set(line["rows"])
    for row in line["rows"].values():
        assert 0.3 < row["auc"] < 0.9
        assert row["low"] <= row["high"]
        assert {"auc_within", "se"} <= set(row)
    assert 0 < line["record_bytes"] <= 1352
    assert line["test_rows"] >= 3000
