"""Successive halving: what is tried, what goes on, and what is found."""

import pytest

from uic.models.rankers.catalogue import MODELS
from uic.models.training.defaults import DEFAULTS, searched
from uic.models.training.run_spec import apply_settings
from uic.models.training.search import SHARES, Trial, best_of, draws, halving
from uic.models.training.settings import TrainSettings

SPACE = {"rate": (0.001, 0.01), "batch": (32, 64, 128)}
BASE = {"rate": 0.001, "batch": 64}


def test_the_defaults_are_tried_first_and_nothing_twice():
    found = draws(SPACE, BASE, 4, seed=3)
    assert found[0] == {}
    assert len(found) == 4
    assert len({tuple(sorted(one.items())) for one in found}) == 4
    assert found == draws(SPACE, BASE, 4, seed=3) != draws(SPACE, BASE, 4, seed=4)


def test_a_small_space_is_tried_whole():
    found = draws(SPACE, BASE, 100, seed=0)
    assert len(found) == 6
    assert {"rate": 0.01} in found  # the default's batch is not named


def test_the_best_third_goes_on_and_the_defaults_with_them():
    worth = {0: 0.5, 1: 0.9, 2: 0.6, 3: 0.8, 4: 0.7, 5: 0.55}
    asked = []

    def train(settings, share):
        number = settings.get("n", 0)
        asked.append((share, number))
        return Trial(settings, share, worth[number], 1)

    trials = list(halving([{}, *({"n": n} for n in range(1, 6))], train))
    assert asked == [
        *((SHARES[0], n) for n in range(6)),
        *((SHARES[1], n) for n in (0, 1, 3)),
        *((SHARES[2], n) for n in (0, 1, 3)),
    ]
    assert best_of(trials).settings == {"n": 1}


def test_each_share_begins_with_the_defaults_so_that_a_gain_over_them_is_known_in_time():
    asked = []

    def train(settings, share):
        asked.append((share, settings.get("n", 0)))
        return Trial(settings, share, 0.5 + settings.get("n", 7.5) / 100, 1)

    list(halving([{}, *({"n": n} for n in range(1, 9))], train))
    assert [number for share, number in asked if share == SHARES[1]] == [0, 8, 7]
    assert next(number for share, number in asked if share == SHARES[2]) == 0


def test_trials_of_fewer_days_are_not_compared_with_those_of_more():
    trials = [Trial({"n": 1}, 0.25, 0.9, 1), Trial({}, 0.5, 0.6, 1), Trial({"n": 2}, 0.5, 0.7, 1)]
    assert best_of(trials).settings == {"n": 2}
    assert best_of([Trial({"n": 1}, 1.0, 0.7, 1), Trial({}, 1.0, 0.7, 1)]).settings == {}


def test_defaults_alone_on_a_share_are_not_called_the_best():
    trials = [Trial({}, 0.25, 0.6, 1), Trial({"n": 1}, 0.25, 0.7, 1), Trial({}, 0.5, 0.65, 1)]
    assert best_of(trials).settings == {"n": 1}
    assert best_of(trials[:1]).settings == {}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_value_that_is_searched_is_a_setting_of_the_model(model):
    for key, values in searched(model).items():
        for value in values:
            apply_settings(model, TrainSettings(), [f"{key}={value}"])


def test_a_models_own_defaults_lose_to_what_was_said(monkeypatch):
    better = {"learning_rate": 0.5, "batch_impressions": 7, "item_width": 5}
    monkeypatch.setitem(DEFAULTS, "din", better)
    settings, training = apply_settings("din", TrainSettings(batch_impressions=9), [])
    assert (training.learning_rate, training.batch_impressions) == (0.5, 9)
    assert settings.item_width == 5
    settings, training = apply_settings(
        "din", TrainSettings(), ["batch_impressions=11", "item_width=6"]
    )
    assert (training.learning_rate, training.batch_impressions) == (0.5, 11)
    assert settings.item_width == 6


def test_models_with_defaults_of_their_own_are_in_the_catalogue():
    for model, values in DEFAULTS.items():
        assert model in MODELS
        apply_settings(model, TrainSettings(), [f"{key}={value}" for key, value in values.items()])
