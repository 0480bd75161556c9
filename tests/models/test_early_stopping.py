"""Validation days choose the epoch, the test days are measured once, and a kill changes nothing."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date, timedelta

import pytest
import torch

from uic.models.bundles.saving import save_bundle
from uic.models.errors import BadInputError
from uic.models.samples.reader import SamplesReader
from uic.models.training.checkpoint import load_checkpoint
from uic.models.training.popularity import rising
from uic.models.training.run_spec import Days, RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer, Watcher

# So fast that the second or third epoch already learns the training day by heart.
SMALL = ["item_width=4", "category_width=2", "head_widths=[8]", "batch_impressions=32"]
SMALL += ["curve_every_steps=3", "learning_rate=0.05"]


def make_spec(reader, *more):
    settings, training = apply_settings("sum_pooling", TrainSettings(), [*SMALL, *more])
    days = split_days(reader.days(), None, None, 1, "small", validation_days=1)
    return RunSpec("sum_pooling", settings, training, days, 0, reader.name, "0" * 64)


@pytest.fixture
def reader(make_samples, make_rows):
    return SamplesReader(make_samples(make_rows(150), row_group_size=20))


def equal_weights(one, other):
    found, expected = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_weights_are_those_of_the_epoch_that_the_validation_days_like_best(reader):
    spec = make_spec(reader, "patience=3")
    run = Trainer(reader, spec).run()
    areas = [epoch["auc"] for epoch in run.epochs]
    assert run.kept_epoch == areas.index(max(areas)) + 1
    assert len(areas) == run.kept_epoch + 3 < 10
    days = replace(spec.days, validation_first=None, validation_last=None)
    _, training = apply_settings("sum_pooling", spec.training, [f"epochs={run.kept_epoch}"])
    blind = Trainer(reader, replace(spec, days=days, training=training)).run()
    assert equal_weights(run, blind)
    assert run.metrics == blind.metrics


def test_patience_is_how_many_epochs_are_waited_for_a_better_one(reader):
    short = Trainer(reader, make_spec(reader, "patience=1")).run()
    assert len(short.epochs) == short.kept_epoch + 1
    one = Trainer(reader, make_spec(reader, "epochs=1")).run()
    assert (one.kept_epoch, len(one.epochs)) == (1, 1)


def flipped(rows, day):
    for row in rows:
        if str(row["dt"]) == day:
            row["labels"] = [not label for label in row["labels"]]
    return rows


def test_the_test_day_chooses_nothing(reader, make_samples, make_rows):
    rows = flipped(make_rows(150), "2024-01-03")
    other = SamplesReader(make_samples(rows, "flipped", row_group_size=20))
    plain, turned = (Trainer(one, make_spec(one)).run() for one in (reader, other))
    assert equal_weights(plain, turned)
    assert plain.epochs == turned.epochs
    assert plain.metrics.auc == pytest.approx(1 - turned.metrics.auc)


def test_the_validation_day_is_not_trained_on(reader, make_samples, make_rows):
    rows = flipped(make_rows(150), "2024-01-02")
    other = SamplesReader(make_samples(rows, "flipped", row_group_size=20))
    plain, turned = (Trainer(one, make_spec(one, "epochs=1")).run() for one in (reader, other))
    assert equal_weights(plain, turned)
    assert plain.epochs[0]["auc"] == pytest.approx(1 - turned.epochs[0]["auc"])


KILLED = textwrap.dedent(
    """
    import os, pickle, signal, sys
    from uic.models.samples.reader import SamplesReader
    from uic.models.training.trainer import Trainer, Watcher
    from pathlib import Path
    spec, last = pickle.loads(Path(sys.argv[2]).read_bytes())
    def step(report):
        if report.step == last:
            os.kill(os.getpid(), signal.SIGKILL)
    Trainer(SamplesReader(Path(sys.argv[1])), spec, checkpoint=Path(sys.argv[3]),
            watcher=Watcher(step=step)).run()
    """
)


def test_a_run_killed_after_its_best_epoch_ends_with_the_same_bundle(reader, tmp_path):
    spec = make_spec(reader, "patience=2", "checkpoint_every_steps=2")
    steps = []
    whole = Trainer(reader, spec, watcher=Watcher(step=lambda r: steps.append(r.epoch))).run()
    last = next(n for n, epoch in enumerate(steps, 1) if epoch == whole.kept_epoch) + 2
    (tmp_path / "spec").write_bytes(pickle.dumps((spec, last)))
    checkpoint = tmp_path / "run.safetensors"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, reader.root, tmp_path / "spec", checkpoint],
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert killed.returncode == -signal.SIGKILL
    progress, _ = load_checkpoint(checkpoint, spec.identity())
    assert (progress.best_epoch, progress.epoch) == (whole.kept_epoch - 1, whole.kept_epoch)
    resumed = Trainer(reader, spec, checkpoint=checkpoint).run()
    assert save_bundle(tmp_path / "a", whole) == save_bundle(tmp_path / "b", resumed)
    assert (resumed.epochs, resumed.metrics) == (whole.epochs, whole.metrics)
    assert resumed.validation() == whole.validation()


def test_a_finished_checkpoint_is_not_trained_or_tested_again(reader, tmp_path):
    spec, checkpoint = make_spec(reader), tmp_path / "run.safetensors"
    whole = Trainer(reader, spec, checkpoint=checkpoint).run()
    steps = []
    again = Trainer(reader, spec, checkpoint=checkpoint, watcher=Watcher(step=steps.append))
    again._measure = None  # would fail if it were called
    found = again.run()
    assert not steps
    assert equal_weights(found, whole)
    assert found.metrics == whole.metrics


@pytest.mark.parametrize("clicked", [False, True])
def test_validation_days_without_an_auc_are_refused(make_samples, make_rows, clicked):
    rows = make_rows(60)
    for row in rows:
        if str(row["dt"]) == "2024-01-02":
            row["labels"] = [clicked] * len(row["labels"])
    reader = SamplesReader(make_samples(rows))
    message = "clicks on the validation days 2024-01-02 to 2024-01-02, which have no AUC; take more"
    with pytest.raises(BadInputError, match=message):
        Trainer(reader, make_spec(reader)).run()


def days_of(count):
    return [date(2024, 1, 1) + timedelta(days=day) for day in range(count)]


def test_a_day_is_for_validation_where_four_are_left_to_train_on():
    days = days_of(6)
    split = split_days(days, None, None, 1, "x", validation_days=None)
    assert split == Days(days[0], days[3], days[5], days[5], days[4], days[4])
    assert split_days(days[1:], None, None, 1, "x", validation_days=None).validation is None


def test_too_few_days_for_validation_say_what_they_are_for():
    with pytest.raises(BadInputError, match=r"at least 4 .1 to train on, 2 for validation, 1 "):
        split_days(days_of(3), None, None, 1, "x", validation_days=2)


def test_a_run_without_validation_days_is_called_what_it_was():
    days = split_days(days_of(3), None, None, 1, "x")
    assert sorted(days.document()) == ["first", "last", "test_first", "test_last"]
    assert not {"patience", "task_weights"} & TrainSettings().document().keys()
    assert TrainSettings(patience=1).document()["patience"] == 1


def test_a_last_epoch_that_was_the_best_is_a_remark():
    validation = {"kept_epoch": 3, "most_epochs": 3, "auc": [0.5, 0.6, 0.7]}
    assert "--epochs 6" in rising(validation)[0]
    assert rising({**validation, "kept_epoch": 2}) == []
    assert rising(None) == []
