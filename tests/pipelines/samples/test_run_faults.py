"""Runs on what is damaged, missing or full: one line each, and nothing half-made to read."""

import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.samples.small_run import FIRST, LAST, contents, request_for
from uic.models.errors import BadInputError
from uic.pipelines.beam_run import PipelineOptionsError, worker_error
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.positions import LogOrderError
from uic.pipelines.samples.bucket_files import DRAFT_SUFFIX, SamplesWriteError
from uic.pipelines.samples.log_parts import LogFileError
from uic.pipelines.samples.publish import NoSamplesError, SamplesPublication
from uic.pipelines.samples.run import DaysError, SamplesBusyError, make_samples
from uic.pipelines.settings import SaleSettings

pytestmark = pytest.mark.slow


def damaged(log, table, change):
    """Change one file of the log by `change(path)`, and make its manifest fit the new size."""
    file = getattr(log, f"{table}_files")()[-1]
    change(file.path)
    manifest = next((log.root / "manifests").glob("*.json"))
    text = manifest.read_text()
    assert f'"bytes": {file.bytes},' in text
    manifest.write_text(
        text.replace(f'"bytes": {file.bytes},', f'"bytes": {file.path.stat().st_size},')
    )
    return file.path


def rewritten(change):
    return lambda path: pq.write_table(change(pq.ParquetFile(path).read()), path)


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("behavior", rewritten(lambda t: t.drop_columns(["offset"])), "column offset is missing"),
        (
            "behavior",
            rewritten(lambda t: t.set_column(1, "item_id", t["item_id"].cast(pa.string()))),
            "column item_id is string, expected int64",
        ),
        ("behavior", rewritten(lambda t: t.slice(1)), "rows, its manifest says"),
        (
            "impression",
            rewritten(lambda t: t.set_column(0, "user_id", pa.nulls(len(t), pa.int64()))),
            "column user_id: .* nulls",
        ),
        (
            "behavior",
            rewritten(lambda t: t.set_column(5, "log_time", pa.array(
                [0] * len(t), pa.timestamp("ms")))),
            "column log_time: 1970-01-01.* is not on 2025-03-10",
        ),
        (
            "behavior",
            rewritten(lambda t: t.set_column(3, "behavior", pa.array(
                ["look"] * len(t)).dictionary_encode())),
            "column behavior: found 'look'",
        ),
        ("impression", lambda path: path.write_bytes(path.read_bytes()[:200]), "not a readable"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line_with_file_and_column(log, table, change, says):
    path = damaged(log, table, change)
    request = request_for(log)
    with pytest.raises(LogFileError, match=says) as error:
        make_samples(request)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "while running" not in str(error.value)  # the runner's words are no help
    assert not list(request.output.rglob("manifest.json"))


def test_a_damaged_page_is_found_by_the_worker_and_named(log):
    def scramble(path):
        data = bytearray(path.read_bytes())
        data[20:400] = bytes(380)
        path.write_bytes(bytes(data))

    path = damaged(log, "impression", scramble)
    with pytest.raises(LogFileError, match="not a readable Parquet file") as error:
        make_samples(request_for(log))
    assert str(path) in str(error.value)


def test_positions_that_repeat_are_refused(log):
    damaged(
        log,
        "behavior",
        rewritten(
            lambda t: t.set_column(t.column_names.index("offset"), "offset", pa.array([7] * len(t)))
        ),
    )
    with pytest.raises(LogOrderError, match="is there twice"):
        make_samples(request_for(log))


def test_a_full_disk_is_one_line_and_publishes_nothing(log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uic.pipelines.samples.bucket_files.parquet_writer", full)
    request = request_for(log)
    with pytest.raises(SamplesWriteError, match="No space left on device; make room"):
        make_samples(request)
    assert not [path for path in request.output.rglob("*") if path.is_file()]


LIMITED = """
import resource, sys
from pathlib import Path
from uic.models.errors import UicError
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.samples.run import make_samples
from tests.pipelines.samples.small_run import request_for
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    make_samples(request_for(EventLog(Path(sys.argv[1])), buckets=8))
except UicError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_files_that_cannot_grow_are_one_line_and_leave_nothing(log):
    """As a disk that fills up while some buckets are written already."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(log.root)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("SamplesWriteError: ")
    assert "make room" in line
    assert not contents(request_for(log).output)


def test_a_bucket_that_a_runner_built_twice_counts_once(log, monkeypatch):
    one, two = (request_for(log, name, buckets=3) for name in ("one", "two"))
    make_samples(one)
    publish = SamplesPublication.publish

    def publish_both(self, results, read):
        first = list(results)
        return publish(
            self, [*(another_attempt(self.root, result) for result in first), *first], read
        )

    monkeypatch.setattr(SamplesPublication, "publish", publish_both)
    make_samples(two)
    assert contents(two.output) == contents(one.output)


def another_attempt(root, result):
    """The same bucket, written under names of its own."""
    files = []
    for file in result.files:
        path = file.path.replace(DRAFT_SUFFIX, f"-again{DRAFT_SUFFIX}")
        shutil.copy(root / file.path, root / path)
        files.append(replace(file, path=path))
    return replace(result, files=tuple(files))


def test_days_must_be_in_order_and_have_impressions(log):
    with pytest.raises(DaysError, match="--first 2025-03-10 is after --last 2025-03-08"):
        make_samples(request_for(log, first=LAST, last=FIRST))
    with pytest.raises(
        DaysError, match=r"no impressions from 2025-03-11.*2025-03-08 to 2025-03-10"
    ):
        make_samples(request_for(log, first=LAST + timedelta(1), last=LAST + timedelta(2)))
    manifest = make_samples(request_for(log, last=LAST + timedelta(1)))
    assert manifest["empty_days"] == ["2025-03-11"]


def test_days_of_another_zone_are_refused(log):
    with pytest.raises(DaysError, match="time_zone UTC, the configuration says Asia/Tokyo"):
        make_samples(request_for(log, zone="Asia/Tokyo"))


def test_no_log_is_one_line(tmp_path):
    with pytest.raises(DaysError, match="no event log; run `uic import`"):
        make_samples(request_for(EventLog(tmp_path / "log")))


def test_when_nothing_is_left_nothing_is_published(log):
    calendar = log.root / "sale.yaml"
    calendar.write_text(
        'time_zone: UTC\nsales: [{name: "sale", first: 2025-03-01, last: 2025-03-30}]\n'
    )
    request = request_for(log, sale=SaleSettings(calendar=calendar))
    with pytest.raises(NoSamplesError, match=r"left \(sale day impressions 900\); nothing"):
        make_samples(request)
    assert not list(request.output.rglob("manifest.json"))


def test_two_runs_of_one_name_do_not_meet(log):
    import fcntl

    request = request_for(log)
    request.output.parent.mkdir(parents=True)
    with (request.output.parent / ".s.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SamplesBusyError, match="another run"):
            make_samples(request)


@pytest.mark.parametrize(
    ("runner", "arguments"),
    [("NoRunner", []), ("DirectRunner", ["--no_such_option=1"])],
)
def test_runners_and_options_that_do_not_exist(log, runner, arguments):
    with pytest.raises(PipelineOptionsError, match=r"NoRunner|no_such_option"):
        make_samples(request_for(log), runner, arguments)


def test_an_error_of_ours_is_found_in_a_runners_words():
    text = (
        "Traceback (most recent call last):\n"
        "uic.pipelines.samples.log_parts.LogFileError: a.parquet: bad [while running 'G/Split']\n"
    )
    error = worker_error(text)
    assert isinstance(error, LogFileError)
    assert isinstance(error, BadInputError)
    assert str(error) == "a.parquet: bad"
    assert worker_error("ValueError: other") is None
