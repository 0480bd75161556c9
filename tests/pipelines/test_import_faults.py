"""What a full disk and a kill leave behind: nothing that a reader takes for a result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.taobao import Taobao
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

PROGRAM = """
import resource, sys, time
from pathlib import Path
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.taobao import Taobao
from uic.models.errors import UicError

file, root, limit, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def report(step, done, total):
    if stop and f"{step} {done}".startswith(stop):
        print("here", flush=True)
        time.sleep(600)  # until it is killed
try:
    options = {"time_zone": "UTC", "partitions": 2, "any_time": True}
    run_import(Taobao(file), EventLog(root), **options, progress=report)
except UicError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
DAY_SECONDS = 86_400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "taobao.csv"
    rows = (f"{n % 977},{n % 31},{n % 7},pv,{n % 40 * DAY_SECONDS + n}" for n in range(60_000))
    path.write_text("\n".join(rows))
    return path


def start(file: Path, root: Path, limit: int = 0, stop: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(file), str(root), str(limit), stop]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def files_under(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("limit", [100, 10_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(file: Path, tmp_path: Path, limit: int) -> None:
    root = tmp_path / "log"
    process = start(file, root, limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "LogWriteError" in errors
    assert "nothing was published" in errors
    assert str(root) in errors
    assert len(errors.strip().splitlines()) == 1
    assert files_under(root) == [".lock"]


@pytest.mark.parametrize("step", ["reading 1", "writing days 20"])
def test_a_kill_leaves_nothing_and_a_rerun_gives_the_same(
    file: Path, tmp_path: Path, step: str
) -> None:
    root = tmp_path / "log"
    process = start(file, root, stop=step)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    log = EventLog(root)
    assert log.epochs() == ()
    assert log.behavior_files() == []
    for where in (root, tmp_path / "fresh"):
        run_import(Taobao(file), EventLog(where), time_zone="UTC", partitions=2, any_time=True)
    assert not (root / "spool").exists()
    again, fresh = (EventLog(where).behavior_files() for where in (root, tmp_path / "fresh"))
    assert [file.path.read_bytes() for file in again] == [file.path.read_bytes() for file in fresh]
    assert sum(pq.read_metadata(file.path).num_rows for file in again) == 60_000
