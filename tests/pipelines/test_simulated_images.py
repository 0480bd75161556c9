"""Simulations with photographs: taste for a class, items that are new on a day, the manifest."""

import csv

import numpy as np
import pytest

from uic.models.training.metrics import auc
from uic.pipelines.simulator import Simulation, SimulationPlan, SimulationPlanError
from uic.pipelines.simulator.item_images import Photographs, write_item_images

COUNTS = (12, 20, 8, 30)
PLAN = SimulationPlan(
    users=400, items=600, days=12, photographs=COUNTS, impressions_per_user_day=4.0
)


@pytest.fixture(scope="module")
def simulation():
    return Simulation(PLAN)


def test_without_photographs_nothing_changes():
    plain = SimulationPlan(users=60, items=200, days=2)
    other = plain.model_copy(update={"new_item_share": 0.9})
    one, two = (Simulation(plan).chunk(1, 0) for plan in (plain, other))
    np.testing.assert_array_equal(one.item_ids, two.item_ids)
    assert Simulation(plain).catalogue.gallery is None


def test_an_item_is_neither_clicked_nor_shown_before_its_day(simulation):
    catalogue = simulation.catalogue
    launch = np.zeros(PLAN.items + 1, np.int64)
    launch[catalogue.item_ids] = catalogue.gallery.launch_day_of_row
    assert (launch > 0).sum() > 100
    for day in (0, 5, 11):
        chunk = simulation.chunk(day, 0)
        assert launch[chunk.item_ids].max() <= day
        assert launch[chunk.impression_item_ids].max() <= day
    last = simulation.chunk(11, 0)
    new = launch[last.impression_item_ids] == 11
    assert 0.08 < new.mean() < 0.25


def test_new_items_show_photographs_that_no_earlier_item_shows(simulation):
    gallery = simulation.catalogue.gallery
    for day in range(1, PLAN.days):
        today = set(gallery.photograph_of_row[gallery.launch_day_of_row == day])
        before = set(gallery.photograph_of_row[gallery.launch_day_of_row < day])
        assert today
        assert not today & before


def test_taste_for_a_class_decides_clicks_and_shows_in_behaviour(simulation):
    catalogue, gallery = simulation.catalogue, simulation.catalogue.gallery
    row_of = np.zeros(PLAN.items + 1, np.int64)
    row_of[catalogue.item_ids] = np.arange(PLAN.items)
    taste = simulation._users(0).class_taste
    chunks = [simulation.chunk(day, 0) for day in range(PLAN.days)]
    users = np.concatenate([chunk.impression_user_ids for chunk in chunks]) - 1
    rows = row_of[np.concatenate([chunk.impression_item_ids for chunk in chunks])]
    clicked = np.concatenate([chunk.clicked for chunk in chunks])
    score = taste[users, gallery.class_of_row[rows]]
    assert auc(score.astype(float), clicked) > 0.65
    new = gallery.launch_day_of_row[rows] > 0
    assert auc(score[new].astype(float), clicked[new]) > 0.65
    behaviours = np.concatenate([chunk.user_ids for chunk in chunks]) - 1
    seen = gallery.class_of_row[row_of[np.concatenate([chunk.item_ids for chunk in chunks])]]
    assert taste[behaviours, seen].mean() > 0.2


def test_the_manifest_names_a_photograph_of_the_class_for_every_item(simulation, tmp_path):
    labelled = [
        (f"{name}/{at}.jpg", name)
        for name, count in zip("abcd", COUNTS, strict=True)
        for at in range(count)
    ]
    photographs = Photographs.of([*labelled, ("README.jpg", None)], tmp_path)
    assert photographs.counts == COUNTS
    write_item_images(PLAN, simulation.catalogue, photographs, tmp_path / "images.csv")
    with (tmp_path / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["item_id"]) for row in rows] == list(range(1, PLAN.items + 1))
    assert all(row["path"].startswith(f"{row['class']}/") for row in rows)
    assert min(row["first_day"] for row in rows) == "2025-01-01"


def test_one_class_is_no_taste(tmp_path):
    with pytest.raises(SimulationPlanError, match="found 1 classes"):
        Photographs.of([("a/1.jpg", "a")], tmp_path)
