"""Each example runs as its first lines say, and prints what it promises."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import uic

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, folder, **variables):
    """What a script prints; it runs in a folder of its own."""
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        cwd=folder.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The folder of `examples/shop.py`; its Redis ends with the tests."""
    folder = tmp_path_factory.mktemp("examples") / "shop"
    assert "generation 1 is live" in run(EXAMPLES / "shop.py", folder)
    yield folder
    uic.Workspace(folder).store.stop()


def test_own_table(tmp_path):
    printed = run(EXAMPLES / "own_table.py", tmp_path / "own")
    assert "6,000 impressions of 40 users" in printed
    assert float(re.search(r"AUC (0\.\d+)", printed)[1]) > 0.6


def test_custom_ranker(tmp_path):
    assert "last_click/0001: AUC 0." in run(EXAMPLES / "custom_ranker.py", tmp_path / "ranker")


def test_own_part(tmp_path):
    said, published = run(EXAMPLES / "own_part.py", tmp_path / "part").splitlines()
    assert re.fullmatch(r"hours\.share: known of 100% of users, median 0\.\d\d", said)
    assert published == "published as state/0001"


def test_custom_importer(tmp_path):
    printed = run(EXAMPLES / "custom_importer.py", tmp_path / "importer")
    assert printed == "3 behaviours, rejected: 2 wrong_type\n"


def test_feast_reader(shop):
    lines = run(EXAMPLES / "feast_reader.py", shop).splitlines()
    assert [re.sub(r"\d+ events, \d+", "N events, N", line) for line in lines] == [
        "user 1: N events, N bytes",
        "user 2: N events, N bytes",
        "user 1000000000: unknown",
    ]


def test_score_without_http(shop):
    first, second = run(EXAMPLES / "score_without_http.py", shop).splitlines()
    assert re.fullmatch(r"user 17: (\d+ \(0\.\d{3}\)(, )?){3}; with memory", first)
    assert second.endswith("; unknown_user")


def script_of(notebook, folder):
    """A notebook's cells as a script in a folder."""
    cells = json.loads((EXAMPLES / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = folder / f"{notebook}.py"
    script.write_text("\n".join(code), encoding="utf-8")
    return script


@pytest.fixture
def temporary(tmp_path):
    """Where temporary folders are made; no store is left running in one."""
    folder = tmp_path / "t"
    folder.mkdir()
    yield folder
    for left in folder.glob("uic-ten-minutes-*"):
        uic.Workspace(left / "var").store.stop()


def test_ten_minutes(temporary, tmp_path):
    script = script_of("ten_minutes", tmp_path)
    patient = {"UIC_SERVE__STORE_TIMEOUT_MS": "10000"}  # other tests run beside it
    printed = run(script, temporary, TMPDIR=str(temporary), MPLBACKEND="Agg", **patient)
    assert "6,000 behaviours of 300 users and 48 items, 14 days\n" in printed
    assert float(re.search(r"mimn/0001: AUC (0\.\d+) on the last day", printed)[1]) > 0.7
    assert re.search(r"^C-001: \d+ events up to ", printed, re.M)
    assert int(re.search(r"^(\d+) of 100 get first", printed, re.M)[1]) > 40
    assert re.search(r"^C-001 gets first chairs/\d; without: \[\]$", printed, re.M)
    assert "C-001: 3 events more\n" in printed
    before, after = re.search(r"^lamps/1: from (0\.\d+) to (0\.\d+)", printed, re.M).groups()
    assert float(after) > float(before)
    assert list(temporary.glob("uic-ten-minutes-*")) == []


def test_notebook(shop, tmp_path):
    script = script_of("one_user", tmp_path)
    variables = {"UIC_EXAMPLE_SHOP": str(shop), "PYTHONPATH": path_with_examples()}
    printed = run(script, shop, **variables)
    assert re.search(r"\d+ events up to 2025-", printed)
    assert "channel 0: strength" in printed
    assert "['unknown_user']" in printed


def path_with_examples():
    """As a notebook's folder is on the path."""
    return os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
