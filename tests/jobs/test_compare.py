"""`uic compare`, and the same intervals in the tables of `uic experiment`."""

import csv
import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("models_conftest", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = {"item_width": 4, "category_width": 2, "head_widths": [8], "batch_impressions": 64}


@pytest.fixture
def workspace(tmp_path):
    samples.publish_samples(
        tmp_path / "samples" / "default", samples.random_rows(600), row_group_size=100
    )
    return Workspace(tmp_path)


def run(workspace, *words):
    result = CliRunner().invoke(app, [*words, "-w", str(workspace.path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_a_model_that_learned_is_above_one_that_did_not(workspace):
    for rate, version in ((1e-9, "1"), (0.02, "2"), (0.02, "3")):
        workspace.train(
            "sum_pooling", settings={**TINY, "learning_rate": rate}, epochs=5, version=version,
            seed=int(version),
        )  # fmt: skip
    names = ["sum_pooling/1", "sum_pooling/2,sum_pooling/3"]
    found = workspace.compare(names)
    base, better = found.rows
    assert base.difference is None
    assert base.standard_error is None
    assert better.standard_error > 0
    assert better.difference.word == "above"
    assert better.auc - base.auc == pytest.approx(better.difference.mean)
    assert (str(found.days[0]), found.users) == ("2024-01-03", 200)
    lines = run(workspace, "compare", *names, "--samples", "default").stdout.splitlines()
    assert lines[1].startswith("sum_pooling/1  AUC 0.")
    assert lines[2].endswith("] above")


def test_days_that_a_bundle_has_seen_are_named(workspace):
    workspace.train("sum_pooling", settings=TINY, epochs=1, validation_days=1)
    found = workspace.compare(["sum_pooling", "sum_pooling"], first="2024-01-01")
    assert found.rows[1].difference.word == "not told apart"
    remarks = " ".join(found.rows[0].remarks)
    assert "was trained on 2024-01-01 to 2024-01-01" in remarks
    assert "had its epoch chosen by 2024-01-02 to 2024-01-02" in remarks


def test_one_bundle_is_no_comparison(workspace):
    with pytest.raises(BadInputError, match="compare mimn: needs two bundles or more"):
        workspace.compare(["mimn"])


def test_commas_join_seeds_of_one_model(workspace):
    for model in ("sum_pooling", "average_pooling"):
        workspace.train(model, settings=TINY, epochs=1)
    with pytest.raises(
        BadInputError, match="these are average_pooling and sum_pooling; put a space"
    ):
        workspace.compare(["sum_pooling", "average_pooling,sum_pooling"])
    with pytest.raises(BadInputError, match="sum_pooling/1: one bundle twice is not two seeds"):
        workspace.compare(["average_pooling", "sum_pooling,sum_pooling/1"])


def test_a_table_of_models_has_the_simple_rows_and_intervals(workspace):
    rows = "popularity,repeat,counters,average_pooling,two_pools,sum_pooling"
    paths = workspace.experiment(
        "table2", settings={**TINY, "epochs": 2, "learning_rate": 0.02}, repeats=2, rows=rows
    )
    page = paths[0].read_text()
    assert "AUC less average pooling's, 95 %" in page
    with paths[1].open() as stream:
        found = {row["model"]: row for row in csv.DictReader(stream)}
    assert list(found) == [
        "popularity",
        "repeat of the last",
        "counters alone",
        "two pools + products",
        "Embedding&MLP",
        "average pooling",
    ]
    assert float(found["popularity"]["auc_mean"]) > 0.8  # the item's parity decides
    assert 0.4 < float(found["counters alone"]["auc_mean"]) < 0.6
    for label in ("repeat of the last", "two pools + products", "Embedding&MLP"):
        row = found[label]
        low, mean, high = (float(row[f"auc_difference{part}"]) for part in ("_low", "", "_high"))
        assert low < mean < high
        base = float(found["average pooling"]["auc_mean"])
        assert mean == pytest.approx(float(row["auc_mean"]) - base, abs=1e-4)
    assert found["average pooling"]["auc_difference"] == ""
    assert float(found["average pooling"]["auc_standard_error"]) > 0
    assert found["popularity"]["logloss_mean"] == ""


def test_a_table_of_tuned_models_needs_a_search_of_each(workspace):
    with pytest.raises(BadInputError, match="run `uic tune average_pooling --samples default`"):
        workspace.experiment("table2", rows="average_pooling", tuned=True)
