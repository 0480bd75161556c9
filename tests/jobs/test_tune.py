"""`uic tune`, as a person runs it: what it says, what it keeps, and what interrupts it."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.commands.tune import tune as command
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError
from uic.models.samples.reader import SamplesReader
from uic.models.training.trainer import NonFiniteLossError, Trainer, Watcher

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("models_conftest", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = {"item_width": 4, "category_width": 2, "head_widths": [8], "epochs": 2}


def flip(rows, day):
    for row in rows:
        if row["dt"].day == day:
            row["labels"] = [not label for label in row["labels"]]
    return rows


@pytest.fixture
def rows():
    return samples.random_rows(420, days=6)


@pytest.fixture
def workspace(tmp_path, rows):
    samples.publish_samples(tmp_path / "samples" / "default", rows, row_group_size=100)
    return Workspace(tmp_path)


def said(trials):
    return [(trial.settings, trial.share, trial.auc, trial.epochs) for trial in trials]


def test_the_example_of_the_help_runs(workspace):
    example = "uic tune average_pooling --samples default --trials 6 --minutes 10"
    words = " ".join(command.__doc__.split())
    assert example in words
    follow = "uic train average_pooling --samples default --tuned"
    assert follow in words
    folder = ["-w", str(workspace.path)]
    result = CliRunner().invoke(app, [*example.split()[1:], *folder], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["days", "epochs", "AUC", "settings"]
    assert any(line.startswith(" 100%") and line.endswith("defaults") for line in lines)
    [best] = [line for line in lines if line.startswith("best:")]
    trained = CliRunner().invoke(app, [*follow.split()[1:], *folder], catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    config = json.loads(
        (workspace.path / "bundles" / "average_pooling" / "0001" / "config.json").read_text()
    )
    known = {**config["training"], **config["settings"]}
    for text in best.removeprefix("best:").split(" --set "):
        key, equals, value = text.strip().partition("=")
        assert not equals or known[key] == json.loads(value)


def test_the_same_search_twice_says_the_same_and_trains_once(workspace, tmp_path, rows):
    first = workspace.tune("sum_pooling", settings=TINY, trials=4)
    before = first.path.read_bytes()
    trained = []
    again = workspace.tune("sum_pooling", settings=TINY, trials=4, watch=trained.append)
    assert not trained
    assert said(again.trials) == said(first.trials)
    assert first.path.read_bytes() == before
    samples.publish_samples(tmp_path / "b" / "samples" / "default", rows, row_group_size=100)
    other = Workspace(tmp_path / "b").tune("sum_pooling", settings=TINY, trials=4)
    assert said(other.trials) == said(first.trials)
    assert not list((workspace.path / "training").glob("*"))


def test_the_test_day_is_never_read(workspace, tmp_path, rows):
    path = tmp_path / "flipped"
    samples.publish_samples(path / "samples" / "default", flip(rows, 6), row_group_size=100)
    found = [
        one.tune("sum_pooling", settings=TINY, trials=3) for one in (workspace, Workspace(path))
    ]
    assert said(found[0].trials) == said(found[1].trials)


def test_what_is_set_is_not_searched(workspace):
    found = workspace.tune("sum_pooling", settings={**TINY, "learning_rate": 0.02}, trials=5)
    assert not any("learning_rate" in trial.settings for trial in found.trials)
    assert "learning_rate=0.02" in json.loads(found.path.read_text())["settings"]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from uic.jobs.workspace.workspace import Workspace
    def tell(trial, seen=[]):
        seen.append(trial)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    settings = {"item_width": 4, "category_width": 2, "head_widths": [8], "epochs": 2}
    Workspace(sys.argv[1]).tune("sum_pooling", settings=settings, trials=4, tell=tell)
    """
)


def test_a_killed_search_goes_on_with_what_it_tried(workspace):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, workspace.path], check=False, timeout=120, env={**os.environ}
    )
    assert killed.returncode == -signal.SIGKILL
    [journal] = (workspace.path / "tuning").glob("*.journal.json")
    assert len(json.loads(journal.read_text())) == 3
    trained = []

    def watch(spec, title):
        trained.append(title)
        return _quiet()

    found = workspace.tune("sum_pooling", settings=TINY, trials=4, watch=watch)
    assert len(trained) == len(found.trials) - 3
    assert found.finished


def _quiet():
    return nullcontext(Watcher())


def test_out_of_time_keeps_the_best_so_far(workspace, monkeypatch):
    clock = iter([0.0, *[1.0] * 20, *[1e6] * 1000])
    monkeypatch.setattr("uic.jobs.training.tune.time.monotonic", lambda: next(clock))
    found = workspace.tune("sum_pooling", settings=TINY, trials=6, minutes=5)
    assert not found.finished
    assert found.trials
    assert found.best.auc == max(trial.auc for trial in found.trials)
    assert json.loads(found.path.read_text())["finished"] is False


def test_a_gain_that_may_be_chance_is_told(workspace, monkeypatch):
    words = ["tune", "sum_pooling", "--samples", "default", "--trials", "2", "--set", "epochs=1"]
    found = workspace.tune("sum_pooling", trials=2, settings={"epochs": 1})
    assert 0.02 < found.margin < 0.2  # some hundred impressions
    for gain, told in ((0.001, True), (0.3, False), (0.0, False)):
        monkeypatch.setattr("uic.jobs.training.tune.Tuned.gain", gain)
        result = CliRunner().invoke(
            app, [*words, "-w", str(workspace.path)], catch_exceptions=False
        )
        assert ("so that the gain may be chance" in result.stderr) is told


def test_no_training_in_time_says_so(workspace):
    with pytest.raises(BadInputError, match="not one training was finished in 0 minutes; say the"):
        workspace.tune("sum_pooling", minutes=0)


def test_calls_of_no_minutes_each_go_a_step_further_and_find_the_same(workspace, tmp_path):
    shutil.copytree(workspace.path / "samples", tmp_path / "b" / "samples")
    patient, hurried = Workspace(tmp_path / "b"), workspace
    few_steps = {**TINY, "batch_impressions": 1024}
    expected = patient.tune("sum_pooling", settings=few_steps, trials=2)
    for _ in range(60):
        with suppress(BadInputError):
            found = hurried.tune("sum_pooling", settings=few_steps, trials=2, minutes=0)
            if found.finished:
                break
    assert found.finished
    assert said(found.trials) == said(expected.trials)


class Diverging(Trainer):
    """A fault: the loss becomes infinite with every batch but the default."""

    def run(self):
        if self.spec.training.batch_impressions != 256:
            msg = "loss is inf"
            raise NonFiniteLossError(msg)
        return super().run()


def test_settings_whose_loss_becomes_infinite_are_the_worst(workspace, monkeypatch):
    monkeypatch.setattr("uic.jobs.training.tune.Trainer", Diverging)
    found = workspace.tune("sum_pooling", settings=TINY, trials=6)
    worst = [trial for trial in found.trials if "batch_impressions" in trial.settings]
    assert worst
    assert {(trial.auc, trial.epochs) for trial in worst} == {(0.0, 0)}
    assert found.best.auc > 0
    assert found.finished


def test_too_few_clicks_say_how_many_there_are(tmp_path):
    samples.publish_samples(tmp_path / "samples" / "default", samples.random_rows(60, days=6))
    with pytest.raises(BadInputError, match=r"\d+ clicks in \d+ impressions on the training days"):
        Workspace(tmp_path).tune("din")


def test_a_validation_day_without_clicks_is_refused(tmp_path, rows):
    for row in rows:
        if row["dt"].day == 5:
            row["labels"] = [False] * len(row["labels"])
    samples.publish_samples(tmp_path / "samples" / "default", rows)
    with pytest.raises(BadInputError, match=r"0 clicks in .* on the validation days 2024-01-05"):
        Workspace(tmp_path).tune("din")


def test_tuned_without_a_search_says_which_to_run(workspace):
    with pytest.raises(BadInputError, match="run `uic tune mimn --samples default`"):
        workspace.train("mimn", tuned=True)


def test_settings_are_not_tested_on_the_days_that_chose_them(workspace):
    workspace.tune("average_pooling", settings=TINY, trials=2)
    refused = r"chose these settings by 2024-01-05 to 2024-01-05, and the test is 2024-01-05 to"
    with pytest.raises(BadInputError, match=refused):
        workspace.train("average_pooling", tuned=True, test_days=2)
    with pytest.raises(BadInputError, match=refused):
        workspace.experiment("table2", rows="average_pooling", tuned=True, test_days=2, repeats=1)
    assert workspace.train("average_pooling", tuned=True, test_days=0, epochs=1).metrics is None


def test_a_damaged_journal_or_result_is_named(workspace):
    found = workspace.tune("sum_pooling", settings=TINY, trials=2)
    found.path.write_text("{}")
    with pytest.raises(BadInputError, match=r"sum_pooling-default\.json: not what a search writes"):
        workspace.train("sum_pooling", tuned=True)
    [journal] = (workspace.path / "tuning").glob("*.journal.json")
    journal.write_text("[{}]")
    with pytest.raises(BadInputError, match="not a journal of a search"):
        workspace.tune("sum_pooling", settings=TINY, trials=2)


def test_a_larger_search_uses_what_a_smaller_one_tried(workspace):
    small = workspace.tune("sum_pooling", settings=TINY, trials=3)
    trained = []

    def watch(spec, title):
        trained.append(title)
        return _quiet()

    large = workspace.tune("sum_pooling", settings=TINY, trials=5, watch=watch)
    assert len(trained) < len(large.trials)
    assert [t.settings for t in large.trials[:3]] == [t.settings for t in small.trials[:3]]


def test_days_of_the_search_leave_out_the_test(workspace):
    found = workspace.tune("sum_pooling", settings=TINY, trials=2)
    days = SamplesReader(workspace.path / "samples" / "default").days()
    assert found.days.test is None
    assert found.days.validation == (days[4], days[4])
    assert (found.days.first, found.days.last) == (days[0], days[3])
