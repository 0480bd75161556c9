"""`uic train`, `evaluate`, `bundle` and `experiment`, as a person runs them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.models.errors import BadInputError, ManifestError
from uic.models.training.run_spec import SettingError

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("models_conftest", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = ["--set", "item_width=4", "--set", "category_width=2", "--set", "head_widths=[8]"]


@pytest.fixture
def workspace(tmp_path):
    samples.publish_samples(tmp_path / "samples" / "small", samples.random_rows(60))
    return tmp_path


def run(workspace, *words):
    result = CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_is_trained_published_evaluated_and_verified(workspace):
    printed = run(workspace, "train", "sum_pooling", "--samples", "small", *TINY, "--epochs", "1")
    assert printed.startswith("sum_pooling/0001  ")
    assert "AUC" in printed
    again = run(
        workspace, "train", "sum_pooling", "--samples", "small", *TINY, "--epochs", "1",
        "--warm-start", "sum_pooling", "--except-ids",
    )  # fmt: skip
    assert again.startswith("sum_pooling/0002  ")
    listed = run(workspace, "bundle", "list").splitlines()
    assert [line.split()[:2] for line in listed] == [
        ["sum_pooling/0001", listed[0].split()[1]],
        ["*", "sum_pooling/0002"],
    ]
    run(workspace, "bundle", "use", "sum_pooling", "0001")
    measured = json.loads(run(workspace, "evaluate", "sum_pooling", "--samples", "small"))
    stored = json.loads(
        (workspace / "bundles" / "sum_pooling" / "0001" / "metrics.json").read_text()
    )
    assert measured.pop("bundle") == "sum_pooling/0001"
    assert measured.pop("baselines") == pytest.approx(stored["baselines"])
    deciles = stored["test"].pop("deciles")
    assert [len(tenth) for tenth in deciles] == [3] * 10
    np.testing.assert_allclose(measured.pop("deciles"), deciles)
    assert measured == pytest.approx(stored["test"])
    assert "intact" in run(workspace, "bundle", "verify", "sum_pooling/0002")
    shown = json.loads(run(workspace, "bundle", "show", "sum_pooling"))
    assert shown["config"]["settings"]["item_width"] == 4
    # The checkpoint of a finished run is gone.
    assert list((workspace / "training").iterdir()) == []


def test_what_float16_costs_is_measured_on_the_same_weights(workspace):
    run(workspace, "train", "mimn", "--samples", "small", *TINY, "--epochs", "1")
    rounded = json.loads(run(workspace, "evaluate", "mimn", "--samples", "small"))
    exact = json.loads(run(workspace, "evaluate", "mimn", "--samples", "small", "--no-rounding"))
    assert rounded["logloss"] != exact["logloss"]
    assert rounded["logloss"] == pytest.approx(exact["logloss"], abs=1e-3)
    run(workspace, "train", "sum_pooling", "--samples", "small", *TINY, "--epochs", "1")
    words = ("evaluate", "sum_pooling", "--samples", "small", "--no-rounding")
    assert "sum_pooling keeps no memory" in refused(workspace, *words)


def refused(workspace, *words, error=BadInputError):
    with pytest.raises(error) as caught:
        CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_samples_that_are_not_there_list_those_that_are(workspace):
    message = refused(workspace, "train", "mimn", "--samples", "smal")
    assert "smal: no such samples; there is: small" in message


def test_samples_without_a_manifest_are_refused(workspace):
    (workspace / "samples" / "small" / "manifest.json").unlink()
    message = refused(workspace, "train", "mimn", "--samples", "small", error=ManifestError)
    assert "manifest.json: missing" in message


def test_an_unknown_setting_lists_the_known_ones(workspace):
    words = ("train", "mimn", "--samples", "small", "--set", "slotz=4")
    assert "known: activation" in refused(workspace, *words, error=SettingError)
    words = ("experiment", "table4", "--samples", "small", "--set", "slotz=4")
    assert "known: activation" in refused(workspace, *words, error=SettingError)


def test_except_ids_needs_a_bundle(workspace):
    message = refused(workspace, "train", "mimn", "--samples", "small", "--except-ids")
    assert "name a bundle with --warm-start" in message


def test_an_unknown_device_or_table_is_refused(workspace):
    message = refused(workspace, "train", "mimn", "--samples", "small", "--device", "tpu")
    assert "expected auto, cpu or cuda" in message
    message = refused(workspace, "experiment", "table9", "--samples", "small")
    assert "known: big-sale, dicm-figure5" in message


def test_a_table_has_our_figures_beside_the_published_ones(workspace):
    words = ["experiment", "table2", "--samples", "small", "--repeats", "2"]
    words += ["--rows", "sum_pooling,din", *TINY, "--set", "epochs=1"]
    printed = run(workspace, *words)
    line = next(line for line in printed.splitlines() if line.startswith("| Embedding&MLP"))
    assert "0.8709 ± 0.00184 | 0.7367 ± 0.00043" in line
    assert "AUC, Taobao, published" in printed
    folder = workspace / "reports" / "experiments"
    csv = (folder / "table2-small.csv").read_text().splitlines()
    assert csv[0].startswith("model,repeats,events,auc_mean,auc_std")
    assert csv[1].startswith("Embedding&MLP,2,all,0.")
    assert (folder / "table2-small.png").read_bytes()[:4] == b"\x89PNG"
    # Done runs are not done again, and give the same table.
    before = sorted(path.stat().st_mtime_ns for path in (folder / "runs").iterdir())
    assert run(workspace, *words) == printed
    assert sorted(path.stat().st_mtime_ns for path in (folder / "runs").iterdir()) == before


def test_the_slot_picture_has_shares_that_sum_to_one(workspace):
    words = ["experiment", "slots", "--samples", "small", *TINY, "--set", "epochs=1"]
    run(workspace, *words, "--set", "controller=4", "--set", "slots=3")
    lines = (workspace / "reports/experiments/slots-small.csv").read_text().splitlines()
    rows = ["basic NTM", "with MUR", '"routed, without MUR"', "routed"]
    assert [line.rsplit(",", 3)[0] for line in lines] == ["model", *rows]
    for line in [line.removeprefix('"routed, ') for line in lines[1:]]:
        shares = [float(cell) for cell in line.split(",")[1:]]
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(1.0)
