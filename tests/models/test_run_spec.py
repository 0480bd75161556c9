"""What `--set` and the days of a run accept, and what they say to the rest."""

from datetime import date

import pytest

from uic.models.errors import BadInputError
from uic.models.layers.ranker_settings import Activation
from uic.models.rankers.catalogue import UnknownModelError
from uic.models.training.run_spec import SettingError, apply_settings, split_days
from uic.models.training.settings import TrainSettings

DAYS = [date(2024, 1, day) for day in (1, 2, 3, 5)]


def test_settings_of_model_and_training_are_set_by_name():
    settings, training = apply_settings(
        "mimn",
        TrainSettings(epochs=7),
        ["slots=4", "activation=dice", "head_widths=[8, 4]", "learning_rate=0.01"],
    )
    assert settings.slots == 4
    assert settings.activation is Activation.DICE
    assert settings.head_widths == (8, 4)
    assert training.learning_rate == 0.01
    assert training.epochs == 7


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(
        SettingError, match=r"--set slotz: din has no such setting; known: .*epochs"
    ):
        apply_settings("din", TrainSettings(), ["slotz=4"])


def test_a_value_out_of_range_is_named():
    with pytest.raises(SettingError, match=r"--set slots: .*less than or equal to 64.*found 900"):
        apply_settings("mimn", TrainSettings(), ["slots=900"])


def test_a_word_without_equals_is_refused():
    with pytest.raises(SettingError, match="expected key=value"):
        apply_settings("mimn", TrainSettings(), ["slots"])


def test_an_unknown_model_lists_the_known_ones():
    with pytest.raises(UnknownModelError, match=r"model 'mimm' is unknown; known: .*mimn"):
        apply_settings("mimm", TrainSettings(), [])


def test_the_last_days_are_the_test():
    days = split_days(DAYS, None, None, 1, "x")
    assert (days.first, days.last) == (DAYS[0], DAYS[2])
    assert (days.test_first, days.test_last) == (DAYS[3], DAYS[3])


def test_days_outside_are_left_out():
    days = split_days(DAYS, DAYS[1], DAYS[2], 1, "x")
    assert (days.first, days.last, days.test_first) == (DAYS[1], DAYS[1], DAYS[2])


def test_no_test_days_train_on_everything():
    days = split_days(DAYS, None, None, 0, "x")
    assert (days.last, days.test_first) == (DAYS[3], None)


def test_reversed_days_are_refused():
    with pytest.raises(BadInputError, match="--first 2024-01-03 is after --last 2024-01-01"):
        split_days(DAYS, DAYS[2], DAYS[0], 1, "x")


def test_too_few_days_say_what_there_is():
    with pytest.raises(BadInputError, match=r"x: 1 days .* at least 2 .* 2024-01-01 to 2024-01-05"):
        split_days(DAYS, DAYS[3], None, 1, "x")
