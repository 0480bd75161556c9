"""A whole run: the same bytes each time, all or nothing, and one line for each bad input."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from models.errors import BadInputError, ManifestError
from models.published import read_manifest
from models.samples import SAMPLES, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from pipelines.beam_run import PipelineOptionsError, worker_error
from pipelines.event_log import EventLog
from pipelines.samples.bucket_files import DRAFT_SUFFIX, SamplesWriteError
from pipelines.samples.log_parts import LogFileError
from pipelines.samples.order import LogOrderError
from pipelines.samples.publish import NoSamplesError, Publication
from pipelines.samples.run import DaysError, SamplesBusyError, SamplesRequest, make_samples
from pipelines.settings import SaleSettings, SamplesSettings

FIRST, LAST = date(2025, 3, 8), date(2025, 3, 10)
DAY = 86_400_000
ORIGIN = (FIRST - date(1970, 1, 1)).days * DAY


def random_tables(behaviors=4000, impressions=900, users=60, seed=3):
    """Behaviours of the ten days to LAST and impressions of its last three."""
    draw = np.random.default_rng(seed)
    times = np.sort(ORIGIN + draw.integers(-7 * DAY, 3 * DAY, behaviors))
    shown = np.sort(ORIGIN + draw.integers(0, 3 * DAY, impressions))
    return (
        pa.table(
            {
                "user_id": draw.integers(0, users, behaviors),
                "item_id": draw.integers(0, 500, behaviors),
                "category_id": draw.integers(0, 9, behaviors),
                "behavior": draw.integers(0, 4, behaviors).astype(np.int8),
                "event_time": pa.array(times, pa.timestamp("ms")),
            }
        ),
        pa.table(
            {
                "user_id": draw.integers(0, users, impressions),
                "item_id": draw.integers(0, 500, impressions),
                "category_id": draw.integers(0, 9, impressions),
                "event_time": pa.array(shown, pa.timestamp("ms")),
                "clicked": draw.random(impressions) < 0.3,
            }
        ),
    )


@pytest.fixture
def log(oracle, tmp_path):
    return oracle.write_log(tmp_path / "log", *random_tables())


def request_for(log, name="s", *, first=FIRST, last=LAST, sale=None, zone="UTC", **settings):
    return SamplesRequest(
        log.root, log.root.parent / "samples" / name, first, last, zone,
        SamplesSettings(**{"window_days": 3, "history_cap": 20, **settings}),
        sale or SaleSettings(),
    )  # fmt: skip


def contents(root):
    """Every file under a folder, with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def rows(root):
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    files = [root / entry["path"] for entry in manifest["files"]]
    table = ds.dataset(files, schema=SAMPLES).to_table()
    return table.sort_by([("dt", "ascending"), ("user_id", "ascending")])


def test_the_pipeline_gives_the_reference_in_any_number_of_buckets(oracle, log, monkeypatch):
    monkeypatch.setattr("pipelines.samples.log_parts.PART_ROWS", 300)
    behaviors, impressions = oracle.read_log(log)
    plan = oracle.plan(FIRST, LAST, window_days=3, history_cap=20)
    expected = oracle.reference(behaviors, impressions, plan)
    for buckets in (1, 4):
        request = request_for(log, f"of-{buckets}", buckets=buckets)
        make_samples(request)
        oracle.assert_same(rows(request.output), expected)


def test_two_runs_give_the_same_bytes_and_nothing_else(log):
    one, two = (request_for(log, name, buckets=3) for name in ("one", "two"))
    make_samples(one)
    make_samples(two)
    found = contents(one.output)
    assert found == contents(two.output)
    manifest = read_manifest(one.output, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    assert set(found) == {"manifest.json", *(entry["path"] for entry in manifest["files"])}


def test_the_manifest_says_what_was_read_and_what_it_cost(log):
    manifest = make_samples(request_for(log))
    assert manifest["impressions"] == 900
    assert sum(manifest["impressions_by_day"].values()) == 900
    assert manifest["groups"] == sum(entry["rows"] for entry in manifest["files"])
    files = log.behavior_files(FIRST - timedelta(3), LAST)
    assert manifest["read"] == {"behaviors": sum(f.rows for f in files), "impressions": 900}
    (epoch,) = log.epochs()
    assert {p: seen[1] for p, seen in manifest["positions"]["1"].items()} == {
        str(p): last for p, last in epoch.last_offsets.items()
    }
    grouping = manifest["grouping"]
    assert grouping["sampled_groups"] == manifest["groups"]  # little data: all is encoded
    assert grouping["one_row_per_impression_raw_bytes"] > grouping["raw_bytes"]
    assert grouping["ratio"] > 1


def test_sale_days_go_from_histories_and_impressions(oracle, log):
    calendar = log.root / "sale.yaml"
    calendar.write_text(
        'time_zone: UTC\nsales: [{name: "sale", first: 2025-03-09, last: 2025-03-09}]\n'
    )
    request = request_for(log, sale=SaleSettings(calendar=calendar))
    manifest = make_samples(request)
    assert manifest["empty_days"] == ["2025-03-09"]
    behaviors, impressions = oracle.read_log(log)
    plan = oracle.plan(FIRST, LAST, sale=[date(2025, 3, 9)], window_days=3, history_cap=20)
    oracle.assert_same(rows(request.output), oracle.reference(behaviors, impressions, plan))


def test_inhuman_users_are_counted_and_named(log):
    manifest = make_samples(request_for(log, max_events_per_day=9))
    left_out = manifest["left_out"]
    assert left_out["inhuman_users"] >= len(left_out["inhuman_user_ids"]) > 0
    assert left_out["inhuman_impressions"] + manifest["impressions"] == 900


def test_readers_keep_the_old_version_until_the_new_one_is_whole(log, monkeypatch):
    request = request_for(log)
    make_samples(request)
    before = contents(request.output)
    monkeypatch.setattr(
        "pipelines.samples.publish.publish_manifest", lambda *_: (_ for _ in ()).throw(OSError(28))
    )
    with pytest.raises(SamplesWriteError, match="make room"):
        make_samples(request_for(log, history_cap=5))
    assert before.items() <= contents(request.output).items()
    monkeypatch.undo()
    make_samples(request_for(log))
    assert contents(request.output) == before


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from datetime import date
import pipelines.samples.bucket_files as files
from pipelines.samples.run import SamplesRequest, make_samples
from pipelines.settings import SaleSettings, SamplesSettings

written, write = 0, files._write_day
def slow(*arguments):
    global written
    found = write(*arguments)
    written += 1
    if written == 4:
        print("in the middle", flush=True)
        import time
        time.sleep(60)
    return found
files._write_day = slow
make_samples(SamplesRequest(
    Path({log!r}), Path({out!r}), date(2025, 3, 8), date(2025, 3, 10), "UTC",
    SamplesSettings(window_days=3, history_cap={cap}, buckets=3), SaleSettings(),
))
"""


def kill_in_the_middle(request):
    """Start a run in a process of its own, and kill -9 it after its fourth file."""
    code = KILLED.format(
        tests=str(Path.cwd()), log=str(request.log), out=str(request.output),
        cap=request.samples.history_cap,
    )  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"in the middle\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_killed_run_leaves_nothing_to_read_and_a_rerun_the_same_bytes(log):
    whole = request_for(log, "whole", buckets=3)
    make_samples(whole)
    killed = request_for(log, "killed", buckets=3)
    kill_in_the_middle(killed)
    assert any(killed.output.rglob("*.draft"))
    with pytest.raises(ManifestError, match="never published"):
        read_manifest(killed.output, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    make_samples(killed)
    assert contents(killed.output) == contents(whole.output)


def test_a_killed_rerun_leaves_the_old_version_readable(log):
    request = request_for(log, buckets=3)
    make_samples(request)
    before, old = contents(request.output), rows(request.output)
    kill_in_the_middle(request)
    assert any(request.output.rglob("*.draft"))
    assert rows(request.output).equals(old)
    make_samples(request)
    assert contents(request.output) == before


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
        ("behavior", rewritten(lambda t: t.drop_columns(["offset"])), "column offset: missing"),
        (
            "behavior",
            rewritten(lambda t: t.set_column(1, "item_id", t["item_id"].cast(pa.string()))),
            "column item_id: found string, expected int64",
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

    monkeypatch.setattr("pipelines.samples.bucket_files.parquet_writer", full)
    request = request_for(log)
    with pytest.raises(SamplesWriteError, match="No space left on device; make room"):
        make_samples(request)
    assert not [path for path in request.output.rglob("*") if path.is_file()]


LIMITED = """
import resource, sys
from tests.pipelines.samples.test_run import EventLog, Path, make_samples, request_for
from models.errors import UicError
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
    publish = Publication.publish

    def publish_both(self, results, read):
        first = list(results)
        return publish(
            self, [*(another_attempt(self.root, result) for result in first), *first], read
        )

    monkeypatch.setattr(Publication, "publish", publish_both)
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
    with pytest.raises(NoSamplesError, match="'sale_day_impressions': 900"):
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
        "pipelines.samples.log_parts.LogFileError: a.parquet: bad [while running 'Group/Split']\n"
    )
    error = worker_error(text)
    assert isinstance(error, LogFileError)
    assert isinstance(error, BadInputError)
    assert str(error) == "a.parquet: bad"
    assert worker_error("ValueError: other") is None
