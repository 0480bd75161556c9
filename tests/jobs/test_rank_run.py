"""`uic train --ranks N` for models with a large memory, as a person runs it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import BadInputError

pytestmark = pytest.mark.slow

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("rank_run_samples", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = [
    "--samples", "small", "--set", "item_width=4", "--set", "category_width=2", "--set",
    "head_widths=[8]", "--set", "lmn_keys=6", "--set", "lmn_user_rows=50", "--set",
    "batch_impressions=16", "--set", "learning_rate=0.001",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("rank-run")
    samples.publish_samples(workspace / "samples" / "small", samples.random_rows(60))
    return workspace


def run(workspace, *words):
    words = [*words, "-w", str(workspace)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def refused(workspace, *words):
    with pytest.raises(BadInputError) as caught:
        run(workspace, "train", *words)
    assert caught.value.exit_code == 2
    return str(caught.value)


def weights(workspace, name):
    model = load_bundle(workspace / "bundles" / name).model
    # A softmax does not depend on the other one: what moves it is rounding.
    return {k: v for k, v in model.state_dict().items() if not k.endswith("rest.3.bias")}


def assert_close(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-3, name


@pytest.mark.parametrize(("model", "more"), [("lmn", []), ("dnn", ["--set", "memory=lmn"])])
def test_ranks_publish_what_one_process_publishes(model, more, workspace):
    words = ["train", model, *TINY, *more, "--epochs", "1"]
    assert run(workspace, *words).stdout.startswith(f"{model}/0001  ")
    result = run(workspace, *words, "--ranks", "2")
    assert result.stdout.startswith(f"{model}/0002  ")
    assert "2 ranks, " in result.stderr
    assert "MiB a batch: sent for values 0." in result.stderr
    whole = weights(workspace, f"{model}/0002")
    assert whole["large.block.values.weight"].shape == (36, 6)
    assert_close(whole, weights(workspace, f"{model}/0001"))
    alone, ranks = (
        json.loads(run(workspace, "evaluate", f"{model}/{version}", "--samples", "small").stdout)
        for version in ("0001", "0002")
    )
    assert alone.pop("bundle") != ranks.pop("bundle")
    assert alone.pop("baselines") == ranks.pop("baselines")
    for one in (alone, ranks):
        del one["deciles"]  # an impression at the edge of two is in either
    assert ranks == pytest.approx(alone, abs=1e-4)
    measured = json.loads((workspace / f"reports/ranks/{model}-0002.json").read_text())["measured"]
    assert measured["values_wanted"] > measured["values_asked"] > 0
    # Four bytes a number of 6, for 8 bytes a request; gradients as many as values.
    assert measured["value_values"] == measured["value_gradients"] == 3 * measured["value_requests"]
    assert list((workspace / "training").iterdir()) == []


def test_a_killed_command_takes_its_ranks_along_and_is_resumed(workspace):
    words = ["train", "lmn", *TINY, "--epochs", "6", "--set", "checkpoint_every_steps=5"]
    words += ["--seed", "1", "--ranks", "2", "--version"]
    command = subprocess.Popen(
        [sys.executable, "-m", "uic", *words, "killed", "-w", str(workspace)],
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    training = workspace / "training"
    while command.poll() is None and not list(training.glob("*.safetensors")):
        time.sleep(0.005)
    ranks = psutil.Process(command.pid).children(recursive=True)
    os.kill(command.pid, signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert len(ranks) >= 3  # two, and the process that forked them
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not (workspace / "bundles" / "lmn" / "killed").exists()
    for version in ("killed", "whole"):
        run(workspace, *words, version)
    done, whole = (
        json.loads((workspace / f"reports/ranks/lmn-{version}.json").read_text())["measured"]
        for version in ("killed", "whole")
    )
    assert 0 < done["batches"] <= whole["batches"] - 5
    found, expected = (weights(workspace, f"lmn/{version}") for version in ("killed", "whole"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_does_not_train_over_ranks_is_refused(workspace):
    message = refused(workspace, "lmn", *TINY, "--set", "lmn_keys=3", "--ranks", "10")
    assert "--ranks 10: the memory has 9 values (lmn_keys=3); use at most 9 ranks" in message
    message = refused(workspace, "din", "--samples", "small", "--ranks", "2")
    assert "din without a large memory trains on one process; --set memory=lmn" in message
    message = refused(workspace, "sasrec", "--samples", "small", "--ranks", "2")
    assert message.endswith("sasrec without a large memory trains on one process")
