"""`uic train dicm`, alone and over ranks, and the DICM tables, as a person runs them."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.models.errors import BadInputError
from uic.models.rankers.dicm.batch_images import ImageSourceError

pytestmark = pytest.mark.slow


def _module(name):
    path = Path(__file__).parents[1] / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"dicm_commands_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


samples, pictures = _module("conftest"), _module("images")

TINY = [
    "--set", "images=shop", "--set", "item_width=4", "--set", "category_width=2", "--set",
    "head_widths=[8]", "--set", "image_widths=[6,4]", "--set", "image_id_rows=50", "--set",
    "batch_impressions=32",
]  # fmt: skip
EPOCH = ["--epochs", "1"]
TABLE = [*TINY, "--set", "epochs=1"]


@pytest.fixture
def workspace(tmp_path):
    samples.publish_samples(tmp_path / "samples" / "small", samples.random_rows(60))
    pictures.publish_features(tmp_path / "images" / "shop")
    return tmp_path


def run(workspace, *words):
    words = [*words, "--samples", "small", "-w", str(workspace)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(workspace, *words, error=BadInputError):
    with pytest.raises(error) as caught:
        run(workspace, *words)
    assert caught.value.exit_code == 2
    return str(caught.value)


def cells(printed, label):
    line = next(line for line in printed.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ranks_publish_what_one_process_publishes(workspace):
    assert run(workspace, "train", "dicm", *TINY, *EPOCH).startswith("dicm/0001  ")
    config = json.loads((workspace / "bundles/dicm/0001/config.json").read_text())
    assert config["settings"]["images_sha256"]
    assert config["settings"]["image_width"] == 9
    warm = [*TINY, *EPOCH, "--warm-start", "dicm/0001", "--except-ids"]
    assert run(workspace, "train", "dicm", *warm).startswith("dicm/0002  ")
    printed = run(workspace, "train", "dicm", *warm, "--strategy", "ams", "--ranks", "2")
    assert printed.startswith("dicm/0003  ")
    alone, ranks = (
        json.loads(run(workspace, "evaluate", f"dicm/{version}")) for version in ("0002", "0003")
    )
    assert alone.pop("bundle") != ranks.pop("bundle")
    assert alone.pop("baselines") == ranks.pop("baselines")
    stored = json.loads((workspace / "bundles/dicm/0003/metrics.json").read_text())
    for one in (alone, ranks, stored["test"]):
        del one["deciles"]  # an impression at the edge of two is in either
    assert ranks == pytest.approx(alone, abs=1e-4)
    assert stored["test"] == pytest.approx(ranks, abs=1e-6)
    costs = json.loads((workspace / "reports/ranks/dicm-0003.json").read_text())
    measured = costs["measured"]
    assert measured["images_embedded"] < measured["images_wanted"]
    assert measured["image_values"] == measured["image_gradients"] > 0
    assert list((workspace / "training").iterdir()) == []


def test_the_bytes_of_table_2(workspace):
    printed = run(workspace, "experiment", "dicm-table2", *TABLE)
    assert cells(printed, "ams")[2:] == ["134M", "30.3M", "158M", "30M"]
    assert "| wire, ps-server over ams | 32 | 32.6 |" in printed
    assert "| storage, ps-worker over ams | 31 | 31.5 |" in printed
    assert list((workspace / "training").iterdir()) == []


def test_ad_images_and_new_items_have_columns_of_their_own(workspace):
    printed = run(workspace, "experiment", "dicm-table3", *TABLE, "--repeats", "1")
    base, joint = cells(printed, "baseline"), cells(printed, "joint")
    assert base[9:] == ["0.6205", "-", "0.6758", "-"]
    assert joint[9:] == ["0.6260", "0.0055", "0.6795", "0.0037"]
    assert float(joint[2]) - float(base[2]) == pytest.approx(float(joint[3]), abs=2e-4)
    assert (workspace / "reports/experiments/dicm-table3-small.png").exists()
    again = run(workspace, "experiment", "dicm-table3", *TABLE, "--repeats", "1")
    assert again == printed


def test_warm_up_starts_from_the_days_before(workspace):
    words = ["experiment", "dicm-table5", *TABLE, "--repeats", "1", "--set", "min_count=1"]
    printed = run(workspace, *words)
    assert [cells(printed, label)[9] for label in ("Non", "Partial", "Full")] == [
        "0.6260", "0.6283", "0.6230",
    ]  # fmt: skip
    runs = (workspace / "reports/experiments/runs").glob("*.json")
    losses = {json.loads(path.read_text())["epochs"][-1]["logloss"] for path in runs}
    assert len(losses) == 3
    (bundle,) = (workspace / "reports/experiments/bundles").iterdir()
    days = json.loads((bundle / "manifest.json").read_text())["training_data"]
    assert (days["first_day"], days["last_day"]) == ("2024-01-01", "2024-01-01")
    message = refused(workspace, *words, "--first", "2024-01-02")
    assert "one training day, 2024-01-02; a model of the days before needs two" in message


def test_the_pre_rank_of_table_8_trains_and_is_evaluated(workspace):
    printed = run(workspace, "experiment", "dicm-table8", *TABLE, "--repeats", "1")
    assert cells(printed, "baseline")[9:] == ["0.6165", "-", "0.6730", "-"]
    assert cells(printed, "DICM")[9:] == ["0.6225", "0.0060", "0.6771", "0.0041"]
    assert 0 <= float(cells(printed, "DICM")[2]) <= 1
    assert run(workspace, "train", "prerank", *TINY, *EPOCH).startswith("prerank/0001  ")
    found = json.loads(run(workspace, "evaluate", "prerank/0001"))
    stored = json.loads((workspace / "bundles/prerank/0001/metrics.json").read_text())
    assert stored["test"]["auc"] == pytest.approx(found["auc"], abs=1e-6)


def test_what_cannot_be_trained_is_refused(workspace):
    train = ("train", "dicm", *TINY, *EPOCH)
    message = refused(workspace, *train, "--set", "images=shoq", error=ImageSourceError)
    assert "shoq: images=shoq: no such image features; there is: shop" in message
    message = refused(workspace, *train, "--set", "image_width=4096", error=ImageSourceError)
    assert "features are 9 wide, image_width is 4096" in message
    message = refused(workspace, "train", "dicm", error=ImageSourceError)
    assert "name image features with --set images=NAME" in message
    assert "expected ams, ps-worker, ps-server" in refused(workspace, *train, "--strategy", "async")
    assert "name one" in refused(workspace, *train, "--ranks", "2")
    message = refused(workspace, "train", "din", "--strategy", "ams")
    assert "trains dicm, found din" in message
