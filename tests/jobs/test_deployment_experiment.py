"""`uic experiment out-of-sync|big-sale`, as a person runs them."""

import importlib.util
import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import BadInputError
from uic.models.rankers.out_of_step import OutOfStep
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.evaluation import score
from uic.models.training.metrics import auc

pytestmark = pytest.mark.slow

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("models_conftest", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = ["--set", "item_width=4", "--set", "category_width=2", "--set", "head_widths=[8]"]
TINY += ["--set", "epochs=1", "--set", "learning_rate=0.05", "--repeats", "1"]
SALE_DAY = date(2024, 1, 2)
TEST_DAY = date(2024, 1, 4)


@pytest.fixture
def workspace(tmp_path):
    """Four days, the last of them the test; `ordinary` has all but the sale day."""
    rows = samples.random_rows(120, days=4)
    samples.publish_samples(tmp_path / "samples" / "all", rows)
    ordinary = [row for row in rows if row["dt"] != SALE_DAY]
    samples.publish_samples(tmp_path / "samples" / "ordinary", ordinary)
    return tmp_path


def run(workspace, *words):
    words = ["experiment", *words, *TINY, "-w", str(workspace)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def cells(printed, label):
    line = next(line for line in printed.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_memory_and_ranker_in_step_and_a_day_apart(workspace):
    printed = run(workspace, "out-of-sync", "--samples", "all")
    same = cells(printed, "memory and ranker of one bundle")
    apart = cells(printed, "memory of the bundle a day before the ranker's")
    assert [same[-1], apart[-1], cells(printed, "DIEN")[-1]] == ["0.6644", "0.6644", "0.6541"]
    assert cells(printed, "DIEN")[2] == "-"
    folder = workspace / "reports" / "experiments"
    [found] = folder.glob("runs/*.out-of-sync.json")
    document = json.loads(found.read_text())
    bundles = {load_bundle(path).hash8.hex(): path for path in folder.glob("bundles/mimn/*")}
    before, after = (load_bundle(bundles[name]) for name in document["bundles"])
    assert before.hash8 in after.readout_compatible_with
    # In step is what `uic evaluate` says of the newer bundle; apart it is something else.
    logits, labels, _ = score(after.model, batches(workspace), Encoder(after.vocabulary))
    in_step = document["memory and ranker of one bundle"]
    assert in_step["impressions"] == len(labels)
    assert in_step["auc"] == pytest.approx(auc(logits, labels), abs=1e-9)
    assert document["memory of the bundle a day before the ranker's"] != in_step
    assert run(workspace, "out-of-sync", "--samples", "all") == printed
    assert (folder / "out-of-sync-all.png").read_bytes()[:4] == b"\x89PNG"


def test_a_bundle_that_reads_its_own_memories_is_in_step(workspace):
    run(workspace, "out-of-sync", "--samples", "all")
    path = next((workspace / "reports" / "experiments").glob("bundles/mimn/*"))
    bundle = load_bundle(path)
    encoder = Encoder(bundle.vocabulary)
    whole, _, _ = score(bundle.model, batches(workspace), encoder)
    split, _, _ = score(OutOfStep(bundle.model, bundle.model, encoder), batches(workspace), encoder)
    assert np.array_equal(whole, split)


def batches(workspace):
    reader = SamplesReader(workspace / "samples" / "all")
    return reader.batches(BatchPlan(first=TEST_DAY, last=TEST_DAY, shuffle=False))


def test_trained_with_and_without_sale_days(workspace):
    words = ["big-sale", "--samples", "ordinary", "--sale-samples", "all"]
    printed = run(workspace, *words)
    without = cells(printed, "trained without sale days")
    with_them = cells(printed, "trained with sale days")
    assert [without[-1], with_them[-1]] == ["0.6644", "0.6627"]
    assert without[2:7] != with_them[2:7]
    assert "With sale days: samples `all`" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "ordinary"], "needs --sale-samples"),
        (["--samples", "all", "--sale-samples", "ordinary"], "expected more with sale days"),
        (["--samples", "all", "--sale-samples", "all"], "expected more with sale days"),
    ],
)
def test_samples_that_do_not_belong_together_are_refused(workspace, words, message):
    with pytest.raises(BadInputError, match=message):
        CliRunner().invoke(
            app, ["experiment", "big-sale", *words, "-w", str(workspace)], catch_exceptions=False
        )


def test_another_test_day_is_refused(workspace):
    """The sale day last: the samples with it would be tested on it."""
    rows = samples.random_rows(90, days=3)
    samples.publish_samples(workspace / "samples" / "long", rows)
    shorter = [row for row in rows if row["dt"] != date(2024, 1, 3)]
    samples.publish_samples(workspace / "samples" / "short", shorter)
    words = ["experiment", "big-sale", "--samples", "short", "--sale-samples", "long"]
    with pytest.raises(BadInputError, match="expected the same impressions"):
        CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)


def test_one_day_of_training_is_too_little(workspace):
    words = ["experiment", "out-of-sync", "--samples", "all", "--first", "2024-01-03"]
    with pytest.raises(BadInputError, match="out-of-sync needs 2"):
        CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)
