"""The whole thing, small: every stage of the demo, its numbers, and nothing left running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_shows_a_day_and_leaves_nothing_behind(tmp_path: Path) -> None:
    workspace = tmp_path / "demo"
    command = [
        sys.executable,
        "-m",
        "uic",
        "demo",
        "--quick",
        "--workspace",
        str(workspace),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    numbers = json.loads((workspace / "reports" / "demo.json").read_text())
    [generation] = numbers["audit"]["generations"]
    assert generation["matched"] == generation["users"] == 200
    wrong = ("differing", "behind", "missing", "extra", "ahead")
    assert {name: generation[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert generation["through_feast"] == 200
    served = numbers["audit"]["served"]
    assert served["answers"] >= served["matched"] == served["memories"] - served["ahead"] > 0
    assert (served["differing"], served["ahead"]) == (0, 0)
    assert served["scored"] > 0
    assert served["largest_difference"] < served["probability_tolerance"]
    live = numbers["live"]
    assert live["degraded"] == {}
    assert live["latency_ms"]["p50"] > 0
    assert live["freshness_events"] > 0
    assert set(live["memory"]) == {"live", "midnight", "none"}
    models = {(row["model"], row["version"]) for row in numbers["models"]}
    assert {("mimn", "demo"), ("mimn", "plain"), ("din", "demo")} <= models
    assert (workspace / "reports" / "index.html").stat().st_size > 50_000
    assert _processes_of(workspace) == []


def _processes_of(workspace: Path) -> list[str]:
    """Programs that still work in the workspace, or were started for it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(workspace) in words or process.cwd().startswith(str(workspace)):
                found.append(words)
        except (psutil.Error, OSError):
            continue
    return found
