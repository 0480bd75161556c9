"""A whole run: the same bytes each time, all or nothing."""

import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.pipelines.samples.small_run import (
    FIRST,
    LAST,
    contents,
    request_for,
    rows,
)
from uic.models.errors import ManifestError
from uic.models.published import read_manifest
from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.pipelines.samples.bucket_files import SamplesWriteError
from uic.pipelines.samples.run import make_samples
from uic.pipelines.settings import SaleSettings


def test_the_pipeline_gives_the_reference_in_any_number_of_buckets(oracle, log, monkeypatch):
    monkeypatch.setattr("uic.pipelines.samples.log_parts.PART_ROWS", 300)
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
        "uic.pipelines.samples.publish.publish_manifest",
        lambda *_: (_ for _ in ()).throw(OSError(28)),
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
import uic.pipelines.samples.bucket_files as files
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.settings import SaleSettings, SamplesSettings

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
