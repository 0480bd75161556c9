"""The report in a real browser: its figures are there, its numbers are those of the files."""

import json
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.memories.conftest import random_behaviors, untrained_bundle, write_log
from uic.jobs.config.context import open_context
from uic.jobs.report.figures import histogram, with_own_ids
from uic.jobs.report.page import write_report
from uic.models.published import write_json_atomically

FIGURES = (
    "figure-real-time",
    "figure-latencies",
    "figure-freshness",
    "figure-training",
    "figure-models",
    "figure-life",
    "figure-slots",
    "figure-log",
    "figure-stages",
)


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium: not found; .ci/run installs it")
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a real log and bundle, and the results of a replay."""
    root = tmp_path_factory.mktemp("report")
    write_log(root / "log", random_behaviors(days=4, events=400, users=20))
    bundle = untrained_bundle(root / "bundles" / "mimn" / "1")
    tested = {"auc": 0.71, "gauc": 0.64, "logloss": 0.5, "impressions": 300, "clicks": 90}
    tested["deciles"] = [[at / 10, at / 12, 30] for at in range(10)]
    chosen = {"days": ["2024-03-02"] * 2, "auc": [0.6, 0.7, 0.68]}
    chosen |= {"kept_epoch": 2, "most_epochs": 3}
    metrics = json.loads((bundle / "metrics.json").read_text())
    curve = [{"epoch": 0, "step": step, "loss": 0.7 - step / 100} for step in range(1, 9)]
    write_json_atomically(
        bundle / "metrics.json",
        metrics
        | {"test": tested, "test_days": ["2024-03-03"] * 2, "curve": curve}
        | {"validation": chosen},
    )
    _refresh_manifest(bundle)
    _replayed(root)
    write_json_atomically(
        root / "demo.stages.json",
        {"done": ["import", "replay"], "seconds": {"import": 3.5, "replay": 60.25}, "data": "test"},
    )
    generation = dict.fromkeys(
        ("within_tolerance", "differing", "behind", "missing", "extra", "ahead"), 0
    )
    generation |= {"generation": 1, "state": "live", "users": 20, "events": 400, "matched": 20}
    write_json_atomically(
        root / "reports" / "audit.json",
        {
            "sample_rate": 1.0,
            "generations": [generation | {"through_feast": 20}],
            "served": {
                "answers": 640,
                "memories": 640,
                "matched": 633,
                "differing": 0,
                "ahead": 7,
                "scored": 12345,
                "largest_difference": 2.4e-7,
                "probability_tolerance": 1e-4,
            },
        },
    )
    write_report(open_context(root, None))
    return root


def _refresh_manifest(bundle: Path) -> None:
    from uic.models.published import file_entry

    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [file_entry(bundle, bundle / e["path"]) for e in manifest["files"]]
    write_json_atomically(path, manifest)


def _replayed(root: Path) -> None:
    rng = np.random.default_rng(1)
    clicked = rng.random(300) < 0.3
    start = int(np.datetime64(date(2024, 3, 4), "ms").astype(np.int64))
    folder = root / "replay"
    folder.mkdir()
    times = np.sort(rng.integers(0, 86_400_000, 300)) + start
    scores = {name: clicked * w + rng.random(300) for name, w in (("live", 0.5), ("midnight", 0.3))}
    pq.write_table(
        pa.table(
            {
                "user_id": rng.integers(0, 20, 300),
                "item_id": rng.integers(1, 50, 300),
                "event_time": pa.array(times, pa.timestamp("ms")),
                "clicked": clicked,
                **scores,
                "none": rng.random(300),
            }
        ),
        folder / "live.parquet",
    )
    pq.write_table(pa.table({"seconds": rng.gamma(2, 0.002, 300)}), folder / "latencies.parquet")
    pq.write_table(
        pa.table({"events": [10, 20], "seconds": [0.4, 0.6]}), folder / "freshness.parquet"
    )
    measured = {"auc": 0.7, "gauc": 0.6, "logloss": 0.5}
    write_json_atomically(
        folder / "replay.json",
        {
            "day": "2024-03-04",
            "impressions": 300,
            "events": 30,
            "memory": dict.fromkeys(("live", "midnight", "none"), measured),
            "latency_ms": {"p50": 2.0, "p90": 3.0, "p99": 4.5},
            "latency_requests": 300,
            "freshness_seconds": {"p50": 0.4, "p90": 0.6, "p99": 0.6},
            "freshness_events": 30,
            "degraded": {},
            "replay": {"stretches": 3, "wall_seconds": 2.0, "speed_up": 43_200, "generation": 1},
        },
    )


def run_browser(browser: str, page: Path, profile: Path, *options: str) -> tuple[str, str]:
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--window-size=1000,6000",
            *options,
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout, done.stderr


@pytest.mark.chromium
def test_chromium_shows_every_figure_without_a_console_error(browser, workspace, tmp_path):
    page = workspace / "reports" / "index.html"
    picture = tmp_path / "page.png"
    # A second script of ours asks the browser itself how large it drew each figure.
    probe = tmp_path / "index.html"
    script = (
        "<script>document.title=[...document.querySelectorAll('figure')].map(f=>{"
        "const b=f.querySelector('svg').getBoundingClientRect();"
        "return f.id+':'+Math.round(b.width)+'x'+Math.round(b.height)}).join(' ')</script></body>"
    )
    probe.write_text(page.read_text().replace("</body>", script))
    dom, errors = run_browser(browser, probe, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in errors, errors
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title
    drawn = dict(entry.split(":") for entry in title[1].split())
    assert set(FIGURES) <= set(drawn)
    for name, size in drawn.items():
        width, height = (int(part) for part in size.split("x"))
        assert width > 400, name
        assert height > 80, name
    run_browser(browser, page, tmp_path / "profile", f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000


def test_a_page_with_a_broken_script_is_noticed(browser, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text("<!doctype html><body><script>nothing.there()</script></body>")
    _, errors = run_browser(browser, page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" in errors


def test_the_page_asks_the_network_for_nothing(workspace):
    text = (workspace / "reports" / "index.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]+", text)
    assert "@import" not in text
    assert "url(http" not in text


def test_ids_of_one_picture_do_not_meet_those_of_another(workspace):
    text = (workspace / "reports" / "index.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert 'id="b-x"' in with_own_ids('<g id="x"/>', "b")


def test_axes_have_labels_with_units(workspace):
    text = (workspace / "reports" / "index.html").read_text()
    for label in (
        "training step (batches)",
        "cross-entropy of the batch (nats)",
        "AUC of the validation days",
        "probability said, mean of a tenth of the impressions (share)",
        "time from request to answer (ms, logarithmic)",
        "time from source to store (s, logarithmic)",
        "share of writing (%)",
        "seconds, start of the process included",
    ):
        assert label in text


def test_the_same_numbers_are_in_demo_json(workspace):
    numbers = json.loads((workspace / "reports" / "demo.json").read_text())
    assert numbers["live"]["latency_ms"]["p99"] == 4.5
    assert "4.5 ms" in (workspace / "reports" / "index.html").read_text()
    assert numbers["audit"]["generations"][0]["matched"] == 20
    assert numbers["log"]["behaviors"] == 400
    assert [row["bundle"] for row in numbers["slots"]] == ["mimn/1"]
    assert abs(sum(numbers["slots"][0]["share"]) - 1) < 1e-6


def test_what_was_served_stands_beside_the_log(workspace):
    page = (workspace / "reports" / "index.html").read_text()
    assert "scored 640 answers with" in page
    assert "<td>memories matched</td><td>633</td>" in page
    assert "<td>largest difference of a probability</td><td>2.4e-07</td>" in page
    numbers = json.loads((workspace / "reports" / "demo.json").read_text())
    assert numbers["audit"]["served"]["differing"] == 0


def test_what_has_not_run_is_left_out(tmp_path):
    write_log(tmp_path / "log", random_behaviors(days=2, events=50))
    page, numbers = write_report(open_context(tmp_path, None))
    assert set(json.loads(numbers.read_text())) == {"log"}
    text = page.read_text()
    assert 'id="figure-log"' in text
    assert 'id="figure-real-time"' not in text


def test_the_same_numbers_give_the_same_picture():
    values = np.array([0.1, 0.2, 0.4, 3.0])
    first = histogram(values, "s", "waiting", ["50", "99"])
    assert first == histogram(values, "s", "waiting", ["50", "99"])
    assert "p50 0.3 s" in first


def test_prose_about_models_is_of_the_models_that_are_there():
    from uic.jobs.report.models import about_tests

    one = {"test_days": ["2024-03-03", "2024-03-03"]}
    assert about_tests([one, one]).startswith("Each was tested on 2024-03-03, which")
    other = {"test_days": ["2024-02-19", "2024-03-03"]}
    assert "2 different ranges of days" in about_tests([one, other])
    assert "None of these models was tested" in about_tests([{"test_days": None}])


def test_a_model_on_few_impressions_has_an_interval_and_a_note(workspace):
    page = (workspace / "reports" / "index.html").read_text()
    assert "300 test impressions are few: AUC is between 0.643 and 0.777 (95 %)" in page
    assert "one day, lived through" in page
    (workspace / "replay" / "replay.json").rename(workspace / "replay" / "away.json")
    try:
        write_report(open_context(workspace, None))
        assert "lived through" not in (workspace / "reports" / "index.html").read_text()
    finally:
        (workspace / "replay" / "away.json").rename(workspace / "replay" / "replay.json")
